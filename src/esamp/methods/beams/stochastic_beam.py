"""`StochasticBeam`: Stochastic Beam Search, which draws n samples without replacement in one pass."""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from esamp.decoding.randomness import uniform
from esamp.errors import OptionError
from esamp.methods.beams.base import NOWHERE, BeamMethod, Beams, Ends, Hypotheses
from esamp.methods.options import StochasticBeamOptions
from esamp.methods.purpose import RandomPurpose
from esamp.options import Options
from esamp.sampling import Sampling


class StochasticBeam(BeamMethod):
    """Gumbel-top-k over whole texts, computed top down along the tree of prefixes.

    Every text y has a perturbed log-probability ``G(y) ~ Gumbel(log p(y))``; the n texts of the largest G, in this
    order, are n draws from p without replacement. The G of a prefix is the largest G of the texts that start with it.
    It is drawn first, and then those of its continuations, conditioned on their maximum being the prefix's G. A beam of
    the n best prefixes therefore contains the prefixes of the n best texts. Complete texts keep their place and G.
    """

    name = "stochastic_beam"
    summary = "n different samples in one pass, drawn without replacement"
    citation = "Kool, van Hoof & Welling 2019, Stochastic Beams and Where to Find Them, arXiv 1903.06059"
    options = StochasticBeamOptions

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The request's own settings, which determine the distribution that is drawn from.

        Raises:
            OptionError: the temperature is 0, where only one text has probability.
        """
        if sampling.temperature == 0:
            raise OptionError(
                "temperature = 0 leaves stochastic_beam one text to draw: use a temperature above 0, or diverse_beam, "
                "which draws no tokens"
            )
        return sampling

    def start(self, seeds: Tensor, n: int, limit: int) -> Beams:
        """One empty hypothesis with G ~ Gumbel(0)."""
        score = torch.full((len(seeds), n), NOWHERE, dtype=torch.float64, device=seeds.device)
        score[:, 0] = _gumbel(uniform(seeds, RandomPurpose.BEAM_ROOT))
        rows = Hypotheses.roots(score, limit, self.pad)
        return Beams(rows, rows.exist, rows.at(seeds.new_empty(len(seeds), 0)), seeds, torch.zeros_like(seeds))

    def advance(self, beams: Beams, log_probabilities: Tensor, ends: Ends) -> tuple[Beams, Tensor]:
        """Keep the n largest G among the continuations of live hypotheses and the complete ones."""
        rows, (_, places, vocabulary) = beams.rows, log_probabilities.shape
        device = log_probabilities.device
        sums = rows.log_probability.unsqueeze(-1) + log_probabilities.double()  # [P, K, V]
        place = torch.arange(places, device=device).unsqueeze(-1)
        token = torch.arange(vocabulary, device=device)
        free = sums + _gumbel(uniform(beams.seeds.view(-1, 1, 1), RandomPurpose.BEAM_CHILD, beams.step, place, token))
        # conditioning keeps the order within a row, so that its n best continuations are enough
        free, token = free.nan_to_num(nan=NOWHERE, neginf=NOWHERE).topk(min(places, vocabulary))  # [P, K, C]
        score = conditioned(free, rows.score)
        score[:, :, 0] = torch.where(
            beams.live, score[:, :, 0], rows.score
        )  # a complete hypothesis continues as itself
        score[:, :, 1:].masked_fill_(~beams.live.unsqueeze(-1), NOWHERE)
        best, chosen = score.flatten(1).topk(places)  # [P, K]
        parent = chosen // token.shape[-1]
        token = token.flatten(1).gather(1, chosen)
        old, sums = rows.at(parent), sums.flatten(1).gather(1, parent * vocabulary + token)
        new = beams.live.gather(1, parent) & (best > NOWHERE)
        following = old.extended(torch.where(new, token, self.pad), beams.step, sums, best)
        following = replace(
            following,
            length=torch.where(new, following.length, old.length),
            log_probability=torch.where(new, sums, old.log_probability),
        )
        last = beams.step + 1 == following.tokens.shape[-1]
        live = torch.zeros_like(new) if last else new & ~ends(following.tokens[:, :, : beams.step + 1])
        generated = beams.generated + new.sum(1)
        return replace(beams, rows=following, live=live, generated=generated, step=beams.step + 1), parent

    def ranked(self, beams: Beams) -> Hypotheses:
        """The hypotheses by decreasing G, the order in which the texts are drawn."""
        return beams.rows.best(beams.rows.score.shape[1])

    def described(self, ranked: Hypotheses) -> Mapping[str, Tensor]:
        """``log_probability``: log p(y); ``perturbed``: G(y)."""
        return {"log_probability": ranked.log_probability, "perturbed": ranked.score}


def conditioned(free: Tensor, maximum: Tensor) -> Tensor:
    """Independent Gumbel variables conditioned on their maximum.

    ``G = -log(exp(-M) - exp(-Z) + exp(-F))`` with M the `maximum`, F the `free` variables and Z the largest of them,
    in a numerically stable form (appendix B.3 of the paper):
    ``v = M - F + log(1 - exp(F - Z))``, ``G = M - max(0, v) - log(1 + exp(-|v|))``.

    Args:
        free: `[..., C]` float64, which include the largest one of all; minus infinity remains minus infinity.
        maximum: `[...]` float64.

    Returns:
        `[..., C]`, in the same order; the largest one equals `maximum`.
    """
    limit = maximum.unsqueeze(-1)
    below = free - free.amax(-1, keepdim=True)
    v = limit - free + torch.where(below > -math.log(2), (-below.expm1()).log(), (-below.exp()).log1p())
    moved = limit - v.clamp_min(0) - (-v.abs()).exp().log1p()
    return moved.where(free > NOWHERE, NOWHERE)


def _gumbel(numbers: Tensor) -> Tensor:
    """Standard Gumbel variables from uniform numbers in (0, 1)."""
    return -(-numbers.log()).log()
