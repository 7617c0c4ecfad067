"""From options to the distiller that they name."""

import torch

from esamp.decoding.precision import exact_type
from esamp.explorer.config import ESampConfig
from esamp.explorer.distiller import Distiller
from esamp.explorer.mean import RunningMean
from esamp.explorer.mlp import FrozenNetwork, ResidualNetwork
from esamp.explorer.rls import RecursiveLeastSquares

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


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
        exact = exact_type(dtype)
        return RunningMean(
            target_size,
            ridge=config.ridge,
            forgetting=config.forgetting_factor,
            exact=exact,
            device=device,
            shared=config.update_every == 1,
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
