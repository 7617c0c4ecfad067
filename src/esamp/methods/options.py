"""The options of methods whose modules import torch, declared here so that the command line can start without it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from esamp.explorer.config import AblationConfig, NetworkConfig, with_default
from esamp.options import Options

Layer = Annotated[int, Field(ge=0, le=100_000)]


class ArithmeticOptions(Options):
    """Options of arithmetic sampling."""

    codes_kept: int = Field(default=1024, ge=1, le=2**20)
    """number of a prompt's samples in flight whose codes are kept; with more samples in flight, some continue as
    ordinary samples"""


class ContrastiveOptions(Options):
    """Options of contrastive decoding."""

    amateur: str | None = Field(default=None, min_length=1)
    """the weaker model: a folder or a hub name; by default the one that ships with the embedded model"""
    plausibility: float = Field(default=0.1, gt=0, le=1)
    """alpha: drop tokens with less than this share of the top token's probability under the model"""
    contrast: float = Field(default=0.5, ge=0, le=16)
    """beta: strength of the contrast, (1 + beta) times the model's logits minus beta times the amateur's"""
    amateur_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """precision of the amateur: by default float32 on a CPU, else the type of its stored weights"""


class DiverseBeamOptions(Options):
    """Options of Diverse Beam Search. ``beam_groups = 1`` is ordinary beam search."""

    beam_groups: int | None = Field(default=None, ge=1, lt=2**63)
    """groups that the n hypotheses are divided into evenly; None makes each hypothesis a group, as in the paper"""
    beam_diversity: float = Field(default=0.5, ge=0, le=100)
    """lambda: subtracted from a token's log-probability for each hypothesis of an earlier group that continued with it
    in the same step"""
    beam_length_penalty: float = Field(default=1.0, ge=0, le=10)
    """exponent p: complete hypotheses are ranked by log-probability / length ** p; 0 ranks by log-probability"""


class DoLaOptions(Options):
    """Options of DoLa."""

    dola_range: Literal["low", "high"] = "low"
    """the candidate layers: every second one of the model's lower or of its upper half"""
    dola_layers: tuple[Layer, ...] = Field(default=(), strict=False)
    """candidate layers instead of a range: the residual stream after this many layers; 0 is the embedding"""
    dola_divergence: Literal["jensen-shannon", "as-published"] = "jensen-shannon"
    """divergence that chooses the candidate layer: the paper's formula, or that of its code (KL from the mean)"""
    relative_top: float = Field(default=0.1, gt=0, le=1)
    """drop tokens with less than this share of the top token's probability in the last layer"""


class EntropyAdaptiveOptions(Options):
    """Options of entropy-adaptive decoding."""

    entropy_gain: float = Field(default=0.001, gt=0, le=1)
    """keep tokens up to the last one whose identification lowers the normalised entropy by more than this"""


class ESampFrozenConfig(NetworkConfig):
    """Options of `esamp_frozen`: those of `esamp` with the published network and strength."""

    @model_validator(mode="after")
    def _check_warmup(self) -> Self:
        if self.warmup:
            raise ValueError("a frozen distiller makes no updates, which warmup counts: leave warmup out")
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
            raise ValueError("the subtracted prediction must be one of the LM head's input: leave target_layer out")
        return self


class ESampVocabConfig(NetworkConfig):
    """Options of `esamp_vocab`: those of `esamp` with the published network and strength. `loss` has no effect."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.target_layer is not None:
            raise ValueError(
                "the network learns through the LM head and must predict its input: leave target_layer out"
            )
        return self


class FireOptions(Options):
    """Options of FIRE."""

    fire_temperature: float = Field(default=30.0, gt=0, le=1000)
    """temperature of each sample's first token"""
    fire_k: int = Field(default=20, ge=2, le=1_000_000)
    """draw the first token from this many most likely tokens"""


class RarityOptions(Options):
    """Options of rarity reweighting."""

    rarity_strength: float = Field(default=0.25, ge=0, le=16)
    """subtract this times the log of a token's smoothed share of the tokens that the group has drawn"""
    rarity_smoothing: float = Field(default=1.0, gt=0, le=1e6)
    """initial count of every token; with a larger one, a single draw matters less"""


class StochasticBeamOptions(Options):
    """Stochastic Beam Search has no options of its own: temperature and filters are those of the sampler."""


class SurprisalOptions(Options):
    """Options of surprisal reweighting."""

    surprisal_strength: float = Field(default=0.25, ge=-16, le=16)
    """add this times -log p to each logit; a negative strength prefers probable tokens"""
    surprisal_floor: float = Field(default=0.0, ge=0, le=1)
    """drop tokens with less than this share of the top token's probability; 0 drops none"""

    @model_validator(mode="after")
    def _check_tail(self) -> Self:
        if self.surprisal_strength >= 1 and self.surprisal_floor == 0:
            raise ValueError(
                f"surprisal_strength = {self.surprisal_strength:g} makes the least likely tokens of the vocabulary at "
                "least as likely as the best: choose one below 1, or drop the tail with surprisal_floor, such as 0.1"
            )
        return self


class TopNSigmaOptions(Options):
    """Options of top-n-sigma."""

    n_sigma: float = Field(default=1.0, gt=0, le=100)
    """keep logits of at least max - n_sigma * (standard deviation of all logits)"""


class WithoutReplacementOptions(Options):
    """Options of sampling without replacement."""

    draw_waves: int | None = Field(default=None, ge=1, le=65536)
    """waves in which a prompt's samples start; by default one sample after another, which is exact"""
    draw_pending: float = Field(default=0.5, ge=0, lt=1)
    """share of the subtree below a token that counts as drawn while other samples are in it"""
    trie_samples: int = Field(default=256, ge=1, le=65536)
    """store at most this many samples of a prompt"""
    trie_nodes: int = Field(default=131072, ge=64, le=2**28)
    """store at most this many tokens of a prompt's samples, 20 bytes each, divided evenly among the samples"""


class XTCOptions(Options):
    """Options of XTC."""

    xtc_probability: float = Field(default=0.5, ge=0, le=1)
    """probability with which top choices are dropped at a token"""
    xtc_threshold: float = Field(default=0.1, gt=0, le=0.5)
    """probability from which a token is a top choice; above 0.5 there could never be two"""
