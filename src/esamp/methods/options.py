"""Options of the methods whose own modules import torch: declared here, so that flags are known without it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from esamp.explorer.config import AblationConfig, NetworkConfig, with_default
from esamp.options import Options

Layer = Annotated[int, Field(ge=0, le=100_000)]


class ArithmeticOptions(Options):
    """Options of arithmetic sampling."""

    codes_kept: int = Field(1024, ge=1, le=2**20)
    """of so many samples of a prompt that are under way at a time the codes are kept; of more, some go on as ordinary
    samples"""


class ContrastiveOptions(Options):
    """Options of contrastive decoding."""

    amateur: str | None = Field(None, min_length=1)
    """the weaker model: a folder or a hub name; by default the one that ships beside the embedded model"""
    plausibility: float = Field(0.1, gt=0, le=1)
    """alpha: drop tokens that the model finds less than this share as likely as its best"""
    contrast: float = Field(0.5, ge=0, le=16)
    """beta: strength of the contrast, (1 + beta) times the model's logits minus beta times the amateur's"""
    amateur_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """precision of the amateur: by default float32 on a CPU, else what its weights are stored in"""


class DiverseBeamOptions(Options):
    """Options of Diverse Beam Search. ``beam_groups = 1`` is ordinary beam search."""

    beam_groups: int | None = Field(None, ge=1, lt=2**63)
    """groups that the n hypotheses are divided into evenly; None makes each hypothesis a group, as in the paper"""
    beam_diversity: float = Field(0.5, ge=0, le=100)
    """lambda: what a token's log-probability loses for each hypothesis of an earlier group that took it in this step"""
    beam_length_penalty: float = Field(1.0, ge=0, le=10)
    """complete hypotheses are compared by log-probability / length ** this; 0 compares the sums"""


class DoLaOptions(Options):
    """Options of DoLa."""

    dola_range: Literal["low", "high"] = "low"
    """where the candidate layers lie: every second one of the model's lower or of its upper half"""
    dola_layers: tuple[Layer, ...] = Field((), strict=False)
    """candidate layers in place of a range: the residual stream after this many layers, 0 being the embedding"""
    dola_divergence: Literal["jensen-shannon", "as-published"] = "jensen-shannon"
    """how the farthest candidate is found: the paper's formula, or what its code computes (KL from the mean)"""
    relative_top: float = Field(0.1, gt=0, le=1)
    """drop tokens that the last layer finds less than this share as likely as its best"""


class EntropyAdaptiveOptions(Options):
    """Options of entropy-adaptive decoding."""

    entropy_gain: float = Field(0.001, gt=0, le=1)
    """a token is a candidate if telling it from the rest lowers the normalised entropy by more than this"""


class ESampFrozenConfig(NetworkConfig):
    """Options of `esamp_frozen`: those of `esamp` with the published network and strength."""

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup:
            raise ValueError("a frozen distiller makes no updates to wait for: leave warmup out")
        return self


class ESampNoiseConfig(AblationConfig):
    """Options of `esamp_noise`: those of `esamp`, with the same defaults and presets, for the state signal."""


class ESampRollConfig(AblationConfig):
    """Options of `esamp_roll`: those of `esamp`, with the same defaults and presets, for the state signal."""


class ESampStaticConfig(AblationConfig):
    """Options of `esamp_static`: those of `esamp` with the running mean in place of a distiller, without a gate."""

    distiller: Literal["mean"] = with_default(AblationConfig, "distiller", "mean")
    gate: bool = with_default(AblationConfig, "gate", False)


class ESampSubtractConfig(AblationConfig):
    """Options of `esamp_subtract`: those of `esamp`, with the same defaults and presets, for the state signal."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_layer is not None:
            raise ValueError("what is subtracted must be a prediction of the LM head's input: leave target_layer out")
        return self


class ESampVocabConfig(NetworkConfig):
    """Options of `esamp_vocab`: those of `esamp` with the published network and strength. `loss` has no meaning."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_layer is not None:
            raise ValueError("the network learns through the LM head, so it predicts its input: leave target_layer out")
        return self


class FireOptions(Options):
    """Options of FIRE."""

    fire_temperature: float = Field(30.0, gt=0, le=1000)
    """temperature of each sample's first token"""
    fire_k: int = Field(20, ge=2, le=1_000_000)
    """draw the first token from this many, the most likely ones"""


class RarityOptions(Options):
    """Options of rarity reweighting."""

    rarity_strength: float = Field(0.25, ge=0, le=16)
    """subtract this times the log of a token's smoothed share in what the group has said"""
    rarity_smoothing: float = Field(1.0, gt=0, le=1e6)
    """counted for every token beforehand: the larger, the less a single use matters"""


class StochasticBeamOptions(Options):
    """Stochastic Beam Search has no options: its temperature and filters are the sampler's."""


class SurprisalOptions(Options):
    """Options of surprisal reweighting."""

    surprisal_strength: float = Field(0.25, ge=-16, le=16)
    """add this times -log p to each logit; negative prefers what is probable anyway"""
    surprisal_floor: float = Field(0.0, ge=0, le=1)
    """before that, drop tokens with less than this share of the top token's probability; 0 drops none"""

    @model_validator(mode="after")
    def _check_tail(self) -> Self:
        if self.surprisal_strength >= 1 and self.surprisal_floor == 0:
            raise ValueError(
                f"surprisal_strength = {self.surprisal_strength:g} makes the least likely tokens of the vocabulary at "
                "least as likely as the best: stay below 1, or drop the tail by surprisal_floor, such as 0.1"
            )
        return self


class TopNSigmaOptions(Options):
    """Options of top-n-sigma."""

    n_sigma: float = Field(1.0, gt=0, le=100)
    """keep logits of at least max - n_sigma * (standard deviation of all logits)"""


class WithoutReplacementOptions(Options):
    """Options of sampling without replacement."""

    draw_waves: int | None = Field(None, ge=1, le=65536)
    """waves in which a prompt's samples start; by default one sample after another, which is exact"""
    draw_pending: float = Field(0.5, ge=0, lt=1)
    """share of what is below a token that is taken for drawn while other samples are on their way there"""
    trie_samples: int = Field(256, ge=1, le=65536)
    """remember at most this many samples of a prompt"""
    trie_nodes: int = Field(131072, ge=64, le=2**28)
    """remember at most this many tokens of a prompt's samples, 20 bytes each, shared evenly among the samples"""


class XTCOptions(Options):
    """Options of XTC."""

    xtc_probability: float = Field(0.5, ge=0, le=1)
    """how often top choices are dropped; 0 never does, 1 at every token"""
    xtc_threshold: float = Field(0.1, gt=0, le=0.5)
    """a token of at least this probability is a top choice; above 0.5 there could never be two"""
