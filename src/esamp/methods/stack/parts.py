"""`Parts`: the methods that are combined, the checks that they go together, and the traits of their combination."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pydantic import create_model

from esamp.errors import OptionError
from esamp.methods.base import DecodeMethod, Draw, Filter, Method, Need
from esamp.options import Options
from esamp.sampling import Sampling


@dataclass(frozen=True)
class Parts:
    """Methods in the order of their names: at most one `DecodeMethod`, at most one `Draw`, any filters and samplers."""

    methods: tuple[type[Method], ...]

    def __iter__(self) -> Iterator[type[Method]]:
        return iter(self.methods)

    @cached_property
    def inner(self) -> type[DecodeMethod] | None:
        """The method that replaces the model's distribution, if there is one."""
        return next((method for method in self.methods if issubclass(method, DecodeMethod)), None)

    @cached_property
    def filters(self) -> tuple[type[Filter], ...]:
        """The filters, in the order in which they apply."""
        return tuple(method for method in self.methods if issubclass(method, Filter))

    @cached_property
    def draw(self) -> type[Draw] | None:
        """The method that chooses the tokens, if there is one."""
        return next((method for method in self.methods if issubclass(method, Draw)), None)

    @property
    def acts(self) -> bool:
        """Whether a part acts on decode steps, rather than only setting the engine's sampler."""
        return bool(self.inner or self.filters or self.draw)

    @property
    def name(self) -> str:
        """The names joined by ``+``."""
        return "+".join(method.name for method in self.methods)

    @property
    def summary(self) -> str:
        """The summaries joined by semicolons."""
        return "; ".join(method.summary for method in self.methods)

    @property
    def citation(self) -> str:
        """The distinct citations joined by semicolons."""
        citations = dict.fromkeys(method.citation for method in self.methods)
        return "; ".join(citation for citation in citations if citation != "none")

    @property
    def kind(self) -> str:
        """The kind of a single part; "combination" for several."""
        return self.methods[0].kind if len(self.methods) == 1 else "combination"

    @property
    def needs(self) -> frozenset[Need]:
        """The needs of all parts."""
        return frozenset[Need]().union(*(method.needs for method in self.methods))

    @property
    def first_token(self) -> bool:
        """Whether a part acts on first tokens by default."""
        return bool(self.filters or self.draw) or (self.inner is not None and self.inner.first_token)

    @property
    def one_request(self) -> bool:
        """Whether a part needs groups of a single request."""
        return any(method.one_request for method in self.methods)

    @cached_property
    def options(self) -> type[Options]:
        """A class with the fields of all parts' options that derives from the class of each part.

        Raises:
            OptionError: two parts have an option of the same name.
        """
        owners: dict[str, str] = {}
        for method in self.methods:
            for field in method.options.model_fields:
                if owners.setdefault(field, method.name) != method.name:
                    raise self._refusal(f"{owners[field]} and {method.name} both have an option {field!r}")
        classes = tuple(dict.fromkeys(method.options for method in self.methods))
        bases = tuple(cls for cls in classes if not any(cls in other.__mro__[1:] for other in classes))
        if len(bases) == 1:
            return bases[0]
        name = "".join(cls.__name__ for cls in bases)
        return create_model(name, __base__=bases, __doc__=f"Options of {self.name}.", __module__=__name__)

    def sampler(self, options: Options, sampling: Sampling) -> Sampling:
        """The sampler's settings after each part has changed them in turn."""
        for method in self.methods:
            sampling = method.sampler(options, sampling)
        return sampling

    def check(self) -> None:
        """Refuse parts that do not go together.

        Raises:
            OptionError: tells which parts, and why.
        """
        if len({method.name for method in self.methods}) < len(self.methods):
            raise self._refusal("it names one method twice")
        self._check_at_most_one(DecodeMethod, "each replaces the model's distribution")
        self._check_at_most_one(Draw, "each chooses the tokens")
        if len(self.methods) == 1:
            return
        for method in self.methods:
            if not issubclass(method, DecodeMethod | Filter | Draw) and method.kind != "sampler":
                raise self._refusal(f"{method.name} ({method.kind}) cannot be combined with others by '+'")
            if method.name == "vanilla":
                raise self._refusal("vanilla adds nothing to other methods, leave it out")

    def _check_at_most_one(self, kind: type[Method], reason: str) -> None:
        names = [method.name for method in self.methods if issubclass(method, kind)]
        if len(names) > 1:
            raise self._refusal(f"{' and '.join(names)} cannot go together, {reason}: take one of them")

    def _refusal(self, reason: str) -> OptionError:
        return OptionError(f"method {self.name!r}: {reason}")
