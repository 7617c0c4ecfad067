"""The memory of a group, told before anything is allocated, is what is then allocated."""

import itertools

import pytest
import torch

from applicable import applicable
from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer
from esamp.explorer.size import slot_bytes

CASES = [
    {"signal": signal, "distiller": distiller, "dtype": dtype, **more}
    for signal, distiller, dtype in itertools.product(
        ("state", "action", "both"), ("rls", "mlp", "mean"), ("float32", "float64", "bfloat16")
    )
    for more in ({}, {"gate": False, "centre": True, "features": 0, "block": "mlp", "depth": 3}, {"features": 5})
]


@pytest.mark.parametrize("options", CASES, ids=str)
def test_it_is_what_the_bank_takes(options):
    config = ESampConfig(**applicable(options | {"width": 7}))
    size = 12 if config.distiller == "mlp" else 9
    explorer = Explorer(config, size, 12, slots=3, device=torch.device("cpu"))
    assert explorer.bank.nbytes == 3 * slot_bytes(config, size, 12)


def test_it_is_told_of_states_that_no_machine_could_hold():
    config = ESampConfig(distiller="mlp", width=65536, depth=64)
    assert slot_bytes(config, 8192, 8192) > 2**40
