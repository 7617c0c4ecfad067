"""The Python program that draws the samples of a run of the page."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from esamp.options import Options
from esamp.play.settings import Choice
from esamp.study.arm import Arm


@dataclass(frozen=True)
class Origin:
    """Where the samples come from, as arguments of a program."""

    model: str | None
    """None is the only model of a server"""
    device: str = "auto"
    dtype: str = "auto"
    endpoint: str = ""
    """address of a server; empty for a model in this process"""
    chat: bool | None = None
    """whether prompts go through the chat template; None: where the model has one"""


def program(origin: Origin, choice: Choice) -> str:
    """The program; it defines `plain` and `explored`, each a list of texts.

    Every text in it is a Python literal, so that no prompt can become code.
    """
    lines = ["import esamp", "", f"prompt = {_literal(choice.prompt)}", *_engine(origin)]
    for name, arm in zip(("plain", "explored"), choice.arms, strict=True):
        lines.append(f"{name} = engine.sample({_call(arm, choice, origin)})")
    lines += ['print(*plain, sep="\\n\\n")', 'print(*explored, sep="\\n\\n")', ""]
    return "\n".join(lines)


def _engine(origin: Origin) -> list[str]:
    if origin.endpoint:
        arguments = {"engine": "openai", "base_url": origin.endpoint}
        return [f"engine = esamp.load({_literal(origin.model)}, {_keywords(arguments)})"]
    arguments = {name: value for name, value in (("device", origin.device), ("dtype", origin.dtype)) if value != "auto"}
    more = f", {_keywords(arguments)}" if arguments else ""
    return [
        "# trace=True measures each token, as the page does.",
        f"engine = esamp.HFEngine.load({_literal(origin.model)}{more}, trace=True)",
    ]


def _call(arm: Arm, choice: Choice, origin: Origin) -> str:
    settings = {"method": arm.method, "n": choice.n, "seed": choice.seed}
    if origin.chat is not None:
        settings["chat"] = origin.chat
    return "prompt, " + _keywords(settings | _explicit(arm.options) | _explicit(arm.sampling))


def _explicit(options: Options) -> dict[str, Any]:
    """What was set explicitly, in the order of the declarations."""
    return {name: value for name, value in options if name in options.model_fields_set}


def _keywords(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={_literal(value)}" for name, value in values.items())


def _literal(value: object) -> str:
    """A value as a Python literal in ASCII and printable characters, texts in double quotes."""
    if not isinstance(value, str):
        return repr(value)
    return "".join(map(_escaped, json.dumps(value, ensure_ascii=False)))  # a JSON text is a Python literal


def _escaped(character: str) -> str:
    """The character, or its escape sequence if it could hide what the program says, like marks of text direction."""
    return character if character.isprintable() else f"\\U{ord(character):08x}"
