"""`OverOptions`: the options of methods that draw their samples with another method."""

from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.base import DecodeMethod, Method
from esamp.options import Options


class OverOptions(Options):
    """The inner method and its options. Both are validated together with the outer options."""

    refused: ClassVar[frozenset[str]] = frozenset({"search", "selection"})
    """kinds of methods that cannot be the inner method"""

    over: str = "vanilla"
    """the method that draws the samples: any name, or several joined by +"""
    over_options: dict[str, Any] = Field(default={})
    """that method's options, as JSON"""

    @model_validator(mode="after")
    def _check_over(self) -> Self:
        self.inner_options()
        return self

    def inner(self) -> type[Method]:
        """The inner method.

        Raises:
            OptionError: there is no method of this name, or its kind is refused.
        """
        method = registry.get(self.over)
        if method.kind in self.refused:
            raise OptionError(f"option 'over' = {self.over!r}: a {method.kind} cannot run under this method")
        return method

    def inner_options(self) -> Options:
        """The inner method's options.

        Raises:
            OptionError: `over_options` has an unknown option or a value out of range.
        """
        try:
            return self.inner().options.parse(self.over_options)
        except OptionError as error:
            raise OptionError(f"over {self.over!r}: {error}") from None


def layers(method: type[Method], options: Options) -> tuple[int, ...]:
    """The residual-stream depths that a method reads, or its inner method if it draws its samples with another one.

    Some engines keep only the layers that are named when they start.

    Raises:
        OptionError: the depths depend on the model's number of layers, which is not known yet.
    """
    if issubclass(method, DecodeMethod):
        return method.layers(options)
    if isinstance(options, OverOptions):
        return layers(options.inner(), options.inner_options())
    return ()
