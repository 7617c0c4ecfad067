"""Counts of the launches and bytes of a decode step; they do not depend on the machine.

A launch is a call of an ATen operator that is neither a view nor an allocation; a composite operator counts as its
parts. Its bytes are those of the tensors that it reads and writes, each counted once: for an expanded tensor the stored
elements, for a gathered or scattered tensor the elements touched. Kernels that bypass ATen's dispatcher, such as those
of Triton and of CUDA graphs, are not counted.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from esamp.bench.throughput import BenchArm, Subject, check_active

TOKENS = (8, 16)
"""Tokens of the two runs whose difference is taken, so that work done once per run cancels."""

ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"})
OVERWRITES = frozenset(
    {"copy_", "fill_", "zero_", "bernoulli_", "exponential_", "normal_", "uniform_", "random_", "geometric_"}
)
"""Operators that do not read the tensor they write to."""
GATHERS = frozenset({"index_select", "embedding", "gather", "index", "take", "_unsafe_index"})
"""Operators that read as many elements of their first tensor as they return."""
SCATTERS = frozenset({"index_copy_", "scatter_", "index_put_", "_index_put_impl_", "masked_scatter_"})
"""Operators that write as many elements of their first tensor as their last tensor has."""
ADDITIONS = frozenset({"index_add_", "scatter_add_", "index_reduce_", "scatter_reduce_"})
"""Operators that read and write as many elements of their first tensor as their last tensor has."""
WAITS = frozenset(
    {
        "_local_scalar_dense",
        "nonzero",
        "masked_select",
        "_unique",
        "_unique2",
        "unique_dim",
        "unique_consecutive",
        "unique_dim_consecutive",
        "equal",
        "_linalg_check_errors",
        "repeat_interleave",
    }
)
"""Operators for whose result, or its size, the host waits."""


@dataclass(frozen=True)
class Counts:
    """Counts of one decode step, or of a run."""

    launches: float = 0.0
    bytes: float = 0.0
    """bytes read and written"""
    waits: float = 0.0
    """how often the host waits for the device: values read, copies to the host, results of unknown size"""
    allocations: float = 0.0
    """new tensors, including results"""
    operators: Mapping[str, float] = field(default_factory=dict)
    """launches by operator"""

    def minus(self, other: "Counts", steps: float = 1) -> "Counts":
        """The difference from `other`, divided by `steps`."""
        names = self.operators.keys() | other.operators.keys()
        difference = {
            name: (self.operators.get(name, 0) - other.operators.get(name, 0)) / steps for name in sorted(names)
        }
        return Counts(
            (self.launches - other.launches) / steps,
            (self.bytes - other.bytes) / steps,
            (self.waits - other.waits) / steps,
            (self.allocations - other.allocations) / steps,
            {name: number for name, number in difference.items() if number},
        )

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


class Recorder:
    """Counts every operator that this thread runs within ``with``.

    With `host_reads`, it also counts values that Python reads from tensors on the CPU. A compiled model would be
    compiled again for that.
    """

    def __init__(self, *, host_reads: bool = True) -> None:
        self._operators, self._reads = _Operators(), _HostReads()
        self._modes: list[AbstractContextManager[Any]] = [self._reads] if host_reads else []
        self._entered = ExitStack()

    @property
    def counts(self) -> Counts:
        seen = self._operators
        waits = seen.waits + self._reads.count
        return Counts(seen.launches.total(), seen.bytes, waits, seen.allocations, dict(seen.launches))

    def __enter__(self) -> Self:
        for mode in (*self._modes, self._operators):
            self._entered.enter_context(mode)
        return self

    def __exit__(self, *_: object) -> None:
        self._entered.close()


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()
        self.bytes = self.waits = self.allocations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run and count one operator; a composite one, which inference mode does not decompose, by its parts."""
        named = kwargs or {}
        if func.namespace == "prim":
            return func(*args, **named)
        with self:
            result = func.decompose(*args, **named)
        if result is NotImplemented:
            result = func(*args, **named)
            self._note(func, args, named, result)
        return result

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        name = func._schema.name.split("::")[-1]
        if func.is_view or name == "_unsafe_view":
            return
        call = _Dispatch.read(func, args, kwargs, result)
        self.allocations += len(call.results)
        if name in ALLOCATIONS:
            return
        self.launches[name] += 1
        self.bytes += call.moved(name)
        self.waits += call.waits(name, non_blocking=bool(kwargs.get("non_blocking")))


