"""What exploration did, per group: sums kept on the device, read once at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from esamp.decoding.precision import widest_type
from esamp.decoding.slots import enlarged

FIELDS = (
    "steps",
    "rows",
    "rows_steered",
    "updates",
    "resets",
    "residual",
    "variance",
    "error_norm",
    "cos_token",
    "cos_rows",
    "kl",
    "kl_rows",
)


@dataclass(frozen=True)
class Summary:
    """Telemetry of one group, or of several added up. NaN where nothing was measured."""

    steps: float
    """decode steps in which the group had a live row"""
    rows: float
    """live rows over all steps, i.e. tokens decoded after each sample's first"""
    rows_steered: float
    """rows whose distribution was changed"""
    updates: float
    """learning steps"""
    resets: float
    """times a non-finite number wiped the group's slot"""
    residual: float
    """sum ||hL - y||^2 of predictions made before learning from the row"""
    variance: float
    """sum ||hL - running mean||^2 of the same rows"""
    explained_variance: float
    """1 - residual / variance, i.e. 1 - sum ||hL - y||^2 / sum ||hL - running mean||^2"""
    error_norm: float
    """mean ||e|| of the live rows"""
    cos_token: float
    """mean cosine of e with the LM-head row of the sampled token"""
    kl: float
    """mean KL(steered || reference) of the live rows, in nats, at temperature 1 and before filters"""

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


class Telemetry:
    """Sums `[S, F]` per slot, updated on the device without synchronisation."""

    def __init__(self, slots: int, device: torch.device | str, fields: Sequence[str] = FIELDS) -> None:
        """Zero sums of `fields` for `slots` slots, in float64 where the device has it."""
        self.fields = tuple(fields)
        self._dtype = widest_type(device)
        with torch.inference_mode(False):  # as in `Bank`
            self.sums = torch.zeros(slots, len(fields), dtype=self._dtype, device=device)
            self.retired = torch.zeros(len(fields), dtype=self._dtype, device=device)

    def grow(self, slots: int) -> None:
        """Make room for `slots` slots."""
        extra = slots - self.sums.shape[0]
        if extra > 0:
            self.sums = enlarged(self.sums, self.sums.new_zeros(extra, len(self.fields)))

    def clear(self, slot: int) -> None:
        """Move the previous group's sums into `retired`, for a new group that claims the slot."""
        self.retired += self.sums[slot]
        self.sums[slot] = 0

    def add(self, slots: Tensor, **values: Tensor) -> None:
        """Add one value `[G]` per named field to the sums of `slots` `[G]` (distinct)."""
        nothing = self.sums.new_zeros(slots.shape)
        columns = [values.pop(name).to(self._dtype) if name in values else nothing for name in self.fields]
        if values:
            raise ValueError(f"no telemetry fields: {', '.join(values)}")
        self.sums.index_add_(0, slots, torch.stack(columns, dim=-1))

    def total(self, slots: list[int] | None = None) -> Tensor:
        """Sums `[F]` of `slots`, or of all groups there ever were, as they are now."""
        return self.sums.sum(0) + self.retired if slots is None else self.sums[slots].sum(0)

    def snapshot(self, slot: int | None = None) -> Callable[[], dict[str, float]]:
        """The sums of one slot, or of all groups so far, by field: taken now, read from the device when called."""
        total = self.total(None if slot is None else [slot])
        return lambda: dict(zip(self.fields, total.tolist(), strict=True))

    def summary(self, slots: list[int] | None = None) -> Summary:
        """Add up the sums of `slots`, or of all groups there ever were. Synchronises with the device."""
        return read(self.total(slots))


def read(total: Tensor) -> Summary:
    """The summary of `Telemetry.total`. Synchronises with the device."""
    return summarise(dict(zip(FIELDS, total.tolist(), strict=True)))


def summarise(sums: Mapping[str, float]) -> Summary:
    """Turn summed fields into the means and ratios of a `Summary`; NaN for those that were not added up."""

    def ratio(top: str, bottom: str) -> float:
        return sums[top] / sums[bottom] if top in sums and sums[bottom] > 0 else float("nan")

    return Summary(
        steps=sums["steps"],
        rows=sums["rows"],
        rows_steered=sums["rows_steered"],
        updates=sums["updates"],
        resets=sums["resets"],
        residual=sums["residual"],
        variance=sums["variance"],
        explained_variance=1 - ratio("residual", "variance"),
        error_norm=ratio("error_norm", "rows"),
        cos_token=ratio("cos_token", "cos_rows"),
        kl=ratio("kl", "kl_rows"),
    )
