"""Exploratory Sampling as a decoding method: joins the engine's decode step with the `Explorer`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from esamp.errors import OptionError
from esamp.explorer import fusion, telemetry
from esamp.explorer.config import PRESET_SAMPLING, ESampConfig
from esamp.explorer.explorer import Explorer
from esamp.explorer.proposal import Proposal
from esamp.explorer.size import shared_bytes, slot_bytes
from esamp.methods.base import DecodeMethod, Detail, ModelShape
from esamp.options import Options, narrowed
from esamp.sampling import Sampling
from esamp.step import Combined, DecodeStep, Rows, Steering

SEEDS = 2**31 - 1
"""Modulus that keeps sums of a seed and a sample's index within int64."""


@dataclass(frozen=True)
class Variant:
    """Overrides for an ablation; the defaults are plain ESamp."""

    distils: Literal["states", "tokens", "nothing"] = "states"
    """the loss of the distiller: ||hL - y||^2, KL(p || q) of the next-token distributions, or none"""
    subtracts: bool = False
    """whether `ESamp.direction` gives -c y, so that a head that is not linear has c y subtracted alone"""


class ESamp(DecodeMethod):
    """Predicts each row's deep state and tilts its logits toward what the prediction missed.

    `full` telemetry projects the reference states beside the steered ones, which gives the KL divergence; the action
    signal, a head that is not linear, states in float16 and ``candidates = "reference"`` need those logits anyway.
    """

    name = "esamp"
    summary = "Exploratory Sampling: tilt the logits toward what a tiny network cannot predict"
    citation = "Zeng et al. 2026, Large Language Models Explore by Latent Distilling, arXiv 2604.24927"
    options: ClassVar[type[ESampConfig]] = ESampConfig
    variant: ClassVar[Variant] = Variant()
    """what the ablations that derive from this class declare"""

    def __init__(self, config: ESampConfig, explorer: Explorer, *, full: bool) -> None:
        """Use `build`."""
        self.config, self.explorer, self.full = config, explorer, full
        self.first_token = config.first_token
        self._sharing = 0  # groups in the one slot of scope = "batch"
        self._proposal: Proposal | None = None
        self._expected: Tensor | None = None
        self._slope: Tensor | None = None
        self._kl: Tensor | None = None
        self._reference: Tensor | None = None

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """The source layer, and the target layer if it is not the head's input."""
        config = narrowed(options, cls.options)
        return (config.source_layer,) + ((config.target_layer,) if config.target_layer is not None else ())

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Allocate the bank.

        Raises:
            OptionError: the options do not fit the model (layers it does not have, states of unequal size).
        """
        config = narrowed(options, cls.options)
        source = shape.layer_sizes[config.source_layer]
        if config.distiller == "mlp" and config.signal != "contrast" and source != shape.hidden_size:
            raise OptionError(
                f"distiller = 'mlp' maps states of one size, but layer {config.source_layer} of this model has "
                f"{source} dimensions and its head {shape.hidden_size}: use distiller = 'rls'"
            )
        if config.target_layer is not None and shape.layer_sizes[config.target_layer] != shape.hidden_size:
            raise OptionError(f"target_layer = {config.target_layer} has another size than the head: leave it out")
        if config.remembers_actions and shape.head_obstacle:
            raise OptionError(
                f"signal = {config.signal!r} reads the rows of the LM head, which {shape.head_obstacle}: choose another"
            )
        if cls.variant.distils == "tokens" and shape.head_obstacle:
            raise OptionError(f"{cls.name} trains through the LM head, which {shape.head_obstacle}")
        frozen = cls.variant.distils == "nothing"
        explorer = Explorer(
            config,
            source,
            shape.hidden_size,
            slots=slots,
            device=shape.device,
            frozen=frozen,
            head_scale=shape.head_scale,
        )
        return cls(config, explorer, full=full)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """The bank's slots and its template, and the random projections."""
        config = narrowed(options, cls.options)
        sizes = shape.layer_sizes[config.source_layer], shape.hidden_size
        frozen = cls.variant.distils == "nothing"
        return (slots + 1) * slot_bytes(config, *sizes, frozen=frozen) + shared_bytes(config, *sizes, frozen=frozen)

    @classmethod
    def waves(cls, options: Options, n: int) -> tuple[int, ...]:
        """n samples in ``wave_count`` waves, as even as can be, larger ones first."""
        count = min(narrowed(options, cls.options).wave_count, n)
        return tuple(n // count + (wave < n % count) for wave in range(count))

    @classmethod
    def sampler(cls, options: Options, sampling: Sampling) -> Sampling:
        """With the settings that come with the preset, where the request sets none itself."""
        usual = PRESET_SAMPLING.get(narrowed(options, cls.options).preset, {})
        unset = {name: value for name, value in usual.items() if name not in sampling.model_fields_set}
        return sampling.replace(**unset) if unset else sampling

    @classmethod
    def takes_first(cls, options: Options) -> bool:
        """The option ``first_token``."""
        return narrowed(options, cls.options).first_token

    @classmethod
    def steers(cls, options: Options) -> bool:
        """False at ``beta = 0`` (or ``gain = 0``): all is predicted, learned and reported, nothing is changed."""
        return narrowed(options, cls.options).steers

    def admit(self) -> int | None:
        """With ``scope = "batch"`` everybody gets slot 0."""
        if self.config.scope == "prompt":
            return self.explorer.claim()
        self._sharing += 1
        return self.explorer.claim() if self._sharing == 1 else 0

    def grow(self, slots: int) -> None:
        """Make room for at least this many groups."""
        self.explorer.grow(1 if self.config.scope == "batch" else slots)

    def release(self, slot: int) -> None:
        """Free a group's slot; the shared one of ``scope = "batch"`` when the last group leaves it."""
        self._sharing -= self.config.scope == "batch"
        if not self._sharing:
            self.explorer.release(slot)

    @property
    def nbytes(self) -> int:
        """Bytes of the bank."""
        return self.explorer.bank.nbytes

    def direction(self, step: DecodeStep, error: Tensor, expected: Tensor) -> Tensor:
        """What beta scales `[R, d]`, from e and c y `[R, d]`: e itself, unless an ablation overrides it."""
        return error

    def steer(self, step: DecodeStep) -> Steering:
        """Propose a change and pick the cheapest exact way to carry it out."""
        config, variant = self.config, self.variant
        target = step.deep if config.target_layer is None else step.hidden[config.target_layer]
        proposal = self.explorer.propose(
            step.hidden[config.source_layer],
            target,
            step.deep,
            step.layout,
            step.live,
            partial(self.direction, step),
            sample=_sample(step.rows),
        )
        self._proposal, self._expected, self._slope, self._kl, self._reference = proposal, None, None, None, None
        if not self.steers(config):
            return Steering((step.deep,), lambda logits: self._unchanged(step, logits))
        if not step.head.is_linear or variant.distils == "tokens":
            return self._steer_logits(step, proposal)
        moved = fusion.mixed_states(step.deep, proposal.delta, proposal.steered)
        overflows = step.deep.dtype == torch.float16  # logits of steered states may leave its range: then fall back
        compares = config.candidates == "reference" or config.adjusts_logits or overflows
        if not (self.full or self.explorer.memory is not None or compares):
            return Steering((moved,))
        return Steering((step.deep, moved), lambda reference, fused: self._combine(step, reference, fused))

    def observe(self, step: DecodeStep, tokens: Tensor, live: Tensor) -> None:
        """One learning step on the rows that were live."""
        if self._proposal is None:
            return
        if self.variant.distils == "tokens" and self._slope is None:
            live = torch.zeros_like(live)  # at strength 0 the prediction is not projected
        action = None
        if step.head.has_rows and (self.full or self.explorer.memory is not None):
            rows = step.head.rows(tokens)
            self.explorer.measure_tokens(self._proposal, rows, live)
            if self.explorer.memory is not None and self._expected is not None:
                action = rows - self._expected
        self.explorer.learn(self._proposal, action, live, self._slope)
        self._proposal, self._reference = None, None

    def detail(self) -> Detail:
        """Of the latest step; before `observe`, so that the row itself has taught nothing yet."""
        if self._proposal is None:
            raise OptionError("detail() belongs between steer() and observe()")
        proposal, missing = self._proposal, ~self._proposal.live
        novelty, residual = (errors.norm(dim=-1).float() for errors in (proposal.error, proposal.residual))
        kl = torch.full_like(novelty, float("nan")) if self._kl is None else self._kl
        each = (novelty, kl, residual, self.explorer.explained(proposal))
        novelty, kl, residual, explained = (values.masked_fill(missing, float("nan")) for values in each)
        return Detail(novelty, kl, self._reference, proposal.error, residual, explained)

    @classmethod
    def crosses_requests(cls, options: Options) -> bool:
        """With ``scope = "batch"`` everybody shares one distiller."""
        return narrowed(options, cls.options).scope == "batch"

    def report(self, slot: int | None = None) -> Callable[[], Mapping[str, float]]:
        """`esamp.explorer.telemetry.Summary` as a mapping."""
        total = self.explorer.telemetry.total(None if slot is None else [slot])
        return lambda: telemetry.read(total).as_dict()

    def _steer_logits(self, step: DecodeStep, proposal: Proposal) -> Steering:
        """Mix logits instead of states: the head is not linear, or the distiller learns from its own logits."""
        strength, variant = self.config.mixing_strength, self.variant
        mixed = fusion.subtracted_logits if variant.subtracts else fusion.mixed_logits
        if variant.distils == "tokens":
            counter = fusion.mixed_states(step.deep, -proposal.error, proposal.live)
        else:
            start = torch.zeros_like(step.deep) if variant.subtracts else step.deep
            counter = fusion.counter_states(start, proposal.delta, proposal.steered, strength)

        def mix(reference: Tensor, other: Tensor) -> Combined:
            if variant.distils == "tokens":
                self._slope = step.head.mean_rows(other.float().softmax(-1) - reference.float().softmax(-1))
            return self._combine(step, reference, mixed(reference, other, proposal.steered, strength))

        return Steering((step.deep, counter), mix)

    def _unchanged(self, step: DecodeStep, logits: Tensor) -> Combined:
        self._kl = torch.zeros_like(step.deep[:, 0], dtype=torch.float32)
        self._keep(step, logits)
        return Combined(logits)

    def _combine(self, step: DecodeStep, reference: Tensor, fused: Tensor) -> Combined:
        proposal = self._proposal
        if proposal is None:
            raise OptionError("combine() belongs between steer() and observe()")
        proposal.fall_back(
            fusion.sound_rows(reference, reference),
            fusion.sound_rows(reference, fused),
            narrow=step.deep.dtype == torch.float16,
        )
        fused = self._adjusted(step, reference, fused)
        fused = torch.where(proposal.steered.unsqueeze(-1), fused, reference)  # to the bit, whatever the batch's shape
        self._kl = self.explorer.measure(proposal, reference, fused)
        self._keep(step, reference)
        if self.config.candidates == "reference":
            return Combined(reference, fused.float() - reference.float())
        return Combined(fused)

    def _adjusted(self, step: DecodeStep, reference: Tensor, fused: Tensor) -> Tensor:
        """`fused` `[R, V]` within the limits that the options set."""
        config = self.config
        if config.cap > 0:
            fused = fusion.capped_logits(reference, fused, config.cap)
        if config.keep_entropy:
            fused = fusion.softened_logits(reference, fused)
        if config.kl > 0:
            fused = fusion.limited_logits(reference, fused, config.kl)
        return fusion.kept_ends(reference, fused, step.rows.stops) if config.keep_end else fused

    def _keep(self, step: DecodeStep, reference: Tensor) -> None:
        """Keep what `observe` and `detail` need: reference logits, and sum_v p_v w_v for the action memory."""
        self._reference = reference
        if self.explorer.memory is not None:
            self._expected = step.head.mean_rows(reference.float().softmax(-1))


def _sample(rows: Rows) -> Tensor:
    """`[R]` int64: a number of each row's sample. Samples of requests that share a named group rarely have the same."""
    return rows.seed.remainder(SEEDS) + rows.index
