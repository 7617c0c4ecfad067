"""`DoLa`: contrast the distribution of the last layer with that of an early layer of the same model."""

import math
from typing import Literal, Self

import torch
from torch import Tensor
from typing_extensions import override

from esamp.decoding.logits import kl_divergence
from esamp.decoding.step import Combined, DecodeStep, Steering
from esamp.errors import OptionError
from esamp.methods.base import ModelShape
from esamp.methods.contrast.logit_contrast import LogitContrast, plausible_tokens
from esamp.methods.options import DoLaOptions
from esamp.options import Options, narrowed


def candidates(part: Literal["low", "high"], depth: int, *, tied: bool) -> tuple[int, ...]:
    """The candidate layers of the range `part` in a model of `depth` layers, by the rule of transformers 4.

    Every second layer of the lower or the upper half, within the 20 lowest or highest layers. With a `tied` embedding
    the low range starts at layer 2 (1 in a model of two layers), since the logits of layer 0 would favour the last
    token itself.
    """
    if part == "high":
        return tuple(range(max(depth // 2, depth - 20), depth, 2))
    start = min(2, depth - 1) if tied else 0
    return tuple(range(start, min(depth // 2, 20), 2)) or (start,)


class DoLa(LogitContrast):
    """Contrasts the log-probabilities of the last layer with those of the early layer that differs from it most.

    p_N is the softmax of the model's logits and q_j that of the logits of candidate layer j, whose state is projected
    by the same LM head. For each row separately::

        j* = argmax_j JSD(p_N, q_j)      JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2      m = (p + q) / 2
        ln p_N[v] - ln q_j*[v]           where p_N[v] >= relative_top * max_u p_N[u]
        minus infinity                   elsewhere

    in `[R, V]` float32, before penalties, temperature and filters. As in the published code, early states enter the
    head without the model's final norm; any scale or soft cap that the model applies to its logits is applied to both.

    The published code differs in two ways: it chooses one layer for the whole batch, so that rows depend on each other
    (not available here), and it computes KL(m || p) / 2 + KL(m || q) / 2 (``dola_divergence = "as-published"``). Both
    affect only the choice of the layer, not the contrast. The contrast increases repetition: the published experiments
    use a repetition penalty of 1.2.

    Source: Chuang et al. 2023, arXiv 2309.03883; layer ranges as in transformers 4, where this was ``dola_layers``.
    """

    name = "dola"
    summary = "DoLa: subtract the log-probabilities that an early layer would have given"
    citation = "Chuang et al. 2023, DoLa: Decoding by Contrasting Layers Improves Factuality, arXiv 2309.03883"
    options = DoLaOptions
    choice = "layer"

    def __init__(self, options: DoLaOptions, layers: tuple[int, ...], shape: ModelShape, slots: int) -> None:
        super().__init__(slots, shape.device, layers)
        self._options, self._layers = options, layers

    @classmethod
    def layers(cls, options: Options, depth: int | None = None) -> tuple[int, ...]:
        """The candidate layers; for a range, those of a tied and of an untied embedding together.

        Raises:
            OptionError: a range in a model of unknown depth, or a layer that is not below the last one.
        """
        own = narrowed(options, DoLaOptions)
        if own.dola_layers:
            _check_depth(own.dola_layers, depth)
            return tuple(sorted(set(own.dola_layers)))
        if depth is None:
            raise OptionError(
                f"dola_range = {own.dola_range!r} depends on the model's depth, which this engine does not report: "
                "name the layers (dola_layers)"
            )
        ranges = [candidates(own.dola_range, depth, tied=tied) for tied in (False, True)]
        return tuple(sorted(set().union(*ranges)))

    @classmethod
    def build(cls, options: Options, shape: ModelShape, *, slots: int, full: bool) -> Self:
        """Choose the candidate layers for this model.

        Raises:
            OptionError: the model does not have these layers, or their states do not have the size of the head's input.
        """
        own = narrowed(options, DoLaOptions)
        chosen = tuple(sorted(set(own.dola_layers))) or candidates(own.dola_range, shape.layers, tied=shape.tied)
        _check_depth(chosen, shape.layers)
        for layer in chosen:
            if shape.layer_sizes[layer] != shape.hidden_size:
                raise OptionError(
                    f"dola: layer {layer} has {shape.layer_sizes[layer]} dimensions, but the LM head takes "
                    f"{shape.hidden_size}: choose other layers (dola_layers)"
                )
        return cls(own, chosen, shape, slots)

    @classmethod
    def size(cls, options: Options, shape: ModelShape, *, slots: int) -> int:
        """0, as groups have no state."""
        return 0

    @classmethod
    @override
    def steers(cls, options: Options) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        """0, as groups have no state."""
        return 0

    def steer(self, step: DecodeStep) -> Steering:
        """Project the states of the candidate layers along with the final ones."""
        early = tuple(step.residuals[layer].to(step.final.dtype) for layer in self._layers)
        return Steering((step.final, *early), lambda *logits: self._mixed(step, *logits))

    def _mixed(self, step: DecodeStep, reference: Tensor, *early: Tensor) -> Combined:
        last = reference.float().log_softmax(-1)
        farthest, index = self._farthest(last, early)
        chosen = index.unsqueeze(-1) == torch.arange(len(early), device=index.device)
        plausible = plausible_tokens(last, self._options.relative_top)
        return self._contrasted(step, reference, last - farthest, plausible, chosen)

    def _farthest(self, last: Tensor, early: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Log-probabilities `[R, V]` of the candidate farthest from `last` (the first of ties), and its index `[R]`."""
        farthest = early[0].float().log_softmax(-1)
        index = torch.zeros(last.shape[0], dtype=torch.int64, device=last.device)
        if len(early) == 1:
            return farthest, index
        distance = self._distance(last, farthest)
        for other, logits in enumerate(early[1:], start=1):  # one by one, to save memory: V is large
            q = logits.float().log_softmax(-1)
            candidate = self._distance(last, q)
            further = candidate > distance
            distance, index = torch.where(further, candidate, distance), index.masked_fill(further, other)
            farthest = torch.where(further.unsqueeze(-1), q, farthest)
        return farthest, index

    def _distance(self, p: Tensor, q: Tensor) -> Tensor:
        """The divergence `[R]` of two sets of log-probabilities `[R, V]`; minus infinity where it is NaN."""
        mean = torch.logaddexp(p, q) - math.log(2)
        if self._options.dola_divergence == "as-published":
            total = kl_divergence(mean, p) + kl_divergence(mean, q)
        else:
            total = kl_divergence(p, mean) + kl_divergence(q, mean)
        return torch.where(total.isnan(), float("-inf"), total / 2)


def _check_depth(layers: tuple[int, ...], depth: int | None) -> None:
    if depth is not None and max(layers) >= depth:
        raise OptionError(f"dola: layer {max(layers)} is not below the last one of the model's {depth}")
