"""The arguments of ``generate`` for a request's sampler."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import GenerationConfig, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteriaList

from esamp.engines.hf.decoding import stop_criterion
from esamp.engines.hf.processors import BehindPrompt, CountPenalties, MinP, RepetitionPenalty
from esamp.sampling import Sampling

NEUTRAL: Mapping[str, Any] = dict(
    # how the search goes: one hypothesis a row, one token a step
    num_beams=1,
    num_return_sequences=1,
    guidance_scale=None,
    prompt_lookup_num_tokens=None,
    token_healing=False,
    # filters that a request does not have
    typical_p=1.0,
    epsilon_cutoff=0.0,
    eta_cutoff=0.0,
    top_h=None,
    # changes of single tokens' scores
    encoder_repetition_penalty=1.0,
    no_repeat_ngram_size=0,
    encoder_no_repeat_ngram_size=0,
    bad_words_ids=None,
    suppress_tokens=None,
    begin_suppress_tokens=None,
    sequence_bias=None,
    forced_bos_token_id=None,
    forced_eos_token_id=None,
    watermarking_config=None,
    renormalize_logits=False,
    remove_invalid_values=False,
    # when a sample ends
    min_length=0,
    min_new_tokens=None,
    max_time=None,
    stop_strings=None,
    exponential_decay_length_penalty=None,
    # how states are kept and what is returned
    use_cache=True,
    cache_implementation=None,
    cache_config=None,
    return_dict_in_generate=False,
    output_scores=False,
    output_logits=False,
    output_attentions=False,
    output_hidden_states=False,
)
"""What a model's folder may set in generation_config.json although the request decides it or has no such setting, each
at the value that changes nothing. What belongs to the model is honoured: the tokens that begin, end and pad a text."""


def neutral_settings() -> dict[str, Any]:
    """Those of `NEUTRAL` that the installed version of transformers knows."""
    known = vars(GenerationConfig())
    return {name: value for name, value in NEUTRAL.items() if name in known}


def generate_settings(
    sampling: Sampling, limit: int, *, prompts: Sequence[Sequence[int]], pad: int, tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Every sampler setting is given, so that no default of the model interferes.

    Args:
        sampling: what is asked for.
        limit: most tokens of a sample.
        prompts: the prompts of the batch, which are padded on the left to one length.
        pad: the padding.
        tokenizer: for stop texts.
    """
    settings: dict[str, Any] = dict(
        max_new_tokens=limit,
        repetition_penalty=1.0,
        pad_token_id=pad,
        **neutral_settings(),
    )
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        processors.append(RepetitionPenalty(sampling.repetition_penalty, padding))
    if sampling.presence_penalty or sampling.frequency_penalty:
        processors.append(CountPenalties(sampling.presence_penalty, sampling.frequency_penalty))
    if sampling.min_p and sampling.temperature:
        processors.append(MinP(sampling.min_p, sampling.temperature))
    if processors:
        settings["logits_processor"] = processors
    if sampling.stop:
        settings["stopping_criteria"] = StoppingCriteriaList([BehindPrompt(stop_criterion(tokenizer, sampling.stop))])
    if sampling.temperature == 0:
        return settings | dict(do_sample=False, temperature=None, top_k=None, top_p=None, min_p=None)
    return settings | dict(
        do_sample=True, temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p, min_p=None
    )
