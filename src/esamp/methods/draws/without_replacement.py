"""`WithoutReplacement`: each sample of a prompt is drawn from the texts that earlier samples have not drawn."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.randomness import per_token
from esamp.decoding.step import DecodeStep
from esamp.errors import OptionError
from esamp.methods.base import Draw, ModelShape
from esamp.methods.draws.inverse_cdf import at, locate
from esamp.methods.draws.trie import EXHAUSTED, Children, Position, Trie
from esamp.methods.options import WithoutReplacementOptions
from esamp.methods.purpose import RandomPurpose
from esamp.methods.waves import even_waves
from esamp.options import Options, narrowed
from esamp.sampling import Sampling


@dataclass(frozen=True)
class _Chosen:
    """Results of `choose` that `observe` needs."""

    position: Position
    children: Children
    weights: Tensor
    """`[R, V]` float64: the weights drawn from; the model's probabilities for tokens that no other sample has"""
    at_children: Tensor
    """`[R, N]` float64: the model's probability of the children"""
    left: Tensor
    """`[R]` float64: the share of the subtree below the node that no finished sample has drawn"""


class WithoutReplacement(Draw):
    """Draws token v at a node of the prefix tree with probability proportional to ``p_v (1 - r_v)``.

    ``p`` is the final distribution (temperature and filters applied) and ``r_v`` the share of the subtree below v that
    finished samples have drawn: 1 for a text that ended there, else ``r = sum_c p_c r_c`` over the children. If samples
    are drawn one after another, this is exact sampling without replacement of whole texts: sample k+1 has the model's
    distribution conditioned on not being one of the first k. A text that `max_tokens` truncates ends with its last
    token.

    In waves of several samples, the texts of samples in flight are not known yet. The share of the subtree below v that
    they are in, ``u_v`` (1 directly after drawing v), is discounted: ``p_v (1 - r_v) (1 - draw_pending min(1, u_v))``.
    Rows that are at the same node in one step draw in the order of their sample indices. A token that ends the text is
    unavailable to the rows after it; any other token has its weight multiplied by ``1 - draw_pending`` once. A likely
    token thus stays likely regardless of the number of rows that drew it, and a row never draws a finished text while
    anything is left below its node. Two samples of one wave can still draw the same text, if both entered a subtree in
    which only one text was left.

    Where nothing is left (a remaining share below 1e-12), samples repeat: they are drawn from ``p`` itself. A subtree
    that is not exhausted has a remaining share of at least 1e-9, so that rounding cannot hide it. Samples with an index
    of `trie_samples` or more, and tokens of a text beyond the first ``trie_nodes / n``, are drawn from ``p`` and not
    stored; if n is unknown, it is taken to be 64.

    If ``p`` differs between visits of a node (a method that learns, a random filter, rounding), ``p_v`` is the current
    probability and ``r_v`` sums the shares that the texts had when they were drawn.

    Source: Shi, Bieber & Sutton 2020 (UniqueRandomizer), arXiv 2002.09067, with shares instead of masses.
    """

    name = "without_replacement"
    summary = "no text twice: each sample is drawn from what the samples before it left, exactly"
    citation = (
        "Shi, Bieber & Sutton 2020, Incremental Sampling Without Replacement for Sequence Models, arXiv 2002.09067"
    )
    options = WithoutReplacementOptions

    def __init__(self, options: WithoutReplacementOptions, device: torch.device) -> None:
        self._pending = options.draw_pending
        self._trie = Trie(options.trie_samples, options.trie_nodes, device)
        self._chosen: _Chosen | None = None

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """`draw_waves` waves of equal size; by default n waves of one sample.

        Raises:
            OptionError: n samples do not fit into the trie.
        """
        own = narrowed(options, WithoutReplacementOptions)
        for name, most in (("trie_samples", own.trie_samples), ("trie_nodes", own.trie_nodes)):
            if n > most:
                raise OptionError(f"n = {n}: without_replacement stores {most} samples: set {name} = {n} or more")
        return even_waves(n, own.draw_waves or n)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's own settings.

        Raises:
            OptionError: the temperature is 0, where tokens are not drawn, or the request has stop texts.
        """
        if sampling.temperature == 0:
            raise OptionError("without_replacement draws tokens, and temperature = 0 leaves no choice: set it above 0")
        if sampling.stop:
            raise OptionError(
                "without_replacement must know where samples end, and engines do not report stop texts to methods: "
                "leave out stop, let the end-of-sequence token or max_tokens end samples, and cut the texts afterwards"
            )
        return sampling

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        """Allocate tries for `slots` groups."""
        draw = cls(narrowed(options, WithoutReplacementOptions), shape.device)
        draw.grow(slots)
        return draw

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of the tries: 20 for each of the `trie_nodes` and 40 for each of the `trie_samples`."""
        own = narrowed(options, WithoutReplacementOptions)
        return Trie.size(own.trie_samples, own.trie_nodes, slots)

    @override
    def grow(self, slots: int) -> None:
        self._trie.grow(slots)

    @override
    def clear(self, slot: int) -> None:
        self._trie.clear(slot)

    @property
    @override
    def nbytes(self) -> int:
        return self._trie.nbytes

    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """Draw tokens `[R]` from the remaining weights by inverse transform sampling."""
        position = self._trie.position(step)
        children = self._trie.children(position)
        weights = logits.double().softmax(-1)
        p = weights.gather(1, children.token)
        left = 1 - torch.where(children.present, p * (1 - children.left) / children.copies, 0.0).sum(1)
        new = p * children.left * (1 - self._pending * children.pending)
        lower = children.present & (left > EXHAUSTED).unsqueeze(1)
        weights.scatter_reduce_(1, children.token, torch.where(lower, new, torch.inf), "amin")
        self._chosen = _Chosen(position, children, weights, p, left)
        return self._in_order(weights, position, step)

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Store the tokens of the rows in `live`."""
        if self._chosen is None:
            return
        chosen, self._chosen, tokens = self._chosen, None, tokens.long()
        children = chosen.children
        same = children.present & (children.token == tokens.unsqueeze(1))
        known = same.any(1)  # another sample has this token here
        p = torch.where(known, torch.where(same, chosen.at_children, 0.0).amax(1), at(chosen.weights, tokens))
        left = p * torch.where(known, torch.where(same, children.left, torch.inf).amin(1), 1.0)
        alone = chosen.left - left < EXHAUSTED
        self._trie.extend(chosen.position, tokens, p.log(), alone, step.rows.ends(tokens), live)

    def _in_order(self, weights: Tensor, position: Position, step: DecodeStep) -> Tensor:
        """A token of each row from its `weights` `[R, V]`, reduced by the draws of earlier rows at the same node.

        The rows of a group draw in turn, as each depends on the turns before; all groups draw at once.
        """
        u = per_token(step.rows, RandomPurpose.WITHOUT_REPLACEMENT)
        cumulative = weights.cumsum(-1)
        chosen = locate(cumulative, u * cumulative[:, -1])
        if step.layout.lanes == 1:
            return chosen

        def of_group(values: Tensor) -> Tensor:
            """`[R, C]`: the values of all rows of each row's group; zeros for rows that are not stored."""
            return step.layout.spread(step.layout.to_grid(values, known))

        known, node, index = position.known, position.node, step.rows.index
        before = of_group(known) & (of_group(index) < index.unsqueeze(1))
        turn = before.sum(1)
        peers = before & known.unsqueeze(1) & (of_group(node) == node.unsqueeze(1))
        for now in range(1, step.layout.lanes):
            share = torch.where(step.rows.ends(chosen), 1.0, self._pending).to(weights.dtype)
            after = self._reduced(weights, cumulative, u, peers, of_group(chosen), of_group(share))
            chosen = torch.where(turn == now, after, chosen)
        return chosen

    def _reduced(
        self, weights: Tensor, cumulative: Tensor, u: Tensor, peers: Tensor, taken: Tensor, share: Tensor
    ) -> Tensor:
        """A token of each row at quantile `u` `[R]`, after removing a `share` of the tokens `taken` by `peers`.

        Args:
            weights: `[R, V]` float64.
            cumulative: `[R, V]` float64, their running sums.
            u: `[R]` float64 in (0, 1).
            peers: `[R, C]` bool, rows that drew before at the same node.
            taken: `[R, C]` int64, the tokens of the rows of the group.
            share: `[R, C]` float64, the share of its weight that a taken token loses, once.
        """
        vocabulary = weights.shape[1]
        tokens, order = torch.where(peers, taken, vocabulary).sort(1)
        first = torch.ones_like(peers)
        first[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
        first &= tokens < vocabulary
        tokens = tokens.clamp_max(vocabulary - 1)
        removed = torch.where(first, weights.gather(1, tokens) * share.gather(1, order), 0.0)
        total = cumulative[:, -1]
        left = total - removed.sum(1)
        any_left = left > EXHAUSTED * (1 - self._pending)
        removed = removed * any_left.unsqueeze(1)
        x = u * torch.where(any_left, left, total)
        above = cumulative.gather(1, tokens) - removed.cumsum(1) <= x.unsqueeze(1)  # tokens before x
        return locate(cumulative, x + (removed * above).sum(1))
