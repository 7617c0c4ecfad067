r"""Prepares formulas for `math-verify`: one spelling for each symbol, and comparisons of what its parser ignores.

The parser ignores the base of a number (``2516_8``), a unit and its power, and ``\dots``. Formulas that differ in
these are recognised here.
"""

import re
import unicodedata

from esamp.tasks.final_answer import plain_characters, undressed
from esamp.tasks.numerals import joined_thousands

_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿ", "0123456789+-()n", strict=True))
_SUPERSCRIPT = re.compile(f"[{''.join(_RAISED)}]+")
_FRACTION_SIGN = re.compile("[¼-¾⅐-⅞]")
_ROOT = re.compile(r"√\s?(?:\{([^{}]*)\}|\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?|[A-Za-zπ]))")
_SYMBOLS = str.maketrans(
    {"π": r"\pi ", "∞": r"\infty ", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "≤": r"\le "}
    | {"≥": r"\ge ", "≠": r"\ne ", "±": r"\pm ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "°": r"^\circ "}
    | {"θ": r"\theta ", "…": r"\ldots ", "⋯": r"\cdots "}
)
_ROMAN = re.compile(r"\\(?:math(?:rm|bf|it|sf|normal)|text(?:rm|it|bf)?|operatorname|mbox)\s{0,4}\{\s?([ie])\s?\}")
_SCIENTIFIC = re.compile(r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,3})(?![\w.])", re.ASCII)
_STYLE = re.compile(r"\\(?:displaystyle|textstyle|limits|left\.|right\.)(?![A-Za-z])")
_BASE = re.compile(
    r"\(?\s{0,4}(?P<digits>[0-9A-Za-z.]{1,80})\s{0,4}\)?\s{0,4}(?:_\s{0,4}(?:\{\s{0,4})?(?:\\text\{\s?)?(?P<base>[0-9]{1,2}|[a-z]{3,8})"
    r"[\s}]{0,4}|(?:\\text\{)?\s{0,4}\(?(?:in\s|to\s)?(?:the\s)?base[\s\-}]{1,4}(?P<named>[0-9]{1,2}|[a-z]{3,8})\)?\}?)",
    re.ASCII,
)
_NAMED = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_BASES = {name: base for base, name in enumerate(_NAMED, 2)} | {"sixteen": 16}
_DOTS = re.compile(r"\\(?:[lcd]?dots[a-z]?)(?![A-Za-z])|\.\.\.")
_DOTS_IN_LIST = re.compile(r"[,+\-*]\s{0,4}(?:\{\s{0,2})?(?:\\(?:[lcd]?dots[a-z]?)(?![A-Za-z])|\.\.\.)")
_UNIT = re.compile(
    r"(?P<value>.*[0-9}.)])\s{0,4}(?:\\[,;:! ]\s{0,4})?\\(?:text|mathrm|mbox|textrm|operatorname|hbox)\s{0,4}"
    r"\{(?P<name>[^{}]*)\}\s{0,4}(?:\^\s{0,4}\{?\s{0,4}(?P<power>-?[0-9])\s{0,4}\}?)?",
    re.DOTALL,
)
_UNIT_IN_WORDS = re.compile(
    r"(?P<value>.*[0-9}.)])\s{1,4}(?P<name>[a-zA-Z][a-zA-Z. ]{1,60})(?:\^\{?(?P<power>[0-9])\}?)?", re.DOTALL
)
_POWERS = {"square": 2, "squared": 2, "sq": 2, "cubic": 3, "cubed": 3, "cu": 3}
_UNIT_NAMES = """
mm millimeter millimetre|cm centimeter centimetre|dm decimeter decimetre|m meter metre|km kilometer kilometre
in inch inche|ft foot feet|yd yard|mi mile|s sec second|min minute|h hr hour|day|week|month|yr year
mg milligram|g gram|kg kilogram|lb pound|oz ounce|ml milliliter millilitre|l liter litre|gallon gal
dollar usd|cent penny pennie|deg degree|rad radian
"""
_UNITS = {name: unit.split()[0] for unit in re.split(r"[|\n]", _UNIT_NAMES) if unit for name in unit.split()}


