"""Options for tests that go through many signals and distillers."""

from typing import Any

from esamp import ESampConfig


def applicable(values: dict[str, Any]) -> dict[str, Any]:
    """`values` without those options that do nothing with the others, which `ESampConfig` refuses."""
    predicts = values.get("signal", "state") in ("state", "both")
    deciding = {"preset", "signal"} | ({"distiller"} if predicts else set())
    unused = ESampConfig.parse({name: value for name, value in values.items() if name in deciding}).unused_options()
    return {name: value for name, value in values.items() if name not in unused}
