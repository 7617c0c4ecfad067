"""Options: what is accepted, what is refused, and in which words."""

import math
import pickle
import re
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from esamp.errors import OptionError
from esamp.explorer.config import PRESETS, ESampConfig
from esamp.options import Options, allowed
from esamp.sampling import Sampling

NUMBERS = ("beta", "gain", "kl", "cap", "ridge", "action_ridge", "lr", "eps", "clip")
INTEGERS = (
    "waves",
    "features",
    "samples",
    "width",
    "depth",
    "update_every",
    "warmup",
    "seed",
    "source_layer",
    "target_layer",
)
CHOICES = ("preset", "signal", "distiller", "scope", "candidates", "block", "loss", "dtype")
OPTIONAL = ("forgetting",)
"""Numbers that may be left to the method."""
SWITCHES = ("gate", "centre", "keep_entropy", "keep_end", "first_token")


def test_every_option_of_esamp_is_covered_here() -> None:
    assert {*NUMBERS, *OPTIONAL, *INTEGERS, *CHOICES, *SWITCHES} == set(ESampConfig.model_fields)


@pytest.mark.parametrize("cls", [ESampConfig, Sampling])
def test_every_option_is_described(cls: type[Options]) -> None:
    for name, field in cls.model_fields.items():
        assert field.description, name
        assert allowed(field), name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, 1e9, "0.5", "nan", True, None, [], {}])
def test_numbers_refuse_what_is_none(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"option '{name}' = .*: expected a number"):
        ESampConfig.parse({name: value})


@pytest.mark.parametrize("name", OPTIONAL)
@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, 1.5, "0.5", True, []])
def test_optional_numbers_refuse_what_is_none(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"option '{name}' = .*: expected a number"):
        ESampConfig.parse({name: value})


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("value", [-1, 2**63, 1.0, 1.5, math.nan, "1", False, [1]])
def test_whole_numbers_refuse_what_is_none(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"option '{name}' = .*: expected a whole number"):
        ESampConfig.parse({name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["", "none of them", 1, None, True, [], {"a": 1}])
def test_choices_are_named(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"option '{name}' = .*: expected one of '"):
        ESampConfig.parse({name: value})


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_switches_are_booleans(name: str, value: Any) -> None:
    with pytest.raises(OptionError, match=rf"option '{name}' = .*: expected true or false"):
        ESampConfig.parse({name: value})


def test_the_message_names_option_value_and_range() -> None:
    with pytest.raises(OptionError) as caught:
        ESampConfig(beta=17.0)
    assert str(caught.value) == "option 'beta' = 17.0: expected a number from 0 to 16"
    assert caught.value.__cause__ is None


def test_a_range_says_which_ends_belong_to_it() -> None:
    assert allowed(Sampling.model_fields["top_p"]) == "a number, above 0, at most 1"
    assert allowed(Sampling.model_fields["max_tokens"]) == "a whole number, at least 1, below 2**31"
    assert allowed(ESampConfig.model_fields["lr"]) == "a number, above 0, at most 10"
    assert allowed(ESampConfig.model_fields["ridge"]) == "a number from 1e-09 to 1000000"


def test_none_goes_without_saying() -> None:
    assert allowed(ESampConfig.model_fields["waves"]) == "a whole number from 1 to 4096"


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        OptionError,
        match=r"unknown option 'bta' of ESampConfig \(did you mean 'beta'\?\): choose from action_ridge, beta,",
    ):
        ESampConfig.parse({"bta": 1.0})


def test_options_that_contradict_each_other_are_an_option_error() -> None:
    with pytest.raises(OptionError, match="target_layer = 1 must lie above source_layer = 3"):
        ESampConfig(source_layer=3, target_layer=1)


def test_however_options_are_built_the_error_is_ours() -> None:
    with pytest.raises(OptionError):
        ESampConfig(beta=-1.0)
    with pytest.raises(OptionError):
        ESampConfig.model_validate({"beta": -1.0})
    with pytest.raises(OptionError):
        ESampConfig.model_validate_json('{"beta": -1.0}')
    with pytest.raises(OptionError):
        ESampConfig().replace(beta=-1.0)


def test_keys_that_are_no_names_are_unknown_options() -> None:
    with pytest.raises(OptionError, match="unknown option '1'"):
        ESampConfig.parse({1: 2})  # type: ignore[dict-item]


def test_a_long_value_does_not_flood_the_message() -> None:
    with pytest.raises(OptionError) as caught:
        ESampConfig.parse({"beta": "x" * 10_000})
    assert len(str(caught.value)) < 200


def test_a_whole_number_is_a_number() -> None:
    assert ESampConfig(beta=1).beta == 1.0


def test_options_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        ESampConfig().beta = 1.0  # type: ignore[misc]


def test_options_are_values() -> None:
    config = ESampConfig(preset="paper", lr=1e-3)
    assert ESampConfig(lr=1e-3, preset="paper") == config
    assert hash(ESampConfig(lr=1e-3, preset="paper")) == hash(config)
    assert pickle.loads(pickle.dumps(config)).replace(preset="default") == config.replace(preset="default")


def test_a_preset_fills_in_and_explicit_values_win() -> None:
    paper = ESampConfig(preset="paper")
    assert (paper.distiller, paper.beta, paper.gate) == ("mlp", 0.25, False)
    assert ESampConfig(preset="paper", beta=0.1).beta == 0.1
    assert ESampConfig(preset="paper", beta=0.1).distiller == "mlp"
    assert ESampConfig(beta=0.1, preset="paper") == ESampConfig(preset="paper", beta=0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: Any) -> None:
    config = ESampConfig(preset=preset)
    assert {name: config.model_dump()[name] for name in PRESETS[preset]} == PRESETS[preset]


