"""`esamp_vocab`: the distiller predicts the next-token distribution instead of the state."""

import torch
from torch import Tensor

from esamp.decoding.step import DecodeStep
from esamp.explorer import fusion
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp, Mix
from esamp.methods.options import ESampVocabConfig


class ESampVocab(ESamp):
    """``logits = (1 + beta) head(hL) - beta head(y)``, y = f(h1), with f trained on the vocabulary.

    The network, its optimiser and the fusion are those of `ESamp` as published. Its loss is, averaged over a group's
    rows, with p = softmax(head(hL)) the reference distribution and the LM head W frozen::

        KL(p || q)        q = softmax(head(y))        dKL/dy = W' (q - p)        [R, d]

    The paper (arXiv 2604.24927, appendix C.4) says "a KL objective in vocabulary space" and no more: the direction
    p || q, temperature 1 and weight 1 are ours. A factor or a soft cap that the model puts behind W is in p and q, and
    taken for 1 in the gradient. Every step projects the states of two rows for one. Does nothing at ``beta = 0``.
    """

    name = "esamp_vocab"
    summary = "esamp whose network is trained by KL through the LM head: the control for the space of the novelty"
    options = ESampVocabConfig
    in_vocabulary = True

    def counter(self, step: DecodeStep, record: StepRecord) -> tuple[Tensor, Mix]:
        """The predictions y; the difference of the two distributions is what the network learns from."""
        states = fusion.mixed_states(step.final, -record.error, record.rows(record.live))

        def mix(reference: Tensor, other: Tensor) -> Tensor:
            record.slope = step.head.mean_rows(other.float().softmax(-1) - reference.float().softmax(-1))
            return fusion.mixed_logits(reference, other, self.config.mixing_strength)

        return states, mix

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """One learning step, unless at strength 0: then the predictions were not projected."""
        super().observe(step, tokens, live if self.steers(self.config) else torch.zeros_like(live))
