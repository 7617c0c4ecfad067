"""`FusedStep`: the explorer's step by Triton kernels, one launch to propose and one to learn, on the same bank."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor

from esamp.decoding.layout import RowLayout
from esamp.errors import OptionError
from esamp.explorer.bank import PackedBank
from esamp.explorer.config import ESampConfig
from esamp.explorer.decision import TINY
from esamp.explorer.distiller import Distiller
from esamp.explorer.fused_network import FusedNetwork, launch
from esamp.explorer.mean import RunningMean
from esamp.explorer.mlp import ResidualNetwork
from esamp.explorer.record import StepPredictions, StepRecord
from esamp.explorer.rls import CONSTANT, RecursiveLeastSquares
from esamp.explorer.tally import Tally

MOST_FEATURES = 128
"""m beyond which a group's matrix fits no multiprocessor's registers."""
ROWS = 16
"""Rows of a group that one program works on together: the least that a matrix product of Triton's takes."""
PROGRAMS = 128
"""Programs of a launch that are wanted, about as many as a large GPU has multiprocessors."""
STATES = (torch.float32, torch.bfloat16, torch.float16)


def obstacle(config: ESampConfig, source_size: int, *, full: bool, frozen: bool) -> str | None:
    """Why a step with these settings is not one for the fused kernels, as the end of a sentence; None if it is."""
    reasons = {
        "the signal is not 'state'": config.signal != "state",
        "the distiller is frozen": frozen,
        "the network is too large": config.distiller == "mlp"
        and 3 * config.depth * config.width * source_size >= 2**31,  # numbers are counted in 32 bits
        "the bank is not in float32": config.dtype != "float32",
        "the past is forgotten": config.forgetting_factor != 1,
        "the regression is centred": config.centre,
        "the target is an inner layer": config.target_layer is not None,
        "not every step is learned from": config.update_every != 1,
        "there is a warm-up": config.warmup > 0,
        "telemetry is full": full,
    }
    if config.distiller == "rls":
        reasons["the source state is not projected"] = not 0 < config.features < source_size
        reasons[f"there are more than {MOST_FEATURES} features"] = config.features > MOST_FEATURES
    reasons["triton is not installed"] = find_spec("triton") is None
    return next((reason for reason, holds in reasons.items() if holds), None)


def wanted(
    fused: bool | None,
    config: ESampConfig,
    source_size: int,
    device: torch.device,
    *,
    full: bool,
    frozen: bool = False,
) -> bool:
    """Whether steps are fused: as `fused` says; by default on a CUDA GPU where nothing stands against it.

    Raises:
        OptionError: `fused` is True and something stands against it.
    """
    if fused is False or (fused is None and device.type != "cuda"):
        return False
    reason = obstacle(config, source_size, full=full, frozen=frozen)
    if fused and reason is not None:
        raise OptionError(f"no fused kernels: {reason}. Leave fused = True out, and the plain path is taken")
    return reason is None


