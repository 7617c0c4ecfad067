"""The fused kernels without a GPU: under Triton's interpreter, compiled for GPUs, and where they are not to be used."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from esamp import ESampConfig
from esamp.errors import OptionError
from esamp.explorer import fused
from esamp.explorer.explorer import Explorer

triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install triton"
)


def run(*command: str, **environment: str) -> None:
    """Run Python in a process of its own: Triton reads ``TRITON_INTERPRET`` when it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, *command], env=kept | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@triton
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kernels_under_the_interpreter(root: Path) -> None:
    tests = str(root / "tests" / "kernels")
    run("-m", "pytest", "-p", "no:cacheprovider", "-q", "-x", tests, TRITON_INTERPRET="1")


@triton
@pytest.mark.slow
def test_kernels_compile_for_gpus(root: Path, tmp_path: Path) -> None:
    """The compiler refuses what the interpreter lets pass, such as a variable that changes its type."""
    script = str(root / "tests" / "kernels" / "compile_kernels.py")
    run(script, "80,90", "0,16,128", TRITON_CACHE_DIR=str(tmp_path))


OBSTACLES: list[tuple[dict[str, Any], str]] = [
    ({"signal": "action"}, "signal"),
    ({"signal": "both"}, "signal"),
    ({"signal": "contrast"}, "signal"),
    ({"dtype": "bfloat16"}, "float32"),
    ({"forgetting": 0.9}, "forgotten"),
    ({"centre": True}, "centred"),
    ({"target_layer": 3}, "inner layer"),
    ({"update_every": 2}, "every step"),
    ({"warmup": 1}, "warm-up"),
    ({"features": 0}, "projected"),
    ({"features": 200}, "projected"),
    ({"features": 129}, "128"),
    ({"preset": "paper", "width": 65536, "depth": 64}, "too large"),
]


@pytest.mark.parametrize(("options", "reason"), OBSTACLES, ids=str)
def test_settings_that_the_kernels_do_not_know_take_the_plain_path(options: dict[str, Any], reason: str) -> None:
    config, size = (
        ESampConfig.parse(options),
        200 if {"width", "features"} & {*options} and options.get("features", 99) > 20 else 20,
    )
    assert not fused.wanted(None, config, size, torch.device("cuda"), full=False)
    with pytest.raises(OptionError, match=reason):
        fused.wanted(True, config, size, torch.device("cuda"), full=False)


def test_explorers_that_cannot_be_fused_as_asked_are_refused() -> None:
    for options, more, reason in (({}, {"full": True}, "telemetry"), ({"preset": "paper"}, {"frozen": True}, "frozen")):
        with pytest.raises(OptionError, match=reason):
            Explorer(ESampConfig.parse(options), 20, 20, slots=1, device="cpu", fused=True, **more)


@pytest.mark.parametrize("options", [{}, {"distiller": "mean"}, {"beta": 0.0}, {"gate": False, "features": 128}])
def test_kernels_are_used_on_a_gpu_that_has_triton_and_nowhere_else(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ESampConfig.parse(options)
    for installed in (True, False):
        monkeypatch.setattr(fused, "find_spec", lambda name, found=installed: found or None)
        for device in ("cuda", "cpu", "meta", "mps"):
            expected = installed and device == "cuda"
            assert fused.wanted(None, config, 200, torch.device(device), full=False) == expected
            assert not fused.wanted(False, config, 200, torch.device(device), full=False)
            assert not fused.wanted(None, config, 200, torch.device(device), full=True)
    with pytest.raises(OptionError, match="triton is not installed"):
        Explorer(config, 200, 200, slots=1, device="cpu", fused=True)
    assert Explorer(config, 200, 200, slots=1, device="cpu").fused is None


def test_the_plain_path_does_not_import_triton() -> None:
    code = "import sys, esamp.explorer.explorer; assert 'esamp.explorer.kernels' not in sys.modules"
    run("-c", code)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small matrices, thousands of times."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def swept(a: torch.Tensor, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`-A^-1` and `A^-1 X`, number by number as `esamp.explorer.kernels.inverse.solved` computes them."""
    for step in range(a.shape[-1]):
        column, across, pivot = a[:, :, step], a[:, step], a[:, step, step, None]
        scaled, own = across / pivot, x[:, step] / pivot
        a, x = a - column[:, :, None] * scaled[:, None], x - column[:, :, None] * own[:, None]
        a[:, :, step], a[:, step], x[:, step] = column / pivot, scaled, own
        a[:, step, step] = -1 / pivot[:, 0]
    return a, x


@pytest.mark.slow
def test_the_kernels_arithmetic_is_stable_over_32000_steps(one_thread: None) -> None:
    """16 rows a step of two groups; in the second, of rank 2, most directions stay at lambda while others grow.

    What differs from the plain path is the inverse; features, products with W and A are the same numbers.
    """
    torch.manual_seed(0)
    ridge, m = 0.01, 9
    projection = torch.randn(64, m - 1) / (m - 1) ** 0.5
    basis, true = torch.randn(2, 64, 64), torch.randn(64, 8) / 8
    basis[1, 2:] = 0
    A = torch.eye(m, dtype=torch.float64).repeat(2, 1, 1) * ridge
    B, W = torch.zeros(2, m, 8, dtype=torch.float64), torch.zeros(2, m, 8)
    S = torch.zeros(2, m, m)

    def phi(h: torch.Tensor) -> torch.Tensor:
        z = h @ projection / h.norm(dim=-1, keepdim=True)
        return torch.cat([z, torch.full_like(z[..., :1], 0.5)], dim=-1)

    with torch.no_grad():
        for step in range(1, 32_001):
            h = torch.randn(2, 16, 64) @ basis
            F, y = phi(h), h @ true + 1
            A = A + F.double().mT @ F.double()
            B += F.double().mT @ y.double()
            negative, gain = swept(A, F.double().mT)
            W += gain.float() @ (y - F @ W)
            S = (torch.eye(m, dtype=torch.float64) + ridge * negative).float()
            if step in (100, 1_000, 10_000, 32_000):
                for probe in (h, torch.randn(2, 64, 64)):
                    f = phi(probe)
                    exact = f.double() @ torch.linalg.solve(A, B)
                    assert float((f @ W - exact).norm() / exact.norm()) < 1e-4
                    confidence = ((f @ S) * f).sum(-1) / f.square().sum(-1)
                    leverage = (f.double() * torch.linalg.solve(A, f.double().mT).mT).sum(-1) / f.double().square().sum(
                        -1
                    )
                    torch.testing.assert_close(confidence.double(), 1 - ridge * leverage, atol=1e-5, rtol=0)
