"""Valid option sets for tests that combine many signals and distillers."""

from typing import Any

from esamp import ESampConfig


def without_unused(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without the options that have no effect beside the others, which `ESampConfig` would refuse."""
    predicts = values.get("signal", "state") in ("state", "both")
    deciding = {"preset", "signal"} | ({"distiller"} if predicts else set())
    unused = ESampConfig.parse({name: value for name, value in values.items() if name in deciding}).unused_options()
    return {name: value for name, value in values.items() if name not in unused}
