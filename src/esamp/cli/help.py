"""Help pages in plain text, with a section for each group of flags.

Typer's own help pages are drawn by rich. Importing it and drawing a hundred flags takes longer than the rest of a help
page.
"""

import inspect
import textwrap
from collections.abc import Sequence
from typing import Any

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

UNLISTED = "unlisted"
"""Title of the section of flags that the help page leaves out."""


def print_section(context: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print a section of a help page: flags or names with their descriptions."""
    formatter = context.make_formatter()
    with formatter.section(title):
        formatter.write_dl(rows)
    print(formatter.getvalue().strip("\n"))


class Command(TyperCommand):
    """A command whose flags are listed by group."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """``[OPTIONS]``, then the arguments: ``NAME``, ``[NAME]`` if optional, with ``...`` if there may be several."""
        pieces = [self.options_metavar] if self.options_metavar else []
        for parameter in self.get_params(ctx):
            if isinstance(parameter, TyperArgument):
                name = _argument_name(parameter)
                pieces.append(name if parameter.required else f"[{name}]")
        return pieces

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        """The docstring, wrapped. A paragraph that begins with ``Example`` keeps its lines, which are indented."""
        margin = " " * formatter.indent_increment
        for paragraph in inspect.cleandoc(self.help or "").split("\n\n"):
            formatter.write_paragraph()
            if paragraph.startswith("Example"):
                title, *lines = paragraph.splitlines()
                formatter.write("\n".join([f"{margin}{title}", *(f"{margin}  {line}" for line in lines), ""]))
                continue
            wrapped = textwrap.fill(
                paragraph, formatter.width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
            )
            formatter.write(f"{wrapped}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments, then flags by group, in the order of the command's parameters."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            if isinstance(parameter, TyperArgument):
                sections["Arguments"].append((_argument_name(parameter), record[1]))
            elif isinstance(parameter, TyperOption):
                sections.setdefault(parameter.rich_help_panel or "Options", []).append(record)
        for title, rows in sections.items():
            if rows and title != UNLISTED:
                with formatter.section(title):
                    formatter.write_dl(rows)


class CommandGroup(TyperGroup):
    """A command with subcommands."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Names and complete summaries, in the order of declaration."""
        rows = [(name, command.short_help or command.help or "") for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl([(name, text.partition("\n\n")[0]) for name, text in rows])


def _argument_name(argument: TyperArgument) -> str:
    return f"{argument.display_name_raw}{'...' * (argument.nargs != 1)}"
