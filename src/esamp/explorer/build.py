"""From options to the distiller and the action memory that they name."""

import torch

from esamp.explorer.config import ESampConfig
from esamp.explorer.distiller import Distiller
from esamp.explorer.mean import RunningMean
from esamp.explorer.mlp import FrozenNetwork, ResidualNetwork
from esamp.explorer.rls import RecursiveLeastSquares


def build_distiller(
    config: ESampConfig,
    source_size: int,
    target_size: int,
    dtype: torch.dtype,
    device: torch.device | str,
    *,
    frozen: bool = False,
) -> Distiller:
    """The distiller that `config` names; a `frozen` network is never trained."""
    if config.distiller == "mlp":
        network = ResidualNetwork(target_size, config, dtype=dtype, device=device)
        return FrozenNetwork(network) if frozen else network
    if config.distiller == "mean":
        return RunningMean(
            target_size, ridge=config.ridge, forgetting=config.forgetting_factor, dtype=dtype, device=device
        )
    return RecursiveLeastSquares(
        source_size,
        target_size,
        features=config.features,
        ridge=config.ridge,
        forgetting=config.forgetting_factor,
        centre=config.centre,
        gate=config.gate,
        dtype=dtype,
        device=device,
        seed=config.seed,
    )


def build_memory(
    config: ESampConfig, deep_size: int, dtype: torch.dtype, device: torch.device | str
) -> RecursiveLeastSquares:
    """The action memory: least squares from deep states to the directions of the tokens taken there."""
    return RecursiveLeastSquares(
        deep_size,
        deep_size,
        features=config.features,
        ridge=config.action_ridge,
        forgetting=config.forgetting_factor,
        gate=False,
        dtype=dtype,
        device=device,
        seed=config.seed + 1,
    )
