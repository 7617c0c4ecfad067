"""Log-probabilities of ESamp's samples in float64, from the definitions alone, for the distiller `mean`."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Setting:
    """How tokens were drawn."""

    beta: float = 0.0
    """strength of steering; 0 for plain sampling"""
    temperature: float = 1.0
    top_k: int = 0
    banned: tuple[int, ...] = ()
    """tokens that no sample may have before it is `least` tokens long"""
    least: int = 0


CASES = {
    "plain": ("vanilla", Setting()),
    "plain, filtered": ("vanilla", Setting(temperature=0.7, top_k=9)),
    "steered": ("esamp", Setting(beta=1.0)),
    "steered, filtered": ("esamp", Setting(beta=1.0, temperature=0.7, top_k=9)),
}
"""Method and setting, by name."""


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model in float64."""
    return copy.deepcopy(model).double().eval()


def replay(
    model: PreTrainedModel, prompt: Sequence[int], samples: Sequence[Sequence[int]], setting: Setting
) -> list[tuple[Tensor, Tensor]]:
    """For each sample of one group, log-probabilities `[tokens]` of its tokens: as drawn, and of the model alone.

    A step steers with the mean of all final states of the group's earlier steps; the first token comes from prefill,
    which is neither steered nor learned from. The prediction counts as n / (n + 4) after n rows.

    Args:
        model: of `in_float64`.
        prompt: token ids.
        samples: token ids, all of the group.
        setting: of the sampler.
    """
    head, states, own = model.get_output_embeddings(), [], []
    for tokens in samples:
        with torch.no_grad():
            found = model(torch.tensor([[*prompt, *tokens]]), output_hidden_states=True, use_cache=False)
        states.append(found.hidden_states[-1][0, len(prompt) - 1 : -1])
        own.append(found.logits[0, len(prompt) - 1 : -1])
    drawn: list[list[Tensor]] = [[] for _ in samples]
    seen: list[Tensor] = []
    for step in range(max(map(len, samples))):
        live = [place for place, tokens in enumerate(samples) if len(tokens) > step]
        for place in live:
            logits, state = own[place][step], states[place][step]
            if step and seen:
                error = state - torch.stack(seen).mean(0)
                with torch.no_grad():
                    logits = head(state + setting.beta * len(seen) / (len(seen) + 4) * error)
            drawn[place].append(filtered(logits, step, setting)[samples[place][step]])
        if step:
            seen += [states[place][step] for place in live]
    plain = [
        logits.log_softmax(-1).gather(-1, torch.tensor([tokens]).T)[:, 0]
        for logits, tokens in zip(own, samples, strict=True)
    ]
    return [(torch.stack(values), reference) for values, reference in zip(drawn, plain, strict=True)]


def filtered(logits: Tensor, step: int, setting: Setting) -> Tensor:
    """log p `[V]` of a step's token under its sampling distribution, from logits `[V]`."""
    logits = logits / setting.temperature
    if step < setting.least:
        logits[list(setting.banned)] = -torch.inf
    if setting.top_k:
        logits = logits.masked_fill(logits < logits.topk(setting.top_k).values[-1], -torch.inf)
    return logits.log_softmax(-1)
