"""The command that installs an optional part of the package, for the way in which this copy was installed."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname


def install_command(*extras: str) -> str:
    """``pip install ...`` for these extras of the package, ready to be pasted into a shell.

    A copy that was installed from a clone is extended from that clone, any other one from the package index.
    """
    wanted = ",".join(extras)
    suffix = f"[{wanted}]" if wanted else ""
    clone = _clone()
    if clone is None:
        return f"pip install {shlex.quote('esamp' + suffix)}"
    return f"pip install -e {shlex.quote(str(clone) + suffix)}"


def _clone() -> Path | None:
    """The folder that pip installed this copy from in editable mode (PEP 610); None for any other installation."""
    try:
        origin = distribution("esamp").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    told = json.loads(origin) if origin else {}
    if not told.get("dir_info", {}).get("editable"):
        return None
    folder = Path(url2pathname(urlparse(told["url"]).path))
    return folder if (folder / "pyproject.toml").is_file() else None
