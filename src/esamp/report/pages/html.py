"""What every HTML page here is made of: assets, slots, and texts that cannot become markup."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TypeAlias

Json: TypeAlias = str | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None

# Control characters become their pictures (U+2400...), so that they are seen instead of swallowed by a parser.
_CONTROLS = str.maketrans({code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421})
_SURROGATES = re.compile("[\ud800-\udfff]")
_UNSAFE_IN_SCRIPT = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_SLOT = re.compile(r"\{\{(\w+)\}\}")


def filled(name: str, slots: dict[str, str]) -> str:
    """The template of that name with its slots filled in one pass: no inserted text is a slot."""
    return _SLOT.sub(lambda match: slots[match[1]], asset(name))


def asset(name: str) -> str:
    """The text of a file in `assets`."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """How a Content-Security-Policy names a script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def clean(text: str) -> str:
    """Lone surrogates become U+FFFD and control characters their pictures."""
    return _SURROGATES.sub("\ufffd", text).translate(_CONTROLS)


def escape(text: str) -> str:
    """Safe between tags and in quoted attributes."""
    return html.escape(clean(text))


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy of a page: its own style and script, by their hashes, and no request at all."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {source_hash(style)}",
            f"script-src {source_hash(script)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def inert_json(value: Json) -> str:
    """JSON that cannot end or confuse a script block, whatever the texts in it."""
    text = json.dumps(cleaned(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE_IN_SCRIPT)


def cleaned(value: Json) -> Json:
    """The same with all its texts `clean`."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: cleaned(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [cleaned(item) for item in value]
    return value
