"""Calls distillers as the explorer does in a decode step: predict, then learn."""

import torch
from torch import Tensor

from esamp.decoding.slots import GroupState
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
"""The slots of the rows of eight decode steps (None: no slot): three groups join, leave, grow and interleave."""


def fresh(distiller: Distiller, groups: int = 1) -> GroupState:
    """The initial state of `groups` groups."""
    template = {**distiller.template(), **distiller.moments()}
    return {name: tensor.expand(groups, *tensor.shape).clone() for name, tensor in template.items()}


def empty_past(groups: int, size: int) -> Past:
    """An empty past, for distillers that keep a mean of their own."""
    return Past(torch.zeros(groups, 1, size, dtype=torch.float64), torch.zeros(groups, 1, dtype=torch.float64))


def predict(distiller: Distiller, state: GroupState, source: Tensor, size: int = 1) -> Prediction:
    """The prediction `[G, C, d]` for `source` `[G, C, s]`; its confidence `[G, C]` is 1 for distillers without one."""
    raw = distiller.predict(state, source, empty_past(source.shape[0], size))
    lanes = (source.shape[0], source.shape[1])
    value = raw.value.expand(*lanes, raw.value.shape[-1])
    confidence = torch.ones(lanes) if raw.confidence is None else raw.confidence.expand(lanes)
    return Prediction(value, confidence, raw.kept)


def learn(
    distiller: Distiller, state: GroupState, source: Tensor, target: Tensor, live: Tensor, slope: Tensor | None = None
) -> None:
    """Train on the rows that are set in `live` `[G, C]`; updates `state` in place."""
    mask = live.unsqueeze(-1)
    prediction = distiller.predict(state, source * mask, empty_past(*target.shape[::2]))
    exact = prediction.value.dtype
    masked = (target.to(exact) * mask, (target.to(exact) - prediction.value) * mask)
    distiller.learn(state, TrainingBatch(prediction, *masked, live, live.any(1), slope))


def named_matrices(network: ResidualNetwork, vector: Tensor) -> dict[str, Tensor]:
    """The matrices `[depth, in, out]` of a network by name, from its `vector` of weights `[numbers]`."""
    matrices: dict[str, list[Tensor]] = {"up": [], "gate": [], "down": []}
    for into, down in network.matrices(vector.unsqueeze(0)):
        for name, matrix in zip(("up", "gate"), into[0].split(network.config.width, dim=1), strict=False):
            matrices[name].append(matrix)
        matrices["down"].append(down[0])
    return {name: torch.stack(blocks) for name, blocks in matrices.items() if blocks}
