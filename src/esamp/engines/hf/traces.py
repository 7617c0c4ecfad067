"""What is measured of every token when traces are asked for: on the device, without the host waiting for it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import LogitsProcessor

from esamp.decoding.step import Head
from esamp.methods.base import Detail

NAN = float("nan")


@dataclass(frozen=True)
class Trace:
    """Per-token measurements of one generate call, `[B, T]` float32; NaN where not measured.

    The fields are those of `esamp.engines.base.TokenTrace`. The first token of a sample comes from prefill, in which
    most methods take no part.
    """

    novelty: Tensor
    residual: Tensor
    kl: Tensor
    surprisal: Tensor
    entropy: Tensor
    cosine: Tensor
    explained: Tensor


NAMES = tuple(field.name for field in fields(Trace))


def measure(detail: Detail, head: Head, tokens: Tensor, live: Tensor) -> dict[str, Tensor]:
    """One step's measurements `[B]` by the names of `Trace`, for the sampled `tokens` `[B]`; NaN on rows not `live`."""
    missing = torch.full_like(detail.novelty, NAN)
    found = {"novelty": detail.novelty, "kl": detail.kl, "residual": detail.residual, "explained": detail.explained}
    if detail.reference is not None:
        found["surprisal"], found["entropy"] = of_reference(log_probabilities(detail.reference), tokens)
    if detail.error is not None and head.has_rows:
        found["cosine"] = _cosine(detail.error.float(), head.rows(tokens))
    return {name: _or(found.get(name), missing).float().masked_fill(~live, NAN) for name in NAMES}


def log_probabilities(logits: Tensor) -> Tensor:
    """Logits `[B, V]` to log-probabilities `[B, V]` float32."""
    return logits.float().log_softmax(-1)


def of_reference(logp: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Surprisal ``-log p(token)`` and entropy ``-sum p log p`` of each row `[B]`, in nats, from `logp` `[B, V]`."""
    return -logp.gather(1, tokens.unsqueeze(1)).squeeze(1), torch.special.entr(logp.exp()).sum(-1)


def stacked(steps: Sequence[dict[str, Tensor]], *, ahead: int = 0) -> Trace:
    """Steps to a trace, behind `ahead` tokens that were not measured. Waits for the device."""
    if not steps:
        return Trace(*(torch.empty(0, 0) for _ in NAMES))
    rows = len(steps[0][NAMES[0]])
    before = torch.full((rows, ahead), NAN)
    series = (torch.stack([step[name] for step in steps], dim=1).cpu() for name in NAMES)
    return Trace(*(torch.cat([before, each], dim=1) for each in series))


class Watch(LogitsProcessor):
    """Runs first, where no method acts, and changes nothing: the model's own distribution at every token.

    That gives surprisal and entropy; there is no error to measure the rest of.
    """

    def __init__(self) -> None:
        """Nothing measured yet."""
        self._logp: Tensor | None = None
        self._steps: list[dict[str, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The model's logits `[B, V]` in, the same out."""
        self._logp = log_probabilities(scores)
        return scores

    def sampled(self, tokens: Tensor) -> None:
        """The tokens `[B]` of this step."""
        if self._logp is None:
            return
        surprisal, entropy = of_reference(self._logp, tokens.to(self._logp.device))
        missing = torch.full_like(entropy, NAN)
        self._steps.append({**dict.fromkeys(NAMES, missing), "surprisal": surprisal, "entropy": entropy})
        self._logp = None

    @property
    def trace(self) -> Trace:
        """Of all tokens, those after a row's end included."""
        return stacked(self._steps)


def _cosine(error: Tensor, rows: Tensor) -> Tensor:
    """cos(e, w) of each row `[B]`; NaN where e is zero, as it is where the gate is shut."""
    cosine = torch.cosine_similarity(error, rows.to(error.device), dim=-1)
    return cosine.masked_fill((error == 0).all(-1), NAN)


def _or(value: Tensor | None, missing: Tensor) -> Tensor:
    return missing if value is None else value
