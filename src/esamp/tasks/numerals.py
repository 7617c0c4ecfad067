r"""Reads numbers as answers write them: ``073``, ``1{,}234``, ``$18 per day``, ``204\text{ cm}^2``, ``m+n=204``."""

import re

from esamp.tasks.final_answer import plain_characters, undressed

LONGEST = 300
"""Characters of an answer that is read; a longer one holds no number."""
SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_NUMBER = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+"
_PLAIN = re.compile(rf"([-+]?)\s?((?:{_NUMBER}))", re.ASCII)
_GROUPED = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})((?:(?:\\[,;:! ]|\{,\}|,\\!|~)[ ]?[0-9]{3})+)(?![0-9])", re.ASCII)
_SPACED = re.compile(r"(?<![0-9.,])([1-9][0-9]{0,2})((?:[ '][0-9]{3})+)(?![0-9])", re.ASCII)
_STYLED = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|normal)|boldsymbol|bm|mbox|hbox|operatorname)"
    r"\s{0,4}\{([^{}]*)\}"
)
_LABEL = re.compile(
    r"(?:[A-Za-z][A-Za-z ]{0,40}:|(?:(?:the|so|thus|hence|my|our|final|correct)\s{1,4}){0,4}answer(?:\s{1,4}is)?)"
    r"\s{0,4}",
    re.IGNORECASE | re.ASCII,
)
_MONEY = r"(?:\\?\$|[€£¥₹])"
_UNIT = re.compile(
    r"\s{0,4}(?:\^?\{?\s?(?:\\circ|°|º)\s?\}?|\\?%|(?:[A-Za-z°µ][A-Za-z°µ. ]{0,60}|[A-Za-z]{1,12}/[A-Za-z]{1,12})"
    r"(?:\^\{?-?[0-9]\}?|[²³])?)\s{0,4}",
    re.ASCII,
)
_FACTOR = re.compile(r"\s{0,4}(?:[ije]|pi|sqrt|sin|cos|tan|log|ln|exp|choose|mod)\b", re.IGNORECASE)
_TEN = re.compile(r"_\s?(?:10|\{\s?(?:10|ten)\s?\})$")
_ALTERNATIVE = re.compile(r"\b(?:or|and|to|versus|vs)\b|[±~]|\bpm\b", re.IGNORECASE)
_CHANGING_WORD = re.compile(
    r"\b(?:not|less|more|greater|fewer|under|over|below|above|least|most|between|no)\b", re.IGNORECASE
)


def decimal(text: str) -> str | None:
    """A number without plus sign, leading zeros, commas and trailing zeros; None if the text is not a number."""
    match = _PLAIN.fullmatch(text)
    if match is None:
        return None
    whole, _, part = match[2].replace(",", "").partition(".")
    digits, decimals = whole.lstrip("0") or "0", part.rstrip("0")
    size = f"{digits}.{decimals}" if decimals else digits
    return f"-{size}" if match[1] == "-" and size != "0" else size


def number(answer: str) -> str | None:
    r"""The number that an answer consists of, in the form of `decimal`, without surrounding markup.

    A unit after it, a name and ``=`` before it, a label (``Answer:``), a currency, separators of thousands and base ten
    are ignored. None with another base, with words that change the number (``at least 7``) and with a second number.
    """
    if len(answer) > LONGEST:
        return None
    plain = _unstyled(joined_thousands(plain_characters(answer), spaces=True))
    plain = _TEN.sub("", undressed(_TEN.sub("", _last_side(plain))))
    plain = _LABEL.sub("", plain, count=1) if _LABEL.match(plain) else plain
    plain = re.sub(rf"^([-+]?)\s?{_MONEY}\s?", r"\1", undressed(plain))
    plain = re.sub(r"^\\left\s?\(|\\right\s?\)$", "", plain).strip()
    if (inner := re.fullmatch(r"\(([^(),]*)\)", plain)) is not None:
        plain = inner[1].strip()
    match = _PLAIN.match(plain)
    if match is None:
        return None
    rest = plain[match.end() :]
    scaled = re.match(rf"\s{{0,4}}({'|'.join(SCALES)})s?\b", rest, re.IGNORECASE)
    if scaled is not None:
        rest = rest[scaled.end() :]
    rest = re.sub(r"^\s{0,4}(?:\\text)?\\?\$", "", rest)
    if rest.strip(" .") and not _is_unit(rest, styled=_STYLED.search(answer) is not None):
        return None
    return decimal(_scaled(match[0], scaled[1].lower() if scaled else None))


