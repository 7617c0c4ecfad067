"""`Stack`: a method of states, filters and a draw that act on a decode step one after another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import Telemetry
from esamp.errors import OptionError
from esamp.methods.base import (
    DecodeMethod,
    Detail,
    Draw,
    EarlyFilter,
    Filter,
    LateFilter,
    Method,
    ModelShape,
    called_out_of_order,
)
from esamp.methods.slotted import MeasuredMethod
from esamp.methods.stack.parts import Parts
from esamp.methods.stack.slots import StackSlots
from esamp.options import Options
from esamp.sampling import Sampling


class SamplerStack(Method):
    """Several methods that only set the engine's sampler."""

    parts: ClassVar[Parts]

    @classmethod
    @override
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        return cls.parts.sampler(options, sampling)


class Stack(MeasuredMethod):
    """At most one method of states, then early filters, the engine's own sampler, late filters, at most one draw."""

    parts: ClassVar[Parts]

    def __init__(
        self,
        inner: DecodeMethod | None,
        filters: Sequence[Filter],
        draw: Draw | None,
        telemetry: Telemetry,
        *,
        slots: int,
    ) -> None:
        super().__init__(StackSlots(inner, draw, FreeSlots(slots)), telemetry)
        self.inner, self.draw = inner, draw
        self.first_token = bool(filters) or draw is not None or (inner is not None and inner.first_token)
        self._early = [part for part in filters if isinstance(part, EarlyFilter)]
        self._late = [part for part in filters if isinstance(part, LateFilter)]
        self._reference: Tensor | None = None  # `[R, V]`, the first logits of the latest step
        self._changed: Tensor | None = None  # `[R]` bool, rows that a filter or the draw changed in the latest step

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """The layers of the inner method."""
        return () if cls.parts.inner is None else cls.parts.inner.layers(options, depth)

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Build all parts.

        Raises:
            OptionError: the options do not fit the model, or groups share a state, which a draw does not allow.
        """
        inner, draw = cls.parts.inner, cls.parts.draw
        if draw is not None and cls.crosses_requests(options):
            raise OptionError(
                f"{draw.name} keeps the samples of each prompt separate, so groups must not share a state: set "
                "scope = 'prompt'"
            )
        return cls(
            None if inner is None else inner.build(options, shape, slots=slots, full=full),
            [part.build(options, shape) for part in cls.parts.filters],
            None if draw is None else draw.build(options, shape, slots=slots),
            Telemetry(slots, shape.device),
            slots=slots,
        )

    @classmethod
    def takes_first(cls, options: Options) -> bool:
        """True with a filter or a draw; otherwise as the inner method."""
        parts = cls.parts
        return bool(parts.filters or parts.draw) or (parts.inner is not None and parts.inner.takes_first(options))

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of all parts' slots."""
        return sum(
            part.size(options, shape, slots=slots) for part in (cls.parts.inner, cls.parts.draw) if part is not None
        )

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """The waves of the part that has the most of them."""
        return max((part.waves(options, n) for part in cls.parts), key=len)

    @classmethod
    @override
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        return cls.parts.sampler(options, sampling)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """As the inner method; False without one, as filters may find nothing to drop."""
        return cls.parts.inner is not None and cls.parts.inner.steers(options)

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """As the inner method; False without one."""
        return cls.parts.inner is not None and cls.parts.inner.crosses_requests(options)

    @property
    @override
    def nbytes(self) -> int:
        return sum(part.nbytes for part in (self.inner, self.draw) if part is not None)

    def steer(self, step: DecodeStep) -> Steering:
        """The states of the inner method, whose logits then pass the filters."""
        steering = Steering((step.final,)) if self.inner is None else self.inner.steer(self._for_inner(step))
        self._reference = self._changed = None
        if not (self._early or self._late or self.draw):
            return steering
        return Steering(steering.states, lambda *logits: self._filtered(step, steering, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Let the inner method and the draw observe the tokens, and count changed rows."""
        if self.inner is not None:
            inner_step = self._for_inner(step)
            self.inner.observe(inner_step, tokens, live & inner_step.live)
        if self.draw is not None:
            self.draw.observe(step, tokens, live)
        changed = torch.zeros_like(live) if self._changed is None else self._changed
        sums = self._sums(step, live, {"rows": live, "rows_steered": changed})
        self._telemetry.add(step.layout.slots, **sums)

    def detail(self) -> Detail:
        """The measurements of the inner method; without one, only the reference logits."""
        if self.inner is not None:
            return self.inner.detail()
        if self._reference is None:
            raise called_out_of_order("detail()")
        missing = torch.full_like(self._reference[:, 0], float("nan"), dtype=torch.float32)
        return Detail(missing, missing, self._reference)

    @override
    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        own = super().report(slot)
        if self.inner is None:
            return own
        inner = self.inner.report(slot)
        return lambda: {**inner(), "rows_filtered": own()["rows_steered"]}

    def measurements(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """The number of rows, and of those that a filter or the draw changed."""
        return {name: sums[name] for name in ("rows", "rows_steered")}

    def _for_inner(self, step: DecodeStep) -> DecodeStep:
        """Exclude first tokens for methods that act only on decode steps."""
        if self.inner is None or self.inner.first_token or not self.first_token:
            return step
        return replace(step, live=step.live & (step.rows.position > 0))

    def _filtered(self, step: DecodeStep, steering: Steering, logits: Sequence[Tensor]) -> Combined:
        combined = steering.combine(*logits)
        self._reference = logits[0]
        new = combined.logits
        for part in self._early:
            new = part.apply(new, step.rows)
        new = self._on_live_rows(step, combined.logits, new)
        if not (self._late or self.draw):
            return Combined(new, combined.rescore, combined.late)
        return Combined(new, combined.rescore, lambda filtered: self._drawn(step, filtered, combined.late))

    def _drawn(self, step: DecodeStep, logits: Tensor, inner: Callable[[Tensor], Tensor] | None) -> Tensor:
        new = logits if inner is None else inner(logits)
        for part in self._late:
            new = part.apply(new, step.rows)
        if self.draw is not None:
            chosen = self.draw.choose(new, step).unsqueeze(1)
            new = torch.full_like(new, float("-inf")).scatter(1, chosen, 0.0)
        return self._on_live_rows(step, logits, new)

    def _on_live_rows(self, step: DecodeStep, old: Tensor, new: Tensor) -> Tensor:
        """`new` on live rows and `old` on the others, both `[R, V]`; records which rows differ."""
        if new is old:
            return old
        new = torch.where(step.live.unsqueeze(1), new, old)
        changed = (new != old).any(-1)
        self._changed = changed if self._changed is None else self._changed | changed
        return new
