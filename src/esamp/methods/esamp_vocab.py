"""`esamp_vocab`: the distiller predicts the next-token distribution instead of the state."""

from esamp.methods.esamp import ESamp, Variant
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
    variant = Variant(distils="tokens")
