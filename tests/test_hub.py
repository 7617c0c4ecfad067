"""The folder that ``model.generate(custom_generate=...)`` loads, through transformers' own loader."""

from pathlib import Path
from typing import Any

import pytest
import torch

import esamp
from esamp.errors import OptionError
from support.hf_models import count_hooks, small, small_tokenizer


@pytest.fixture
def folder(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The repository's folder; transformers copies its code into a cache of the test's own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return str(root / "hub" / "esamp")


def arguments(**changes: Any) -> dict[str, Any]:
    ids = torch.tensor([small_tokenizer()("Hello there")["input_ids"]])
    settings = dict(do_sample=True, max_new_tokens=8, num_return_sequences=4, pad_token_id=2)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **settings, **changes}


def test_it_draws_what_explore_draws(folder: str) -> None:
    model = small("llama")
    hooks_before = count_hooks(model)
    torch.manual_seed(5)
    drawn = model.generate(**arguments(), custom_generate=folder, trust_remote_code=True, beta=4.0)
    torch.manual_seed(5)
    with esamp.explore(model, esamp.ESampConfig(beta=4.0)) as run:
        expected = run.generate(**arguments())
    torch.manual_seed(5)
    plain = model.generate(**arguments())
    assert torch.equal(drawn, expected)
    assert not torch.equal(drawn, plain)
    assert count_hooks(model) == hooks_before


def test_without_strength_the_tokens_are_those_of_plain_generate(folder: str) -> None:
    model = small("qwen2")
    torch.manual_seed(5)
    drawn = model.generate(**arguments(), custom_generate=folder, trust_remote_code=True, beta=0.0)
    torch.manual_seed(5)
    assert torch.equal(drawn, model.generate(**arguments()))


def test_it_takes_a_generation_config_and_returns_what_generate_returns(folder: str) -> None:
    model = small("llama")
    config = model.generation_config.__class__(
        do_sample=True, max_new_tokens=4, num_return_sequences=3, pad_token_id=2, return_dict_in_generate=True
    )
    ids = arguments()["input_ids"]
    drawn = model.generate(ids, generation_config=config, custom_generate=folder, trust_remote_code=True)
    assert drawn.sequences.shape == (3, ids.shape[1] + 4)


def test_another_method_is_chosen_by_its_name(folder: str) -> None:
    drawn = small("llama").generate(
        **arguments(), custom_generate=folder, trust_remote_code=True, method="override", head_strength=1.0
    )
    assert drawn.shape[0] == 4


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (dict(beta=-1.0), OptionError, "'beta' = -1.0: expected a number from 0 to 16"),
        (dict(method="nothing"), OptionError, "nothing"),
        (dict(betta=1.0), ValueError, "betta"),
    ],
)
def test_a_wrong_argument_is_named(folder: str, wrong: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small("llama").generate(**arguments(), custom_generate=folder, trust_remote_code=True, **wrong)


def test_transformers_asks_for_trust_first(folder: str) -> None:
    with pytest.raises(ValueError, match="trust_remote_code"):
        small("llama").generate(**arguments(), custom_generate=folder, trust_remote_code=False)
