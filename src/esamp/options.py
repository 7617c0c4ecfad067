"""Options: every setting is declared once, as a field of an `Options` class.

Validation, command-line flags, server parameters, TOML keys and the reference documentation are all derived from
that declaration. Values are checked strictly: no string is taken for a number, no boolean for an integer, and NaN
and infinity are never numbers.
"""

from collections.abc import Mapping
from inspect import cleandoc
from textwrap import fill
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from esamp.errors import OptionError
from esamp.quoting import did_you_mean, shown


class Options(BaseModel):
    """Base of all option classes: frozen, strict, and raising `OptionError` instead of pydantic's own error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """List the options with their defaults in the class's docstring, where ``help()`` shows them."""
        super().__pydantic_init_subclass__(**kwargs)
        listed = [_documented(name, field) for name, field in cls.model_fields.items()]
        cls.__doc__ = "\n".join([cleandoc(cls.__doc__ or ""), "", "Options:", *listed])

    def __init__(self, /, **values: Any) -> None:
        """Check `values` as the fields declare them. pydantic calls this for every way to create options.

        Raises:
            OptionError: naming the first offending option, its value and the allowed range.
        """
        for name in values:
            if name not in type(self).model_fields:  # before pydantic, whose error would list all unknown names
                raise OptionError(_unknown(type(self), name))
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise OptionError(_explain(type(self), error)) from None
        # Values that a preset filled in do not count as set explicitly: another preset may still change them.
        self.model_fields_set.intersection_update(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build the options from untrusted `values` (JSON, TOML, request fields).

        Raises:
            OptionError: naming the first offending option, its value and the allowed range.
        """
        return cls(**{str(name): value for name, value in values.items()})

    def replace(self, **changes: Any) -> Self:
        """A validated copy with `changes` applied on top of the values that were set explicitly."""
        explicit = {name: value for name, value in self if name in self.model_fields_set}
        return self.parse(explicit | changes)


def _documented(name: str, field: FieldInfo) -> str:
    default = "" if field.is_required() else f" = {field.get_default(call_default_factory=True)!r}"
    text = f"{name}{default}: {' '.join((field.description or '').split())}"
    return fill(text, 96, initial_indent=" " * 4, subsequent_indent=" " * 8)


Kind = TypeVar("Kind", bound=Options)


def narrowed(options: Options, kind: type[Kind]) -> Kind:
    """`options` with the type `kind`, for methods, which engines give options of type `Options`.

    Raises:
        OptionError: they are options of another method.
    """
    if not isinstance(options, kind):
        raise OptionError(f"expected {kind.__name__}, not {type(options).__name__}")
    return options


def allowed(field: FieldInfo) -> str:
    """A description of the values that a field accepts: ``a number from 0 to 16``, ``one of 'rls', 'mlp'``.

    For optional fields None is not mentioned.
    """
    schema = _field_schema(field)
    parts = [part for part in schema.get("anyOf", [schema]) if part.get("type") != "null"]
    return " or ".join(_describe(part) for part in parts)


def _field_schema(field: FieldInfo) -> dict[str, Any]:
    annotation: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return TypeAdapter(annotation).json_schema()


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(repr(choice) for choice in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "array":
        item = schema.get("items", schema.get("prefixItems", [{}])[0])
        return f"a list, each {_describe(item)}"
    kind = str(schema.get("type", "a value"))
    words = {
        "number": "a number",
        "integer": "a whole number",
        "boolean": "true or false",
        "string": "a text",
        "object": "a table",
    }
    return words.get(kind, kind) + _describe_range(schema)


def _describe_range(schema: dict[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {_digits(schema['minimum'])} to {_digits(schema['maximum'])}"
    phrases = {
        "minimum": "at least",
        "exclusiveMinimum": "above",
        "maximum": "at most",
        "exclusiveMaximum": "below",
        "minLength": "of length at least",
        "maxLength": "of length at most",
    }
    given = [f"{phrase} {_digits(schema[key])}" for key, phrase in phrases.items() if key in schema]
    return "".join(f", {phrase}" for phrase in given)


def _digits(bound: float) -> str:
    """A bound in digits, ``1000000`` and not ``1e+06``; powers of two above 2**30 as ``2**63``."""
    if bound != int(bound):
        return repr(bound)
    exponent = int(bound).bit_length() - 1
    return f"2**{exponent}" if exponent > 30 and bound == 2**exponent else str(int(bound))


def _explain(cls: type[Options], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    reason = first["msg"].removeprefix("Value error, ")
    if name not in cls.model_fields:
        return f"{cls.__name__}: {reason}"
    if first["type"] == "missing":
        return f"option {name!r} is missing: expected {allowed(cls.model_fields[name])}"
    if first["type"] == "value_error":
        return f"option {name!r} = {shown(first['input'])}: {reason}"
    return f"option {name!r} = {shown(first['input'])}: expected {allowed(cls.model_fields[name])}"


def _unknown(cls: type[Options], name: str) -> str:
    known = sorted(cls.model_fields)
    close = did_you_mean(name, known)
    return f"unknown option {shown(name)} of {cls.__name__}{close}: choose from {', '.join(known) or 'none'}"
