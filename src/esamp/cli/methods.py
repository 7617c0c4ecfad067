"""`esamp methods`: what there is to choose from."""

import json as encoder
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.cli.terminal import console, show_broken
from esamp.engines import registry as engines
from esamp.methods import registry
from esamp.methods.base import Method
from esamp.options import allowed
from esamp.quoting import one_line

ORDER = ("sampler", "filter", "draw", "step", "beams", "search", "selection")
"""Kinds of methods, from what changes least to what changes most."""
KINDS = {
    "sampler": "set the engine's own sampler",
    "filter": "drop or move tokens; combine with + : esamp+xtc",
    "draw": "choose the tokens so that a prompt's samples differ; combine with +",
    "step": "change the distribution by hidden states or learning; one of them combines with filters and a draw",
    "beams": "follow several hypotheses at once",
    "search": "make many calls",
    "selection": "draw samples with any method (--over), then choose one",
}


def command(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="methods to tell about in full; several joined by + are one", metavar="[NAMES]..."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print one JSON document", show_default=False)] = False,
) -> None:
    """List the decoding methods, or tell all about some: options, ranges, defaults, engines, citation.

    Examples: esamp methods; esamp methods esamp xtc; esamp methods esamp+fire --json
    """
    chosen = {name: registry.get(name) for name in names} if names else registry.available()
    broken = {} if names else registry.broken()
    if json:
        told = {name: _record(name, method) for name, method in chosen.items()}
        failed = {name: {"name": name, "error": reason} for name, reason in broken.items()}
        print(encoder.dumps(told | failed, indent=2))
        return
    out = console(width=None if sys.stdout.isatty() else 100)
    if names:
        for name, method in chosen.items():
            _tell(out, _record(name, method))
        return
    for kind in sorted({method.kind for method in chosen.values()}, key=_place):
        out.print(Text.assemble((one_line(kind), "bold"), f"  {KINDS.get(kind, '')}"))
        listing = Table.grid(padding=(0, 2))
        for name, method in chosen.items():
            if method.kind == kind:
                listing.add_row(
                    Text(f"  {one_line(name)}", "cyan", no_wrap=True),
                    Text(" ".join(_engines(method))),
                    Text(one_line(method.summary)),
                )
        out.print(listing)
    show_broken(out, broken)
    out.print("\nesamp methods NAME tells the options, esamp generate --method NAME runs one.")


def _place(kind: str) -> int:
    return ORDER.index(kind) if kind in ORDER else len(ORDER)


def _engines(method: type[Method]) -> list[str]:
    return [entry.name for entry in engines.ENTRIES.values() if method.needs <= entry.provides]


def _record(name: str, method: type[Method]) -> dict[str, Any]:
    return {
        "name": name,
        "kind": method.kind,
        "summary": method.summary,
        "citation": method.citation,
        "engines": _engines(method),
        "options": {
            option: {
                "description": info.description,
                "allowed": allowed(info),
                "default": info.get_default(call_default_factory=True),
            }
            for option, info in method.options.model_fields.items()
        },
    }


def _tell(out: Console, record: dict[str, Any]) -> None:
    out.print(Text.assemble((record["name"], "bold cyan"), f"  ({record['kind']}; {', '.join(record['engines'])})"))
    for text in (record["summary"], f"Source: {record['citation']}"):
        out.print(f"  {one_line(text)}")
    listing = Table.grid(padding=(0, 2))
    for option, about in record["options"].items():
        value = f"{about['allowed']}; default {encoder.dumps(about['default'])}"
        words = one_line(f"{about['description']} ({value})")
        listing.add_row(Text(f"  {one_line(option)}", "cyan", no_wrap=True), Text(words))
    out.print(listing)
    out.print()
