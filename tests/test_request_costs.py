"""What an untrusted request costs the event loop of `esamp serve`: bounded work for any body, and short errors."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from esamp import plugins
from esamp.engines.vllm.params import parse
from esamp.engines.vllm.server import body
from esamp.engines.vllm.server.frontend import ExploringRequest, FrontEnd
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.quoting import shown
from support.linear_time import FACTOR, assert_linear

FRONT = FrontEnd(client=None, settings=VLLMSettings(), explores=True, waves=True)
SIZE = 250_000
"""Characters of the small body; the large one has 1 MB."""
CALLS = 5_000
"""Function calls that any request may cost, whatever its size."""


def xargs(values: str) -> str:
    return f'{{"prompt":"x","vllm_xargs":{{{values}}}}}'


def beside(rest: str) -> str:
    return f'{{"prompt":"x","vllm_xargs":{{"method":"esamp"}},{rest}}}'


def option(value: str, name: str = "beta", method: str = "esamp") -> str:
    return xargs(f'"method":"{method}","{name}":{value}')


def entries(one: str, size: int) -> str:
    return ",".join([one] * (size // (len(one) + 1)))


def keys(size: int) -> str:
    return ",".join(f'"{number:06x}":0' for number in range(size // 11))


def final(size: int, levels: int = 900) -> str:
    return ",".join(["[" * levels + "]" * levels] * (size // (2 * levels + 1)))


SHAPES: dict[str, Callable[[int], str]] = {
    "one method many times": lambda size: xargs(f'"method":"{"esamp+" * (size // 6)}esamp"'),
    "many unknown methods": lambda size: xargs(
        f'"method":"{"+".join(f"{number:06x}" for number in range(size // 7))}"'
    ),
    "long method": lambda size: xargs(f'"method":"{"a" * size}"'),
    "list as method": lambda size: xargs(f'"method":[{entries("1", size)}]'),
    "many parameters": lambda size: xargs(f'"method":"esamp",{keys(size)}'),
    "many parameters without a method": lambda size: xargs(keys(size)),
    "long parameter name": lambda size: option("1", "a" * size),
    "long text for a number": lambda size: option(f'"{"a" * size}"'),
    "list for a number": lambda size: option(f"[{entries('1', size)}]"),
    "table for a number": lambda size: option(f"{{{keys(size)}}}"),
    "final list for a number": lambda size: option("[" * (size // 2) + "]" * (size // 2)),
    "many final lists": lambda size: option(f"[{final(size)}]"),
    "digits": lambda size: option("1" * size),
    "digits of a fraction": lambda size: option("0." + "1" * size),
    "digits of an exponent": lambda size: option("1e" + "1" * size),
    "wrong entries of a list": lambda size: option(f"[{entries('-1', size)}]", "dola_layers", "dola"),
    "right entries of a list": lambda size: option(f"[{entries('1', size)}]", "dola_layers", "dola"),
    "long group": lambda size: option(f'"{"a" * size}"', "group"),
    "long truth value": lambda size: option(f'"{"a" * size}"', "telemetry"),
    "list for the sample count": lambda size: option(f"[{entries('1', size)}]", "esamp_samples"),
    "many prompts": lambda size: beside(f'"a":[{entries("[1]", size)}]'),
    "many messages": lambda size: beside(f'"messages":[{entries(json.dumps({"role": "user", "content": ""}), size)}]'),
    "many texts": lambda size: beside(f'"a":[{entries(json.dumps("b"), size)}]'),
    "many keys": lambda size: beside(keys(size)),
    "many fractions": lambda size: beside(f'"a":[{entries("1e-300", size)}]'),
    "many integers of 4,300 digits": lambda size: beside(f'"a":[{entries("1" * 4300, size)}]'),
    "integer of 4,300 digits as n": lambda size: beside(f'"n":{"1" * 4300},"a":"{"b" * size}"'),
    "backslashes": lambda size: beside(f'"a":"{chr(92) * (size // 2 * 2)}"'),
    "escaped quotes": lambda size: beside(f'"a":"{(chr(92) + chr(34)) * (size // 2)}"'),
    "braces in a text": lambda size: beside(f'"a":"{"{" * size}"'),
}


def examined(text: str) -> ExploringRequest | OptionError | None:
    try:
        return FRONT.examine(text.encode())
    except OptionError as error:
        return error


def calls(work: Callable[[], Any]) -> int:
    """How many functions `work` calls, those written in C included."""
    count = 0

    def see(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(see)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("shape", SHAPES)
def test_examining_a_body_takes_linear_time_and_few_calls(shape: str) -> None:
    make = SHAPES[shape]
    examined(make(1000))  # what is looked up once
    large = make(FACTOR * SIZE)
    assert calls(lambda: examined(large)) < CALLS
    assert len(str(examined(large))) < 1000
    assert_linear(examined, make, SIZE)


@pytest.mark.parametrize("shape", ["many prompts", "many final lists", "many fractions", "many keys"])
def test_a_body_of_too_many_parts_is_refused_before_it_is_parsed(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body.json, "loads", lambda text: pytest.fail("the body was read"))
    refused = examined(SHAPES[shape](FACTOR * SIZE))
    assert isinstance(refused, OptionError)
    assert "send fewer prompts at a time" in str(refused)


@pytest.mark.parametrize(
    "rest",
    [
        '"prompt":[' + entries("128000", 900_000) + "]",
        '"messages":[{"role":"user","content":"' + r"{\"a\": [1.5, \\ \n]}" * 30_000 + '"}]',
        '"messages":[{"role":"user","content":"' + r"\"" + r"{\"a\": [1.5, \\ \n]}" * 30_000 + '"}]',
        '"tools":[' + entries('{"type":"function","function":{"name":"f"}}', 100_000) + "]",
    ],
    ids=["tokens", "json in a text", "behind a quotation mark", "tools"],
)
def test_long_useful_requests_are_accepted(rest: str) -> None:
    assert isinstance(examined(f'{{"vllm_xargs":{{"method":"esamp"}},{rest}}}'), ExploringRequest)


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=12,
    ),
    st.sampled_from(["ascii", "utf-8", "utf-16", "utf-16-le", "utf-32", "utf-8-sig"]),
)
def test_bodies_are_parsed_as_json_parses_them(value: Any, encoding: str) -> None:
    raw = json.dumps(value, ensure_ascii=encoding == "ascii").encode(encoding, "surrogatepass")
    assert repr(body.read(raw)) == repr(json.loads(raw))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_parsed_as_json_parses_them(raw: bytes) -> None:
    try:
        expected = json.loads(raw)
    except ValueError:
        expected = None
    assert repr(body.read(raw)) == repr(expected)


# ---- names of methods


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The groups of entry points for which all installed packages were looked through."""
    found: list[str] = []

    def counted(group: str) -> EntryPoints:
        found.append(group)
        return entry_points(group=group)

    monkeypatch.setattr(plugins, "entry_points", counted)
    plugins.forget()
    registry.get.cache_clear()
    yield found
    plugins.forget()
    registry.get.cache_clear()