class _HostReads(TorchFunctionMode):
    """Counts reads from tensors on the CPU that need no operator; on a GPU the host would wait for each."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__) and args[0].device.type == "cpu":
            self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Dispatch:
    """The tensors of one call of an operator."""

    inputs: list[Tensor]
    """arguments in their order, including those that are written to"""
    mutated: list[Tensor]
    """arguments that are written to"""
    outputs: list[Tensor]
    """``out`` arguments, which are only written to"""
    results: list[Tensor]
    """results with memory of their own"""

    @classmethod
    def read(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> "_Dispatch":
        """Sort the tensors of a call."""
        call = cls([], [], [], [])
        for index, argument in enumerate(func._schema.arguments):
            tensors = list(_tensors(args[index] if index < len(args) else kwargs.get(argument.name)))
            writes = argument.alias_info is not None and argument.alias_info.is_write
            if writes and argument.is_out:
                call.outputs.extend(tensors)
                continue
            call.inputs.extend(tensors)
            if writes:
                call.mutated.extend(tensors)
        known = {id(tensor) for tensor in (*call.inputs, *call.outputs)}
        call.results.extend(tensor for tensor in _tensors(result) if id(tensor) not in known)
        return call

    def moved(self, name: str) -> int:
        """Bytes read and written."""
        if name in SCATTERS | ADDITIONS and len(self.inputs) > 1:
            first, *rest = self.inputs
            written = touched(rest[-1]) // rest[-1].element_size() * first.element_size()
            return _sum(rest) + written * (2 if name in ADDITIONS else 1)
        read = self.inputs
        if name in GATHERS and read:
            read = [*self.results, *read[1:]]
        elif name in OVERWRITES:
            read = read[1:]
        return _sum(read) + _sum([*self.mutated, *self.outputs, *self.results])

    def waits(self, name: str, *, non_blocking: bool) -> bool:
        """Whether the host waits for the device, or would wait if the device were a GPU."""
        masked = name in ("index", "index_put_") and any(
            each.dtype in (torch.bool, torch.uint8) for each in self.inputs[1:]
        )
        to_host = name in ("_to_copy", "copy_") and not non_blocking and self._leaves_device()
        return name in WAITS or masked or to_host

    def _leaves_device(self) -> bool:
        source = self.inputs[-1]
        target = self.results[0] if self.results else self.inputs[0]
        return source.device.type != "cpu" and target.device.type == "cpu"


def touched(tensor: Tensor) -> int:
    """Bytes of a tensor's stored elements: dimensions over which it is expanded count once."""
    if tensor.layout != torch.strided:
        return int(tensor.numel()) * tensor.element_size()
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def _sum(tensors: list[Tensor]) -> int:
    """Bytes of all tensors; a tensor that occurs twice counts once."""
    unique = {(each.data_ptr(), each.shape, each.stride(), each.dtype): each for each in tensors}
    return sum(map(touched, unique.values()))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def count(subject: Subject, arm: BenchArm | None, *, on_run: Callable[[], None] | None = None) -> Counts:
    """Counts per decode step, with a method or plainly (None), from the difference of a long and a short run.

    Args:
        subject: the model.
        arm: the method; None for plain sampling.
        on_run: called after each of the three runs.

    Raises:
        InactiveMethodError: the method did not act.
    """
    few, many = TOKENS
    runs: list[tuple[Counts, int]] = []
    for tokens in (few, few, many):  # the first run includes work that is done only once
        with Recorder(host_reads=subject.states.device == "cpu") as recorder:
            run = subject.run(arm, 0, tokens)
        runs.append((recorder.counts, run.steps))
        if arm is not None:
            check_active(run, arm)
        if on_run is not None:
            on_run()
    (short, short_steps), (long, long_steps) = runs[1:]
    return long.minus(short, long_steps - short_steps)
