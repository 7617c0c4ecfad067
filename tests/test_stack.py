"""Several methods as one: names, options, slots, who acts on which token, what is counted, what is refused."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import pytest
import torch
from pydantic import Field
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig
from esamp.methods import registry
from esamp.methods.base import (
    DecodeMethod,
    Detail,
    Draw,
    EarlyFilter,
    LateFilter,
    Method,
    ModelShape,
    Need,
)
from esamp.methods.esamp import ESamp
from esamp.methods.filters.fire import FireOptions
from esamp.methods.filters.min_p import MinPOptions
from esamp.methods.filters.xtc import XTCOptions
from esamp.methods.stack import SamplerStack, Stack, combine
from esamp.options import Options, narrowed
from esamp.sampling import Sampling
from support.step_rows import plain_rows

D, V = 8, 13
SHAPE = ModelShape(D, {1: D}, 4, torch.device("cpu"), vocabulary=V, line_breaks=lambda: (3,))


@pytest.fixture(autouse=True)
def _no_gradients() -> Any:
    with torch.inference_mode():
        yield


@dataclass
class Head:
    weight: Tensor
    is_linear: bool = True
    has_rows: bool = True

    def __call__(self, states: Tensor) -> Tensor:
        return states @ self.weight.T

    def rows(self, tokens: Tensor) -> Tensor:
        return self.weight[tokens]

    def mean_rows(self, probabilities: Tensor) -> Tensor:
        return probabilities @ self.weight


# ---- somebody else's methods


class ShiftOptions(Options):
    """Of `Shift` and `Raise`."""

    shift_by: float = Field(default=1.0, ge=0, le=9)
    """how much"""


class Raise(EarlyFilter):
    """Raises token 0."""

    name, summary, citation, options = "raise", "raise token 0", "none", ShiftOptions

    def __init__(self, by: float) -> None:
        self.by = by

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        return cls(narrowed(options, ShiftOptions).shift_by)

    def apply(self, logits: Tensor, rows: Any) -> Tensor:
        return logits + torch.nn.functional.one_hot(torch.tensor(0), logits.shape[1]) * self.by


class Double(LateFilter):
    """Doubles the logits."""

    name, summary, citation, options = "double", "double all", "Them 2020", Options

    @classmethod
    def build(cls, options: Options, shape: ModelShape) -> Self:
        return cls()

    def apply(self, logits: Tensor, rows: Any) -> Tensor:
        return logits * 2


class Best(Draw):
    """Takes the best token of the samples with even numbers, the worst of the others."""

    name, summary, citation, options = "best", "take the best", "Them 2021", Options

    def __init__(self, slots: int) -> None:
        self.slots, self.cleared, self.observed = slots, list[int](), list[Tensor]()

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        return cls(slots)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        return 100 * slots

    def grow(self, slots: int) -> None:
        self.slots = max(slots, self.slots)

    def clear(self, slot: int) -> None:
        self.cleared.append(slot)

    @property
    def nbytes(self) -> int:
        return 100 * self.slots

    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        return torch.where(step.rows.index % 2 == 0, logits.argmax(-1), logits.argmin(-1))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        self.observed.append(tokens[live])


class Worst(Best):
    """Another draw."""

    name = "worst"


class Tilt(DecodeMethod):
    """Adds token 1 by half of what token 2 has, behind the sampler, from the first token on."""

    name, summary, citation, options = "tilt", "tilt", "Them 2022", Options
    first_token = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.TOKENS})

    def __init__(self) -> None:
        self.rows = self.steps = 0
        self.taken: set[int] = set()

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        return (2,)

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        return cls()

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        return slots

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        return (1,) * n

    def admit(self) -> int | None:
        self.taken.add(slot := next(number for number in range(9) if number not in self.taken))
        return slot

    def grow(self, slots: int) -> None:
        """There is room."""

    def release(self, slot: int) -> None:
        self.taken.remove(slot)

    @property
    def nbytes(self) -> int:
        return 7

    def steer(self, step: DecodeStep) -> Steering:
        self.rows += int(step.live.sum())
        return Steering((step.final,), lambda logits: Combined(logits, late=self.tilted))

    def tilted(self, logits: Tensor) -> Tensor:
        new = logits.clone()
        new[:, 1] += new[:, 2] / 2
        return new

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        self.steps += 1

    def detail(self) -> Detail:
        return Detail(torch.ones(1), torch.ones(1), None)

    @classmethod
    def steers(cls, options: Options) -> bool:
        return True

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        return lambda: {"tilts": float(self.steps)}


# ---- decode steps


def step_at(position: int, head: Head, slots: Sequence[int | None], hidden: Tensor) -> DecodeStep:
    layout = RowLayout.build(slots)
    return DecodeStep(
        hidden * 2 + 1, {1: hidden, 2: hidden}, layout, layout.placed, head, plain_rows(len(slots), position)
    )


def given_to_sampler(method: DecodeMethod, step: DecodeStep) -> Combined:
    """What an engine does before the sampler: one projection of all states."""
    steering = method.steer(step)
    assert isinstance(step.head, Head)
    combined: Combined = steering.combine(*(step.head(state) for state in steering.states))
    return combined


def decode(method: DecodeMethod, step: DecodeStep, temperature: float = 1.0) -> Tensor:
    """The logits that a token is drawn from; the best one is drawn, and learned from."""
    combined = given_to_sampler(method, step)
    logits = combined.logits / temperature
    if combined.rescore is not None:
        logits = logits + combined.rescore / temperature
    if combined.late is not None:
        logits = combined.late(logits)
    method.observe(step, logits.argmax(-1), step.live)
    return logits


def built(method: type[Method], slots: int = 2, **options: Any) -> Stack:
    assert issubclass(method, Stack)
    return method.build(method.options(**options), SHAPE, slots=slots, full=True)


def head() -> Head:
    return Head(torch.randn(V, D))


# ---- names and options


def test_a_combination_is_named_after_its_parts_in_order() -> None:
    for name in ("esamp+fire", "fire+esamp", "esamp+top_n_sigma+xtc+fire", "min_p+penalties", "xtc"):
        method = registry.get(name)
        assert method.name == name
        assert [part.name for part in method.parts] == name.split("+")  # type: ignore[attr-defined]
        assert registry.get(name) is method
    both = registry.get("esamp+fire")
    assert both.summary == f"{ESamp.summary}; {registry.part('fire').summary}"
    assert both.citation == f"{ESamp.citation}; {registry.part('fire').citation}"
    assert combine([Raise, Double]).citation == "Them 2020"


def test_single_methods_are_returned_unchanged_except_filters_and_draws() -> None:
    assert registry.get("esamp") is ESamp
    for name in ("vanilla", "min_p", "penalties"):
        assert registry.get(name) is registry.part(name)
    kinds = {
        "xtc": "filter",
        "esamp+xtc": "combination",
        "min_p+penalties": "combination",
        "esamp+min_p": "combination",
    }
    assert {name: registry.get(name).kind for name in kinds} == kinds
    assert issubclass(registry.get("xtc"), Stack)
    assert issubclass(registry.get("esamp+min_p"), Stack)
    assert issubclass(registry.get("min_p+penalties"), SamplerStack)
    assert not issubclass(registry.get("min_p+penalties"), DecodeMethod)
    assert combine([Best]).kind == "draw"


def test_a_combination_has_the_traits_of_its_parts() -> None:
    traits = {
        (ESamp, Double): (True, False, frozenset()),
        (ESamp, registry.part("min_p")): (False, False, frozenset()),
        (Tilt,): (True, False, frozenset({Need.TOKENS})),
        (Tilt, Best): (True, True, frozenset({Need.TOKENS})),
        (Raise,): (True, False, frozenset()),
        (Best,): (True, True, frozenset()),
    }
    for parts, expected in traits.items():
        method = combine(parts)
        assert issubclass(method, DecodeMethod)
        assert (method.first_token, method.one_request, method.needs) == expected


def test_the_options_of_all_parts_are_one_class() -> None:
    method = registry.get("esamp+fire+xtc+min_p")
    options = method.options(beta=0.7, fire_k=3, xtc_probability=0.2, p_base=0.05)
    for kind, field, value in (
        (ESampConfig, "beta", 0.7),
        (FireOptions, "fire_k", 3),
        (XTCOptions, "xtc_probability", 0.2),
        (MinPOptions, "p_base", 0.05),
    ):
        assert isinstance(options, kind)
        assert dict(narrowed(options, kind))[field] == value
    assert method.options().xtc_threshold == XTCOptions().xtc_threshold  # type: ignore[attr-defined]
    assert method.options(preset="paper").distiller == "mlp"  # type: ignore[attr-defined]
    assert options.replace(fire_k=4).beta == 0.7  # type: ignore[attr-defined]
    assert set(method.options.model_fields) == set().union(
        *(registry.part(part).options.model_fields for part in method.name.split("+"))
    )
    for bad, message in ((dict(fire_k=1), "option 'fire_k' = 1"), (dict(nothing=1), "unknown option 'nothing'")):
        with pytest.raises(OptionError, match=message):
            method.options(**bad)
    with pytest.raises(OptionError, match="'mlp'"):  # what a part checks as a whole is still checked
        method.options(distiller="none")


def test_parts_of_one_options_class_share_their_settings() -> None:
    assert combine([Double, Best]).options is Options
    assert combine([Double, Raise]).options is ShiftOptions


# ---- refusals


class Clash(Double):
    """Has an option of another's name."""

    name = "clash"

    class Own(Options):
        """Of `Clash`."""

        beta: float = 1.0
        """not ESamp's"""

    options = Own


