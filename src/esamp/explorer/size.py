"""How much memory a group's state takes, known before anything is allocated."""

from esamp.explorer.config import ESampConfig

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
SUMS = 8
"""bytes of a number of the Gram matrix; 4 on a device without float64"""


def slot_bytes(config: ESampConfig, source_size: int, deep_size: int, *, frozen: bool = False) -> int:
    """Bytes of one slot of `esamp.explorer.explorer.Explorer`, for states of these sizes."""
    wide, exact = BYTES[config.dtype], max(BYTES[config.dtype], 4)
    own = 2 * 8 + exact * (deep_size + 1)
    if config.signal == "contrast":
        state = exact * config.samples * (deep_size + 1)
    elif not config.predicts:
        state = 0
    elif config.distiller == "mlp":
        state = exact + (0 if frozen else 3 * _weights(config, deep_size))
    elif config.distiller == "mean":
        state = wide * deep_size + exact
    else:
        rows = feature_count(config, source_size)
        state = SUMS * rows * rows * (1 + config.gate) + wide * rows * deep_size + exact * deep_size * config.centre
    if not config.remembers_actions:
        return own + state
    rows = feature_count(config, deep_size)
    return own + state + SUMS * rows * rows + wide * rows * deep_size


def shared_bytes(config: ESampConfig, source_size: int, deep_size: int, *, frozen: bool = False) -> int:
    """Bytes that all slots have in common: the random projections of source and deep states, a frozen network."""
    exact = max(BYTES[config.dtype], 4)
    predicts = config.distiller == "rls" and config.predicts
    sizes = [source_size] * predicts + [deep_size] * config.remembers_actions
    projections = sum(exact * config.features * size for size in sizes if 0 < config.features < size)
    return projections + (_weights(config, deep_size) if frozen else 0)


def _weights(config: ESampConfig, size: int) -> int:
    """Bytes of the weights of the network for states of `size`."""
    matrices = 3 if config.block == "swiglu" else 2
    return BYTES[config.dtype] * matrices * config.depth * size * config.width


def feature_count(config: ESampConfig, size: int) -> int:
    """m + 1: features of a state of `size`, projected or not, and the constant."""
    return (config.features if 0 < config.features < size else size) + 1
