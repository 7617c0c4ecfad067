"""The group's running mean: d numbers a group. The baseline for every distiller."""

import torch
from torch import Tensor

from esamp.decoding.slots import GroupState
from esamp.explorer.distiller import NOTHING, Distiller, Past, Prediction, TrainingBatch
from esamp.explorer.rls import CONSTANT


class RunningMean(Distiller):
    """Predicts the (exponentially forgotten) mean of the group's past targets, whatever the source.

    Confidence is that of `RecursiveLeastSquares` on the constant feature alone: ``n / (n + lambda / 0.25)`` after n
    rows. Where nothing is forgotten, that is the mean which the explorer keeps anyway, and there is no other state.
    """

    def __init__(
        self,
        target_size: int,
        *,
        ridge: float = 1.0,
        forgetting: float = 1.0,
        exact: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        shared: bool = True,
    ) -> None:
        """Set up for targets of `target_size` d.

        Args:
            target_size: d.
            ridge: lambda, which only sets how fast confidence grows.
            forgetting: weight that the past keeps at each step.
            exact: type of the sum.
            device: where it is kept.
            shared: whether the distiller learns at every step, so that its mean is that of all past targets.
        """
        self.target_size, self.forgetting, self.exact, self.device = target_size, forgetting, exact, device
        self.half = ridge / CONSTANT**2
        """rows after which the mean is trusted by half"""
        self.predicts_mean = shared and forgetting == 1

    def template(self) -> GroupState:
        """Unless the explorer keeps the same mean: the ``sum`` `[d]` of the rows, and how many were ``seen`` `[1]`."""
        if self.predicts_mean:
            return {}
        return {
            "sum": torch.zeros(self.target_size, dtype=self.exact, device=self.device),
            "seen": torch.full((1,), NOTHING, dtype=self.exact, device=self.device),
        }

    def predict(self, state: GroupState, source: Tensor, past: Past) -> Prediction:
        """The mean `[G, 1, d]` and one confidence `[G, 1]` for all rows of a group."""
        if self.predicts_mean:
            return Prediction(past.mean, past.number / (past.number + self.half))
        count = state["seen"]
        return Prediction((state["sum"] / count).unsqueeze(1), count / (count + self.half))

    def learn(self, state: GroupState, batch: TrainingBatch) -> None:
        """``sum = forgetting * sum + sum of the live rows``."""
        if self.predicts_mean:
            return
        kept = 1 - (1 - self.forgetting) * batch.present.to(self.exact).unsqueeze(1)
        state["sum"].mul_(kept).add_(batch.target.sum(1))
        state["seen"].mul_(kept).add_(batch.live.sum(1, keepdim=True))
