"""`combine`: several methods as one. ``esamp+fire`` is a method of states, a filter, and so on, up to a draw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from esamp.decoding.slots import FreeSlots
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.decoding.telemetry import FIELDS, Telemetry
from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, Detail, Draw, EarlyFilter, Filter, LateFilter, Method, ModelShape
from esamp.options import Options
from esamp.sampling import Sampling


def combine(parts: Sequence[type[Method]]) -> type[Method]:
    """One method that does what all `parts` do, with the options of them all.

    A filter or a draw becomes a `DecodeMethod`, also when it is alone, so that engines have one thing to run.

    Raises:
        OptionError: they make no sense together; says why.
    """
    steps = [part for part in parts if issubclass(part, DecodeMethod)]
    draws = [part for part in parts if issubclass(part, Draw)]
    acting = [part for part in parts if issubclass(part, DecodeMethod | Filter | Draw)]
    name = "+".join(part.name for part in parts)
    if len(parts) == 1 and (steps or not acting):
        return parts[0]
    _check(name, parts, steps, draws)
    base = Stack if acting else SamplerStack
    traits: dict[str, object] = dict(
        __module__=__name__,
        name=name,
        summary="; ".join(part.summary for part in parts),
        citation="; ".join(dict.fromkeys(part.citation for part in parts if part.citation != "none")),
        options=_options(name, parts),
        kind=parts[0].kind if len(parts) == 1 else "combination",
        needs=frozenset().union(*(part.needs for part in parts)),
        parts=tuple(parts),
    )
    if acting:
        acts_first = [not issubclass(part, DecodeMethod) or part.first_token for part in acting]
        traits |= dict(first_token=any(acts_first), one_request=any(part.one_request for part in parts))
    return type("".join(part.__name__ for part in parts), (base,), traits)


def _check(
    name: str, parts: Sequence[type[Method]], steps: Sequence[type[Method]], draws: Sequence[type[Method]]
) -> None:
    names = [part.name for part in parts]
    if len(set(names)) < len(names):
        raise OptionError(f"method {name!r} names one method twice")
    for several, why in ((steps, "each replaces the model's distribution"), (draws, "each chooses the tokens")):
        if len(several) > 1:
            both = " and ".join(part.name for part in several)
            raise OptionError(f"method {name!r}: {both} cannot go together, {why}: take one of them")
    for part in parts:
        if len(parts) > 1 and not issubclass(part, DecodeMethod | Filter | Draw) and part.kind != "sampler":
            raise OptionError(f"method {name!r}: {part.name} ({part.kind}) cannot be combined with others by '+'")
        if len(parts) > 1 and part.name == "vanilla":
            raise OptionError(f"method {name!r}: vanilla adds nothing to other methods, leave it out")


def _options(name: str, parts: Sequence[type[Method]]) -> type[Options]:
    """All fields of the parts' options in one class, which is an instance of each of theirs."""
    classes = tuple(dict.fromkeys(part.options for part in parts))
    owners: dict[str, str] = {}
    for part in parts:
        for field in part.options.model_fields:
            if owners.setdefault(field, part.name) != part.name:
                raise OptionError(f"method {name!r}: {owners[field]} and {part.name} both have an option {field!r}")
    needed = tuple(cls for cls in classes if not any(cls in other.__mro__[1:] for other in classes))
    if len(needed) == 1:
        return needed[0]
    return type("".join(cls.__name__ for cls in needed), needed, {"__doc__": f"Options of {name}."})


def _chained(parts: Sequence[type[Method]], options: Options, sampling: Sampling) -> Sampling:
    for part in parts:
        sampling = part.sampler(options, sampling)
    return sampling


class SamplerStack(Method):
    """Several methods that only set the engine's sampler."""

    parts: ClassVar[tuple[type[Method], ...]]

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """One after the other."""
        return _chained(cls.parts, options, sampling)


