"""`esamp_vocab`: the distiller predicts the next-token distribution instead of the state."""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer import fusion
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp, Mix
from esamp.methods.options import ESampVocabConfig


class ESampVocab(ESamp):
    """``logits = (1 + beta) head(hL) - beta head(y)``, with y = f(h1) and f trained on next-token distributions.

    The network, its optimiser and the fusion are those of `ESamp` as published. With p = softmax(head(hL)) the
    reference distribution and a frozen LM head W, the loss, averaged over a group's rows, is::

        KL(p || q)        q = softmax(head(y))        dKL/dy = W' (q - p)        [R, d]

    The paper (arXiv 2604.24927, appendix C.4) specifies only "a KL objective in vocabulary space": the direction
    p || q, temperature 1 and weight 1 are our choices. A factor or soft cap that the model applies to the logits enters
    p and q but not the gradient. Each step projects two states per row. Does nothing at ``beta = 0``.
    """

    name = "esamp_vocab"
    summary = "esamp whose network is trained by KL through the LM head: the control for the space of the novelty"
    options = ESampVocabConfig
    in_vocabulary = True

    def counter(self, step: DecodeStep, record: StepRecord) -> tuple[Tensor, Mix]:
        """The predictions y. The difference of the two distributions gives the gradient of the network's loss."""
        states = fusion.mixed_states(step.final, -record.error, record.rows(record.live))

        def mix(reference: Tensor, other: Tensor) -> Tensor:
            record.slope = step.head.mean_rows(other.float().softmax(-1) - reference.float().softmax(-1))
            return fusion.mixed_logits(reference, other, self.config.mixing_strength)

        return states, mix

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Take one learning step, except at strength 0, where the predictions were not projected."""
        super().observe(step, tokens, live if self.steers(self.config) else torch.zeros_like(live))
