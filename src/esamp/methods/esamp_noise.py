"""`esamp_noise`: Exploratory Sampling along a random direction. Does the direction of the error carry the effect?"""

import math

import torch
from torch import Tensor

from esamp.decoding.randomness import uniform
from esamp.decoding.step import DecodeStep, Rows
from esamp.explorer.decision import Direction
from esamp.explorer.record import StepRecord
from esamp.methods.esamp import ESamp
from esamp.methods.options import ESampNoiseConfig
from esamp.methods.purpose import RandomPurpose


def normals(rows: Rows, size: int) -> Tensor:
    """Independent standard normal numbers `[R, size]` float64 by Box & Muller (1958).

    Entry j of a row depends only on j and on the row's seed, index and position.
    """
    pairs = (size + 1) // 2
    place = torch.arange(2 * pairs, device=rows.seed.device)
    seed, index, position = (key.unsqueeze(1) for key in (rows.seed, rows.index, rows.position))
    first, second = uniform(seed, index, position, RandomPurpose.NOISE, place).split(pairs, dim=1)
    radius, angle = (-2 * first.log()).sqrt(), 2 * math.pi * second
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :size]


class ESampNoise(ESamp):
    """``h' = hL + beta ||e|| g / ||g||`` with g `[R, d]` standard normal, independent for each row and step.

    Distiller and gate work as in `ESamp`, so that strength and timing are the same and only the direction differs. The
    random numbers are the same on every engine. Telemetry describes the true error e.
    Source: arXiv 2604.24927, appendix C.3.
    """

    name = "esamp_noise"
    summary = "esamp along random directions of the same length: the control for the direction of the error"
    options = ESampNoiseConfig

    def direction(self, step: DecodeStep) -> Direction:
        """Gaussian noise `[R, d]`, each row scaled to the length of its error."""

        def noise(record: StepRecord) -> Tensor:
            error = record.error
            drawn = normals(step.rows, error.shape[-1])
            unit = (drawn / drawn.norm(dim=-1, keepdim=True)).to(error.dtype)
            scaled: Tensor = unit * error.norm(dim=-1, keepdim=True)
            return scaled

        return noise
