"""Installed packages: their versions, and the command that installs an optional part of this one."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname


def install_command(*extras: str) -> str:
    """``pip install ...`` for these extras of the package, quoted for a shell.

    If this copy was installed from a clone, the command installs from that clone, else from the package index.
    """
    names = ",".join(extras)
    suffix = f"[{names}]" if names else ""
    clone = _clone()
    if clone is None:
        return f"pip install {shlex.quote('esamp' + suffix)}"
    return f"pip install -e {shlex.quote(str(clone) + suffix)}"


def installed_version(package: str) -> str | None:
    """The version of an installed package by its metadata, without importing it; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clone() -> Path | None:
    """The folder that pip installed this copy from in editable mode (PEP 610); None for any other installation."""
    try:
        origin = distribution("esamp").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    record = json.loads(origin) if origin else {}
    if not record.get("dir_info", {}).get("editable"):
        return None
    folder = Path(url2pathname(urlparse(record["url"]).path))
    return folder if (folder / "pyproject.toml").is_file() else None
