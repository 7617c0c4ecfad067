"""A single sample on the terminal, whose text appears while it is decoded."""

import re
import sys
from collections.abc import Callable

from rich.cells import cell_len
from rich.text import Text

from esamp.cli import sample_text
from esamp.cli.terminal import console
from esamp.engines.base import Completion, Content
from esamp.quoting import printable

LABEL = "[1] "
MARGIN = " " * len(LABEL)
LONGEST_HELD = 16
"""Characters of an unfinished word that are held back to be wrapped as a whole. Longer ones are printed at once."""


class StreamedSample:
    """Prints a prompt and its only sample as `sample_text.print_text` does, but the text as it arrives.

    Nothing is printed before the first piece of text, so a request that fails can be reported in its own way.
    """

    def __init__(self, prompt: Content, before: Callable[[], None]) -> None:
        """`before` is called before anything is printed, for example to remove a progress bar."""
        self._prompt, self._before = prompt, before
        self.open = False
        """whether something was printed and `finish` was not called"""
        self._held = self._gap = ""  # the last word, which may go on, and the white space before it
        self._column = 0
        self._width = console().width

    def add(self, _: int, piece: str) -> None:
        """Print the next piece of text (`esamp.engines.base.OnText`)."""
        if not self.open:
            self.open = True
            self._before()
            sample_text.print_prompt(self._prompt)
            console().print(Text(LABEL, "bold cyan"), end="")
            self._column = len(LABEL)
        self._held += printable(piece)
        *whole, last = re.split(r"(?<=\s)(?=\S)|(?<=\S)(?=\s)", self._held)
        for part in whole:
            self._print(part)
        self._held = last
        if last and not last.isspace() and len(last) > LONGEST_HELD:
            self._print(last)
            self._held = ""
        sys.stdout.flush()

    def finish(self, completion: Completion) -> None:
        """Print what is left, and the summary of the completion."""
        self.end()
        sample_text.print_summary(completion)

    def end(self) -> None:
        """Print what is left and end the line."""
        if self._held.strip():
            self._print(self._held)
        print(flush=True)
        self.open, self._held = False, ""

    def _print(self, part: str) -> None:
        """Print a word, with the white space before it or a line break in its place; white space waits for a word."""
        if part.isspace():
            self._gap += part
            return
        if self._column == len(LABEL):
            self._gap = self._gap.lstrip("\n")
        lines = self._gap.split("\n")
        beyond = self._column + cell_len(self._gap) + cell_len(part) > self._width
        if len(lines) == 1 and beyond and self._column > len(MARGIN):
            lines = ["", ""]
        for number, spaces in enumerate(lines):
            if number:
                sys.stdout.write(f"\n{MARGIN}")
                self._column = len(MARGIN)
            if number == len(lines) - 1:
                sys.stdout.write(spaces)
                self._column += cell_len(spaces)
        sys.stdout.write(part)
        self._column += cell_len(part)
        self._gap = ""
