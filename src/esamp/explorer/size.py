"""How much memory a group's state takes, known before anything is allocated."""

from esamp.explorer.config import ESampConfig

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
SUMS = 8
"""bytes of a number of the Gram matrix; 4 on a device without float64"""


def slot_bytes(config: ESampConfig, source_size: int, deep_size: int) -> int:
    """Bytes of one slot of `esamp.explorer.explorer.Explorer`, for states of these sizes."""
    wide, exact = BYTES[config.dtype], max(BYTES[config.dtype], 4)
    own = 2 * 8 + exact * (deep_size + 1)
    if config.distiller == "mlp":
        matrices = 3 if config.block == "swiglu" else 2
        state = exact + 3 * wide * matrices * config.depth * deep_size * config.width
    elif config.distiller == "mean":
        state = wide * deep_size + exact
    else:
        rows = feature_count(config, source_size)
        state = SUMS * rows * rows * (1 + config.gate) + wide * rows * deep_size + exact * deep_size * config.centre
    if config.signal == "state":
        return own + state
    rows = feature_count(config, deep_size)
    return own + state + SUMS * rows * rows + wide * rows * deep_size


def shared_bytes(config: ESampConfig, source_size: int, deep_size: int) -> int:
    """Bytes that all slots have in common: the random projections of source and deep states."""
    exact = max(BYTES[config.dtype], 4)
    sizes = [source_size] * (config.distiller == "rls") + [deep_size] * (config.signal != "state")
    return sum(exact * config.features * size for size in sizes if 0 < config.features < size)


def feature_count(config: ESampConfig, size: int) -> int:
    """m + 1: features of a state of `size`, projected or not, and the constant."""
    return (config.features if 0 < config.features < size else size) + 1
