"""Expected logits of requests in vLLM: ESamp's formulas and the filters, replayed in float64.

It shares no code with the package: the hidden states come from one plain forward pass of the transformers model, the
distillers from `esamp_reference`.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from esamp import ESampConfig
from esamp.explorer.build import build_distiller
from esamp.explorer.mlp import ResidualNetwork
from support import contrast_reference
from support.distiller_steps import named_matrices
from support.esamp_reference import RLS, Group, Mean, Network, action
from support.hf_models import AFTER_HEAD
from support.hf_reference import states_alone

Rows = NDArray[np.float64]


def replay(
    model: PreTrainedModel,
    prompt: Sequence[int],
    samples: Sequence[Sequence[int]],
    config: ESampConfig,
    *,
    waves: Sequence[int] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """For each sample its fused logits `[T, V]` and the model's own, given the tokens of all samples.

    The samples of a wave run in lockstep, and waves one after the other. The first token, whose logits belong to the
    prompt, is not steered unless ``first_token`` is set.
    """
    waves = waves or [len(samples)]
    states = [_states(model, prompt, tokens, config.source_layer) for tokens in samples]
    weight = model.get_output_embeddings().weight.detach().double().numpy()
    group = _group(config, weight, states[0][0].shape[1])
    own = [[_project(model, row, weight) for row in final] for _, final in states]
    first = 0 if config.first_token else 1
    fused = [rows[:first] for rows in own]
    start = 0
    for size in waves:
        wave = range(start, start + size)
        start += size
        for step in range(first, max(len(samples[i]) for i in wave)):
            running = [i for i in wave if len(samples[i]) > step]
            sources, finals = ([states[i][k][step] for i in running] for k in (0, 1))
            if isinstance(group, contrast_reference.Loops):
                contrasts = [group.contrast(i) for i in running]
                changes = [config.beta * (c if config.gate else 1.0) * difference for difference, c in contrasts]
                group.learn(list(zip(running, finals, strict=True)))
            else:
                taken = [action(weight, samples[i][step], own[i][step]) for i in running]
                changes = group.step(sources, finals, taken)
            for i, final, change in zip(running, finals, changes, strict=True):
                mixed = _mix(model, final, change, weight, config)
                fused[i].append(_limited(model, own[i][step], mixed, config) if change.any() else mixed)
    return [(_stack(mixed), _stack(alone)) for mixed, alone in zip(fused, own, strict=True)]


def filtered(
    logits: Tensor,
    reference: Tensor,
    *,
    rule: str,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
) -> Tensor:
    """Log-probabilities `[T, V]` that a request is sampled from, with the filters in vLLM's order, min-p first.

    `logits` and `reference` `[T, V]` are the fused logits and the model's own, both after penalties.
    """
    selecting = logits if rule == "fused" else reference
    result = torch.full_like(logits, -torch.inf)
    for row, scaled in enumerate(selecting / temperature):
        share = scaled.softmax(-1)
        scaled = torch.where(share >= min_p * share.max(), scaled, -torch.inf)
        order = scaled.argsort(descending=True)[: top_k or None]
        share = scaled[order].softmax(-1)
        kept = order[(share.cumsum(-1) - share < top_p) & (share > 0)]
        result[row, kept] = (logits[row, kept] / temperature).log_softmax(-1)
    return result


def _stack(rows: Sequence[Rows]) -> Tensor:
    return torch.from_numpy(np.stack(rows))


def _states(model: PreTrainedModel, prompt: Sequence[int], tokens: Sequence[int], layer: int) -> tuple[Rows, Rows]:
    """h1 and hL `[T, d]` of the positions from which `tokens` were sampled."""
    source, final = states_alone(model, torch.tensor([[*prompt, *tokens]]), layer)
    rows = slice(len(prompt) - 1, -1)
    return source[0, rows].double().numpy(), final[0, rows].double().numpy()


def _project(model: PreTrainedModel, final: Rows, weight: Rows) -> Rows:
    after = AFTER_HEAD.get(model.config.model_type, lambda logits: logits)
    return after(torch.from_numpy(weight @ final)).numpy()


def _mix(model: PreTrainedModel, final: Rows, change: Rows, weight: Rows, config: ESampConfig) -> Rows:
    if model.config.model_type != "gemma2" or not change.any():  # a linear head
        return _project(model, final + change, weight)
    if config.signal in ("state", "contrast"):
        strength = config.beta
    else:
        strength = max(1.0, config.beta * (config.signal == "both"))
    own, counter = (_project(model, x, weight) for x in (final, final - change / strength))
    return (1 + strength) * own - strength * counter


def _limited(model: PreTrainedModel, own: Rows, mixed: Rows, config: ESampConfig) -> Rows:
    """`mixed` after the cap, the entropy floor, the KL budget and the kept end tokens of the options."""
    if config.cap:
        mixed = contrast_reference.capped(own, mixed, config.cap)
    if config.keep_entropy:
        mixed = contrast_reference.softened(own, mixed)
    if config.kl:
        mixed = contrast_reference.limited(own, mixed, config.kl)
    ends = model.generation_config.eos_token_id
    stops = ends if isinstance(ends, list) else [ends]
    return contrast_reference.with_ends_kept(own, mixed, stops) if config.keep_end else mixed


def _group(config: ESampConfig, weight: Rows, source: int) -> Group | contrast_reference.Loops:
    size = weight.shape[1]
    if config.signal == "contrast":
        return contrast_reference.Loops(size, config.samples, config.forgetting_factor)
    memory = None
    if config.signal != "state":
        projection = _projection(config, size, config.seed + 1)
        features = size if projection is None else config.features
        memory = RLS(features + 1, size, config.action_ridge, projection)
    beta = config.beta if config.signal != "action" else 0.0
    used = weight[weight.any(1)]
    scale = float(((used - used.mean(0)) ** 2).sum(1).mean())
    return Group(_distiller(config, source, size), memory, config.gate, beta, config.gain / scale)


def _distiller(config: ESampConfig, source: int, size: int) -> RLS | Mean | Network:
    if config.distiller == "mean":
        return Mean(size, config.ridge)
    if config.distiller == "rls":
        projection = _projection(config, source, config.seed)
        return RLS((source if projection is None else config.features) + 1, size, config.ridge, projection)
    network = build_distiller(
        config, source, size, torch.float64, "cpu"
    )  # the random weights must come from the CPU's generator
    assert isinstance(network, ResidualNetwork)
    initial = named_matrices(network, network.template()["weights"])
    blocks = [{name: initial[name][b].numpy() for name in ("up", "gate", "down")} for b in range(config.depth)]
    return Network(blocks, lr=config.lr, eps=config.eps, clip=config.clip, loss=config.loss)


def _projection(config: ESampConfig, size: int, seed: int) -> Rows | None:
    if not 0 < config.features < size:
        return None
    gaussian = torch.randn(size, config.features, generator=torch.Generator().manual_seed(seed))
    return (gaussian / config.features**0.5).double().numpy()
