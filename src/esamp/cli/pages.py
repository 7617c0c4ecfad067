"""HTML pages that commands write; they are checked before anything is computed."""

from importlib.metadata import version
from pathlib import Path

from esamp.errors import EsampError, InputError


def check_page(page: Path) -> None:
    """Check that the page can be written; leaves no file behind.

    Raises:
        InputError: its folder is missing, or it cannot be opened for writing.
    """
    try:
        folder, existed = page.parent.is_dir(), page.exists()
    except OSError as error:
        raise InputError(f"cannot write the page {page}: {error.strerror}; give another --page") from None
    if not folder:
        raise InputError(f"there is no folder {page.parent}: create it, or give another --page")
    try:
        with page.open("ab"):
            pass
        if not existed:
            page.unlink()
    except OSError as error:
        raise InputError(f"cannot write the page {page}: {error.strerror}; give another --page") from None


def write_page(page: Path, html: str) -> None:
    """Write the page.

    Raises:
        EsampError: it cannot be written, for example because the disk is full.
    """
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise EsampError(f"cannot write the page {page}: {error.strerror}") from None


def footer(command: str) -> str:
    """The footer of a page: the version, and the command that made it."""
    return f"esamp {version('esamp')}: {command}"
