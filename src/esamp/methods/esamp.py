"""`ESamp`: Exploratory Sampling as a decoding method, which connects an engine's decode steps to the `Explorer`."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Self, TypeAlias

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.logits import keeps_tokens, sound_rows
from esamp.decoding.step import Combined, DecodeStep, Rows, Steering
from esamp.errors import OptionError
from esamp.explorer import fusion
from esamp.explorer.captured import CUDAGraphs
from esamp.explorer.concurrent import ConcurrentExplorer
from esamp.explorer.config import PRESET_SAMPLING, ESampConfig
from esamp.explorer.decision import Direction
from esamp.explorer.explorer import Explorer
from esamp.explorer.record import StepRecord
from esamp.methods.base import Detail, ModelShape, called_out_of_order
from esamp.methods.slotted import SharedSlot, SlottedMethod
from esamp.methods.waves import even_waves
from esamp.options import Options, narrowed
from esamp.sampling import Sampling

SEEDS = 2**31 - 1
"""Modulus of seeds, so that the sum of a seed and a sample's index stays within int64."""

Mix: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Fused logits `[R, V]` from those of the reference and of the counter states, both `[R, V]`."""


class ESamp(SlottedMethod):
    """Predicts each row's final hidden state and tilts its logits toward the error of the prediction.

    `full` telemetry projects the reference states beside the tilted ones, to measure the KL divergence. The action
    signal, a head that is not linear, states in float16 and ``candidates = "reference"`` need those logits in any case.

    Ablations override `direction`, which replaces the error that beta scales, or `counter`, the way logits are mixed
    for a head that is not linear.
    """

    name = "esamp"
    summary = "Exploratory Sampling: tilt the logits toward what a tiny network cannot predict"
    citation = "Zeng et al. 2026, Large Language Models Explore by Latent Distilling, arXiv 2604.24927"
    options: ClassVar[type[ESampConfig]] = ESampConfig
    frozen: ClassVar[bool] = False
    """whether the distiller keeps its initial weights"""
    in_vocabulary: ClassVar[bool] = False
    """whether the distiller learns from its own logits, so that logits are mixed even for a linear head"""

    def __init__(self, config: ESampConfig, explorer: Explorer, *, full: bool) -> None:
        super().__init__(explorer if config.scope == "prompt" else SharedSlot(explorer))
        self.config, self.explorer, self.full = config, explorer, full
        self.first_token = config.first_token
        self._record: StepRecord | None = None  # of the step between `steer` and `observe`

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """The source layer, and the target layer unless that is the head's input."""
        config = narrowed(options, cls.options)
        return (config.source_layer,) + ((config.target_layer,) if config.target_layer is not None else ())

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate the bank.

        Raises:
            OptionError: the options do not fit the model: states of unequal size, or a head whose rows cannot be read.
        """
        config = narrowed(options, cls.options)
        source = shape.layer_sizes[config.source_layer]
        if config.distiller == "mlp" and config.signal != "contrast" and source != shape.hidden_size:
            raise OptionError(
                f"distiller = 'mlp' maps states of one size, but layer {config.source_layer} of this model has "
                f"{source} dimensions and its head {shape.hidden_size}: use distiller = 'rls'"
            )
        if config.target_layer is not None and shape.layer_sizes[config.target_layer] != shape.hidden_size:
            raise OptionError(
                f"target_layer = {config.target_layer} has {shape.layer_sizes[config.target_layer]} dimensions and the "
                f"head {shape.hidden_size}: leave it out"
            )
        if config.remembers_actions and shape.head_obstacle:
            raise OptionError(
                f"signal = {config.signal!r} reads the rows of the LM head, which {shape.head_obstacle}: choose another"
            )
        if cls.in_vocabulary and shape.head_obstacle:
            raise OptionError(f"{cls.name} trains through the LM head, which {shape.head_obstacle}")
        return cls(config, cls._explorer(config, shape, slots, shape.device, full=full), full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """Bytes of the slots, their template and what they share."""
        return cls._explorer(narrowed(options, cls.options), shape, slots, torch.device("meta"), full=True).nbytes

    @classmethod
    def _explorer(
        cls, config: ESampConfig, shape: ModelShape, slots: int, device: torch.device, *, full: bool
    ) -> Explorer:
        kind: Callable[..., Explorer] = Explorer
        if device.type == "cuda":
            kind = partial(ConcurrentExplorer, capture=CUDAGraphs() if shape.captures else None)
        return kind(
            config,
            shape.layer_sizes[config.source_layer],
            shape.hidden_size,
            slots=slots,
            device=device,
            frozen=cls.frozen,
            full=full,
            head_scale=shape.head_scale,
        )

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """``wave_count`` waves of equal size."""
        return even_waves(n, narrowed(options, cls.options).wave_count)

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """The preset's settings, where the request does not set its own."""
        usual = PRESET_SAMPLING.get(narrowed(options, cls.options).preset, {})
        unset = {name: value for name, value in usual.items() if name not in sampling.model_fields_set}
        return sampling.replace(**unset) if unset else sampling

    @classmethod
    @override
    def takes_first(cls, options: Options) -> bool:
        return narrowed(options, cls.options).first_token

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at ``beta = 0`` (or ``gain = 0``), where the explorer predicts and learns but changes nothing."""
        return narrowed(options, cls.options).steers

    @property
    @override
    def nbytes(self) -> int:
        return self.explorer.nbytes

    def direction(self, step: DecodeStep) -> Direction | None:
        """The vector `[R, d]` that beta scales in place of the error e; None for e itself."""
        return None

    def counter(self, step: DecodeStep, record: StepRecord) -> tuple[Tensor, Mix]:
        """For a head that is not linear: states `[R, d]` whose logits are subtracted, and how to mix both logits."""
        strength = self.config.mixing_strength
        steered = record.rows(record.steered)
        states = fusion.counter_states(step.final, record.change(self.config.beta), steered, strength)
        return states, lambda reference, other: fusion.mixed_logits(reference, other, strength)

    def steer(self, step: DecodeStep) -> Steering:
        """Compute the change of each row's state, and choose the cheapest exact way to apply it."""
        config = self.config
        record = self._record = self._propose(step)
        if not self.steers(config):
            return Steering((step.final,), partial(_unchanged, record))
        if self.in_vocabulary or not step.head.is_linear:
            states, mix = self.counter(step, record)

            def combine(reference: Tensor, other: Tensor) -> Combined:
                return self._combine(step, record, reference, mix(reference, other))

            return Steering((step.final, states), combine)
        overflows = step.final.dtype == torch.float16  # rows whose tilted logits leave its range must fall back
        compares = config.candidates == "reference" or config.adjusts_logits or overflows
        if not (self.full or self.explorer.memory is not None or compares):
            return Steering((record.tilted,))
        return Steering((step.final, record.tilted), partial(self._combine, step, record))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """Take one learning step on the rows in `live`."""
        record, self._record = self._record, None
        if record is None:
            return
        action, memory = None, self.explorer.memory
        if step.head.has_rows and (self.full or memory is not None):
            rows = step.head.rows(tokens)
            if self.full:
                record.measure_tokens(rows)
            if memory is not None and record.expected is not None:
                action = rows - record.expected
        self.explorer.learn(record, action, live)

    def detail(self) -> Detail:
        """Measurements of the latest step, of predictions made before learning from the row itself."""
        record = self._record
        if record is None:
            raise called_out_of_order("detail()")
        missing, error = ~record.rows(record.live), record.error
        novelty = error.norm(dim=-1).float()
        kl = torch.full_like(novelty, torch.nan) if record.kl is None else record.kl
        residual = record.rows(record.residual).norm(dim=-1).float()
        novelty, kl, residual, explained = (
            values.masked_fill(missing, torch.nan) for values in (novelty, kl, residual, record.explained)
        )
        return Detail(novelty, kl, record.reference, error, residual, explained)

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """True with ``scope = "batch"``, where all groups share one distiller."""
        return narrowed(options, cls.options).scope == "batch"

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """`esamp.decoding.telemetry.Summary` as a mapping."""
        return self.explorer.report(slot)

    def _propose(self, step: DecodeStep) -> StepRecord:
        config = self.config
        return self.explorer.propose(
            step.residuals[config.source_layer],
            step.final if config.target_layer is None else step.residuals[config.target_layer],
            step.final,
            step.layout,
            step.live,
            self.direction(step),
            sample=_sample(step.rows) if config.signal == "contrast" else None,
        )

    def _combine(self, step: DecodeStep, record: StepRecord, reference: Tensor, fused: Tensor) -> Combined:
        narrow = step.final.dtype == torch.float16  # whose range the logits may exceed
        sound = sound_rows(fused) & keeps_tokens(reference, fused) if narrow else sound_rows(fused)
        record.fall_back(sound_rows(reference), sound, narrow=narrow)
        fused = self._adjusted(step, reference, fused)
        steered = record.rows(record.steered).unsqueeze(-1)
        fused = torch.where(steered, fused, reference)  # rows that are not steered keep their bits
        record.reference = reference
        if self.full:
            record.measure_logits(reference, fused)
        if self.explorer.memory is not None:
            record.expected = step.head.mean_rows(reference.float().softmax(-1))
        if self.config.candidates == "reference":
            return Combined(reference, fused.float() - reference.float())
        return Combined(fused)

    def _adjusted(self, step: DecodeStep, reference: Tensor, fused: Tensor) -> Tensor:
        """`fused` `[R, V]` with the limits and corrections of the options applied."""
        config = self.config
        if config.cap > 0:
            fused = fusion.capped_logits(reference, fused, config.cap)
        if config.keep_entropy:
            fused = fusion.softened_logits(reference, fused)
        if config.kl > 0:
            fused = fusion.limited_logits(reference, fused, config.kl)
        return fusion.kept_ends(reference, fused, step.rows.stops) if config.keep_end else fused


def _unchanged(record: StepRecord, logits: Tensor) -> Combined:
    record.reference, record.kl = logits, torch.zeros_like(logits[:, 0], dtype=torch.float32)
    return Combined(logits)


def _sample(rows: Rows) -> Tensor:
    """`[R]` int64: a number that identifies each row's sample, rarely equal for requests that share a named group."""
    return rows.seed.remainder(SEEDS) + rows.index