def number_in_words(answer: str) -> str | None:
    """The number in an answer that is a sentence: ``$18 per day``, ``72, that is the total``, ``It is 5 miles``.

    Of several numbers, the first counts if the answer begins with it and the rest only explains it; otherwise None.
    None also where words change the number (``at least 7``, ``not 7``).
    """
    alone = number(answer)
    if alone is not None or len(answer) > LONGEST:
        return alone
    plain = undressed(_unstyled(joined_thousands(plain_characters(answer), spaces=True)))
    plain = re.sub(r"[*`]", " ", plain.rpartition("=")[2]).strip()
    if re.search(r"\\[A-Za-z]", plain):  # a formula, not a sentence
        return None
    matches = list(
        re.finditer(rf"(?<![\w.^_/])[-+]?{_MONEY}?\s?(?:{_NUMBER})(?![\w^_]|/[0-9]|\.[0-9])", plain, re.ASCII)
    )
    every = re.findall(rf"{_NUMBER}", plain, re.ASCII)
    if not matches or (len(every) > 1 and matches[0].start() > 0):
        return None
    first, rest = matches[0], plain[matches[0].end() :]
    explains = re.match(
        r"(?:[,.;:]?\s{0,4}\(?(?!or\b|and\b|to\b)(?![a-z]+\s(?:and\s)?[0-9])[A-Za-z]|\s{0,4}[%.!]?$|/[a-z])", rest
    )
    if (
        _CHANGING_WORD.search(plain[: first.start()])
        or explains is None
        or re.match(r"[^0-9]*\bor\b[^0-9]*[0-9]", rest)
    ):
        return None
    scaled = re.match(rf"\s{{0,4}}({'|'.join(SCALES)})s?\b", rest, re.IGNORECASE)
    return decimal(_scaled(re.sub(rf"{_MONEY}|\s", "", first[0]), scaled[1].lower() if scaled else None))


def joined_thousands(text: str, *, spaces: bool = False) -> str:
    r"""The formula without TeX's separators of thousands: ``1{,}234``, ``1\,234`` and ``1,\!234`` become 1234.

    Args:
        text: any formula.
        spaces: whether to join ``1 234`` as well.
    """
    for pattern in (_GROUPED, _SPACED) if spaces else (_GROUPED,):
        text = pattern.sub(lambda found: found[1] + re.sub(r"[^0-9]", "", found[2]), text)
    return text


def _unstyled(text: str) -> str:
    r"""The answer without ``\text{...}`` and similar commands around parts of it."""
    for _ in range(4):
        text, changed = _STYLED.subn(r"\1", text)
        if not changed:
            break
    return re.sub(
        r"\\(?:displaystyle|q?quad)(?![A-Za-z])|(?<=[0-9])\\[,;:! ](?![0-9])|\\[,;:! ](?=[A-Za-z])", " ", text
    )


def _is_unit(text: str, *, styled: bool) -> bool:
    r"""Whether the text after a number is a unit, not a factor. A single letter is a unit only in ``\text{...}``."""
    if _UNIT.fullmatch(text) is None or _ALTERNATIVE.search(text) or _FACTOR.match(text):
        return False
    return styled or not re.fullmatch(r"[A-Za-z]", text.strip())


def _last_side(text: str) -> str:
    """The right side of the last equation of a chain; the left side in ``204 = m``."""
    left, equals, right = text.rpartition("=")
    if not equals or re.search(r"[<>≠≤≥]|\\(?:neq?|leq?|geq?|lt|gt|approx|equiv)(?![A-Za-z])", text):
        return text
    return left.rpartition("=")[2] if re.fullmatch(r"\s*[A-Za-z]\s*", right) else right


def _scaled(digits: str, scale: str | None) -> str:
    if scale is None:
        return digits
    whole, _, part = digits.replace(",", "").partition(".")
    power = SCALES[scale]
    return whole + part.ljust(power, "0")[:power] + ("." + part[power:] if len(part) > power else "")
