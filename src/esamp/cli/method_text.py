"""A method with options in one word of the command line: ``esamp:beta=1,signal=action``."""

from esamp.cli.flags import value_of
from esamp.errors import OptionError
from esamp.methods import registry

BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


def read(text: str, flag: str) -> tuple[str, dict[str, object]]:
    """The name of the method and its options, converted to the types of their fields as far as possible.

    Args:
        text: the word as the user wrote it.
        flag: the flag that it belongs to, for error messages.

    Raises:
        OptionError: there is no such method, or an option has no value.
    """
    method, _, rest = text.partition(":")
    options: dict[str, object] = {}
    fields = registry.get(method).options.model_fields
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise OptionError(f"{flag} {text}: expected an option with its value, as in beta=0.5, not {part!r}")
        options[name] = _value(fields[name].annotation, value) if name in fields else value
    return method, options


def _value(annotation: object, value: str) -> object:
    return BOOLEANS.get(value.lower(), value) if annotation is bool else value_of(annotation, value)
