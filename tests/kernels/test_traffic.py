"""Bytes that the fused kernels of a step read and write, counted under Triton's interpreter.

In a launch every byte counts once: what several programs read comes from the GPU's cache. docs/throughput.md has the
table, which ``TRITON_INTERPRET=1 python -m pytest -rP tests/kernels/test_traffic.py`` prints.
"""

import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import _disable_current_modes

from esamp.bench.launches import Recorder
from esamp.bench.minimum import minimum
from esamp.decoding.layout import RowLayout
from esamp.explorer import fused, fused_network
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer

interpreter: Any = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of NumPy in the interpreter
]
SAMPLES = 16
CASES = [
    ("mean", {"distiller": "mean"}, 192, 1.6),
    ("mean", {"distiller": "mean"}, 1024, 1.6),
    ("rls", {}, 192, 1.6),
    ("rls", {}, 1024, 1.6),
    ("published", {"preset": "paper"}, 64, 2.2),
]
"""Distiller, its options, d, and the most that a step may move as a multiple of the minimum, which counts hL and the
state once for both launches."""


class Traffic:
    """Bytes that kernels read and write; in a launch each counts once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._bytes = 0
        self._touched: dict[str, list[np.ndarray[Any, Any]]] = {"load": [], "store": []}
        for kind, mask_at in (("load", 1), ("store", 2)):
            name = f"create_masked_{kind}"
            original = getattr(interpreter.interpreter_builder, name)
            patch.setattr(interpreter.interpreter_builder, name, self._recording(original, kind, mask_at))
        for module in (fused, fused_network):
            patch.setattr(module, "launch", self._launching(module.launch))

    def take(self) -> int:
        """Bytes since the last call."""
        taken, self._bytes = self._bytes, 0
        return taken

    def _launching(self, launch: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any, **constants: Any) -> None:
            with _disable_current_modes():  # the interpreter runs operations of torch, which are not the step's
                launch(*arguments, **constants)
            for parts in self._touched.values():
                self._bytes += len(np.unique(np.concatenate([part.ravel() for part in parts])))
                parts.clear()

        return call

    def _recording(self, original: Callable[..., Any], kind: str, mask_at: int) -> Callable[..., Any]:
        def call(pointers: Any, *rest: Any) -> Any:
            size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
            addresses = np.unique(pointers.data[rest[mask_at - 1].data])
            self._touched[kind].append(addresses[:, None] + np.arange(size, dtype=addresses.dtype))
            return original(pointers, *rest)

        return call


@pytest.mark.parametrize(("name", "options", "size", "most"), CASES, ids=str)
def test_a_step_moves_little_more_than_the_minimum(
    name: str, options: dict[str, Any], size: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ESampConfig.parse(options)
    explorer = Explorer(config, size, size, slots=1, device="cpu", fused=True)
    assert explorer.claim() == 0
    layout, live = RowLayout.build([0] * SAMPLES), torch.ones(SAMPLES, dtype=torch.bool)
    traffic, moved = Traffic(monkeypatch), 0
    for _ in range(2):  # in the first step no row is steered
        source, final = torch.randn(2, SAMPLES, size)
        with Recorder() as recorder, torch.no_grad():  # of the published network's matrix products
            explorer.learn(explorer.propose(source, final, final, layout, live), None, live)
        moved = recorder.counts.bytes + traffic.take()
    least = minimum(config, rows=SAMPLES, groups=1, size=size)
    assert least is not None
    ratio = moved / least.total
    sys.stdout.write(f"{name:<9}  d = {size:>4}  {moved / 1e6:7.3f} MB  {ratio:.2f} x the minimum\n")
    assert 0.9 < ratio <= most
