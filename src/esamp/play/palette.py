"""The style of the page: its own rules, with the colours of the package's other pages."""

import re
from importlib.resources import files

from esamp.report.pages.html import asset

_BLOCK = re.compile(r":root \{(.*?)\n *\}", re.DOTALL)
_DECLARATION = re.compile(r"(--[\w-]+): (#[0-9a-f]{6});")


def colours() -> tuple[dict[str, str], dict[str, str]]:
    """The custom properties with a colour in ``page.css``, for light and dark: ``--ink: #1c2126``, ..."""
    light, dark = (dict(_DECLARATION.findall(block)) for block in _BLOCK.findall(asset("page.css")))
    return light, light | dark


def style() -> str:
    """CSS. Gradio marks the dark theme with the class ``dark``, where the other pages ask the browser."""
    light, dark = colours()
    own = files(__package__).joinpath("assets", "play.css").read_text(encoding="utf-8")
    return f":root {{ {_rules(light)} }}\n.dark {{ {_rules(dark)} }}\n{own}"


def _rules(values: dict[str, str]) -> str:
    return " ".join(f"{name}: {value};" for name, value in values.items())
