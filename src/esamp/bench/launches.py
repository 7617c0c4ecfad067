"""What a decode step launches and moves: counts that do not depend on the machine.

A launch is a call of an ATen operator that is neither a view nor an allocation; composite operators count as their
parts. Its bytes are those of the tensors that it reads and writes, each once: of an expanded tensor what is stored, of
a gathered or scattered one the elements that are touched. Kernels that do not go through ATen's dispatcher, such as
those of Triton and of CUDA graphs, are not seen.
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

from esamp.bench.throughput import Arm, Subject, check_active

TOKENS = (8, 16)
"""Lengths of the two runs whose difference is counted: what happens once a run cancels."""

ALLOCATIONS = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted"})
OVERWRITES = frozenset(
    {"copy_", "fill_", "zero_", "bernoulli_", "exponential_", "normal_", "uniform_", "random_", "geometric_"}
)
"""They do not read what they write to."""
GATHERS = frozenset({"index_select", "embedding", "gather", "index", "take", "_unsafe_index"})
"""They read as many elements of their first tensor as they return."""
SCATTERS = frozenset({"index_copy_", "scatter_", "index_put_", "_index_put_impl_", "masked_scatter_"})
"""They write as many elements of their first tensor as their last one has."""
ADDITIONS = frozenset({"index_add_", "scatter_add_", "index_reduce_", "scatter_reduce_"})
"""The same, and read them as well."""
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
"""The host waits for their result, or for its size."""


@dataclass(frozen=True)
class Counts:
    """Of one decode step, or of a whole run."""

    launches: float = 0.0
    bytes: float = 0.0
    """read and written"""
    waits: float = 0.0
    """times that the host waits for the device: values read, copies to the host, results of unknown size"""
    allocations: float = 0.0
    """new tensors, results included"""
    operators: Mapping[str, float] = field(default_factory=dict)
    """launches by operator"""

    def minus(self, other: "Counts", steps: float = 1) -> "Counts":
        """The difference from `other`, divided by so many steps."""
        names = self.operators.keys() | other.operators.keys()
        each = {name: (self.operators.get(name, 0) - other.operators.get(name, 0)) / steps for name in sorted(names)}
        return Counts(
            (self.launches - other.launches) / steps,
            (self.bytes - other.bytes) / steps,
            (self.waits - other.waits) / steps,
            (self.allocations - other.allocations) / steps,
            {name: number for name, number in each.items() if number},
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


class Recorder:
    """Counts every operator that runs within ``with``, in this thread.

    With `host_reads`, also what Python reads from tensors on the CPU; where a model is compiled, watching that would
    compile it anew.
    """

    def __init__(self, *, host_reads: bool = True) -> None:
        """Start at zero."""
        self._operators, self._reads = _Operators(), _HostReads()
        self._modes: list[AbstractContextManager[Any]] = [self._reads] if host_reads else []
        self._entered = ExitStack()

    @property
    def counts(self) -> Counts:
        """So far."""
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
        """Run one operator and count it; a composite one, which inference mode leaves whole, by its parts."""
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
        call = _Call.read(func, args, kwargs, result)
        self.allocations += len(call.fresh)
        if name in ALLOCATIONS:
            return
        self.launches[name] += 1
        self.bytes += call.moved(name)
        self.waits += call.waits(name, non_blocking=bool(kwargs.get("non_blocking")))


class _HostReads(TorchFunctionMode):
    """Counts values that Python reads from a tensor on the CPU without an operator: on a GPU each would be a wait."""

    count = 0

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__) and args[0].device.type == "cpu":
            self.count += 1
        return func(*args, **(kwargs or {}))


@dataclass(frozen=True)
class _Call:
    """The tensors of one call of an operator."""

    taken: list[Tensor]
    """arguments in order, those that are written to as well"""
    changed: list[Tensor]
    """arguments that are written to"""
    given: list[Tensor]
    """``out`` arguments, which are only written to"""
    fresh: list[Tensor]
    """results with memory of their own"""

    @classmethod
    def read(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> "_Call":
        """Sort the tensors of a call."""
        call = cls([], [], [], [])
        for place, argument in enumerate(func._schema.arguments):
            found = list(_tensors(args[place] if place < len(args) else kwargs.get(argument.name)))
            writes = argument.alias_info is not None and argument.alias_info.is_write
            if writes and argument.is_out:
                call.given.extend(found)
                continue
            call.taken.extend(found)
            if writes:
                call.changed.extend(found)
        known = {id(tensor) for tensor in (*call.taken, *call.given)}
        call.fresh.extend(tensor for tensor in _tensors(result) if id(tensor) not in known)
        return call

    def moved(self, name: str) -> int:
        """Bytes read and written."""
        if name in SCATTERS | ADDITIONS and len(self.taken) > 1:
            first, *rest = self.taken
            into = touched(rest[-1]) // rest[-1].element_size() * first.element_size()
            return _sum(rest) + into * (2 if name in ADDITIONS else 1)
        taken = self.taken
        if name in GATHERS and taken:
            taken = [*self.fresh, *taken[1:]]
        elif name in OVERWRITES:
            taken = taken[1:]
        return _sum(taken) + _sum([*self.changed, *self.given, *self.fresh])

    def waits(self, name: str, *, non_blocking: bool) -> bool:
        """Whether the host waits for the device, or would if it were a GPU."""
        masked = name in ("index", "index_put_") and any(
            each.dtype in (torch.bool, torch.uint8) for each in self.taken[1:]
        )
        to_host = name in ("_to_copy", "copy_") and not non_blocking and self._leaves_device()
        return name in WAITS or masked or to_host

    def _leaves_device(self) -> bool:
        source = self.taken[-1]
        target = self.fresh[0] if self.fresh else self.taken[0]
        return source.device.type != "cpu" and target.device.type == "cpu"


def touched(tensor: Tensor) -> int:
    """Bytes of the elements that a tensor stands for, counted once along dimensions that it is expanded over."""
    if tensor.layout != torch.strided:
        return int(tensor.numel()) * tensor.element_size()
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride or not size else 1
    return count * tensor.element_size()


def _sum(tensors: list[Tensor]) -> int:
    """Bytes of all, of a tensor that comes twice once."""
    unique = {(each.data_ptr(), each.shape, each.stride(), each.dtype): each for each in tensors}
    return sum(map(touched, unique.values()))


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def count(subject: Subject, arm: Arm | None, *, on_run: Callable[[], None] | None = None) -> Counts:
    """What one decode step launches and moves, with a method or plainly (None): the difference of two runs, by step.

    Raises:
        InactiveMethodError: the method did not act.
    """
    few, many = TOKENS
    found: list[tuple[Counts, int]] = []
    for tokens in (few, few, many):  # the first run is for what is set up once
        with Recorder(host_reads=subject.states.device == "cpu") as recorder:
            run = subject.run(arm, 0, tokens)
        found.append((recorder.counts, run.steps))
        if arm is not None:
            check_active(run, arm)
        if on_run is not None:
            on_run()
    (short, fewer), (long, more) = found[1:]
    return long.minus(short, more - fewer)
