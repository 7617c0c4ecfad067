"""Write docs/options.md from the declarations of the options; `--check` only says whether it is up to date."""

import sys
from collections.abc import Mapping
from pathlib import Path

from pydantic.fields import FieldInfo

from esamp.bench.options import BenchOptions
from esamp.engines.vllm.params import RequestOptions
from esamp.engines.vllm.settings import VLLMSettings
from esamp.explorer.config import PRESETS, ESampConfig
from esamp.methods import registry
from esamp.options import allowed
from esamp.sampling import Sampling

TARGET = Path(__file__).parents[1] / "docs" / "options.md"

HEAD = """# Options

Every option is declared once, in the class named above its table; flags of the command line (`--top-k`), keyword
arguments and this page are derived from there. A value that is out of range, NaN or of the wrong type is one error that
names the option, the value and what is allowed.
"""

ENGINE = """## vLLM: the engine's settings

In `--additional-config '{"esamp": {...}}'`, or flags of `esamp serve`.
"""

REQUEST = """## vLLM: a request's parameters

In `SamplingParams.extra_args` or `vllm_xargs`, beside `method` and the options of the method.
"""

BENCH = """## `esamp bench`

Flags of the command (`-n`, `--against`, ...), each after the measurements that read it.
"""


def table(fields: Mapping[str, FieldInfo]) -> str:
    """A Markdown table of options."""
    lines = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        default = field.get_default(call_default_factory=True)
        lines.append(f"| `{name}` | `{default!r}` | {allowed(field)} | {meaning} |")
    return "\n".join(lines)


def methods() -> str:
    """The options of every method that comes with the package; of one that has those of esamp, only what differs."""
    parts = [
        "## Methods\n\nFor `registry.get(NAME).options(...)`, flags of `esamp generate`, and requests to a server."
    ]
    for name, method in registry.available().items():
        fields = method.options.model_fields
        if not method.__module__.startswith("esamp.") or method.options is ESampConfig or not fields:
            continue
        inherited = ESampConfig.model_fields if issubclass(method.options, ESampConfig) else {}
        own = {
            key: field
            for key, field in fields.items()
            if key not in inherited
            or (field.default, allowed(field)) != (inherited[key].default, allowed(inherited[key]))
        }
        parts.append(f"### `{name}`\n\n{method.summary[0].upper()}{method.summary[1:]}. Source: {method.citation}.")
        if inherited:
            parts.append("The options of `esamp`" + (", but for:" if own else "."))
        if own:
            parts.append(table(own))
    return "\n\n".join(parts)


def document() -> str:
    """The whole page."""
    presets = "\n".join(
        f"* `{name}`: " + (", ".join(f"`{key} = {value!r}`" for key, value in changes.items()) or "the defaults above")
        for name, changes in PRESETS.items()
    )
    return (
        f"{HEAD}\n## `esamp.ESampConfig`\n\n{table(ESampConfig.model_fields)}\n\n### Presets\n\n"
        f"A preset only moves the starting values; whatever is given beside it wins.\n\n{presets}\n\n"
        f"## `esamp.Sampling`\n\n{table(Sampling.model_fields)}\n\n"
        f"{methods()}\n\n"
        f"{ENGINE}\n{table(VLLMSettings.model_fields)}\n\n{REQUEST}\n{table(RequestOptions.model_fields)}\n\n"
        f"{BENCH}\n{table(BenchOptions.model_fields)}\n"
    )


def main() -> int:
    """Write the page, or compare it."""
    if "--check" in sys.argv[1:]:
        fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == document()
        print("docs/options.md is up to date" if fresh else "docs/options.md is out of date: run this without --check")
        return 0 if fresh else 1
    TARGET.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
