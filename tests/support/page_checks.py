"""Checks of HTML pages: texts that try to inject markup, what a page must show of them, and measures of contrast."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page as Tab

HOSTILE = (
    "</script><script>window.hit = 1; alert(1)</script>",
    "<img src=x onerror='window.hit = 1'>",
    "<!--<script>",
    "</SCRIPT\t/ ends a script without a closing bracket, <!--<script hides its end",
    "\"'`><svg onload=alert(1)>&lt;b&gt;&amp;",
    "javascript:alert(1)//{{script}}{{data}}",
    "]]></style><style>*{display:none}",
    "nul \x00 escape \x1b line\u2028paragraph\u2029 emoji \U0001f9ea lone \ud800 and \udc00 rtl \u202e end",
)
CLEANED = (
    *HOSTILE[:-1],
    "nul \u2400 escape \u241b line\u2028paragraph\u2029 emoji \U0001f9ea lone \ufffd and \ufffd rtl \u202e end",
)


def texts(tab: "Tab", selector: str) -> list[str]:
    return tab.locator(selector).all_text_contents()


def luminance(colour: str) -> float:
    """Relative luminance (WCAG 2) of a colour ``rgb(r, g, b)``, from 0 (black) to 1 (white)."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(ink: str, ground: str) -> float:
    """Contrast ratio (WCAG 2) of two colours, from 1 to 21; 4.5 suffices for text of any size."""
    darker, lighter = sorted((luminance(ink), luminance(ground)))
    return (lighter + 0.05) / (darker + 0.05)
