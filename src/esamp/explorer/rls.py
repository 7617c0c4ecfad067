"""Recursive least squares: the distiller that fits from the first tokens on, and says how far it can be trusted."""

import torch
from torch import Tensor

from esamp.explorer.distiller import Distiller, Prediction, State

CONSTANT = 0.5
"""The constant feature beside the unit-length state."""


class RecursiveLeastSquares(Distiller):
    """Ridge regression of the target on features of the source, exact after every step.

    Features ``phi(x) = [x / rms(x) / sqrt(s), 0.5]``, or of a fixed random projection of x when `features` > 0
    (Gaussian, entries N(0, 1/m), so that lengths are kept on average). With all past rows F, Y of the group and the
    penalty lambda::

        A = lambda I + F' F         B = F' Y
        y = phi A^-1 B              leverage = phi A^-1 phi'
        c = 1 - lambda leverage / (phi phi')

    c is the share of the feature's direction already seen. A^-1 and W = A^-1 B are the P and W of the usual recursion
    ``P -= P F' (I + F P F')^-1 F P``; keeping the sums A and B instead of P costs one Cholesky factorisation of an
    m x m matrix per step and cannot drift, however long a group lives.

    With forgetting gamma, A - lambda I and B are multiplied by gamma at each step. With `centre`, the ridge penalty
    applies to what is left after the group's mean: ``y = mean + phi A^-1 (B - sum(phi)' mean)``.
    """

    def __init__(
        self,
        source_size: int,
        target_size: int,
        *,
        features: int = 0,
        ridge: float = 1.0,
        forgetting: float = 1.0,
        centre: bool = False,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """Draw the projection. `source_size` s and `target_size` d; `features` m, 0 or m >= s for no projection.

        `dtype` is that of B, the wide part; A and its factor are float32, or float64 with a float64 bank.
        """
        self.projection: Tensor | None = None
        if 0 < features < source_size:
            generator = torch.Generator().manual_seed(seed)
            gaussian = torch.randn(source_size, features, generator=generator) / features**0.5
            self.projection = gaussian.to(device)
        self.size = (source_size if self.projection is None else features) + 1
        self.target_size = target_size
        self.ridge, self.forgetting, self.centre = ridge, forgetting, centre
        self.wide = dtype
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.device = device

    def template(self) -> State:
        """``gram`` A and its Cholesky ``factor``, `[m+1, m+1]`; ``cross`` B, `[m+1, d]`."""
        eye = torch.eye(self.size, dtype=self.exact, device=self.device)
        cross = torch.zeros(self.size, self.target_size, dtype=self.wide, device=self.device)
        return {"gram": eye * self.ridge, "factor": eye * self.ridge**0.5, "cross": cross}

    def phi(self, source: Tensor) -> Tensor:
        """Features `[..., m+1]` of source states `[..., s]`."""
        x = source.to(self.exact)
        x = x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny))
        if self.projection is not None:
            x = x @ self.projection.to(x.dtype)
        return torch.cat([x, torch.full_like(x[..., :1], CONSTANT)], dim=-1)

    def predict(self, state: State, source: Tensor) -> Prediction:
        """Ridge prediction `[G, C, d]` and confidence `[G, C]`."""
        phi = self.phi(source)
        solved = torch.cholesky_solve(phi.mT, state["factor"]).mT  # (G, C, m+1), phi A^-1
        cross = state["cross"].to(self.exact)
        if self.centre:
            mean, total = self._moments(state)
            value = mean.unsqueeze(1) + solved @ (cross - total.unsqueeze(2) * mean.unsqueeze(1))
        else:
            value = solved @ cross
        leverage = (phi * solved).sum(-1)
        confidence = 1 - self.ridge * leverage / phi.square().sum(-1)
        return Prediction(value, confidence.clamp(0, 1))

    def update(self, state: State, source: Tensor, target: Tensor, live: Tensor) -> State:
        """Add the live rows to A and B and factorise A. A failed factorisation is marked by NaN."""
        phi = self.phi(source) * live.unsqueeze(-1)
        keep, eye = self.forgetting, torch.eye(self.size, dtype=self.exact, device=phi.device)
        gram = keep * state["gram"] + (1 - keep) * self.ridge * eye + phi.mT @ phi
        cross = keep * state["cross"].to(self.exact) + phi.mT @ target.to(self.exact)
        factor, info = torch.linalg.cholesky_ex(gram)
        factor = torch.where(info.view(-1, 1, 1) == 0, factor, torch.nan)
        return {"gram": gram, "factor": factor, "cross": cross.to(self.wide)}

    def _moments(self, state: State) -> tuple[Tensor, Tensor]:
        """The (weighted) mean of the targets `[G, d]` and the sum of the features `[G, m+1]`, read off A and B."""
        constant_column = state["gram"][..., -1].clone()
        constant_column[..., -1] -= self.ridge
        total = constant_column / CONSTANT
        count = total[..., -1:] / CONSTANT
        mean = state["cross"][..., -1, :].to(self.exact) / CONSTANT / count.clamp_min(1e-6)
        return mean, total
