"""Recursive least squares: the distiller that fits from the first tokens on, and says how far it can be trusted."""

import torch
from torch import Tensor

from esamp.explorer.distiller import Distiller, Prediction, State

CONSTANT = 0.5
"""The constant feature beside the unit-length state."""

UNSEEN = 1e-6
"""Confidence below this is rounding: a group that has seen nothing is left alone, to the bit."""


class RecursiveLeastSquares(Distiller):
    """Ridge regression of the target on features of the source, exact after every step.

    Features ``phi(x) = [x / rms(x) / sqrt(s), 0.5]``, or of a fixed random projection of x when `features` > 0
    (Gaussian, entries N(0, 1/m), so that lengths are kept on average). With all past rows F, Y of the group and the
    penalty lambda::

        A = lambda I + F' F         W = A^-1 F' Y
        y = phi W                   leverage = phi A^-1 phi'
        c = 1 - lambda leverage / (phi phi')

    c is the share of the feature's direction already seen. A step on the rows F, Y is the usual recursion::

        A += F' F                   W += A^-1 F' (Y - F W)

    which corrects its own rounding errors in W, so that W may be stored in bfloat16. A is a sum that never shrinks:
    it is kept instead of its inverse, in float64 where the device has it, because a group that repeats itself leaves
    directions at lambda while others grow without bound, and float32 loses those (or the factorisation) in time.

    With forgetting gamma, A - lambda I and F' Y are multiplied by gamma at each step. With `centre`, the ridge penalty
    applies to what is left after the group's mean: ``y = mean + phi A^-1 (F' Y - sum(phi)' mean)``.
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
        gate: bool = True,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> None:
        """Draw the projection. `source_size` s and `target_size` d; `features` m, 0 or m >= s for no projection.

        `dtype` is that of W, the wide part. Without `gate`, confidence is not computed and 1 everywhere.
        """
        self.exact = torch.float64 if dtype == torch.float64 else torch.float32
        self.sums = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.projection: Tensor | None = None
        if 0 < features < source_size:
            generator = torch.Generator().manual_seed(seed)
            gaussian = torch.randn(source_size, features, generator=generator) / features**0.5
            self.projection = gaussian.to(device, self.exact)
        self.size = (source_size if self.projection is None else features) + 1
        self.target_size = target_size
        self.ridge, self.forgetting, self.centre, self.gate = ridge, forgetting, centre, gate
        self.wide, self.device = dtype, device

    def template(self) -> State:
        """``gram`` A `[m+1, m+1]`, ``weights`` W `[m+1, d]`; gated also A's ``factor``, centred also ``mean`` `[d]`."""
        eye = torch.eye(self.size, dtype=self.sums, device=self.device)
        weights = torch.zeros(self.size, self.target_size, dtype=self.wide, device=self.device)
        state: State = {"gram": eye * self.ridge, "weights": weights}
        if self.gate:
            state["factor"] = eye * self.ridge**0.5
        if self.centre:
            state["mean"] = torch.zeros(self.target_size, dtype=self.exact, device=self.device)
        return state

    def phi(self, source: Tensor) -> Tensor:
        """Features `[..., m+1]` of source states `[..., s]`."""
        x = source.to(self.exact)
        x = x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny))
        if self.projection is not None:
            x = x @ self.projection
        return torch.cat([x, torch.full_like(x[..., :1], CONSTANT)], dim=-1)

    def predict(self, state: State, source: Tensor) -> Prediction:
        """Ridge prediction `[G, C, d]` and confidence `[G, C]`."""
        phi = self.phi(source)
        value = phi @ state["weights"].to(self.exact)
        if self.centre:
            value = value + state["mean"].unsqueeze(1)
        if not self.gate:
            return Prediction(value, torch.ones_like(value[..., 0]))
        wide_phi = phi.to(self.sums)
        whitened = torch.linalg.solve_triangular(state["factor"], wide_phi.mT, upper=False)
        confidence = 1 - self.ridge * whitened.square().sum(1) / wide_phi.square().sum(-1)
        known = torch.where(confidence < UNSEEN, 0.0, confidence).clamp_max(1)
        return Prediction(value, known.to(self.exact))

    def update(self, state: State, source: Tensor, target: Tensor, live: Tensor) -> State:
        """One step of the recursion on the live rows. A failed factorisation is marked by NaN."""
        phi, target = self.phi(source) * live.unsqueeze(-1), target.to(self.exact)
        weights, wide_phi = state["weights"].to(self.exact), phi.to(self.sums)
        eye = torch.eye(self.size, dtype=self.sums, device=phi.device)
        gram = self.forgetting * state["gram"] + (1 - self.forgetting) * self.ridge * eye + wide_phi.mT @ wide_phi
        factor, info = torch.linalg.cholesky_ex(gram)
        factor = torch.where(info.view(-1, 1, 1) == 0, factor, torch.nan)
        new: State = {"gram": gram}
        if self.centre:
            new["mean"] = self._moved_mean(state, gram, target, live)
            target = target - new["mean"].unsqueeze(1)
        step = self._solve(factor, phi.mT) @ (target - phi @ weights)
        if self.centre:
            total = self.forgetting * self._total(state["gram"]).to(self.exact)
            step = step - self._solve(factor, total.unsqueeze(2)) * (new["mean"] - state["mean"]).unsqueeze(1)
        if self.forgetting < 1:
            step = step - (1 - self.forgetting) * self.ridge * self._solve(factor, weights)
        new["weights"] = (weights + step).to(self.wide)
        return new | ({"factor": factor} if self.gate else {})

    def _solve(self, factor: Tensor, right: Tensor) -> Tensor:
        """A^-1 `right` `[G, m+1, k]`."""
        half = torch.linalg.solve_triangular(factor, right.to(self.sums), upper=False)
        whole: Tensor = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        return whole.to(self.exact)

    def _total(self, gram: Tensor) -> Tensor:
        """The (weighted) sum of the features `[G, m+1]`, read off A: its last entry is the row count times 0.5."""
        column = gram[..., -1].clone()
        column[..., -1] -= self.ridge
        return column / CONSTANT

    def _moved_mean(self, state: State, gram: Tensor, target: Tensor, live: Tensor) -> Tensor:
        """The (weighted) mean of the targets `[G, d]` after the live rows: ``mean += sum(y - mean) / count``."""
        count = self._total(gram)[..., -1:].to(self.exact) / CONSTANT
        distance = (target - state["mean"].unsqueeze(1)) * live.unsqueeze(-1)
        return torch.addcdiv(state["mean"], distance.sum(1), count.clamp_min(1e-6))
