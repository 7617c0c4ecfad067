"""`ConcurrentExplorer`: learns beside the model's next forward pass, on a CUDA stream of its own."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from esamp.explorer.captured import CapturedExplorer
from esamp.explorer.record import StepInputs, StepRecord


class LaterWork(Protocol):
    """Runs one piece of work at a time, at any moment between `submit` and the end of the next `wait`."""

    def submit(self, work: Callable[[], None], *used: object) -> None:
        """Run `work` after everything that was launched before. What it `used` stays in memory until `wait`."""

    def wait(self) -> None:
        """Everything that is launched from now on comes after the work. The host does not wait."""


class SideStream:
    """`LaterWork` on a CUDA stream.

    Events order it against the stream that is current in `submit` and in `wait`. The allocator may give memory that was
    freed on one stream to later kernels of the same stream at once, so what the work reads is kept until `wait` has put
    those kernels behind the work. Memory that the work itself allocates belongs to the side stream.
    """

    def __init__(self, device: torch.device | str) -> None:
        """Create the stream on `device`, a CUDA GPU."""
        self._stream = torch.cuda.Stream(torch.device(device))
        self._used: tuple[object, ...] | None = None

    def submit(self, work: Callable[[], None], *used: object) -> None:
        self.wait()
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            work()
        self._used = used

    def wait(self) -> None:
        if self._used is not None:
            torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)
            self._used = None


class ConcurrentExplorer(CapturedExplorer):
    """An explorer whose learning overlaps with whatever comes before its next step.

    The work writes to the slots, so every other access to them waits for it, on the device alone. What is learned from
    is copied, because engines with CUDA graphs overwrite their final hidden states in the next forward pass.
    """

    def __init__(self, *arguments: Any, later: LaterWork | None = None, **settings: Any) -> None:
        """As `CapturedExplorer`. By default learning runs on a `SideStream`, unless it is one fused launch.

        Switching streams takes calls of its own, and with one launch there is little to overlap.
        """
        super().__init__(*arguments, **settings)
        device = self.tally.sums.device
        if later is None and device.type == "cuda" and (self.fused is None or self.fused.network is not None):
            later = SideStream(device)
        self._later = later

    def _propose(self, inputs: StepInputs) -> StepRecord:
        self._wait()
        if self._later is not None:
            final = inputs.final.clone()
            target = final if inputs.target is inputs.final else inputs.target.clone()
            inputs = inputs._replace(target=target, final=final)
        return super()._propose(inputs)

    def learn(self, record: StepRecord, action: Tensor | None, live: Tensor) -> None:
        if self._later is None:
            super().learn(record, action, live)
        else:
            self._later.submit(partial(super().learn, record, action, live), record, action, live)

    def claim(self) -> int | None:
        self._wait()
        return super().claim()

    def release(self, slot: int) -> None:
        self._wait()
        super().release(slot)

    def grow(self, slots: int) -> None:
        self._wait()
        super().grow(slots)

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        self._wait()
        return super().report(slot)

    def _wait(self) -> None:
        if self._later is not None:
            self._later.wait()
