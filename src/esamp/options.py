"""Options: every setting is declared once, as a field of an `Options` class.

Validation, command-line flags, server parameters, TOML keys and the reference documentation are all derived from
that declaration. Values are checked strictly: no string is taken for a number, no boolean for an integer, and NaN
and infinity are never numbers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, TypeAdapter, ValidationError, model_validator
from pydantic.fields import FieldInfo

from esamp.errors import OptionError


class Options(BaseModel):
    """Base of all option classes: frozen, strict, and raising `OptionError` instead of pydantic's own error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="wrap")
    @classmethod
    def _raise_option_error(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            raise OptionError(_explain(cls, error)) from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Build the options from untrusted `values` (JSON, TOML, request fields).

        Raises:
            OptionError: naming the first offending option, its value and the allowed range.
        """
        return cls.model_validate(dict(values))

    def replace(self, **changes: Any) -> Self:
        """A validated copy with `changes` applied on top of the values that were set explicitly."""
        return self.parse(self.model_dump(exclude_unset=True) | changes)


def allowed(field: FieldInfo) -> str:
    """What a field accepts, in words: ``number from 0 to 16``, ``one of 'rls', 'mlp'``."""
    schema = _field_schema(field)
    return " or ".join(_describe(part) for part in schema.get("anyOf", [schema]))


def _field_schema(field: FieldInfo) -> dict[str, Any]:
    return TypeAdapter(Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation).json_schema()


def _describe(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return "one of " + ", ".join(repr(choice) for choice in schema["enum"])
    if "const" in schema:
        return repr(schema["const"])
    if schema.get("type") == "null":
        return "nothing"
    word = {"number": "a number", "integer": "a whole number", "boolean": "true or false", "string": "a text"}
    text = word.get(schema.get("type", ""), schema.get("type", "a value"))
    for key, phrase in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "below"),
    ):
        if key in schema:
            text += f", {phrase} {schema[key]:g}"
    return text


def _explain(cls: type[Options], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"][:1]) or cls.__name__
    if first["type"] == "extra_forbidden":
        return f"unknown option '{name}' of {cls.__name__}: choose from {', '.join(sorted(cls.model_fields))}"
    if name not in cls.model_fields:
        return f"{cls.__name__}: {first['msg']}"
    value = first["input"]
    if first["type"] == "value_error":
        return f"option '{name}' = {value!r}: {first['msg'].removeprefix('Value error, ')}"
    return f"option '{name}' = {value!r}: expected {allowed(cls.model_fields[name])}"
