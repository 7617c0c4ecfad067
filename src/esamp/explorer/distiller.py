"""`Distiller`: the interface of Latent Distillers, whose learned state is stacked over groups."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from esamp.decoding.slots import GroupState
from esamp.explorer.bank import Piece

NOTHING = 1e-30
"""The number of rows of a group that has seen none: it can be divided by, and is lost in the first sum."""


class Past(NamedTuple):
    """Mean and number of a group's past targets, from its first token on."""

    mean: Tensor
    """`[G, 1, d]`: zeros before the first"""
    number: Tensor
    """`[G, 1]`: how many; `NOTHING` before the first"""

    def of(self, piece: Piece) -> "Past":
        """Of some groups."""
        return self if piece.covers(self.number) else Past(piece.of(self.mean), piece.of(self.number))


class Prediction(NamedTuple):
    """Predicted target and confidence of each row."""

    value: Tensor
    """`[G, C, d]` float32, or `[G, 1, d]` if it is the same for all rows"""
    confidence: Tensor | None
    """`[G, C]` or `[G, 1]` in [0, 1]; None where it is 1"""
    kept: tuple[Tensor, ...] = ()
    """`[G, ...]` each: what `Distiller.learn` would otherwise compute a second time"""

    @classmethod
    def joined(cls, parts: list["Prediction"]) -> "Prediction":
        """The predictions of neighbouring pieces as one."""
        if len(parts) == 1:
            return parts[0]
        confidence = [part.confidence for part in parts if part.confidence is not None]
        return cls(
            torch.cat([part.value for part in parts]),
            torch.cat(confidence) if confidence else None,
            tuple(torch.cat(each) for each in zip(*(part.kept for part in parts), strict=True)),
        )

    def of(self, piece: Piece) -> "Prediction":
        """Of some groups."""
        confidence = None if self.confidence is None else piece.of(self.confidence)
        return Prediction(piece.of(self.value), confidence, tuple(piece.of(each) for each in self.kept))


class TrainingBatch(NamedTuple):
    """Training data of one step."""

    prediction: Prediction
    """the distiller's prediction for these rows"""
    target: Tensor
    """`[G, C, d]`: the observed target; zeros in rows that are not live"""
    residual: Tensor
    """`[G, C, d]`: target - prediction, for distillers that learn from it; zeros in rows that are not live"""
    live: Tensor
    """`[G, C]` bool: rows to learn from"""
    present: Tensor
    """`[G]` bool: groups with a live row; the others must stay as they are"""
    slope: Tensor | None = None
    """`[G, C, d]`: the gradient of each row's loss in the prediction, zeros in rows that are not live; None for the
    squared error. Only a network follows another one."""

    def of(self, piece: Piece) -> "TrainingBatch":
        """For some groups."""
        if piece.covers(self.present):
            return self
        target, residual, live, present = map(piece.of, (self.target, self.residual, self.live, self.present))
        slope = None if self.slope is None else piece.of(self.slope)
        return TrainingBatch(self.prediction.of(piece), target, residual, live, present, slope)


class Distiller(ABC):
    """Predicts a target state `[G, C, d]` from a source state `[G, C, s]`, learning online, group by group.

    Implementations hold no per-group data: everything learned lives in the `GroupState` that they are given, so that
    one batched call serves any mix of groups and a bank can store, reset and grow it.
    """

    learns: ClassVar[bool] = True
    """whether `learn` is to be called at all"""
    mixes_rows: ClassVar[bool] = False
    """whether `learn` adds up what `predict` kept of each row, so that one row which is not finite reaches them all"""
    predicts_mean: bool = False
    """whether the prediction is the mean of the group's past targets, so that the two need not be told apart"""

    @abstractmethod
    def template(self) -> GroupState:
        """The state of a group that has seen nothing, without the group dimension."""

    def moments(self) -> Mapping[str, Tensor]:
        """What `learn` needs besides and `predict` does not; it survives the reset of a slot."""
        return {}

    @property
    def predicts_from(self) -> tuple[str, ...]:
        """Names of the tensors of `template` that `predict` reads."""
        return tuple(self.template())

    @property
    def shared_bytes(self) -> int:
        """Bytes of what all groups have in common."""
        return 0

    @property
    def scratch(self) -> int:
        """Bytes that `learn` takes for each group beside the state, where they are many."""
        return 0

    @abstractmethod
    def predict(self, state: GroupState, source: Tensor, past: Past) -> Prediction:
        """Predict the targets of `source` `[G, C, s]`."""

    @abstractmethod
    def learn(self, state: GroupState, batch: TrainingBatch) -> None:
        """Change `state` in place by one step on the live rows."""
