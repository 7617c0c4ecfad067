"""The group's running mean: d numbers a group, nothing learned. The control that every distiller must beat."""

import torch
from torch import Tensor

from esamp.explorer.distiller import Distiller, Prediction, State
from esamp.explorer.rls import CONSTANT


class RunningMean(Distiller):
    """Predicts the (exponentially forgotten) mean of the group's past targets, whatever the source.

    Confidence is that of `RecursiveLeastSquares` on the constant feature alone: ``n / (n + lambda / 0.25)`` after n
    rows.
    """

    def __init__(
        self,
        target_size: int,
        *,
        ridge: float = 1.0,
        forgetting: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """`target_size` d; `ridge` lambda only sets how fast confidence grows."""
        self.target_size, self.ridge, self.forgetting = target_size, ridge, forgetting
        self.wide, self.device = dtype, device

    def template(self) -> State:
        """``mean`` `[d]` of the rows seen, and their (weighted) ``count`` `[1]`."""
        exact = torch.float64 if self.wide == torch.float64 else torch.float32
        return {
            "mean": torch.zeros(self.target_size, dtype=self.wide, device=self.device),
            "count": torch.zeros(1, dtype=exact, device=self.device),
        }

    def predict(self, state: State, source: Tensor) -> Prediction:
        """The mean for every row `[G, C, d]`, and one confidence per group spread over `[G, C]`."""
        mean = state["mean"].to(state["count"].dtype)
        confidence = state["count"] / (state["count"] + self.ridge / CONSTANT**2)
        return Prediction(mean.unsqueeze(1).expand(-1, source.shape[1], -1), confidence.expand(-1, source.shape[1]))

    def update(self, state: State, source: Tensor, target: Tensor, live: Tensor) -> State:
        """Move the mean by the live rows' distance from it: ``mean += sum(y - mean) / count``."""
        exact = state["count"].dtype
        mean = state["mean"].to(exact)
        count = self.forgetting * state["count"] + live.sum(-1, keepdim=True)
        distance = (target.to(exact) - mean.unsqueeze(1)) * live.unsqueeze(-1)
        mean = mean + distance.sum(1) / count.clamp_min(1e-6)
        return {"mean": mean.to(self.wide), "count": count}
