"""`ESampConfig`: every option of Exploratory Sampling, declared once."""

from copy import copy
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from esamp.options import Options

PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "open": {"signal": "state", "distiller": "rls", "beta": 0.5, "gate": True},
    "long": {"signal": "state", "distiller": "rls", "beta": 0.5, "gate": True, "cap": 1.0},
    "answers": {"signal": "state", "distiller": "rls", "beta": 0.5, "gate": True},
    "paper": {"distiller": "mlp", "beta": 0.25, "gate": False, "signal": "state"},
}
"""What each preset changes; whatever is given explicitly wins over it."""

PRESET_SAMPLING: dict[str, dict[str, float]] = {
    "open": {"temperature": 0.8},
    "long": {"temperature": 0.9},
    "answers": {"temperature": 1.0, "min_p": 0.1},
}
"""Settings of the ordinary sampler that come with a preset, where a request leaves them unset."""


DECIDING = ("preset", "signal", "distiller")
"""Options that decide which others have an effect."""
NETWORK = ("width", "depth", "block", "lr", "eps", "clip", "loss")
"""Options of the published network."""
LEAST_RIDGE = 1e-9
"""Smaller penalties round away in float64 beside the sums of a million rows, so that their matrix has no inverse."""


class ESampConfig(Options):
    """Options of Exploratory Sampling (arXiv 2604.24927) and of our variants of it.

    `ESampConfig()` is our default, a gated recursive-least-squares distiller; `ESampConfig(preset="paper")` is the
    method as published. Symbols: h1 the source state, hL the state that the LM head projects, y the prediction of hL,
    c the confidence of that prediction, e = c (hL - y).
    """

    preset: Literal["default", "open", "long", "answers", "paper"] = "default"
    """starting values: 'default', 'open' (stories, ideas, synthetic data), 'long' (texts of more than 100 tokens),
    'answers' (short answers: a name, a number), or 'paper' (as published: mlp, beta 0.25, no gate); some come with
    settings of the sampler"""
    signal: Literal["state", "contrast", "action", "both"] = "state"
    """what is new: the state reached, how the sample differs from the others of its group, the action taken, or
    state and action both"""
    beta: float = Field(default=0.5, ge=0, le=16)
    """strength of the state and contrast signals: h' = hL + beta e"""
    gain: float = Field(default=1.0, ge=0, le=1000)
    """strength of the action signal, in nats: h' = hL - gain (predicted action) / (mean squared norm of head rows)"""
    waves: int | None = Field(default=None, ge=1, le=4096)
    """waves in which a group's samples start; by default 1 for the state signal and 4 with the action signal"""
    distiller: Literal["rls", "mlp", "mean"] = "rls"
    """how hL is predicted: recursive least squares, the paper's network, or the group's running mean"""
    gate: bool = True
    """scale e by the confidence of the prediction, so that what was never seen is left alone"""
    scope: Literal["prompt", "batch"] = "prompt"
    """who shares a distiller: the samples of one prompt, or everything in flight"""
    candidates: Literal["fused", "reference"] = "fused"
    """which logits the top-k, top-p and min-p filters see"""
    kl: float = Field(default=0.0, ge=0, le=100)
    """largest KL(steered || reference) of a token, in nats: each row is steered less where it would exceed it; 0 sets
    no limit"""
    cap: float = Field(default=0.0, ge=0, le=100)
    """largest change of a token's logit relative to the mean change, in nats, approached smoothly; 0 sets no limit"""
    keep_entropy: bool = False
    """soften each row's distribution until it has the entropy of the model's own, so that exploring sharpens nothing"""
    keep_end: bool = False
    """give end-of-sequence tokens the probability that the model gives them, so that lengths stay as they were"""
    first_token: bool = False
    """act on a sample's first token as well, which the published method leaves alone"""
    features: int = Field(default=32, ge=0, le=8192)
    """rls: size m of the fixed random projection of the source state; 0 uses the state itself"""
    ridge: float = Field(default=1.0, ge=LEAST_RIDGE, le=1e6)
    """rls: ridge penalty lambda of the state signal"""
    action_ridge: float = Field(default=0.01, ge=LEAST_RIDGE, le=1e6)
    """ridge penalty lambda of the action memory"""
    forgetting: float | None = Field(default=None, gt=0, le=1)
    """rls, mean and contrast: weight that the past keeps at each step; 1 forgets nothing; by default 1, and 0.99 with
    the contrast signal"""
    samples: int = Field(default=64, ge=2, le=4096)
    """contrast: running means kept for a group; sample i uses mean i modulo this number"""
    centre: bool = False
    """rls: predict what is left after the group's running mean"""
    width: int = Field(default=384, ge=1, le=65536)
    """mlp: inner width"""
    depth: int = Field(default=2, ge=1, le=64)
    """mlp: number of residual blocks"""
    block: Literal["swiglu", "mlp"] = "swiglu"
    """mlp: x + Down(silu(Gate x) * Up x), or x + Down(silu(Up x))"""
    lr: float = Field(default=4e-4, gt=0, le=10)
    """mlp: Adam's learning rate"""
    eps: float = Field(default=1e-4, gt=0, le=1)
    """mlp: Adam's epsilon"""
    clip: float = Field(default=0.5, ge=0, le=1e6)
    """mlp: largest gradient norm of a slot; 0 does not clip"""
    loss: Literal["sum", "mean"] = "sum"
    """mlp: squared error summed (the paper's Eq. 10) or averaged over dimensions; always averaged over rows"""
    update_every: int = Field(default=1, ge=1, le=1_000_000)
    """learn from every k-th decode step"""
    warmup: int = Field(default=0, ge=0, le=1_000_000)
    """updates that a group makes before it is steered"""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """seed of the random projection and of the network's initial weights"""
    source_layer: int = Field(default=1, ge=0, le=100_000)
    """h1: the residual stream after this many transformer layers; 0 is the token embedding"""
    target_layer: int | None = Field(default=None, ge=1, le=100_000)
    """what is predicted: the residual stream after this many layers; by default the input of the LM head"""
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    """storage type of the bank's wide tensors"""

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, data: Any) -> Any:
        preset = data.get("preset") if isinstance(data, dict) else None
        return PRESETS[preset] | data if isinstance(preset, str) and preset in PRESETS else data

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.target_layer is not None and self.target_layer <= self.source_layer:
            raise ValueError(f"target_layer = {self.target_layer} must lie above source_layer = {self.source_layer}")
        usual = {name: field.default for name, field in type(self).model_fields.items()} | PRESETS[self.preset]
        for name, reason in self.unused_options().items():
            if getattr(self, name) != usual[name]:
                raise ValueError(f"{name} = {getattr(self, name)!r} does nothing with {reason}: leave it out")
        return self

    def replace(self, **changes: Any) -> Self:
        """A validated copy with `changes` on top of what was set explicitly, less what they leave without effect."""
        explicit = {name: getattr(self, name) for name in self.model_fields_set}
        deciding = {name: value for name, value in (explicit | changes).items() if name in DECIDING}
        unused = type(self).parse(deciding).unused_options()
        return self.parse({name: value for name, value in explicit.items() if name not in unused} | changes)

    def unused_options(self) -> dict[str, str]:
        """Options that nothing reads, and the settings for which that is so."""
        signal, distiller = f"signal = {self.signal!r}", f"distiller = {self.distiller!r}"
        unused: dict[str, str] = {}
        if not self.remembers_actions:
            unused |= dict.fromkeys(("gain", "action_ridge"), signal)
        if self.signal == "action":
            unused |= dict.fromkeys(("beta", "gate", "target_layer"), signal)
        if self.signal != "contrast":
            unused["samples"] = signal
        if not self.predicts:
            unused |= dict.fromkeys(("distiller", "source_layer", "ridge", "centre", *NETWORK), signal)
            return unused if self.remembers_actions else unused | {"features": signal}
        if self.distiller != "mlp":
            unused |= dict.fromkeys(NETWORK, distiller)
        if self.distiller != "rls":
            unused["centre"] = distiller
        if self.distiller == "mlp":
            unused["ridge"] = distiller
        if not self.remembers_actions:
            unused |= {"features": distiller} if self.distiller != "rls" else {}
            unused |= {"forgetting": distiller} if self.distiller == "mlp" else {}
        return unused

    @property
    def predicts(self) -> bool:
        """Whether a distiller predicts the state: the contrast signal compares running means, actions need none."""
        return self.signal in ("state", "both")

    @property
    def steers_state(self) -> bool:
        """Whether the state or the contrast signal moves the logits at all."""
        return self.signal != "action" and self.beta > 0

    @property
    def steers_action(self) -> bool:
        """Whether the action signal moves the logits at all."""
        return self.remembers_actions and self.gain > 0

    @property
    def remembers_actions(self) -> bool:
        """Whether the action memory is kept."""
        return self.signal in ("action", "both")

    @property
    def adjusts_logits(self) -> bool:
        """Whether the change is limited or corrected on the logits, which takes a second projection."""
        return self.kl > 0 or self.cap > 0 or self.keep_entropy or self.keep_end

    @property
    def steers(self) -> bool:
        """Whether any signal moves the logits."""
        return self.steers_state or self.steers_action

    @property
    def mixing_strength(self) -> float:
        """s of ``(1 + s) head(hL) - s head(hL - delta / s)``: the paper's beta.

        At least 1 with the action signal, whose size has nothing to do with beta.
        """
        if not self.steers_action:
            return self.beta
        return max(self.beta, 1.0) if self.steers_state else 1.0

    @property
    def forgetting_factor(self) -> float:
        """`forgetting`, or its default for this signal."""
        return self.forgetting or (0.99 if self.signal == "contrast" else 1.0)

    @property
    def wave_count(self) -> int:
        """`waves`, or its default for this signal."""
        return self.waves or (4 if self.remembers_actions else 1)


def with_default(options: type[Options], name: str, default: Any) -> Any:
    """The field `name` of `options` as it is declared there, with another default: for classes that derive from it."""
    field = copy(options.model_fields[name])
    field.default = default
    return field


class AblationConfig(ESampConfig):
    """Options of what is left of Exploratory Sampling when one of its parts is another. The state signal alone."""

    signal: Literal["state"] = with_default(ESampConfig, "signal", "state")


class NetworkConfig(AblationConfig):
    """The same with the published distiller and strength, whatever the preset."""

    distiller: Literal["mlp"] = with_default(ESampConfig, "distiller", "mlp")
    beta: float = with_default(ESampConfig, "beta", 0.25)
    gate: bool = with_default(ESampConfig, "gate", False)
