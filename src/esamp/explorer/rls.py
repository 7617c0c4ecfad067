"""Recursive least squares: a distiller that fits from the first tokens on and states its confidence."""

import torch
from torch import Tensor

from esamp.decoding.precision import exact_type, widest_type
from esamp.decoding.slots import GroupState
from esamp.explorer.distiller import Distiller, Past, Prediction, TrainingBatch

CONSTANT = 0.5
"""The constant feature beside the unit-length state."""


class RecursiveLeastSquares(Distiller):
    """Ridge regression of the target on features of the source, exact after every step.

    Features ``phi(x) = [x / rms(x) / sqrt(s), 0.5]``, or of a fixed random projection of x when `features` > 0
    (Gaussian, entries N(0, 1/m), so that lengths are kept on average). With all past rows F, Y of the group and the
    penalty lambda::

        A = lambda I + F' F         W = A^-1 F' Y         S = I - lambda A^-1
        y = phi W                   c = phi S phi' / (phi phi')

    c is the share of the feature's direction already seen: S is near zero in directions
    without data and near one in directions with much data. A step on the rows F, Y is the usual recursion::

        A += F' F                   W += A^-1 F' (Y - F W)

    which corrects its own rounding errors in W, so that W may be stored in bfloat16. A is a sum that never shrinks:
    it is kept instead of its inverse, in float64 where the device has it, because a group that repeats itself leaves
    directions at lambda while others grow without bound, and float32 loses those in time. Its smallest eigenvalue is
    lambda, so that its inverse in float64 is exact to about eight digits after a million rows. S, which serves the
    confidence alone, is kept in float32.

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
        self.exact = exact_type(dtype)
        self.sums = widest_type(device)
        self.projected = 0 < features < source_size
        self.source_size, self.size = source_size, (features if self.projected else source_size) + 1
        self.target_size = target_size
        self.ridge, self.forgetting, self.centre, self.gate = ridge, forgetting, centre, gate
        self.wide, self.device = dtype, device
        self._features = self._drawn(features, seed)
        self._eye = torch.eye(self.size, dtype=self.sums, device=device)
        self._constant = torch.zeros(self.size, dtype=self.exact, device=device)
        self._constant[-1] = CONSTANT
        self._zero = torch.zeros(1, dtype=self.sums, device=device)

    def _drawn(self, features: int, seed: int) -> Tensor | None:
        """The projection `[s, m + 1]` with a column of zeros for the constant."""
        if not self.projected:
            return None
        if torch.device(self.device).type == "meta":
            return torch.empty(self.source_size, self.size, dtype=self.exact, device=self.device)
        generator = torch.Generator().manual_seed(seed)
        gaussian = torch.randn(self.source_size, features, generator=generator) / features**0.5
        return torch.nn.functional.pad(gaussian, (0, 1)).to(self.device, self.exact)

    @property
    def projection(self) -> Tensor | None:
        """`[s, m]`, by which source states are multiplied; None where they are taken as they are."""
        return None if self._features is None else self._features[:, :-1]

    @property
    def padded_projection(self) -> Tensor | None:
        """The same `[s, m + 1]`, with a column of zeros for the constant."""
        return self._features

    @property
    def shared_bytes(self) -> int:
        """The random projection."""
        return 0 if self._features is None else self._features.nbytes

    def template(self) -> GroupState:
        """``weights`` W `[m+1, d]` and ``gram`` A `[m+1, m+1]`; gated also ``seen`` S, centred also ``mean`` `[d]`."""
        state: GroupState = {"weights": torch.zeros(self.size, self.target_size, dtype=self.wide, device=self.device)}
        if self.gate:
            state["seen"] = torch.zeros(self.size, self.size, dtype=self.exact, device=self.device)
        if self.centre:
            state["mean"] = torch.zeros(self.target_size, dtype=self.exact, device=self.device)
        return state | {"gram": torch.eye(self.size, dtype=self.sums, device=self.device) * self.ridge}

    @property
    def predicts_from(self) -> tuple[str, ...]:
        """All but A."""
        return ("weights", *["seen"] * self.gate, *["mean"] * self.centre)

    def phi(self, source: Tensor) -> Tensor:
        """Features `[..., m+1]` of source states `[..., s]`."""
        x = source.to(self.exact)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True).add_(torch.finfo(x.dtype).tiny)
        if self._features is None:
            return torch.cat([x / length, torch.full_like(length, CONSTANT)], dim=-1)
        return torch.addcdiv(self._constant, x @ self._features, length)

    def predict(self, state: GroupState, source: Tensor, past: Past) -> Prediction:
        """Ridge prediction `[G, C, d]` and confidence `[G, C]`."""
        phi = self.phi(source)
        weights = state["weights"].to(self.exact)
        value = torch.baddbmm(state["mean"].unsqueeze(1), phi, weights) if self.centre else torch.bmm(phi, weights)
        if not self.gate:
            return Prediction(value, None, (phi,))
        return Prediction(value, inner(torch.bmm(phi, state["seen"]), phi) / inner(phi, phi), (phi,))

    def learn(self, state: GroupState, batch: TrainingBatch) -> None:
        """One step of the recursion on the live rows, by ``A^-1 = R'R`` with R the inverse of A's Cholesky factor.

        A matrix that has none, because lambda rounds away beside the rows, gives huge numbers or none at all.
        """
        (phi,) = batch.prediction.kept
        wide_phi = torch.where(batch.live.unsqueeze(-1), phi, self._zero).mT
        gram, residual = state["gram"], batch.residual
        before = self._total(gram) if self.centre else None
        lost = self._forget(gram, batch.present)
        gram.baddbmm_(wide_phi, wide_phi.mT)
        root = torch.linalg.solve_triangular(torch.linalg.cholesky_ex(gram)[0], self._eye, upper=False)
        inverse = torch.bmm(root.mT, root)
        if self.gate:
            torch.sub(self._eye, inverse, alpha=self.ridge, out=state["seen"])
        weights = state["weights"].to(self.exact)  # the state's own tensor, unless it is stored in another type
        if lost is not None:
            weights.baddbmm_((lost * inverse).to(self.exact), weights.clone(), alpha=-self.ridge)
        if before is not None:
            moved = self._move_mean(state, batch).unsqueeze(1)
            residual = residual - moved
            drift = inverse @ (self.forgetting * before).unsqueeze(2)
            weights.sub_(drift.to(self.exact) * moved)
        weights.baddbmm_(torch.bmm(inverse, wide_phi).to(self.exact), residual)
        if weights.dtype != self.wide:
            state["weights"].copy_(weights)

    def _forget(self, gram: Tensor, present: Tensor) -> Tensor | None:
        """Let A fade toward lambda I in the groups `present` `[G]`; returns the share `[G, 1, 1]` that it lost."""
        if self.forgetting == 1:
            return None
        lost = (1 - self.forgetting) * present.to(self.sums).view(-1, 1, 1)
        gram.mul_(1 - lost).add_(self._eye * lost, alpha=self.ridge)
        return lost

    def _total(self, gram: Tensor) -> Tensor:
        """The (weighted) sum of the features `[G, m+1]`, read off A: its last entry is the row count times 0.5."""
        column = gram[..., -1].clone()
        column[..., -1] -= self.ridge
        return column / CONSTANT

    def _move_mean(self, state: GroupState, batch: TrainingBatch) -> Tensor:
        """Move the (weighted) mean of the targets by ``sum(y - mean) / count`` over the live rows; returns that."""
        count = self._total(state["gram"])[..., -1:].to(self.exact) / CONSTANT
        distance = batch.target.sum(1) - batch.live.sum(1, keepdim=True) * state["mean"]
        moved = distance / count.clamp_min(1e-6)
        state["mean"].add_(moved)
        return moved


def squares(vectors: Tensor) -> Tensor:
    """Squared lengths `[G, C]` of `vectors` `[G, C, m]`."""
    return inner(vectors, vectors)


def inner(left: Tensor, right: Tensor) -> Tensor:
    """Inner products `[G, C]` of the vectors in `left` and `right` `[G, C, m]`, in one operation."""
    groups, lanes, size = left.shape
    products = torch.bmm(left.reshape(-1, 1, size), right.reshape(-1, size, 1))
    return products.view(groups, lanes)