def normal(formula: str) -> str:
    r"""The formula in ASCII and plain TeX.

    Full-width and typographic characters, superscript digits, ``½``, ``√2`` and ``2.5e-3`` become TeX, and
    ``\mathrm{i}`` becomes the number i. Separators of thousands and surrounding markup are removed.
    """
    text = plain_characters(formula).translate(_SYMBOLS)
    text = _SUPERSCRIPT.sub(lambda found: "^{" + "".join(_RAISED[each] for each in found[0]) + "}", text)
    text = _FRACTION_SIGN.sub(_fraction, text)
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2] or found[3]}}}", text)
    text = _ROMAN.sub(r" \1 ", _STYLE.sub(" ", text))
    text = _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)
    return joined_thousands(undressed(text)).strip()


def same_words(gold: str, answer: str) -> bool:
    r"""Whether two formulas are the same text apart from spaces, letter case and ``\text{...}``."""
    return _words(gold) == _words(answer) != ""


def differ(gold: str, answer: str) -> bool:
    """Whether two formulas differ in a base, in a unit or in a list with dots, so that they cannot be equal."""
    return _bases_differ(gold, answer) or _units_differ(gold, answer) or _dots_differ(gold, answer)


def without_base(formula: str) -> str:
    """A number without its base; any other formula unchanged."""
    match = _BASE.fullmatch(formula)
    return formula if match is None or _base(formula) is None else match["digits"]


def listed(gold: str) -> bool:
    r"""Whether a reference is a list of solutions (``3, 5``, ``1 \pm \sqrt 2``, ``2 \text{ or } 3``), not a point."""
    inside = re.sub(r"^\\\{(.*)\\\}$", r"\1", gold, flags=re.DOTALL)
    depth = 0
    for mark in re.finditer(r"\\left|\\right|\\pm|\\mp|[(\[{]|[)\]}]|,|\b(?:and|or)\b", inside):
        if mark[0] in ("(", "[", "{"):
            depth += 1
        elif mark[0] in (")", "]", "}"):
            depth -= 1
        elif mark[0] in ("\\pm", "\\mp", "and", "or") or (mark[0] == "," and depth == 0):
            return True
    return False


def _fraction(found: re.Match[str]) -> str:
    above, _, below = unicodedata.normalize("NFKC", found[0]).partition("⁄")
    return rf"\frac{{{above}}}{{{below}}}"


def _words(formula: str) -> str:
    plain = re.sub(
        r"\\(?:text|math)[a-z]{0,6}\s{0,4}|\\(?:mbox|left|right)(?![A-Za-z])|\\[,;:! ]", "", _DOTS.sub("...", formula)
    )
    return re.sub(r"[\s{}~]", "", plain.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")).casefold()


def _base(formula: str) -> int | None:
    match = _BASE.fullmatch(formula)
    if match is None or not re.search(r"[0-9]", match["digits"]):
        return None
    name = match["base"] or match["named"]
    return int(name) if name.isdigit() else _BASES.get(name)


def _bases_differ(gold: str, answer: str) -> bool:
    """Whether the bases differ. An answer may omit the base; a reference without one has base ten."""
    wanted, given = _base(gold), _base(answer)
    return given is not None and given != (wanted or 10)


def _unit(formula: str) -> tuple[str, int] | None:
    """The unit at the end of a formula and its power, None without a unit."""
    match = _UNIT.fullmatch(formula) or _UNIT_IN_WORDS.fullmatch(formula)
    if match is None:
        return None
    words = re.sub(r"[.\-]", " ", match["name"]).lower().split()
    power = int(match["power"] or 1)
    names = []
    for word in words:
        if word in _POWERS:
            power = _POWERS[word]
        else:
            names.append(_UNITS.get(word) or _UNITS.get(word.removesuffix("s")) or word)
    return (" ".join(names), power) if names else None


def _units_differ(gold: str, answer: str) -> bool:
    """Whether the units or their powers differ. An answer may omit the unit; unknown units are not compared."""
    wanted, given = _unit(gold), _unit(answer)
    if wanted is None or given is None:
        return False
    both_known = {wanted[0], given[0]} <= set(_UNITS.values())
    return (wanted[0] == given[0] or both_known) and wanted != given


def _dots_differ(gold: str, answer: str) -> bool:
    """Whether two lists differ of which at least one contains dots; these are compared as text."""
    if not (_DOTS_IN_LIST.search(gold) or _DOTS_IN_LIST.search(answer)):
        return False
    return _words(gold) != _words(answer)