class Search(Method):
    """Makes requests."""

    name, summary, citation, options, kind = "search", "search", "none", Options, "search"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Double, Double), "names one method twice"),
        ((ESamp, Raise, ESamp), "names one method twice"),
        ((ESamp, Tilt), "esamp and tilt cannot go together, each replaces"),
        ((Best, Worst), "best and worst cannot go together, each chooses"),
        ((registry.part("vanilla"), Double), "vanilla adds nothing"),
        ((ESamp, Search), r"search \(search\) cannot be combined"),
        ((ESamp, Clash), "esamp and clash both have an option 'beta'"),
    ],
    ids=lambda value: "+".join(part.name for part in value) if isinstance(value, tuple) else "",
)
def test_methods_that_do_not_go_together_are_refused(parts: Sequence[type[Method]], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        combine(parts)


@pytest.mark.parametrize("name", ["", "esamp+", "+xtc", "esamp++xtc", "esamp+nothing", "esamp + xtc"])
def test_a_name_with_an_unknown_part_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=r"unknown method '.*: choose from .*esamp"):
        registry.get(name)


def test_a_draw_is_refused_where_prompts_share_a_state() -> None:
    with pytest.raises(OptionError, match="scope = 'prompt'"):
        built(combine([ESamp, Best]), scope="batch")
    built(combine([ESamp, Double]), scope="batch")