@dataclass(frozen=True)
class Tiling:
    """How a launch is cut into programs."""

    width: int
    """columns that a program holds at a time, a power of two"""
    tiles: int
    """times that a program does so"""
    blocks: int
    """programs beside each other for the same rows"""

    @classmethod
    def of(cls, units: int, size: int, features: int) -> "Tiling":
        """For states of `size` d and so many `units` of rows: about `PROGRAMS` programs, if d is large enough."""
        width = min(32 if features > 64 else 64, max(16, _power(size)))
        total = -(-size // width)
        tiles = -(-total // max(1, min(total, PROGRAMS // max(1, units))))
        return cls(width, tiles, -(-total // tiles))


class FusedStep:
    """Proposes and learns with two launches a step, for the settings that `obstacle` lets pass.

    It reads and writes the bank and the tally of the explorer and keeps nothing between steps, so that any step may be
    a plain one. One launch covers all groups in any layout: a program finds its rows, its slot and its columns itself.

    * ``propose``: (units of 16 rows) x (blocks of columns). Each program computes the features of its rows and, tile by
      tile, predicts, mixes and stores the tilted states. Whether a row is steered depends on its whole residual, so the
      last program of a unit adds up the parts and gives the rows back that are left alone.
    * ``learn``: groups x (blocks of columns). Each program forms ``A + F'F`` of its group and inverts it in float64,
      then changes its columns of W. The last program of a group stores A, which the others have read by then.
      The published network takes two more, and matrix products of torch's: see `FusedNetwork`.

    A stays in float64 as in the plain path: nothing drifts, and a step of m = 32 is 33 eliminations of a matrix of 32 x
    32. The features and W are float32, and so are products with them.
    """

    def __init__(self, config: ESampConfig, distiller: Distiller | None, bank: PackedBank, tally: Tally) -> None:
        """For the explorer that these belong to. Imports Triton."""
        from esamp.explorer.kernels.learn import learn
        from esamp.explorer.kernels.propose import propose

        self._propose_kernel, self._learn_kernel = propose, learn
        self.config, self.bank, self.tally = config, bank, tally
        self.half, self.ridge, self.features = 0.0, config.ridge, 0
        self._projection = tally.sums  # not read
        if isinstance(distiller, RunningMean):
            self.half = distiller.half
        elif isinstance(distiller, RecursiveLeastSquares) and distiller.padded_projection is not None:
            self.features, self._projection = distiller.size - 1, distiller.padded_projection
        self.network = FusedNetwork(distiller, bank) if isinstance(distiller, ResidualNetwork) else None
        self._padded = max(16, _power(self.features)) if self.features else 0
        """M: the features, rounded up to what a matrix product of Triton's takes"""
        self._warps = 4 if not self._padded else 16 if self._padded > 64 else 8
        self._gates = config.gate and self.network is None  # the network never doubts itself
        self._arrived = torch.zeros(0, dtype=torch.int32)

    def takes(self, source: Tensor, final: Tensor, layout: RowLayout) -> bool:
        """Whether the kernels know the types and strides of these states."""
        known = source.dtype in STATES and final.dtype in STATES and layout.groups > 0
        return known and source.stride(-1) == 1 and final.stride(-1) == 1

    def propose(
        self, source: Tensor, final: Tensor, layout: RowLayout, live: Tensor, find: Callable[[], StepPredictions]
    ) -> StepRecord:
        """As `Explorer.propose`; `find` is what computes the predictions in full, if they are asked for."""
        groups, lanes, (rows, size) = layout.groups, layout.lanes, final.shape
        units = groups * -(-lanes // ROWS)
        tiling = Tiling.of(units, size, self.features)
        steers = self.config.steers
        tilted = torch.empty(rows, size, dtype=final.dtype, device=final.device) if steers else final
        numbers = torch.empty(2, groups, lanes, device=final.device)
        flags = torch.empty(3, groups, lanes, dtype=torch.bool, device=final.device)
        kept = self._kept(source, layout, live)
        partials = torch.empty(units, tiling.blocks, 3, ROWS, device=final.device)
        bank, weights_at, seen_at = self._located()
        outside = 0 if layout.complete or not steers else -(-rows // ROWS)
        launch(
            self._propose_kernel, (units + outside, tiling.blocks),
            source, kept[0], final, live, tilted, kept[0], numbers, flags, partials,
            self._counters(units, final.device)[0],
            layout.slots, layout.place, layout.cells, layout.cells if layout.occupied is None else layout.occupied,
            bank, self.tally.sums, self._projection,
            rows, groups, lanes, source.shape[1], size, self.features,
            source.stride(0), final.stride(0), live.stride(0), bank.stride(0), self.tally.sums.stride(0),
            weights_at, seen_at, self.config.beta, self.half, tiling.tiles, tiling.blocks,
            M=self._padded, VALUE=self.network is not None, GATE=self._gates, STEERS=steers,
            NARROW=final.dtype == torch.float16,
            HOLES=layout.occupied is not None, ROWS=ROWS, WIDTH=tiling.width,
            DEPTH=4096 // max(32, self._padded), CONSTANT=CONSTANT, TINY=TINY, num_warps=self._warps,
        )  # fmt: skip
        record = StepRecord(layout, final, find, missed=numbers[0], varied=numbers[1], active=flags[0], kept=kept)
        record.live, record.steered, record.tilted = flags[1], flags[2], tilted
        return record

    def learn(self, record: StepRecord, live: Tensor) -> None:
        """As `Explorer.learn`, from a record of `propose`."""
        layout, final, kept = record.layout, record.final, record.kept or ()
        groups, size = layout.groups, final.shape[1]
        tiling = Tiling.of(groups, size, self.features)
        bank, weights_at, seen_at = self._located()
        gram, gram_at = self.bank.located("gram") if self.features else (self.tally.counts, 0)
        network, slope, reports = self.network, kept[0], record.live
        if network is not None:
            slope = torch.empty_like(kept[0])
            reports = torch.empty(2, groups, dtype=torch.bool, device=final.device)
        launch(
            self._learn_kernel, (groups, tiling.blocks),
            final, live, kept[0], kept[0], slope, reports,
            record.active, record.live, record.steered, record.missed, record.varied,
            self._counters(groups, final.device)[1],
            layout.slots, layout.cells, layout.cells if layout.occupied is None else layout.occupied,
            bank, gram, self.tally.sums, self.tally.counts,
            layout.lanes, size, self.features,
            final.stride(0), live.stride(0), bank.stride(0), gram.stride(0), self.tally.sums.stride(0),
            self.tally.counts.stride(0), weights_at, seen_at, gram_at,
            0.0 if network is None else network.steepness, tiling.tiles, tiling.blocks,
            M=self._padded, VALUE=network is not None, GATE=self._gates, HOLES=layout.occupied is not None, ROWS=ROWS,
            WIDTH=tiling.width, CONSTANT=CONSTANT, RIDGE=self.ridge, num_warps=self._warps,
        )  # fmt: skip
        if network is not None:
            network.train(layout, kept[1:], slope, reports)

    def _kept(self, source: Tensor, layout: RowLayout, live: Tensor) -> tuple[Tensor, ...]:
        """Room for the features `[G, C, M]`, or the network's predictions `[G, C, d]` and what it computed for them."""
        if self.network is not None:
            return self.network.predict(source, layout, live)
        return (torch.empty(layout.groups, layout.lanes, self._padded, device=source.device),)

    def _located(self) -> tuple[Tensor, int, int]:
        """The float32 storage of the bank, and where W and S begin in it."""
        if not self.features:
            return self.tally.sums, 0, 0
        storage, weights_at = self.bank.located("weights")
        return storage, weights_at, self.bank.located("seen")[1] if self.config.gate else 0

    def _counters(self, units: int, device: torch.device) -> Tensor:
        """Zeros `[2, units]`, for `propose` and for `learn`, which every launch leaves as it found them."""
        if self._arrived.shape[-1] < units:
            with torch.inference_mode(False):
                self._arrived = torch.zeros(2, units, dtype=torch.int32, device=device)
        return self._arrived


def _power(number: int) -> int:
    """The least power of two that is not less."""
    return 1 << max(0, number - 1).bit_length()
