"""What a reasoning model writes before its answer is no answer: it is removed before anything is read."""

import re

_NAMES = r"(?:seed:)?(?:think(?:ing)?|thoughts?|reasoning)"
_OPENS = rf"<{_NAMES}>|\[think\]|◁think▷|<\|begin_of_thought\|>|<\|channel\|>analysis<\|message\|>"
_CLOSES = rf"</{_NAMES}>|\[/think\]|◁/think▷|<\|end_of_thought\|>|<\|channel\|>final<\|message\|>"
_MARK = re.compile(rf"(?P<opens>{_OPENS})|(?:{_CLOSES})", re.IGNORECASE)


def without_thought(text: str) -> str:
    """The text without ``<think>...</think>`` and the same in the marks of other models.

    A thought that is not closed goes on to the end of the text. What stands before a lone ``</think>`` is a thought
    whose opening mark was part of the prompt.
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