def test_another_preset_takes_back_what_the_first_filled_in() -> None:
    config = ESampConfig(preset="paper", lr=1e-3)
    assert config.replace(preset="default") == ESampConfig()  # what has no effect any more is left out
    assert config.replace(beta=1.0) == ESampConfig(preset="paper", lr=1e-3, beta=1.0)
    assert config.model_fields_set == {"preset", "lr"}


def test_derived_properties() -> None:
    assert ESampConfig().wave_count == 1
    assert ESampConfig(signal="both").wave_count == 4
    assert ESampConfig(signal="both", waves=2).wave_count == 2
    assert ESampConfig().steers_state
    assert not ESampConfig(beta=0.0).steers_state
    assert not ESampConfig(signal="action").steers_state
    assert ESampConfig(signal="action").steers_action
    assert not ESampConfig(signal="action", gain=0.0).steers_action


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0.0},
        {"max_tokens": 0},
        {"max_tokens": 1.0},
        {"stop": "text"},
        {"stop": [""]},
        {"stop": [1]},
        {"stop": {"a": "b"}},
    ],
)
def test_the_sampler_refuses(bad: dict[str, Any]) -> None:
    [name] = bad
    with pytest.raises(OptionError, match=f"option '{name}' = "):
        Sampling.parse(bad)


def test_stop_takes_a_list_from_json() -> None:
    assert Sampling.parse({"stop": ["a", "b"]}).stop == ("a", "b")


class Wanting(Options):
    """An option class of somebody else: a required field, a constant, lengths, a list."""

    name: str = Field(min_length=2, max_length=4)
    kind: Literal["only"] = "only"
    pair: list[int] = Field(default_factory=list)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(OptionError, match="option 'name' is missing: expected a text, of length at least 2, of length"):
        Wanting.parse({})


def test_words_for_other_shapes() -> None:
    assert allowed(Wanting.model_fields["kind"]) == "'only'"
    assert allowed(Wanting.model_fields["pair"]) == "a list, each a whole number"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*ESampConfig.model_fields, "other"]), JSON, max_size=4))
def test_anything_is_either_options_or_one_option_error(values: dict[str, Any]) -> None:
    try:
        config = ESampConfig.parse(values)
    except OptionError as error:
        message = str(error)
    else:
        message = ""
        assert ESampConfig.parse(config.model_dump()) == config
        assert all(math.isfinite(value) for value in config.model_dump().values() if isinstance(value, float))
    assert "\n" not in message


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"distiller": "mean", "features": 7}, "features = 7 does nothing with distiller = 'mean'"),
        ({"signal": "action", "beta": 5.0}, "beta = 5.0 does nothing with signal = 'action'"),
        ({"signal": "action", "distiller": "mlp"}, "distiller = 'mlp' does nothing with signal = 'action'"),
        ({"signal": "contrast", "features": 8}, "features = 8 does nothing with signal = 'contrast'"),
        ({"gain": 2.0}, "gain = 2.0 does nothing with signal = 'state'"),
        ({"width": 5}, "width = 5 does nothing with distiller = 'rls'"),
        ({"preset": "paper", "ridge": 2.0}, "ridge = 2.0 does nothing with distiller = 'mlp'"),
        ({"samples": 8}, "samples = 8 does nothing with signal = 'state'"),
        ({"action_ridge": 0.5}, "action_ridge = 0.5 does nothing with signal = 'state'"),
        ({"signal": "action", "gate": False}, "gate = False does nothing with signal = 'action'"),
        ({"signal": "action", "target_layer": 2}, "target_layer = 2 does nothing with signal = 'action'"),
        ({"signal": "action", "source_layer": 2}, "source_layer = 2 does nothing with signal = 'action'"),
        ({"signal": "action", "ridge": 2.0}, "ridge = 2.0 does nothing with signal = 'action'"),
        ({"signal": "contrast", "centre": True}, "centre = True does nothing with signal = 'contrast'"),
        ({"signal": "contrast", "width": 8}, "width = 8 does nothing with signal = 'contrast'"),
        ({"distiller": "mean", "centre": True}, "centre = True does nothing with distiller = 'mean'"),
        ({"distiller": "mlp", "forgetting": 0.9}, "forgetting = 0.9 does nothing with distiller = 'mlp'"),
    ],
)
def test_options_without_effect_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=f"{re.escape(sentence)}: leave it out"):
        ESampConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"signal": "action", "features": 7, "action_ridge": 0.1, "forgetting": 0.9},
        {"signal": "both", "distiller": "mean", "features": 7},
        {"preset": "paper", "signal": "action"},
        {"distiller": "mean", "ridge": 2.0, "forgetting": 0.9},
        {"signal": "contrast", "samples": 8, "forgetting": 0.9, "beta": 2.0},
        {"distiller": "mlp", "lr": 1e-3, "gate": False},
    ],
    ids=str,
)
def test_options_that_something_reads_are_taken(values: dict[str, Any]) -> None:
    assert ESampConfig(**values).model_fields_set == set(values)


def test_every_option_set_to_what_it_is_anyway_is_taken() -> None:
    for preset in ("default", "paper"):
        config = ESampConfig(preset=preset)
        assert ESampConfig.parse(config.model_dump()) == config


def test_a_change_takes_back_options_that_it_leaves_without_effect() -> None:
    config = ESampConfig(features=64, beta=1.0).replace(distiller="mean")
    assert config == ESampConfig(distiller="mean", beta=1.0)
    with pytest.raises(OptionError, match="features = 64 does nothing"):
        ESampConfig().replace(distiller="mean", features=64)
