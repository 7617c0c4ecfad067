"""The work of `esamp methods`."""

import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from esamp.cli import generate
from esamp.cli.documents import print_document
from esamp.cli.flags import flags_of
from esamp.cli.option_lists import option_records
from esamp.cli.terminal import LISTING_WIDTH, console, show_broken
from esamp.engines import registry as engines
from esamp.methods import registry
from esamp.methods.base import Method
from esamp.quoting import one_line

KINDS = {
    "sampler": "set the engine's own sampler",
    "filter": "drop or move tokens; combine with + : esamp+xtc",
    "draw": "choose the tokens so that a prompt's samples differ; combine with +",
    "step": "change the distribution by hidden states or learning; one of them combines with filters and a draw",
    "beams": "follow several hypotheses at once",
    "search": "make many calls",
    "selection": "draw samples with any method (--over), then choose one",
}
"""Kinds of methods in the order of the list, from those that change least to those that change most."""
WRITTEN = (
    "These are flags of esamp generate. Elsewhere an option is written with its name: --source-layer 2 is "
    "source_layer=2 in esamp compare --methods esamp:source_layer=2, in studies and in requests to a server."
)


def methods(names: Sequence[str], *, json: bool) -> None:
    """Print the methods called `names` in full, or a list of all methods."""
    chosen = {name: registry.get(name) for name in names} if names else registry.available()
    broken = {} if names else registry.broken()
    if json:
        records = {name: _record(name, method) for name, method in chosen.items()}
        errors = {name: {"name": name, "error": reason} for name, reason in broken.items()}
        print_document(records | errors, indent=2)
        return
    out = console(width=None if sys.stdout.isatty() else LISTING_WIDTH)
    if names:
        for name, method in chosen.items():
            _print_method(out, _record(name, method))
        if any(method.options.model_fields for method in chosen.values()):
            out.print(WRITTEN)
        return
    order = [*KINDS, *sorted({method.kind for method in chosen.values()} - KINDS.keys())]
    for kind in order:
        own = {name: method for name, method in chosen.items() if method.kind == kind}
        if own:
            _print_kind(out, kind, own)
    show_broken(out, broken)
    out.print("\nesamp methods NAME lists the flags of a method, esamp generate --method NAME runs it.")


def _print_kind(out: Console, kind: str, methods: dict[str, type[Method]]) -> None:
    out.print(Text.assemble((one_line(kind), "bold"), f"  {KINDS.get(kind, '')}"))
    table = Table.grid(padding=(0, 2))
    for name, method in methods.items():
        label = Text(f"  {one_line(name)}", "cyan", no_wrap=True)
        table.add_row(label, Text(" ".join(_engines(method))), Text(one_line(method.summary)))
    out.print(table)


def _print_method(out: Console, record: dict[str, Any]) -> None:
    out.print(Text.assemble((record["name"], "bold cyan"), f"  ({record['kind']}; {', '.join(record['engines'])})"))
    for text in (record["summary"], f"Source: {record['citation']}"):
        out.print(f"  {one_line(text)}")
    table = Table.grid(padding=(0, 2))
    for spelling, text in (flag.record for flag in flags_of(generate.command, record["name"])):
        table.add_row(Text(f"  {one_line(spelling)}", "cyan", no_wrap=True), Text(one_line(text)))
    out.print(table)
    out.print()


def _record(name: str, method: type[Method]) -> dict[str, Any]:
    flags = {flag.name: flag.spelling for flag in flags_of(generate.command, name)}
    options = option_records(method.options)
    return {
        "name": name,
        "kind": method.kind,
        "summary": method.summary,
        "citation": method.citation,
        "engines": _engines(method),
        "options": {option: {"flag": flags[option], **record} for option, record in options.items()},
    }


def _engines(method: type[Method]) -> list[str]:
    """Names of the engines that can run a method."""
    return [entry.name for entry in engines.ENTRIES.values() if method.needs <= entry.provides]