def test_building_with_the_options_of_one_part_is_refused() -> None:
    method = registry.get("esamp+fire")
    with pytest.raises(OptionError, match="expected FireOptions"):
        method.build(ESampConfig(), SHAPE, slots=1, full=False)  # type: ignore[attr-defined]


# ---- the sampler


def test_parts_set_the_sampler_one_after_the_other() -> None:
    for name in ("min_p+penalties", "esamp+min_p+penalties", "xtc+min_p+penalties"):
        method = registry.get(name)
        options = method.options(p_base=0.2, penalty_frequency=0.1)
        once = method.sampler(options, Sampling(temperature=0.8))
        assert once == Sampling(temperature=0.8, min_p=0.2, presence_penalty=0.5, frequency_penalty=0.1)
        assert method.sampler(options, once) == once
    with pytest.raises(OptionError, match="xtc"):
        registry.get("esamp+min_p+xtc").sampler(registry.get("esamp+min_p+xtc").options(), Sampling(temperature=0))


# ---- slots


@pytest.mark.parametrize("parts", [(Double,), (Raise, Best)], ids=["filter", "filter and draw"])
def test_a_stack_without_a_method_of_states_has_slots_of_its_own(parts: Sequence[type[Method]]) -> None:
    stack = built(combine(parts), slots=2)
    assert [stack.admit() for _ in range(3)] == [0, 1, None]
    stack.grow(4)
    assert [stack.admit() for _ in range(3)] == [2, 3, None]
    stack.grow(3)
    assert stack.admit() is None
    stack.release(1)
    assert stack.admit() == 1
    if isinstance(stack.draw, Best):
        assert stack.draw.cleared == [0, 1, 2, 3, 1]
        assert stack.draw.slots == 4
        assert stack.nbytes == 400