class Stack(DecodeMethod):
    """At most one method of states, then early filters, the engine's own sampler, late filters, at most one draw."""

    parts: ClassVar[tuple[type[Method], ...]]

    def __init__(
        self,
        inner: DecodeMethod | None,
        filters: Sequence[Filter],
        draw: Draw | None,
        telemetry: Telemetry,
        *,
        slots: int,
    ) -> None:
        """Use `build`."""
        self.inner, self.draw = inner, draw
        self.first_token = bool(filters) or draw is not None or (inner is not None and inner.first_token)
        self._early = [each for each in filters if isinstance(each, EarlyFilter)]
        self._late = [each for each in filters if isinstance(each, LateFilter)]
        self._telemetry = telemetry
        self._slots = FreeSlots(slots)  # of our own, where no method of states has its own
        self._reference: Tensor | None = None
        self._changed: Tensor | None = None

    @classmethod
    def _inner(cls) -> type[DecodeMethod] | None:
        return next((part for part in cls.parts if issubclass(part, DecodeMethod)), None)

    @classmethod
    def _draw(cls) -> type[Draw] | None:
        return next((part for part in cls.parts if issubclass(part, Draw)), None)

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """Those of the method of states."""
        inner = cls._inner()
        return () if inner is None else inner.layers(options, depth)

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Build every part.

        Raises:
            OptionError: a part's options do not fit the model, or the groups that a draw keeps apart are shared.
        """
        inner, draw = cls._inner(), cls._draw()
        if draw is not None and cls.crosses_requests(options):
            raise OptionError(
                f"{draw.name} keeps each prompt's samples apart, so nothing may be shared: scope = 'prompt'"
            )
        return cls(
            None if inner is None else inner.build(options, shape, slots=slots, full=full),
            [part.build(options, shape) for part in cls.parts if issubclass(part, Filter)],
            None if draw is None else draw.build(options, shape, slots=slots),
            Telemetry(slots, shape.device),
            slots=slots,
        )

    @classmethod
    def takes_first(cls, options: Options) -> bool:
        """Filters and draws act on first tokens; a method of states where its options say so."""
        return any(
            part.takes_first(options) if issubclass(part, DecodeMethod) else issubclass(part, Filter | Draw)
            for part in cls.parts
        )

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """The parts' memory added up."""
        inner, draw = cls._inner(), cls._draw()
        return (0 if inner is None else inner.size(options, shape, slots=slots)) + (
            0 if draw is None else draw.size(options, shape, slots=slots)
        )

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """Those of the part that wants the most."""
        return max((part.waves(options, n) for part in cls.parts), key=len)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """One after the other."""
        return _chained(cls.parts, options, sampling)

    @classmethod
    def steers(cls, options: Options) -> bool:
        """Whether the method of states is meant to; a filter may find nothing to drop."""
        inner = cls._inner()
        return inner is not None and inner.steers(options)

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """Whether the method of states does."""
        inner = cls._inner()
        return inner is not None and inner.crosses_requests(options)

    def admit(self) -> int | None:
        """A slot of the method of states, which the draw then has as well."""
        slot = self._slots.claim() if self.inner is None else self.inner.admit()
        if slot is not None:
            self._telemetry.clear(slot)
            if self.draw is not None:
                self.draw.clear(slot)
        return slot

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self._slots.grow(slots)
        self._telemetry.grow(slots)
        for part in (self.inner, self.draw):
            if part is not None:
                part.grow(slots)

    def release(self, slot: int) -> None:
        """Free a group's slot."""
        if self.inner is not None:
            self.inner.release(slot)
        else:
            self._slots.release(slot)

    @property
    def nbytes(self) -> int:
        """Bytes of the parts' slots."""
        return sum(part.nbytes for part in (self.inner, self.draw) if part is not None)

    def steer(self, step: DecodeStep) -> Steering:
        """What the method of states asks for, with the filters behind it."""
        steering = Steering((step.final,)) if self.inner is None else self.inner.steer(self._for_inner(step))
        self._reference = self._changed = None
        if not (self._early or self._late or self.draw):
            return steering
        return Steering(steering.states, lambda *logits: self._filtered(step, steering, logits))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Let the parts learn, and count."""
        if self.inner is not None:
            self.inner.observe(self._for_inner(step), tokens, live & self._for_inner(step).live)
        if self.draw is not None:
            self.draw.observe(step, tokens, live)
        changed = torch.zeros_like(live) if self._changed is None else self._changed & live
        counts = step.layout.to_grid(torch.stack([live, changed], -1).double(), live & step.layout.placed).sum(1)
        self._telemetry.add(step.layout.slots, rows=counts[:, 0], rows_steered=counts[:, 1])

    def detail(self) -> Detail:
        """Of the method of states; without one only the reference logits are known."""
        if self.inner is not None:
            return self.inner.detail()
        if self._reference is None:
            raise OptionError("detail() belongs between steer() and observe()")
        missing = torch.full_like(self._reference[:, 0], float("nan"), dtype=torch.float32)
        return Detail(missing, missing, self._reference)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """The method's of states, and how many rows the filters and the draw changed."""
        inner = None if self.inner is None else self.inner.report(slot)
        sums = self._telemetry.total(None if slot is None else [slot])

        def read() -> Mapping[str, float]:
            found = dict(zip(FIELDS, sums.tolist(), strict=True))
            if inner is not None:
                return {**inner(), "rows_filtered": found["rows_steered"]}
            return {"rows": found["rows"], "rows_steered": found["rows_steered"]}

        return read

    def _for_inner(self, step: DecodeStep) -> DecodeStep:
        """Exclude first tokens for methods that act only on decode steps."""
        if self.inner is None or self.inner.first_token or not self.first_token:
            return step
        return replace(step, live=step.live & (step.rows.position > 0))

    def _filtered(self, step: DecodeStep, steering: Steering, logits: Sequence[Tensor]) -> Combined:
        combined = steering.combine(*logits)
        self._reference = logits[0]
        new = combined.logits
        for each in self._early:
            new = each.apply(new, step.rows)
        new = self._kept(step, combined.logits, new)
        if not (self._late or self.draw):
            return Combined(new, combined.rescore, combined.late)
        inner_late = combined.late
        return Combined(new, combined.rescore, lambda filtered: self._drawn(step, filtered, inner_late))

    def _drawn(self, step: DecodeStep, logits: Tensor, inner: Callable[[Tensor], Tensor] | None) -> Tensor:
        new = logits if inner is None else inner(logits)
        for each in self._late:
            new = each.apply(new, step.rows)
        if self.draw is not None:
            chosen = self.draw.choose(new, step).unsqueeze(1)
            new = torch.full_like(new, float("-inf")).scatter(1, chosen, 0.0)
        return self._kept(step, logits, new)

    def _kept(self, step: DecodeStep, old: Tensor, new: Tensor) -> Tensor:
        """`new` on live rows; notes which of them differ."""
        if new is old:
            return old
        new = torch.where(step.live.unsqueeze(1), new, old)
        changed = (new != old).any(-1)
        self._changed = changed if self._changed is None else self._changed | changed
        return new
