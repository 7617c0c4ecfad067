"""The least that one decode step of ESamp must read and write, from the shapes alone.

For R rows in G groups, states of size d read from a source of size s, b bytes a number of the states, and n bytes a
number of the bank (`ESampConfig.dtype`), a step that reads every input once and writes every result once moves::

    rows     R (2 d + s) b     hL and h1 read, h' written; h1 is not needed by the running mean
    shared   s m w             the random projection of `rls`, read once for all groups (w: 4, or 8 with float64)
    read     G S               every state tensor that predicting or learning needs
    written  G T / k           every state tensor that learning changes, in one of k steps (`update_every`)

with, for each group::

    mean     S = T = (d + 1) w                   the sum or the mean, and the count
    rls      S = T = (m + 1) d n + 8 (m + 1)^2   W, and A or a factor of it; m = `features`, or s if it is 0;
                                                 d w more with `centre`
    mlp      S = T = 3 N n + w                   N weights and Adam's two moments; N = depth x d x width x 3
                                                 (2 for `block = "mlp"`)

Telemetry, the published network's activations and gradients, and what the engine does count for nothing here.
"""

from dataclasses import dataclass

from esamp.explorer.config import ESampConfig

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
SUMS = 8
"""bytes of a number of A"""
MATRICES = {"swiglu": 3, "mlp": 2}


@dataclass(frozen=True)
class Minimum:
    """Bytes of one decode step of all rows."""

    rows: float
    shared: float
    read: float
    written: float

    @property
    def total(self) -> float:
        """All of them."""
        return self.rows + self.shared + self.read + self.written


def minimum(
    config: ESampConfig, *, rows: float, groups: int, size: int, source: int | None = None, number: int = 4
) -> Minimum | None:
    """The least bytes of one decode step; None for signals other than the state, which have no formula here.

    Args:
        config: the options.
        rows: R, in all groups together; the mean over steps, where samples start in waves.
        groups: G, the slots that take part in the step.
        size: d, of the states that the LM head projects.
        source: s, of the states that the prediction starts from; by default d.
        number: b, bytes of one number of the model's states.
    """
    if config.signal != "state":
        return None
    source = size if source is None else source
    wide, exact = BYTES[config.dtype], max(BYTES[config.dtype], 4)
    shared = 0
    if config.distiller == "mean":
        state = (size + 1) * exact
    elif config.distiller == "rls":
        projected = 0 < config.features < source
        features = (config.features if projected else source) + 1
        state = features * size * wide + SUMS * features**2 + (size * exact if config.centre else 0)
        shared = source * config.features * exact if projected else 0
    else:
        state = 3 * MATRICES[config.block] * config.depth * size * config.width * wide + exact
    inputs = size if config.distiller == "mean" else size + source
    return Minimum(rows * (inputs + size) * number, shared, groups * state, groups * state / config.update_every)