def test_the_draw_uses_the_slots_of_the_method_of_states() -> None:
    stack = built(combine([ESamp, Best]), slots=1)
    assert [stack.admit(), stack.admit()] == [0, None]
    stack.grow(3)
    assert [stack.admit(), stack.admit(), stack.admit()] == [1, 2, None]
    assert isinstance(stack.draw, Best)
    assert stack.draw.cleared == [0, 1, 2]
    stack.release(1)
    assert stack.admit() == 1
    alone = ESamp.build(ESampConfig(), SHAPE, slots=3, full=True)
    assert stack.nbytes == alone.nbytes + 300


def test_the_size_is_the_sum_of_the_parts() -> None:
    stack, options = combine([ESamp, Double, Best]), combine([ESamp, Double, Best]).options()
    assert issubclass(stack, DecodeMethod)
    assert stack.size(options, SHAPE, slots=4) == ESamp.size(ESampConfig(), SHAPE, slots=4) + 400
    assert stack.layers(options, 4) == (1,)
    alone = combine([Double])
    assert issubclass(alone, DecodeMethod)
    assert alone.size(alone.options(), SHAPE, slots=4) == 0
    assert alone.layers(alone.options()) == ()


def test_waves_are_those_of_the_part_with_the_most_waves() -> None:
    method = combine([ESamp, Double])
    assert method.waves(method.options(waves=3), 7) == (3, 2, 2)
    assert method.waves(method.options(), 7) == ESamp.waves(ESampConfig(), 7)
    assert combine([Tilt, Best]).waves(combine([Tilt, Best]).options(), 3) == (1, 1, 1)


def test_steering_and_sharing_are_those_of_the_method_of_states() -> None:
    method = combine([ESamp, Double])
    assert issubclass(method, DecodeMethod)
    for options in (dict(), dict(beta=0), dict(scope="batch")):
        assert method.steers(method.options(**options)) == ESamp.steers(ESampConfig(**options))
        assert method.crosses_requests(method.options(**options)) == ESamp.crosses_requests(ESampConfig(**options))
    alone = combine([Double])
    assert issubclass(alone, DecodeMethod)
    assert not alone.steers(alone.options())
    assert not alone.crosses_requests(alone.options())


# ---- tokens

