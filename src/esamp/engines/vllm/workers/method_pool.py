"""`MethodPool`: methods built for the model, one for each set of options in use, within a memory limit."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from esamp.engines.vllm.params import ParsedRequest, check_defaults, parse
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, ModelShape

SUMS = ("rows", "rows_steered", "updates", "resets", "residual", "variance")
"""Telemetry that is summed over groups."""
MAX_UNREAD = 64
"""Reports of removed methods that stay unread on the device, at most."""


@dataclass(eq=False)
class BuiltMethod:
    """A method built for the model with one set of options, and the number of its slots."""

    key: Hashable
    method: DecodeMethod
    size: int
    """slots allocated"""
    in_use: int = 0

    def release(self, slot: int) -> None:
        self.method.release(slot)
        self.in_use -= 1

    @property
    def bytes_per_slot(self) -> float:
        """Bytes of memory of one group."""
        return self.method.nbytes / self.size


class MethodPool:
    """Builds methods. Slots for the operator's default options are allocated at start, others when they are needed."""

    def __init__(self, settings: VLLMSettings, shape: ModelShape) -> None:
        """Allocate the slots of the default options.

        Raises:
            OptionError: the default parameters are wrong, or do not fit the model.
        """
        self._settings, self._shape = settings, shape
        self._built: dict[Hashable, BuiltMethod] = {}
        self._removed: list[Callable[[], Mapping[str, float]]] = []  # reports of methods that were removed
        check_defaults(settings.defaults)
        default = parse({"method": "esamp"} | settings.defaults) or parse({"method": "esamp"})
        self._default = None if default is None else self._build(default, settings.slots)

    def __iter__(self) -> Iterator[BuiltMethod]:
        return iter(self._built.values())

    def __len__(self) -> int:
        return len(self._built)

    @property
    def nbytes(self) -> int:
        return sum(built.method.nbytes for built in self)

    def telemetry(self) -> dict[str, float]:
        """Sums over all groups of all methods, those of removed methods included. Synchronises with the device."""
        return _add_up([self._read_removed(), *(built.method.telemetry() for built in self)])

    def claim(self, request: ParsedRequest) -> tuple[BuiltMethod, int]:
        """A slot for a new group with the request's options.

        Raises:
            OptionError: the options do not fit the model, or their state does not fit into the memory limit.
        """
        if self._key(request) not in self._built:
            self._make_room(request.method.size(request.options, self._shape, slots=1))
        built = self._build(request, 1)
        slot = built.method.admit()
        if slot is None:
            built.in_use += 1  # protects it from being removed to make room for itself
            try:
                size = min(2 * built.size, self._settings.slots)
                self._make_room(built.bytes_per_slot * (size - built.size))
            finally:
                built.in_use -= 1
            built.method.grow(size)
            built.size = size
            slot = built.method.admit()
        if slot is None:
            raise OptionError("the method has no slot for another group")
        built.in_use += 1
        return built, slot

    def _build(self, request: ParsedRequest, slots: int) -> BuiltMethod:
        key = self._key(request)
        if key not in self._built:
            method = request.method.build(request.options, self._shape, slots=slots, full=request.trace)
            self._built[key] = BuiltMethod(key, method, slots)
        return self._built[key]

    @staticmethod
    def _key(request: ParsedRequest) -> Hashable:
        return request.method.name, request.options, request.trace

    def _make_room(self, more: float) -> None:
        """Make sure that `more` bytes fit into the limit for other than the default options; removes unused methods.

        Raises:
            OptionError: they do not fit.
        """
        limit = self._settings.memory * 2**20
        for key, built in list(self._built.items()):
            if self._extra_bytes + more <= limit:
                break
            if built is not self._default and not built.in_use:
                self._removed.append(built.method.report())
                del self._built[key]
                if len(self._removed) > MAX_UNREAD:
                    self._read_removed()
        if self._extra_bytes + more > limit:
            raise OptionError(
                f"the state for its options does not fit into {self._settings.memory} MiB: raise the setting 'memory'"
            )

    def _read_removed(self) -> Mapping[str, float]:
        """Sums over the removed methods. Their reports are read from the device and replaced by the sums."""
        sums = _add_up(report() for report in self._removed)
        self._removed = [lambda: sums]
        return sums

    @property
    def _extra_bytes(self) -> float:
        """Memory of all methods but the one with the default options."""
        return self.nbytes - (0 if self._default is None else self._default.method.nbytes)


def _add_up(reports: Iterable[Mapping[str, float]]) -> dict[str, float]:
    listed = list(reports)
    return {name: float(sum(report.get(name, 0.0) for report in listed)) for name in SUMS}
