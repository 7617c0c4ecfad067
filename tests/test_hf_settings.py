"""What a model's folder sets for generation, where stop texts and samples begin, and the order of the filters."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedTokenizerFast

from esamp import ESampConfig, HFEngine, Request, Sampling
from esamp.engines.hf.arguments import NEUTRAL, generate_arguments, neutral_arguments
from esamp.engines.hf.generate import generate
from esamp.engines.text import decode, end, pieces
from support.hf_models import EOS, PAD, small, small_tokenizer

PROMPT = "Hello"
FOREIGN: Mapping[str, Any] = dict(
    num_beams=3,
    num_return_sequences=2,
    guidance_scale=3.0,
    prompt_lookup_num_tokens=3,
    typical_p=0.2,
    epsilon_cutoff=0.1,
    eta_cutoff=0.1,
    top_h=0.1,
    encoder_repetition_penalty=3.0,
    no_repeat_ngram_size=1,
    encoder_no_repeat_ngram_size=1,
    bad_words_ids=[[9], [11, 12]],
    suppress_tokens=list(range(5, 60)),
    begin_suppress_tokens=list(range(5, 60)),
    sequence_bias=[[[9], -10.0], [[12], 10.0]],
    forced_bos_token_id=7,
    forced_eos_token_id=EOS,
    renormalize_logits=True,
    remove_invalid_values=True,
    min_length=40,
    min_new_tokens=10,
    max_time=0.00001,
    stop_strings=["a", "e"],
    exponential_decay_length_penalty=[2, 3.0],
    use_cache=False,
    cache_implementation="static",
    return_dict_in_generate=True,
    output_scores=True,
    output_logits=True,
    output_attentions=True,
    output_hidden_states=True,
)
UNTRIED = {
    "token_healing": "needs a tokenizer in the call, which ours has not",
    "watermarking_config": "transformers cannot read what it writes of it",
    "cache_config": "says something only together with cache_implementation",
}


def sampled(folder: Path, method: str) -> list[tuple[int, ...]]:
    engine = HFEngine.load(folder, device="cpu")
    options = ESampConfig(beta=2.0) if method == "esamp" else None
    asked = Request("r", PROMPT, n=4, method=method, options=options, sampling=Sampling(max_tokens=16), seed=3)
    [completion] = engine.generate([asked])
    return [sample.token_ids for sample in completion.samples]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    small("llama", sliding_window=None).save_pretrained(folder)  # the engine brings a cache of its own for it
    small_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path) -> dict[str, list[tuple[int, ...]]]:
    return {method: sampled(folder, method) for method in ("vanilla", "esamp")}


def test_every_neutral_setting_is_tried_with_another_value() -> None:
    assert set(NEUTRAL) == {*FOREIGN, *UNTRIED}
    assert neutral_arguments().keys() <= NEUTRAL.keys()


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
@pytest.mark.parametrize("name", FOREIGN)
def test_the_samples_do_not_depend_on_the_generation_config_of_the_folder(
    folder: Path, expected: dict[str, list[tuple[int, ...]]], tmp_path: Path, name: str, method: str
) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "generation_config.json"
    more = {"do_sample": True} if name == "num_return_sequences" else {}  # transformers reads no file without it
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: FOREIGN[name], **more}))
    if name == "use_cache":
        config = tmp_path / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {name: False}))
    assert sampled(tmp_path, method) == expected[method]


# ---- where a sample begins


def spaced() -> PreTrainedTokenizerFast:
    """Words with their space in front, as SentencePiece has them; its decoder drops the space of the first one."""
    words = ["<s>", "</s>", "▁The", "▁dog", "▁said", "▁that", "\n", "One", "e", ",", "▁café", "s"]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize("prompt", [[2], [2, 3, 4], [0, 2, 3], [2, 3, 4, 2, 3, 4, 2, 3, 4, 5]])
@pytest.mark.parametrize("tokens", [[5], [5, 10, 11], [11, 5], [6, 7], [1], [5, 1]])
def test_prompt_and_sample_make_the_text_of_both_together(prompt: list[int], tokens: list[int]) -> None:
    tokenizer = spaced()
    whole = tokenizer.decode(prompt + tokens, skip_special_tokens=True)
    assert decode(tokenizer, prompt) + decode(tokenizer, tokens, prompt) == whole
    assert "".join(pieces(tokenizer, prompt, tokens)) == decode(tokenizer, tokens, prompt)


def test_a_sample_keeps_its_first_space() -> None:
    tokenizer, request = spaced(), Request("r", "x", sampling=Sampling(stop=("café",)))
    assert end(tokenizer, [2, 3], [4, 5], request, ended=False).text == " said that"
    cut = end(tokenizer, [2, 3], [4, 10, 5], request, ended=False)
    assert (cut.text, cut.tokens, cut.stopped) == (" said ", (4, 10), True)
    assert decode(tokenizer, [4, 5]) == "said that"  # without the prompt nobody knows


# ---- where a stop text begins


@pytest.mark.parametrize("method", ["vanilla", "esamp"])
def test_a_stop_text_does_not_begin_within_the_prompt(method: str) -> None:
    tokenizer = small_tokenizer()
    engine = HFEngine(small("llama"), tokenizer)
    asked = Request("r", "Hello", n=8, method=method, sampling=Sampling(max_tokens=12, temperature=2.0))
    [free] = engine.generate([asked])
    starts = {text[0] for sample in free.samples if (text := sample.text)}
    assert len(starts) > 2
    stops = tuple(f"lo{start}" for start in sorted(starts))
    stopping = Request("r", "Hello", 8, asked.sampling.replace(stop=stops), method)
    [stopped] = engine.generate([stopping])
    assert [sample.token_ids for sample in stopped.samples] == [sample.token_ids for sample in free.samples]
    inside = free.samples[0].text[2:4]
    [ended] = engine.generate([Request("r", "Hello", 8, asked.sampling.replace(stop=(inside,)), method)])
    assert inside not in ended.samples[0].text
    assert len(ended.samples[0].token_ids) < len(free.samples[0].token_ids)


# ---- the order of the filters


class Fixed(LogitsProcessor):
    """The same scores for every row."""

    def __init__(self, probabilities: list[float]) -> None:
        self.scores = torch.tensor(probabilities).log()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        known = self.scores.expand(len(scores), -1)
        return torch.full_like(scores, -torch.inf).index_copy(1, torch.arange(known.shape[1]), known)


class Kept(LogitsProcessor):
    """Notes which tokens are left."""

    def __init__(self) -> None:
        self.tokens: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.tokens = set(scores[0].isfinite().nonzero().flatten().tolist())
        return scores


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        (dict(top_p=0.85, min_p=0.15), {0, 1}),  # .1 survives min-p, but .5 and .3 are .89 of what does
        (dict(top_p=0.85), {0, 1, 2}),
        (dict(min_p=0.15), {0, 1, 2}),
        (dict(min_p=0.15, top_k=4), {0, 1, 2}),
        (dict(min_p=0.15, temperature=2.0), {0, 1, 2, 3, 4}),  # .04 is .28 of .5 at temperature 2
        (dict(min_p=0.3, temperature=2.0), {0, 1, 2, 3}),
        (dict(min_p=0.3, temperature=0.5), {0, 1}),
        (dict(min_p=1.0), {0}),
    ],
    ids=str,
)
def test_min_p_comes_before_top_k_and_top_p(settings: dict[str, Any], left: set[int]) -> None:
    kept, tokenizer = Kept(), small_tokenizer()
    prompt = tokenizer(PROMPT).input_ids
    given = generate_arguments(Sampling(**settings), 1, prompts=[prompt], pad=PAD, tokenizer=tokenizer)
    generate(
        small("llama"),
        inputs=torch.tensor([prompt]),
        **given,
        on_prompt=lambda *_: None,
        on_sampled=lambda *_: None,
        first=[Fixed([0.5, 0.3, 0.1, 0.06, 0.04])],
        last=lambda _: [kept],
    )
    assert kept.tokens == left
