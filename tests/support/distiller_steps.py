"""Distillers on their own: what the explorer does with them at a step, without the explorer."""

import torch
from torch import Tensor

from esamp.decoding.slots import State
from esamp.explorer.distiller import Distiller, Past, Prediction, TrainingBatch
from esamp.explorer.mlp import ResidualNetwork

MIXES: list[list[int | None]] = [
    [0],
    [0, 1, 1, None, 2],
    [1, 0, 1, 2, 0, 1],
    [2, 2, 2, None],
    [1],
    [None],
    [0, 2, 1, 2, 0, 1, 2, 0],
    [1, 1, 0],
]
"""Rows of three groups that come, go, shrink, grow and interleave."""


def fresh(distiller: Distiller, groups: int = 1) -> State:
    """The state of groups that have seen nothing."""
    template = {**distiller.template(), **distiller.moments()}
    return {name: tensor.expand(groups, *tensor.shape).clone() for name, tensor in template.items()}


def nothing_past(groups: int, size: int) -> Past:
    """What a distiller is told of the past that keeps its own mean."""
    return Past(torch.zeros(groups, 1, size, dtype=torch.float64), torch.zeros(groups, 1, dtype=torch.float64))


def predict(distiller: Distiller, state: State, source: Tensor, size: int = 1) -> Prediction:
    """The prediction `[G, C, d]` for `source` `[G, C, s]`, with a confidence `[G, C]` in any case."""
    found = distiller.predict(state, source, nothing_past(source.shape[0], size))
    lanes = (source.shape[0], source.shape[1])
    value = found.value.expand(*lanes, found.value.shape[-1])
    confidence = torch.ones(lanes) if found.confidence is None else found.confidence.expand(lanes)
    return Prediction(value, confidence, found.kept)


def learn(
    distiller: Distiller, state: State, source: Tensor, target: Tensor, live: Tensor, slope: Tensor | None = None
) -> None:
    """One step of learning on the rows in `live` `[G, C]`, in place."""
    mask = live.unsqueeze(-1)
    prediction = distiller.predict(state, source * mask, nothing_past(*target.shape[::2]))
    exact = prediction.value.dtype
    masked = (target.to(exact) * mask, (target.to(exact) - prediction.value) * mask)
    distiller.learn(state, TrainingBatch(prediction, *masked, live, live.any(1), slope))


def named_matrices(network: ResidualNetwork, vector: Tensor) -> dict[str, Tensor]:
    """The matrices `[depth, in, out]` of a network by name, from its `vector` of weights `[numbers]`."""
    found: dict[str, list[Tensor]] = {"up": [], "gate": [], "down": []}
    for into, down in network.matrices(vector.unsqueeze(0)):
        for name, matrix in zip(("up", "gate"), into[0].split(network.config.width, dim=1), strict=False):
            found[name].append(matrix)
        found["down"].append(down[0])
    return {name: torch.stack(matrices) for name, matrices in found.items() if matrices}
