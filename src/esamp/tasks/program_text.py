"""Finds the program in a chat model's text: in fenced blocks or between sentences, and repairs lost indents."""

import keyword
import re
import textwrap
from dataclasses import dataclass

PYTHON = frozenset({"python", "python3", "py", "py3", "ipython", "python2"})
_FENCE = re.compile(r"(?P<indent>[ \t]{0,40})(?P<marks>`{3,}|~{3,})(?P<info>[^`\r\n]{0,200})", re.ASCII)
_LANGUAGE = re.compile(r"[{.\s]{0,8}([\w+#-]*)", re.ASCII)
_CODE = re.compile(
    r"(?:(?:async[ ]+)?def[ ]+\w+[ ]*\(|class[ ]+\w+[ ]*[(:]|from[ ]+[\w.]+[ ]+import\b|@\w|[A-Z_]+[ ]*="
    r"|import[ ]+\w+(?:[ ]*$|[ ,.]|[ ]+as\b))"
)
"""Beginnings of the first line of a program that is not in a fenced block."""
_SENTENCE = re.compile(r"(?P<word>[A-Za-z][\w']*)[ ]+[A-Za-z]")
_SPACES = str.maketrans(
    dict.fromkeys("\u00a0\u2007\u202f\u2009", " ") | dict.fromkeys("\ufeff\u200b\u200c\u200d\u2060")
)


@dataclass(frozen=True)
class CodeBlock:
    """A fenced block. `language` is in lower case, and empty if the fence names none."""

    language: str
    body: str


def fenced_blocks(text: str) -> list[CodeBlock]:
    """The fenced blocks of a text in their order; the last one may be cut off by the end of the text.

    A fence has three or more marks, may be indented under a list item, and is closed by at least as many marks. A block
    without a language also ends where a block with a language begins: then its fence closed a block of the prompt.
    """
    return _split(text)[1]


def bare(text: str) -> str:
    """The text up to its first fence."""
    return _split(text)[0]


def defines(program: str, name: str) -> bool:
    """Whether a function, class or variable of this name is defined at the top level of a program."""
    pattern = (
        rf"^(?:(?:async[ \t]+)?def[ \t]+|class[ \t]+){re.escape(name)}\b|^{re.escape(name)}[ \t]*(?::[^=\n]*)?=[^=]"
    )
    return re.search(pattern, program, re.MULTILINE) is not None


def plain_code(text: str) -> str:
    """The text with plain spaces and Unix line ends, without invisible characters."""
    return text.replace("\r\n", "\n").translate(_SPACES)


def program_without_fences(text: str) -> str | None:
    """The program in a text without blocks, separated from the sentences around it; None if no line begins one."""
    lines = text.split("\n")
    begin = next((place for place, line in enumerate(lines) if _CODE.match(line.lstrip(" \t"))), None)
    if begin is None:
        return None
    kept: list[str] = []
    quoted = False
    for line in lines[begin:]:
        if not quoted and kept and _is_sentence(line):
            break
        kept.append(line)
        quoted ^= (line.count('"""') + line.count("'''")) % 2 == 1
    return flush_left("\n".join(kept))


def flush_left(program: str) -> str:
    """The program without its common indent, or without an indent of the first line alone."""
    dedented = textwrap.dedent(program).lstrip("\n")
    return dedented.lstrip(" \t") if dedented[:1] in (" ", "\t") else dedented


def as_body(text: str, indent: str) -> str:
    """A function's body, with the indent restored where the first line or all lines have lost it."""
    lines = text.strip("\n").split("\n")
    others = [line for line in lines[1:] if line.strip()]
    unindented_return = re.search(r"^return\b", text, re.MULTILINE) is not None
    has_definition = any(line.startswith(("def ", "class ")) for line in lines)
    if unindented_return and not has_definition and not (others and all(line.startswith(indent) for line in others)):
        return textwrap.indent("\n".join(lines), indent)
    if lines[0].strip() and all(line.startswith(indent) for line in others):
        lines[0] = indent + lines[0].lstrip()
    return "\n".join(lines) + "\n"


def begins_with_body(text: str) -> bool:
    """Whether a text begins with the body of a function, not with a program or a sentence."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    plain = first.strip()
    return plain != "" and not (_CODE.match(plain) or _is_sentence(plain) or re.fullmatch(r"[A-Z]\w*[:.!,]?", plain))


def _split(text: str) -> tuple[str, list[CodeBlock]]:
    before: list[str] = []
    blocks: list[CodeBlock] = []
    fence: re.Match[str] | None = None
    language, lines = "", before
    for line in plain_code(text).split("\n"):
        match = _FENCE.fullmatch(line)
        info = match["info"].strip() if match else ""
        if match is None:
            lines.append(line)
        elif fence is None or (info and not language and match["marks"][0] == fence["marks"][0]):
            if fence is not None:
                blocks.append(_block(fence, language, lines))
            fence, lines = match, []
            language = _LANGUAGE.match(info)[1].lower()  # type: ignore[index]  # the pattern matches every text
        elif not info and match["marks"].startswith(fence["marks"]):
            blocks.append(_block(fence, language, lines))
            fence, lines = None, []
        else:
            lines.append(line)
    if fence is not None:
        cut_off = _block(fence, language, lines)
        blocks.append(CodeBlock(language, cut_off.body.removesuffix("\n")))
    return "\n".join(before), blocks


def _block(fence: re.Match[str], language: str, lines: list[str]) -> CodeBlock:
    width = len(fence["indent"])
    return CodeBlock(language, "".join(f"{_outdented(line, width)}\n" for line in lines))


def _outdented(line: str, width: int) -> str:
    return line[min(width, len(line) - len(line.lstrip(" \t"))) :]


def _is_sentence(line: str) -> bool:
    """Whether an unindented line cannot be Python: it begins with two adjacent words, the first not a keyword."""
    match = _SENTENCE.match(line)
    return match is not None and match["word"] not in (*keyword.kwlist, *keyword.softkwlist)