CONFIGS: Mapping[str, dict[str, Any]] = {
    "rls": dict(beta=1.0),
    "reference": dict(beta=1.0, candidates="reference"),
    "forgetting": dict(beta=1.0, forgetting=0.8, centre=True),
    "paper": dict(preset="paper", width=8, lr=0.05, beta=1.0),
    "mean": dict(beta=1.0, distiller="mean"),
    "action": dict(signal="both", beta=1.0),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_esamp_with_filters_that_drop_nothing_is_esamp(name: str) -> None:
    """Bit by bit, and although its company is asked at the first token as well."""
    model, config = head(), CONFIGS[name]
    alone = ESamp.build(ESampConfig(**config), SHAPE, slots=2, full=True)
    stack = built(
        combine([ESamp, registry.part("top_n_sigma"), registry.part("xtc")]),
        n_sigma=100.0,
        xtc_probability=0.0,
        **config,
    )
    assert [alone.admit(), stack.admit()] == [0, 0]
    hidden = torch.randn(6, 4, D)
    slots = [0, 0, None, 0]
    plain = step_at(0, model, slots, hidden[0])
    assert torch.equal(decode(stack, plain), model(plain.final))
    for position in range(1, 6):
        step = step_at(position, model, slots, hidden[position])
        mine, theirs = decode(stack, step), decode(alone, step)
        assert torch.equal(mine, theirs)
        assert torch.equal(mine[2], model(step.final)[2])
        if position > 1:
            assert not torch.equal(mine, model(step.final))
    told, expected = stack.telemetry(0), alone.telemetry(0)
    assert told == pytest.approx({**expected, "rows_filtered": 0.0}, nan_ok=True)
    assert expected["rows"] == 3 * 5


def test_a_method_that_acts_on_the_first_token_does_so_in_a_stack() -> None:
    model = head()
    stack = built(combine([Tilt, Double]))
    stack.admit()
    step = step_at(0, model, [0, 0], torch.randn(2, D))
    logits = model(step.final)
    expected = logits.clone()
    expected[:, 1] += logits[:, 2] / 2
    torch.testing.assert_close(decode(stack, step), 2 * expected)
    assert isinstance(stack.inner, Tilt)
    assert (stack.inner.rows, stack.inner.steps) == (2, 1)
    assert stack.telemetry(0) == {"tilts": 1.0, "rows_filtered": 2.0}
    assert stack.telemetry() == {"tilts": 1.0, "rows_filtered": 2.0}


def test_filters_act_in_the_order_of_their_names_around_the_sampler() -> None:
    model = head()
    step = step_at(0, model, [0, 0], torch.randn(2, D))
    logits = model(step.final)
    raised = logits + torch.nn.functional.one_hot(torch.tensor(0), V) * 3.0
    for parts in ((Raise, Double), (Double, Raise)):
        stack = built(combine(parts), shift_by=3.0)
        stack.admit()
        combined = given_to_sampler(stack, step)
        torch.testing.assert_close(combined.logits, raised)
        assert combined.late is not None
        torch.testing.assert_close(combined.late(combined.logits / 0.5), raised * 4)
    first_sigma, first_fire = (
        built(combine([registry.part(name) for name in order]), fire_k=5, n_sigma=1.0)
        for order in (("top_n_sigma", "fire"), ("fire", "top_n_sigma"))
    )
    assert not torch.equal(given_to_sampler(first_sigma, step).logits, given_to_sampler(first_fire, step).logits)


def test_filters_follow_the_method_of_states() -> None:
    model, config = head(), ESampConfig(beta=2.0)
    alone, stack = ESamp.build(config, SHAPE, slots=1, full=True), built(combine([Raise, ESamp]), beta=2.0)
    assert [alone.admit(), stack.admit()] == [0, 0]
    for position in range(1, 4):
        step = step_at(position, model, [0, 0], torch.randn(2, D))
        fused = given_to_sampler(alone, step).logits
        alone.observe(step, fused.argmax(-1), step.live)
        raised = fused.clone()
        raised[:, 0] += 1
        torch.testing.assert_close(given_to_sampler(stack, step).logits, raised)
        stack.observe(step, fused.argmax(-1), step.live)
    assert not torch.equal(fused, model(step.final))


def test_a_draw_leaves_one_token_per_row() -> None:
    model = head()
    stack = built(combine([Double, Best]))
    stack.admit()
    step = step_at(0, model, [0, 0, None], torch.randn(3, D))
    logits = model(step.final)
    combined = given_to_sampler(stack, step)
    assert combined.late is not None
    drawn = combined.late(combined.logits)
    assert drawn[:2].argmax(-1).tolist() == [logits[0].argmax(), logits[1].argmin()]
    assert drawn[:2].isfinite().sum(-1).tolist() == [1, 1]
    assert torch.equal(drawn[2], logits[2])
    tokens = torch.tensor([4, 5, 6])
    stack.observe(step, tokens, step.live)
    assert isinstance(stack.draw, Best)
    assert [seen.tolist() for seen in stack.draw.observed] == [[4, 5]]


def test_inactive_rows_are_neither_changed_nor_counted() -> None:
    model = head()
    stack = built(combine([Raise, Double]))
    assert [stack.admit(), stack.admit()] == [0, 1]
    step = step_at(2, model, [0, 1, None, 1], torch.randn(4, D))
    step = replace(step, live=step.live & torch.tensor([True, True, True, False]))
    logits = model(step.final)
    combined = given_to_sampler(stack, step)
    assert combined.late is not None
    drawn = combined.late(combined.logits)
    assert torch.equal(drawn[2:], logits[2:])
    assert not (drawn[:2] == logits[:2]).any()
    stack.observe(step, drawn.argmax(-1), step.live)
    assert [stack.telemetry(slot) for slot in (0, 1)] == [{"rows": 1.0, "rows_steered": 1.0}] * 2
    assert stack.telemetry() == {"rows": 2.0, "rows_steered": 2.0}


def test_only_rows_that_a_filter_changed_are_counted_as_changed() -> None:
    stack = built(registry.get("fire"))
    assert [stack.admit(), stack.admit()] == [0, 1]
    model = head()
    for position in range(3):
        decode(stack, step_at(position, model, [0, 0, 1], torch.randn(3, D)))
    assert stack.telemetry(0) == {"rows": 6.0, "rows_steered": 2.0}
    assert stack.telemetry(1) == {"rows": 3.0, "rows_steered": 1.0}
    stack.release(0)
    assert stack.admit() == 0
    assert stack.telemetry(0) == {"rows": 0.0, "rows_steered": 0.0}
    assert stack.telemetry() == {"rows": 9.0, "rows_steered": 3.0}


def test_a_report_is_taken_at_once_and_read_later() -> None:
    stack, model = built(registry.get("fire")), head()
    stack.admit()
    decode(stack, step_at(0, model, [0], torch.randn(1, D)))
    taken = stack.report(0)
    decode(stack, step_at(1, model, [0], torch.randn(1, D)))
    assert taken() == {"rows": 1.0, "rows_steered": 1.0}


def test_details_are_those_of_the_inner_method_or_the_reference_logits() -> None:
    model = head()
    stack = built(registry.get("xtc"))
    stack.admit()
    with pytest.raises(OptionError, match="between steer"):
        stack.detail()
    step = step_at(1, model, [0], torch.randn(1, D))
    given_to_sampler(stack, step)
    detail = stack.detail()
    assert math.isnan(detail.novelty.item())
    assert math.isnan(detail.kl.item())
    assert detail.reference is not None
    assert torch.equal(detail.reference, model(step.final))
    inner = built(combine([Tilt, Double]))
    inner.admit()
    given_to_sampler(inner, step)
    assert inner.detail().novelty.item() == 1


def test_the_rescored_change_passes_through_a_stack() -> None:
    stack, model = built(combine([ESamp, Double]), beta=2.0, candidates="reference"), head()
    stack.admit()
    for position in (1, 2):
        step = step_at(position, model, [0, 0], torch.randn(2, D))
        combined = given_to_sampler(stack, step)
        stack.observe(step, combined.logits.argmax(-1), step.live)
    assert torch.equal(combined.logits, model(step.final))
    assert combined.rescore is not None
    assert combined.rescore.any()
    assert combined.late is not None
    torch.testing.assert_close(combined.late(combined.logits), combined.logits * 2)
