"""Removes the thoughts that a reasoning model writes before its answer."""

import re

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPENS = rf"<{_NAMES}>|\[think\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>"
_CLOSES = rf"</{_NAMES}>|\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>"
_MARK = re.compile(rf"(?P<opens>{_OPENS})|(?:{_CLOSES})", re.IGNORECASE)


def without_thought(text: str) -> str:
    """The text without ``<think>...</think>`` and the corresponding marks of other models.

    A thought without a closing mark extends to the end of the text. The text before a closing mark without an opening
    one is a thought too, because the opening mark may be part of the prompt.
    """
    kept: list[str] = []
    start, inside = 0, False
    for mark in _MARK.finditer(text):
        if mark["opens"] is not None:
            if not inside:
                kept.append(text[start : mark.start()])
            inside = True
        else:
            if not inside:
                kept.clear()
            start, inside = mark.end(), False
    if not inside:
        kept.append(text[start:])
    return "".join(kept)
