"""HTML pages that a command writes: whether they can be written is known before anything is computed."""

from pathlib import Path

from esamp.errors import EsampError, InputError


def check_page(page: Path) -> None:
    """Refuse a page that cannot be written; leaves no file behind.

    Raises:
        InputError: its folder is missing, or it cannot be opened for writing.
    """
    try:
        folder, there = page.parent.is_dir(), page.exists()
    except OSError as error:
        raise InputError(f"cannot write the page {page}: {error.strerror}; give another --page") from None
    if not folder:
        raise InputError(f"{page.parent} is no folder: create it, or give another --page")
    try:
        with page.open("ab"):
            pass
        if not there:
            page.unlink()
    except OSError as error:
        raise InputError(f"cannot write the page {page}: {error.strerror}; give another --page") from None


def write_page(page: Path, html: str) -> None:
    """Write the page.

    Raises:
        EsampError: the disk is full, or what was writable no longer is.
    """
    try:
        page.write_text(html, encoding="utf-8")
    except OSError as error:
        raise EsampError(f"cannot write the page {page}: {error.strerror}") from None
