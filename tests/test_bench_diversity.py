"""`esamp bench diversity` on the embedded model."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from esamp.cli import main
from esamp.compare import diversity
from esamp.compare.arms import esamp_arm, vanilla_arm
from esamp.engines.hf import HFEngine
from esamp.errors import InactiveMethodError, InputError
from esamp.explorer.config import ESampConfig
from esamp.sampling import Sampling


@pytest.fixture(scope="module")
def engine() -> HFEngine:
    return HFEngine.load()


def test_score_is_the_models_own_likelihood(engine: HFEngine) -> None:
    ids = torch.tensor([[1, 20, 30, 25, 40]])
    logits = engine.model(ids).logits[0].detach().double()
    logits[:, engine.model.generation_config.eos_token_id] = -math.inf
    p = logits.softmax(-1)
    wanted = [-math.log(p[place - 1, ids[0, place]]) for place in (3, 4)]
    entropy = [-sum(float(x) * math.log(x) for x in p[place - 1] if x > 0) for place in (3, 4)]
    got = diversity.score(engine.model, ids, 3)
    assert got == pytest.approx((np.mean(wanted), np.mean(entropy)), rel=1e-4)


def test_diversity_measures_every_arm(engine: HFEngine) -> None:
    arms = [
        vanilla_arm("cold", Sampling(temperature=0.1)),
        vanilla_arm("hot", Sampling(temperature=5.0)),
        esamp_arm("rls", ESampConfig()),
    ]
    setting = diversity.DiversitySettings(("Numbers 3 5 8 9 target 24",), samples=4, tokens=12, seeds=(0,))
    cold, hot, rls = diversity.measure(engine.model, engine.tokenizer, arms, setting)
    assert cold.vendi.estimate < hot.vendi.estimate <= 4
    assert cold.perplexity < hot.perplexity
    assert math.isnan(cold.explained_variance)
    assert math.isfinite(rls.explained_variance)
    assert rls.kl > 0
    assert cold.as_dict()["kl"] is None


def test_diversity_refuses_an_arm_that_never_acted(engine: HFEngine) -> None:
    idle = esamp_arm("idle", ESampConfig(warmup=1000))
    setting = diversity.DiversitySettings(("Numbers 3 5 8 9 target 24",), samples=2, tokens=4, seeds=(0,))
    with pytest.raises(InactiveMethodError, match="idle"):
        diversity.measure(engine.model, engine.tokenizer, [idle], setting)
    with pytest.raises(InputError):
        diversity.measure(engine.model, engine.tokenizer, [idle], replace(setting, prompts=()))


def test_bench_diversity_command(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "diversity", "-n", "2", "--tokens", "6", "--seeds", "1", "--embedder", "ngram"]
    assert main([*arguments, "--prompt", "Numbers 3 5 8 9 target 24", "--json"]) == 0
    assert "arms" in json.loads(capsys.readouterr().out)
    assert main([*arguments, "--prompt", "Numbers 3 5 8 9 target 24", "--beta", "0.7"]) == 0
    assert "as given" in capsys.readouterr().out
