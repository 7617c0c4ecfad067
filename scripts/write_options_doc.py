"""Write docs/options.md from the declarations of the options; `--check` only says whether it is up to date."""

import sys
from pathlib import Path

from esamp.engines.base import Sampling
from esamp.engines.vllm.params import RequestOptions
from esamp.engines.vllm.settings import VLLMSettings
from esamp.explorer.config import PRESETS, ESampConfig
from esamp.options import Options, allowed

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


def table(options: type[Options]) -> str:
    """A Markdown table of the fields of `options`."""
    lines = ["| option | default | allowed | meaning |", "|---|---|---|---|"]
    for name, field in options.model_fields.items():
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | `{field.default!r}` | {allowed(field)} | {meaning} |")
    return "\n".join(lines)


def document() -> str:
    """The whole page."""
    presets = "\n".join(
        f"* `{name}`: " + (", ".join(f"`{key} = {value!r}`" for key, value in changes.items()) or "the defaults above")
        for name, changes in PRESETS.items()
    )
    return (
        f"{HEAD}\n## `esamp.ESampConfig`\n\n{table(ESampConfig)}\n\n### Presets\n\n"
        f"A preset only moves the starting values; whatever is given beside it wins.\n\n{presets}\n\n"
        f"## `esamp.Sampling`\n\n{table(Sampling)}\n\n"
        f"{ENGINE}\n{table(VLLMSettings)}\n\n{REQUEST}\n{table(RequestOptions)}\n"
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
