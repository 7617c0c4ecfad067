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

from esamp.bench.minimum import minimum
from esamp.decoding.layout import RowLayout
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer

interpreter: Any = pytest.importorskip("triton.runtime.interpreter", reason="Triton is not installed")
pytestmark = [
    pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="needs TRITON_INTERPRET=1"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # of NumPy in the interpreter
]
SAMPLES = 16
MOST = 1.6
"""The most that a step may move, as a multiple of the minimum, which counts hL and the state once for both launches."""


class Traffic:
    """Addresses that kernels have read and written, launch by launch."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._touched: dict[str, list[np.ndarray[Any, Any]]] = {"load": [], "store": []}
        for kind, after_mask in (("load", 1), ("store", 2)):
            name = f"create_masked_{kind}"
            original = getattr(interpreter.interpreter_builder, name)
            patch.setattr(interpreter.interpreter_builder, name, self._recording(original, kind, after_mask))

    def _recording(self, original: Callable[..., Any], kind: str, mask_at: int) -> Callable[..., Any]:
        def call(pointers: Any, *rest: Any) -> Any:
            size = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
            addresses = np.unique(pointers.data[rest[mask_at - 1].data])
            self._touched[kind].append(addresses[:, None] + np.arange(size, dtype=addresses.dtype))
            return original(pointers, *rest)

        return call

    def end_launch(self) -> int:
        """Bytes that the launch has read, plus those that it has written."""
        moved = 0
        for parts in self._touched.values():
            moved += len(np.unique(np.concatenate([part.ravel() for part in parts])))
            parts.clear()
        return moved


@pytest.mark.parametrize(("size", "groups"), [(192, 1), (192, 8), (1024, 1), (4096, 1)])
@pytest.mark.parametrize("distiller", ["mean", "rls"])
def test_a_step_moves_little_more_than_the_minimum(
    distiller: str, size: int, groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ESampConfig.parse({"distiller": distiller})
    explorer = Explorer(config, size, size, slots=groups, device="cpu", fused=True)
    assert [explorer.claim() for _ in range(groups)] == list(range(groups))
    layout = RowLayout.build([group for group in range(groups) for _ in range(SAMPLES)])
    live = torch.ones(groups * SAMPLES, dtype=torch.bool)
    traffic, moved = Traffic(monkeypatch), 0
    for _ in range(2):  # in the first step no row is steered
        source, final = torch.randn(2, groups * SAMPLES, size)
        with torch.no_grad():
            record = explorer.propose(source, final, final, layout, live)
            proposed = traffic.end_launch()
            explorer.learn(record, None, live)
            moved = proposed + traffic.end_launch()
    least = minimum(config, rows=groups * SAMPLES, groups=groups, size=size)
    assert least is not None
    ratio = moved / least.total
    measured = f"{moved / 1e6:.3f} MB  {ratio:.2f} x the minimum"
    sys.stdout.write(f"{distiller:<4}  d = {size:>4}  {groups} x {SAMPLES}  {measured}\n")
    assert 0.9 < ratio <= MOST
