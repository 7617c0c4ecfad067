"""Building blocks of all HTML pages: assets, templates, and texts that cannot become markup."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TypeAlias

Json: TypeAlias = str | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None

# Control characters become their pictures (U+2400...), so that readers see them and no parser drops them.
_CONTROLS = str.maketrans({code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421})
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSAFE_IN_SCRIPT = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def document(template: str, slots: Mapping[str, str], *, title: str, style: str, script: str = "") -> str:
    """A whole HTML document: the template with its slots, the title, the style and the script filled in.

    The document's Content-Security-Policy admits `style` and `script` by their hashes and forbids every request.

    Args:
        template: name of the template in `assets`; it begins with the slot ``head``.
        slots: the other slots, as safe HTML.
        title: plain text; it is escaped here, and fills the slot ``title`` of the template as well.
        style: CSS.
        script: JavaScript; without one the policy forbids scripts.
    """
    own = {"title": escape(title), "style": style, "policy": _policy(style, script)}
    return filled(template, {**slots, **own, "script": script, "head": filled("head.html", own)})


def filled(template: str, slots: Mapping[str, str]) -> str:
    """A template with its slots filled in one pass, so that inserted texts that look like slots stay as they are."""
    return _SLOT.sub(lambda match: slots[match[1]], asset(template))


def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def clean(text: str) -> str:
    """`text` with lone surrogates replaced by U+FFFD and control characters by their pictures."""
    return _SURROGATES.sub("\ufffd", text).translate(_CONTROLS)


def escape(text: str) -> str:
    """`clean` text that is safe between tags and in quoted attributes."""
    return html.escape(clean(text))


def inert_json(value: Json) -> str:
    """JSON that can stand in a script block: no text in it can end the block."""
    text = json.dumps(cleaned(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE_IN_SCRIPT)


def cleaned(value: Json) -> Json:
    """The same value with every text in it `clean`."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: cleaned(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [cleaned(item) for item in value]
    return value


def _policy(style: str, script: str) -> str:
    scripts = (f"script-src {_source_hash(script)}",) if script else ()
    trusted_types = ("require-trusted-types-for 'script'", "trusted-types 'none'") if script else ()
    styles = f"style-src {_source_hash(style)}"
    return "; ".join(("default-src 'none'", styles, *scripts, "base-uri 'none'", "form-action 'none'", *trusted_types))


def _source_hash(text: str) -> str:
    """The name of a script or style in a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
