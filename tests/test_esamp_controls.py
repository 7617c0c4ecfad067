"""`esamp_roll` and `esamp_static`: whose error steers a sample, and what is learned about which prompt."""

from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.decoding.step import DecodeStep
from esamp.engines.base import Request
from esamp.engines.checks import check_active
from esamp.engines.hf import HFEngine
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, ModelShape
from esamp.methods.esamp_roll import next_row
from esamp.sampling import Sampling
from support.step_rows import plain_rows

D = 4
SHAPE = ModelShape(D, {1: D}, 4, torch.device("cpu"))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


class Head:
    is_linear = True
    has_rows = False

    def rows(self, tokens: Tensor) -> Tensor:
        raise AssertionError("not asked for")

    mean_rows = rows


def decode_step(slots: Sequence[int | None], final: Tensor, live: Sequence[bool] | None = None) -> DecodeStep:
    mask = torch.ones(len(slots), dtype=torch.bool) if live is None else torch.tensor(live)
    return DecodeStep(final, {1: final}, RowLayout.build(slots), mask, Head(), plain_rows(len(slots)))


def build(name: str, slots: int, **options: object) -> DecodeMethod:
    method = registry.get(name)
    assert issubclass(method, DecodeMethod)
    built = method.build(method.options.parse(options), SHAPE, slots=slots, full=False)
    assert [built.admit() for _ in range(slots)] == list(range(slots))
    return built


def test_each_row_gets_the_next_live_row_of_its_own_group() -> None:
    values = torch.arange(1.0, 9.0).unsqueeze(1)  # rows 1 to 8
    slots = [0, 1, 0, None, 0, 1, 0, 2]
    live = [True, True, False, True, True, True, True, True]
    step = decode_step(slots, values.expand(-1, D), live)
    # group 0 has rows 1, 5 and 7 (row 3 is finished), group 1 has rows 2 and 6, group 2 has row 8 alone
    assert next_row(step, values).flatten().tolist() == [5, 6, 0, 0, 7, 2, 1, 0]


def test_rolling_applies_the_error_of_the_next_sample() -> None:
    plain, rolled = build("esamp", 1, gate=False), build("esamp_roll", 1, gate=False)
    for _ in range(3):
        final = torch.randn(3, D)
        moved = []
        for method in (plain, rolled):
            step = decode_step([0, 0, 0], final)
            moved.append(method.steer(step).states[0] - final)
            method.observe(step, torch.zeros(3, dtype=torch.long), step.live)
    torch.testing.assert_close(moved[1], moved[0].roll(-1, 0))
    assert moved[0].abs().max() > 0.01


def test_static_is_the_distance_from_the_mean_of_all_other_groups() -> None:
    method = build("esamp_static", 3, beta=0.5)
    seen: dict[int, list[Tensor]] = {0: [], 1: [], 2: []}
    for slots in ([0, 0], [0, 1], [2, 1, 1, 0], [0, 1, 2]):
        final = torch.randn(len(slots), D) + 2
        step = decode_step(slots, final)
        moved = method.steer(step).states[0] - final
        for row, slot in enumerate(slots):
            others = [state for other, states in seen.items() if other != slot for state in states]
            expected = 0.5 * (final[row] - torch.stack(others).mean(0)) if others else torch.zeros(D)
            torch.testing.assert_close(moved[row], expected, atol=1e-5, rtol=1e-5)
        method.observe(step, torch.zeros(len(slots), dtype=torch.long), step.live)
        for row, slot in enumerate(slots):
            seen[slot].append(final[row])


def test_static_reports_that_requests_influence_each_other() -> None:
    method = registry.get("esamp_static")
    assert issubclass(method, DecodeMethod)
    assert method.crosses_requests(method.options())
    with pytest.raises(OptionError, match="'distiller' = 'rls'"):
        method.options.parse({"distiller": "rls"})


@pytest.mark.parametrize("name", ["esamp_roll", "esamp_static"])
def test_the_controls_decode_on_a_real_model(name: str) -> None:
    engine = HFEngine.load(batch_rows=16)
    prompts = ("Numbers 3 5 8 9 target 24", "Numbers 2 6 7 target 20")
    sampling = Sampling(max_tokens=12)
    requests = [Request(prompt, prompt, n=3, sampling=sampling, method=name) for prompt in prompts]
    for completion in engine.generate(requests):
        check_active(completion)
        assert completion.telemetry["resets"] == 0
