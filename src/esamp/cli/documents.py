"""JSON documents on standard output, for ``--json``."""

import json
import math
from typing import Any


def print_document(value: Any, *, indent: int | None = None) -> None:
    """Print one JSON document. JSON has no NaN and no infinity; they become null."""
    print(json.dumps(_finite(value), indent=indent, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
