"""The first lines that somebody writes: load a model, draw samples of a prompt, read what there is."""

import pydoc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import esamp
from esamp.engines.base import Engine
from esamp.errors import OptionError, PromptError


@pytest.fixture(scope="module")
def engine() -> Engine:
    return esamp.load("countdown")


def test_a_prompt_gives_as_many_texts_as_samples_are_wanted(engine: Engine) -> None:
    texts = engine.sample("Numbers 3 5 8 9 target 24", n=3, max_tokens=8)
    assert [type(text) for text in texts] == [str] * 3
    assert texts == engine.sample("Numbers 3 5 8 9 target 24", n=3, max_tokens=8)
    assert texts != engine.sample("Numbers 3 5 8 9 target 24", n=3, max_tokens=8, seed=1)


def test_settings_of_the_method_and_of_the_sampler_are_keywords(engine: Engine) -> None:
    completion = engine.complete("Numbers 3 5 8 9 target 24", 2, beta=0.0, temperature=0.0, max_tokens=4)
    assert completion.request.options == esamp.ESampConfig(beta=0.0)
    assert completion.request.sampling == esamp.Sampling(temperature=0.0, max_tokens=4)
    assert [len(sample.token_ids) for sample in completion.samples] == [4, 4]
    assert completion.samples[0].text == completion.samples[1].text


def test_a_preset_brings_the_settings_of_its_sampler(engine: Engine) -> None:
    assert engine.complete("Numbers 3 5", 2, preset="open", max_tokens=4).request.own_sampling.temperature == 0.8


def test_another_method_is_named(engine: Engine) -> None:
    assert engine.complete("Numbers 3 5", 2, method="vanilla", max_tokens=4).telemetry == {}


def test_a_text_goes_through_the_template_of_a_chat_model_alone(engine: Engine) -> None:
    assert not engine.chats
    assert engine.complete("Numbers 3 5", 1, max_tokens=4).request.prompt == "Numbers 3 5"
    chat = engine.complete("Numbers 3 5", 1, chat=True, max_tokens=4)
    assert chat.request.prompt == ({"role": "user", "content": "Numbers 3 5"},)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(betta=1.0),
            r"unknown setting 'betta' of method 'esamp' \(did you mean 'beta'\?\): choose from .*temperature",
        ),
        (dict(beta=-1.0), "option 'beta' = -1.0: expected a number from 0 to 16"),
        (dict(temperature="hot"), "option 'temperature' = 'hot': expected a number"),
        (dict(n=0), "n = 0 must be at least 1"),
        (dict(method="esmp"), r"unknown method 'esmp' \(did you mean 'esamp'\?\): choose from .*vanilla"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_right(engine: Engine, settings: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        engine.sample("Numbers 3 5", **settings)  # type: ignore[arg-type]


def test_an_empty_prompt_is_refused(engine: Engine) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        engine.sample("", chat=False)


def test_generate_says_that_it_takes_requests(engine: Engine) -> None:
    with pytest.raises(OptionError, match=r"takes esamp.Request objects, not str: engine.sample\(prompt, n=4\)"):
        next(engine.generate(["hello"]))  # type: ignore[list-item]


def test_an_unknown_engine_is_refused_with_those_that_exist() -> None:
    with pytest.raises(OptionError, match="unknown engine 'tgi': choose from hf, vllm, openai"):
        esamp.load("countdown", engine="tgi")


def test_dir_lists_the_public_names_and_nothing_else() -> None:
    assert dir(esamp) == sorted([*esamp.__all__, "__version__"])
    assert "load" in dir(esamp)


def test_help_lists_each_option_with_its_default_and_meaning() -> None:
    text = pydoc.plain(pydoc.render_doc(esamp.ESampConfig))
    for name, field in esamp.ESampConfig.model_fields.items():
        assert f"{name} = {field.default!r}: {' '.join((field.description or '').split()[:3])}" in " ".join(
            text.split()
        ).replace(" | ", " ")


@pytest.mark.slow
def test_type_checkers_accept_the_examples_without_a_plugin(root: Path, tmp_path: Path) -> None:
    """The Python blocks of the README and of the page on the API."""
    pages = [(root / name).read_text() for name in ("README.md", "docs/api.md")]
    blocks = [block for page in pages for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)]
    blocks.append("import esamp\n\nesamp.ESampConfig(beta=0.25)\nesamp.Sampling(max_tokens=16)\n")
    assert len(blocks) > 3
    for number, block in enumerate(blocks):
        (tmp_path / f"example_{number}.py").write_text(block)
    checker = [sys.executable, "-m", "basedpyright", "--level", "error", "--pythonpath", sys.executable, str(tmp_path)]
    done = subprocess.run(checker, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import esamp\n\nesamp.ESampConfig(betta=0.25)\n")
    done = subprocess.run([*checker[:-1], str(wrong)], cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert 'No parameter named "betta"' in done.stdout
