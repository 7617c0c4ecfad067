"""Flat request parameters of the vLLM engine: how they are parsed, and the errors about wrong ones."""

import pytest

from esamp.engines.vllm.params import SAMPLES, parse, sample_id
from esamp.engines.vllm.settings import VLLMSettings
from esamp.errors import OptionError
from esamp.explorer.config import ESampConfig


def test_parameters_without_a_method_are_ignored():
    assert parse(None) is None
    assert parse({}) is None
    assert parse({"kv_transfer_params": {"x": 1}, "group": 3, "beta": "somebody else's"}) is None


def test_vanilla_is_no_decode_method():
    assert parse({"method": "vanilla"}) is None


def test_options_are_those_of_the_method():
    parsed = parse({"method": "esamp", "beta": 0.25, "distiller": "mean", "warmup": 16})
    assert parsed is not None
    assert parsed.options == ESampConfig(beta=0.25, distiller="mean", warmup=16)
    assert parsed.method.name == "esamp"
    assert (parsed.group, parsed.telemetry, parsed.trace, parsed.samples) == (None, False, False, None)


def test_options_are_the_same_after_json_without_booleans():
    options = ESampConfig(
        beta=1, gate=False, centre=True, waves=4, signal="both", distiller="rls", candidates="reference"
    )
    flat = {name: int(value) if isinstance(value, bool) else value for name, value in options if value is not None}
    parsed = parse({"method": "esamp"} | flat)
    assert parsed is not None
    assert parsed.options == options


@pytest.mark.parametrize(("given", "meant"), [(0, False), (1, True), ("0", False), ("true", True), (False, False)])
def test_booleans_can_be_given_as_numbers_and_words(given, meant):
    parsed = parse({"method": "esamp", "gate": given, "telemetry": given, "trace": given})
    assert parsed is not None
    assert (parsed.options.gate, parsed.telemetry, parsed.trace) == (meant, meant, meant)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"method": "esmap"}, "unknown method 'esmap' (did you mean 'esamp'?): choose from "),
        ({"method": 7}, "expected the name of a method"),
        ({"method": ["esamp"]}, "expected the name of a method"),
        ({"method": "esamp", "betta": 0.5}, "unknown option 'betta'"),
        ({"method": "vanilla", "beta": 0.5}, "unknown option 'beta'"),
        ({"method": "esamp", "beta": 99}, "a number from 0 to 16"),
        ({"method": "esamp", "beta": "0.5"}, "a number from 0 to 16"),
        ({"method": "esamp", "beta": [0.5]}, "a number from 0 to 16"),
        ({"method": "esamp", "beta": float("nan")}, "a number from 0 to 16"),
        ({"method": "esamp", "features": 1.5}, "a whole number"),
        ({"method": "esamp", "gate": 2}, "true or false"),
        ({"method": "esamp", "gate": "perhaps"}, "true or false"),
        ({"method": "esamp", "telemetry": 2}, "'telemetry' = 2: expected true or false"),
        ({"method": "esamp", "trace": [1]}, "expected true or false"),
        ({"method": "esamp", "distiller": "gpt"}, "one of 'rls', 'mlp', 'mean'"),
        ({"method": "esamp", "group": "short"}, "of length at least 16"),
        ({"method": "esamp", "group": "x" * 257}, "of length at least 16"),
        ({"method": "esamp", "group": 12345678901234567}, "of length at least 16"),
    ],
)
def test_wrong_parameters_raise_a_short_error(given, sentence):
    with pytest.raises(OptionError) as raised:
        parse(given)
    assert sentence in str(raised.value)
    assert len(str(raised.value)) < 500


def test_defaults_without_a_method_skip_methods_without_these_options():
    defaults = {"beta": 0.25, "telemetry": True}
    rarity = parse({"method": "rarity"}, defaults)
    assert rarity is not None
    assert rarity.telemetry
    assert rarity.options == type(rarity.options)()
    assert parse({"method": "esamp"}, defaults).options.beta == 0.25
    assert parse({"method": "esamp_noise"}, defaults).options.beta == 0.25


def test_defaults_apply_where_a_request_leaves_options_out():
    defaults = {"beta": 0.25, "distiller": "mean"}
    parsed = parse({"method": "esamp", "beta": 2}, defaults)
    assert parsed is not None
    assert parsed.options == ESampConfig(beta=2, distiller="mean")
    assert parse({}, defaults) is None


def test_a_default_method_applies_unless_the_request_names_another():
    defaults = {"method": "esamp", "beta": 0.25}
    parsed = parse(None, defaults)
    assert parsed is not None
    assert parsed.options == ESampConfig(beta=0.25)
    assert parse({"method": "vanilla"}, defaults) is None


def test_the_sample_count_that_admission_writes_is_parsed():
    parsed = parse({"method": "esamp", SAMPLES: 16})
    assert parsed is not None
    assert parsed.samples == 16


def test_the_group_is_parsed():
    parsed = parse({"method": "esamp", "group": "0123456789abcdef"})
    assert parsed is not None
    assert parsed.group == "0123456789abcdef"


@pytest.mark.parametrize(
    ("request_id", "samples", "parent", "index"),
    [
        ("cmpl-7-0-1a2b3c4d", 1, "cmpl-7-0-1a2b3c4d", 0),
        ("3_cmpl-7-0-1a2b3c4d", 4, "cmpl-7-0-1a2b3c4d", 3),
        ("12_5_odd-1a2b3c4d", 16, "5_odd-1a2b3c4d", 12),
        ("5_odd-1a2b3c4d", 1, "5_odd-1a2b3c4d", 0),  # a client's own id that looks like a sample's
        ("3_x-1a2b3c4d", None, "x-1a2b3c4d", 3),
    ],
)
def test_the_engines_id_gives_request_and_sample_index(request_id, samples, parent, index):
    found = sample_id(request_id, samples)
    assert (found.parent, found.index) == (parent, index)


def test_settings_are_read_from_our_section():
    assert VLLMSettings.read({}) == VLLMSettings()
    assert VLLMSettings.read(object()) == VLLMSettings()
    settings = VLLMSettings.read({"esamp": {"slots": 4, "layers": [1, 2]}, "other": 1})
    assert (settings.slots, settings.layers) == (4, (1, 2))


@pytest.mark.parametrize(
    "section", [3, {"slots": 0}, {"slot": 1}, {"layers": []}, {"when_full": "queue"}, {"defaults": {"beta": [1]}}]
)
def test_wrong_settings_are_refused(section):
    with pytest.raises(OptionError):
        VLLMSettings.read({"esamp": section})
