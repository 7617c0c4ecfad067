"""The least bytes that one decode step of ESamp must read and write, from its shapes.

Take R rows in G groups, states of size d predicted from a source of size s, b bytes per number of the states, and n
bytes per number of the bank (`ESampConfig.dtype`). A step that reads every input once and writes every result once
moves these bytes::

    rows     R (2 d + s) b     hL and h1 read, h' written; the running mean does not need h1
    shared   s m w             the random projection of `rls`, read once for all groups (w: 4, or 8 with float64)
    read     G S               every state tensor that prediction or learning needs
    written  G T / k           every state tensor that learning changes, in every k-th step (`update_every`)

with, for each group::

    mean     S = T = (d + 1) w                   the sum or the mean, and the count
    rls      S = T = (m + 1) d n + 8 (m + 1)^2   W, and A or a factor of it; m = `features`, or s if it is 0;
                                                 d w more with `centre`
    mlp      S = T = 3 N n + w                   N weights and Adam's two moments; N = depth x d x width x 3
                                                 (2 for `block = "mlp"`)

Telemetry, the activations and gradients of the published network, and the engine's own work are not included.
"""

from dataclasses import dataclass

from esamp.explorer.config import ESampConfig

BYTES = {"float32": 4, "float64": 8, "bfloat16": 2}
SUMS = 8
"""Bytes of a number of A."""
MATRICES = {"swiglu": 3, "mlp": 2}
"""Weight matrices of a residual block of the published network."""


@dataclass(frozen=True)
class Minimum:
    """Bytes of one decode step with all rows."""

    rows: float
    shared: float
    read: float
    written: float

    @property
    def total(self) -> float:
        return self.rows + self.shared + self.read + self.written


def minimum(
    config: ESampConfig, *, rows: float, groups: int, size: int, source: int | None = None, number: int = 4
) -> Minimum | None:
    """The least bytes of one decode step; None for signals other than the state, for which there is no formula.

    Args:
        config: the options of ESamp.
        rows: R, of all groups together; if samples start in waves, the mean over steps.
        groups: G, the slots that take part in the step.
        size: d, size of the final hidden states.
        source: s, size of the states that the prediction starts from; by default d.
        number: b, bytes per number of the model's states.
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
