"""Help pages in plain text, a section for each group of flags.

Typer's own pages are tables in frames. To import what draws them and to draw a hundred flags takes longer than all the
rest of a help page.
"""

import inspect
import textwrap
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command whose flags stand under the titles of their groups."""

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The docstring, wrapped; each line of the examples stays a line."""
        margin = " " * formatter.indent_increment
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            for text in paragraph.splitlines() if paragraph.startswith("Example") else (paragraph,):
                wrapped = textwrap.fill(
                    text, formatter.width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
                )
                formatter.write(f"{wrapped}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then flags, group by group in the order of the command's parameters."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, TyperArgument | TyperOption):
                usual = "Arguments" if isinstance(parameter, TyperArgument) else "Options"
                sections.setdefault(parameter.rich_help_panel or usual, []).append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(TyperGroup):
    """A command that has commands of its own, each with its whole summary."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Names and summaries in the order of declaration."""
        rows = [(name, command.short_help or command.help or "") for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([(name, text.partition("\n\n")[0]) for name, text in rows])
