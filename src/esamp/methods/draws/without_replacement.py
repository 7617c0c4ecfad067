"""Sampling without replacement: each sample of a prompt is drawn from what the ones before it left."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from esamp.decoding.randomness import per_token
from esamp.decoding.step import DecodeStep
from esamp.errors import OptionError
from esamp.methods.base import Draw, ModelShape
from esamp.methods.draws.inverse_cdf import at, locate
from esamp.methods.draws.trie import NOTHING, Children, Stand, Trie
from esamp.methods.options import WithoutReplacementOptions
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

PURPOSE = 3
"""of the random numbers"""


@dataclass(frozen=True)
class _Seen:
    """What `choose` found and `observe` needs."""

    stand: Stand
    children: Children
    weights: Tensor
    """`[R, V]` float64: what was drawn from; the model's probability where no other sample went"""
    at_children: Tensor
    """`[R, N]` float64: the model's probability of the children"""
    left: Tensor
    """`[R]` float64: share of what is below the node that no finished sample has drawn"""


class WithoutReplacement(Draw):
    """Draws token v at a node of the prefix tree with probability proportional to ``p_v (1 - r_v)``.

    ``p`` is the final distribution (temperature and filters applied) and ``r_v`` the share of what is below v that
    finished samples have drawn: 1 for a text that has ended there, else ``r = sum_c p_c r_c`` over the children. One
    sample after another, this is exact sampling without replacement of whole texts: sample k+1 has the model's
    distribution given that it is none of the first k. The last token of a text that `max_tokens` cuts off ends it.

    In waves of several, samples in flight are not known yet. What one has on its way below v, ``u_v`` (1 where it has
    just gone there), counts as a part: ``p_v (1 - r_v) (1 - draw_pending min(1, u_v))``. Rows that stand at one node in
    one step are served in the order of their sample indices: a text that ends there is gone for those after it; another
    token has its weight times ``1 - draw_pending``. So a likely token stays likely, however many went there, and a
    row in flight never takes a text that has ended while there is anything left below its node. Samples of one wave can
    still say the same: where two went the same way and only one text was left there.

    Where nothing is left (a remaining share below 1e-12), samples repeat: they are drawn from ``p`` as it is. A subtree
    that is not used up counts as left by 1e-9 at least, so that rounding hides none.
    Samples with an index from `trie_samples` on, and a text's tokens beyond the first ``trie_nodes / n``, are drawn
    from ``p`` as well and not remembered; n is taken for 64 where nobody told it.

    If ``p`` differs between visits of a node (a method that learns, a random filter, rounding), ``p_v`` is the present
    one and ``r_v`` a sum of what each text had when it was drawn.

    Source: Shi, Bieber & Sutton 2020 (UniqueRandomizer), arXiv 2002.09067, with shares in place of masses.
    """

    name = "without_replacement"
    summary = "no text twice: each sample is drawn from what the samples before it left, exactly"
    citation = (
        "Shi, Bieber & Sutton 2020, Incremental Sampling Without Replacement for Sequence Models, arXiv 2002.09067"
    )
    options = WithoutReplacementOptions

    def __init__(self, options: WithoutReplacementOptions, device: torch.device) -> None:
        """Use `build`."""
        self._pending = options.draw_pending
        self._trie = Trie(options.trie_samples, options.trie_nodes, device)
        self._seen: _Seen | None = None

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """n samples in `draw_waves` waves, as even as can be, larger ones first; by default in n waves of one.

        Raises:
            OptionError: there are more than can be remembered.
        """
        own = narrowed(options, WithoutReplacementOptions)
        for name, most in (("trie_samples", own.trie_samples), ("trie_nodes", own.trie_nodes)):
            if n > most:
                raise OptionError(f"n = {n}: without_replacement remembers {most} samples: set {name} = {n} or more")
        count = min(own.draw_waves or n, n)
        return tuple(n // count + (wave < n % count) for wave in range(count))

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """As it is.

        Raises:
            OptionError: there is nothing to draw, or the ends of samples would not be seen.
        """
        if sampling.temperature == 0:
            raise OptionError("without_replacement draws tokens, and temperature = 0 leaves no choice: set it above 0")
        if sampling.stop:
            raise OptionError(
                "without_replacement must see where samples end, and stop texts are found behind its back: leave out "
                "stop, let the end-of-sequence token or max_tokens end samples, and cut the texts afterwards"
            )
        return sampling

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int) -> Self:
        """Allocate for `slots` groups."""
        draw = cls(narrowed(options, WithoutReplacementOptions), shape.device)
        draw.grow(slots)
        return draw

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """That of the tries: 20 bytes for each of the `trie_nodes`."""
        own = narrowed(options, WithoutReplacementOptions)
        return Trie.size(own.trie_samples, own.trie_nodes, slots)

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self._trie.grow(slots)

    def clear(self, slot: int) -> None:
        """Forget what was drawn."""
        self._trie.clear(slot)

    @property
    def nbytes(self) -> int:
        """Bytes of the tries."""
        return self._trie.nbytes

    def choose(self, logits: Tensor, step: DecodeStep) -> Tensor:
        """Tokens `[R]` from what is left, by inverse transform sampling."""
        stand = self._trie.stand(step)
        children = self._trie.children(stand)
        weights = logits.double().softmax(-1)
        p = weights.gather(1, children.token)
        left = 1 - torch.where(children.found, p * (1 - children.left) / children.copies, 0.0).sum(1)
        new = p * children.left * (1 - self._pending * children.pending)
        lower = children.found & (left > NOTHING).unsqueeze(1)
        weights.scatter_reduce_(1, children.token, torch.where(lower, new, torch.inf), "amin")
        self._seen = _Seen(stand, children, weights, p, left)
        return self._in_order(weights, stand, step)

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Remember where the rows went."""
        if self._seen is None:
            return
        seen, self._seen, tokens = self._seen, None, tokens.long()
        children = seen.children
        same = children.found & (children.token == tokens.unsqueeze(1))
        went, none = same.any(1), torch.inf
        p = torch.where(went, torch.where(same, seen.at_children, 0.0).amax(1), at(seen.weights, tokens))
        left = p * torch.where(went, torch.where(same, children.left, none).amin(1), 1.0)
        self._trie.extend(seen.stand, tokens, p.log(), seen.left - left < NOTHING, step.rows.ends(tokens), live)

    def _in_order(self, weights: Tensor, stand: Stand, step: DecodeStep) -> Tensor:
        """A token for each row by its `weights` `[R, V]`, less what rows of this step before it took at the same node.

        One turn for each row that a group has in this step, all groups at once: each depends on the turns before.
        """
        u = per_token(step.rows, PURPOSE)
        cumulative = weights.cumsum(-1)
        chosen = locate(cumulative, u * cumulative[:, -1])
        if step.layout.lanes == 1:
            return chosen

        def of_group(values: Tensor) -> Tensor:
            """`[R, C]`: the values of all rows of a row's group; zeros for rows that are not known."""
            return step.layout.spread(step.layout.to_grid(values, stand.known))

        before = of_group(stand.known) & (of_group(step.rows.index) < step.rows.index.unsqueeze(1))
        turn = before.sum(1)
        peers = before & stand.known.unsqueeze(1) & (of_group(stand.node) == stand.node.unsqueeze(1))
        for now in range(1, step.layout.lanes):
            share = torch.where(step.rows.ends(chosen), 1.0, self._pending).to(weights.dtype)
            after = self._less(weights, cumulative, u, peers, of_group(chosen), of_group(share))
            chosen = torch.where(turn == now, after, chosen)
        return chosen

    def _less(
        self, weights: Tensor, cumulative: Tensor, u: Tensor, peers: Tensor, taken: Tensor, share: Tensor
    ) -> Tensor:
        """A token for each row when its `peers` `[R, C]` have `taken` tokens `[R, C]`, each a `share` of its weight."""
        vocabulary = weights.shape[1]
        tokens, order = torch.where(peers, taken, vocabulary).sort(1)
        first = torch.ones_like(peers)
        first[:, 1:] = tokens[:, 1:] != tokens[:, :-1]
        first &= tokens < vocabulary
        tokens = tokens.clamp_max(vocabulary - 1)
        removed = torch.where(first, weights.gather(1, tokens) * share.gather(1, order), 0.0)
        total = cumulative[:, -1]
        left = total - removed.sum(1)
        any_left = left > NOTHING * (1 - self._pending)
        removed = removed * any_left.unsqueeze(1)
        x = u * torch.where(any_left, left, total)
        above = cumulative.gather(1, tokens) - removed.cumsum(1) <= x.unsqueeze(1)  # x lies behind that token
        return locate(cumulative, x + (removed * above).sum(1))