def test_entry_points_are_looked_up_once(lookups: list[str]) -> None:
    for name in ("esamp", "esamp+fire", "fire+esamp", "unknown", "unknown+esamp", "esamp+esamp", 7, ["esamp"]):
        for _ in range(3):
            try:
                parse({"method": name})
            except OptionError as error:
                assert len(str(error)) < 600
    registry.available()
    assert lookups == ["esamp.methods"]


@pytest.mark.parametrize(
    "name",
    [
        "+".join(["esamp"] * 10_000),
        "a" * 100_000,
        "+".join(f"m{number}" for number in range(60)),
        "+" * 300,
        "esamp+fire+esamp",
    ],
    ids=["twice", "long", "many", "empty", "short"],
)
def test_a_malformed_name_is_refused_before_any_lookup(name: str, lookups: list[str]) -> None:
    with pytest.raises(OptionError) as refused:
        registry.get(name)
    assert len(str(refused.value)) < 200
    assert not lookups


def test_an_unknown_part_is_refused_before_any_method_is_imported(
    lookups: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EntryPoint, "load", lambda point: pytest.fail("a method was imported"))
    with pytest.raises(OptionError, match="unknown method 'esmap'"):
        registry.get("fire+xtc+esmap")


# ---- values in messages


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.5, "1.5"),
        (None, "None"),
        ("it's", '"it\'s"'),
        ([1, "a"], "[1, 'a']"),
        ((1,), "(1,)"),
        ({"a": [True]}, "{'a': [True]}"),
        (10**70, f"1{'0' * 70}"),
        (10**400, "an integer of 1,329 bits"),
        (-(10**5000), "an integer of 16,610 bits"),
        ([[[[[[[[]]]]]]]], "[[[[[...]]]]]"),
        ("\x1b[2J\u202e", r"'\x1b[2J\u202e'"),
    ],
    ids=lambda part: part if isinstance(part, str) else "",
)
def test_values_in_messages_are_shortened_and_escaped(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(
    "value",
    ["a" * 10**6, [1] * 10**6, {str(number): number for number in range(10**5)}, b"a" * 10**6],
    ids=lambda value: type(value).__name__,
)
def test_the_cost_of_showing_a_value_does_not_grow_with_its_size(value: object) -> None:
    assert calls(lambda: shown(value)) < 1000
    assert len(shown(value)) == 80
    assert shown(value).endswith("...")
