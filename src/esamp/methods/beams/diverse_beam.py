"""`DiverseBeam`: Diverse Beam Search, in groups of beams of which each avoids the tokens of the groups before it."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from esamp.errors import OptionError
from esamp.methods.beams.base import NOWHERE, BeamMethod, Beams, Ends, Hypotheses
from esamp.methods.options import DiverseBeamOptions
from esamp.options import Options, narrowed
from esamp.sampling import Sampling


class DiverseBeam(BeamMethod):
    """Beam search in G groups of n / G hypotheses, one group after another in every step.

    Group g ranks the continuations of its hypotheses by ``sum log p - lambda * sum over steps of the number of
    hypotheses in groups 1 .. g - 1 that continued with the same token in the same step`` (Hamming diversity). Within a
    group it is the beam search of transformers: ending continuations among the n / G best become complete hypotheses,
    other ending ones are dropped, and the n / G best that do not end stay live. A group is done when the score of its
    best live hypothesis, divided by its length to the power of the penalty, does not exceed that of the worst of its
    n / G best complete ones.
    """

    name = "diverse_beam"
    summary = "beam search in groups that avoid each other's tokens"
    citation = "Vijayakumar et al. 2016, Diverse Beam Search, arXiv 1610.02424"
    options = DiverseBeamOptions

    def __init__(self, options: Options, *, pad: int, stops: int) -> None:
        super().__init__(options, pad=pad, stops=stops)
        self.config = narrowed(options, DiverseBeamOptions)

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """One wave of all hypotheses.

        Raises:
            OptionError: the groups do not divide n.
        """
        groups = narrowed(options, DiverseBeamOptions).beam_groups
        if groups is not None and n % groups:
            raise OptionError(f"beam_groups = {groups} does not divide n = {n}: choose a divisor of n, or leave it out")
        return (n,)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's settings at temperature 1; its filters and penalties apply to continuations.

        Raises:
            OptionError: the request has a temperature other than 1 or 0.
        """
        if sampling.temperature not in (0, 1):
            raise OptionError(
                f"temperature = {sampling.temperature:g}: diverse_beam draws no tokens, so leave it at 1 (or 0)"
            )
        return sampling.replace(temperature=1.0)

    def start(self, seeds: Tensor, n: int, limit: int) -> Beams:
        """An empty hypothesis in the first place of each group."""
        score = torch.full((len(seeds), n), NOWHERE, dtype=torch.float64, device=seeds.device)
        score[:, :: self._width(n)] = 0
        rows = Hypotheses.roots(score, limit, self.pad)
        nothing = rows.only(torch.zeros_like(rows.exist))
        return Beams(rows, rows.exist, nothing, seeds, torch.zeros_like(seeds))

    def advance(self, beams: Beams, log_probabilities: Tensor, ends: Ends) -> tuple[Beams, Tensor]:
        """Extend one group after another, as each depends on the tokens of the groups before it."""
        _, places, vocabulary = log_probabilities.shape
        width = self._width(places)
        spare = max(2, 1 + self.stops) * width  # at least `width` of the best `spare` continuations do not end
        # fewer than `places` tokens of a row are penalised, so that its best `count` ones are enough
        count = min(vocabulary, spare + places)
        gains, tokens = log_probabilities.nan_to_num(nan=NOWHERE, neginf=NOWHERE).topk(count)  # [P, K, C]
        taken = tokens.new_empty(len(tokens), 0)
        groups: list[tuple[Beams, Tensor]] = []
        for first in range(0, places, width):
            group = slice(first, first + width)
            own = _part(beams, group)
            following, parent = self._step(own, gains[:, group].double(), tokens[:, group], taken, ends, spare)
            newest = following.rows.tokens[:, :, beams.step].masked_fill(~following.rows.exist, -1)
            taken = torch.cat([taken, newest], 1)
            groups.append((following, parent + first))
        joined = groups[0][0]
        for following, _ in groups[1:]:
            joined = replace(
                joined,
                rows=joined.rows.joined(following.rows),
                live=torch.cat([joined.live, following.live], 1),
                finished=joined.finished.joined(following.finished),
                generated=joined.generated + following.generated - beams.generated,
            )
        return joined, torch.cat([parent for _, parent in groups], 1)

    def _step(
        self, beams: Beams, gains: Tensor, tokens: Tensor, taken: Tensor, ends: Ends, spare: int
    ) -> tuple[Beams, Tensor]:
        """Extend the W hypotheses of one group by one token.

        Args:
            beams: the state of this group.
            gains: `[P, W, C]`, log-probabilities of the best continuations of each row.
            tokens: `[P, W, C]`, their tokens.
            taken: `[P, M]`, the tokens that hypotheses of earlier groups continued with; -1 for none.
            ends: tells which hypotheses are complete.
            spare: the number of continuations to consider.
        """
        width, count = gains.shape[1:]
        repeats = (tokens.unsqueeze(-1) == taken[:, None, None]).sum(-1)
        scores = beams.rows.score.unsqueeze(-1) + gains - self.config.beam_diversity * repeats
        scores = scores.masked_fill(~beams.live.unsqueeze(-1), NOWHERE)
        best, chosen = scores.flatten(1).topk(min(spare, width * count))  # [P, M]
        parent = chosen // count
        sums = beams.rows.log_probability.gather(1, parent) + gains.flatten(1).gather(1, chosen)
        token = tokens.flatten(1).gather(1, chosen)
        candidates = beams.rows.at(parent).extended(token, beams.step, sums, best)
        over = ends(candidates.tokens[:, :, : beams.step + 1])
        among_best = torch.arange(over.shape[1], device=over.device) < width
        last = beams.step + 1 == candidates.tokens.shape[-1]
        ended = candidates.only(among_best & (over | last))
        factor = float(beams.step + 1) ** -self.config.beam_length_penalty
        finished = beams.finished.joined(replace(ended, score=ended.score * factor)).best(width)
        onward = candidates.score.masked_fill(over, NOWHERE).topk(width)
        rows = replace(candidates.at(onward.indices), score=onward.values)
        generated = beams.generated + ended.exist.sum(1) + (0 if last else rows.exist.sum(1))
        # an empty place of `finished` is below any score
        hopeful = rows.score.amax(1) * factor > finished.score.amin(1)
        rows = rows if last else rows.only(hopeful.unsqueeze(1))
        live = torch.zeros_like(rows.exist) if last else rows.exist
        following = replace(beams, rows=rows, live=live, finished=finished, generated=generated, step=beams.step + 1)
        return following, parent.gather(1, onward.indices)

    def ranked(self, beams: Beams) -> Hypotheses:
        """The hypotheses of all groups, ranked by ``log_probability / length ** beam_length_penalty``."""
        finished = beams.finished
        length = finished.length.clamp_min(1).double()
        score = finished.log_probability / length**self.config.beam_length_penalty
        return replace(finished, score=score.masked_fill(~finished.exist, NOWHERE)).best(score.shape[1])

    def described(self, ranked: Hypotheses) -> Mapping[str, Tensor]:
        """``log_probability``: log p(y); ``score``: ``log_probability / length ** beam_length_penalty``."""
        return {"log_probability": ranked.log_probability, "score": ranked.score}

    def _width(self, n: int) -> int:
        return n // (self.config.beam_groups or n)


def _part(beams: Beams, group: slice) -> Beams:
    """The state of one group of a search."""
    places = torch.arange(group.start, group.stop, device=beams.live.device).expand(len(beams.live), -1)
    return replace(beams, rows=beams.rows.at(places), live=beams.live[:, group], finished=beams.finished.at(places))
