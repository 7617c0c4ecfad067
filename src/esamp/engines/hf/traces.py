"""`Trace`: measurements of every token. They are taken on the device, without the host waiting for it."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from transformers import LogitsProcessor

from esamp.decoding.logits import entropy, surprisal
from esamp.decoding.step import Head
from esamp.methods.base import Detail

NAN = float("nan")


@dataclass(frozen=True)
class Trace:
    """Per-token measurements of one generate call, `[B, T]` float32; NaN where not measured.

    The fields are those of `TokenTrace`. A sample's first token comes from prefill, where most
    methods do not act, and is NaN for these.
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
    """One step's measurements `[B]` by the field names of `Trace`.

    Args:
        detail: the method's measurements of the step.
        head: the LM head.
        tokens: `[B]`: the sampled tokens.
        live: `[B]` bool: rows that are measured; the others are NaN.
    """
    missing = torch.full_like(detail.novelty, NAN)
    measured = {"novelty": detail.novelty, "kl": detail.kl, "residual": detail.residual, "explained": detail.explained}
    if detail.reference is not None:
        logp = detail.reference.float().log_softmax(-1)
        measured["surprisal"], measured["entropy"] = surprisal(logp, tokens), entropy(logp)
    if detail.error is not None and head.has_rows:
        measured["cosine"] = _cosine(detail.error.float(), head.rows(tokens))
    return {name: _or(measured.get(name), missing).float().masked_fill(~live, NAN) for name in NAMES}


def stacked(steps: Sequence[dict[str, Tensor]], *, unmeasured: int = 0) -> Trace:
    """The trace of these steps, after `unmeasured` tokens of NaN. Waits for the device."""
    if not steps:
        return Trace(*(torch.empty(0, 0) for _ in NAMES))
    rows = len(steps[0][NAMES[0]])
    before = torch.full((rows, unmeasured), NAN)
    series = (torch.stack([step[name] for step in steps], dim=1).cpu() for name in NAMES)
    return Trace(*(torch.cat([before, values], dim=1) for values in series))


class PlainRecorder(LogitsProcessor):
    """Records a trace of plain sampling: surprisal and entropy of the model's own distribution; the rest is NaN.

    It must run before all other processors, and changes no scores.
    """

    def __init__(self) -> None:
        """For one generate call."""
        self._logp: Tensor | None = None
        self._steps: list[dict[str, Tensor]] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The model's logits `[B, V]` in, the same out."""
        self._logp = scores.float().log_softmax(-1)
        return scores

    def record(self, tokens: Tensor) -> None:
        """Measure the sampled tokens `[B]` of this step."""
        if self._logp is None:
            return
        nats = surprisal(self._logp, tokens.to(self._logp.device))
        missing = torch.full_like(nats, NAN)
        self._steps.append({**dict.fromkeys(NAMES, missing), "surprisal": nats, "entropy": entropy(self._logp)})
        self._logp = None

    @property
    def trace(self) -> Trace:
        """The trace of all tokens, including those after a row's end. Waits for the device."""
        return stacked(self._steps)


def _cosine(error: Tensor, rows: Tensor) -> Tensor:
    """cos(e, w) `[B]` of errors e and head rows w `[B, d]`; NaN where e is zero, as with a closed gate."""
    cosine = torch.cosine_similarity(error, rows.to(error.device), dim=-1)
    return cosine.masked_fill((error == 0).all(-1), NAN)


def _or(value: Tensor | None, missing: Tensor) -> Tensor:
    return missing if value is None else value
