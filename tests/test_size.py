"""The predicted memory of an explorer, which needs no allocation, equals the memory it allocates."""

import itertools

import pytest
import torch

from esamp.explorer.config import ESampConfig
from esamp.explorer.explorer import Explorer
from support.esamp_options import without_unused

CASES = [
    {"signal": signal, "distiller": distiller, "dtype": dtype, **more}
    for signal, distiller, dtype in itertools.product(
        ("state", "action", "both"), ("rls", "mlp", "mean"), ("float32", "float64", "bfloat16")
    )
    for more in ({}, {"gate": False, "centre": True, "features": 0, "block": "mlp", "depth": 3}, {"features": 5})
]


def explorer(options: dict[str, object], device: str, slots: int = 3) -> Explorer:
    config = ESampConfig(**without_unused(options | {"width": 7}))
    size = 12 if config.distiller == "mlp" else 9
    return Explorer(config, size, 12, slots=slots, device=torch.device(device))


@pytest.mark.parametrize("options", CASES, ids=str)
def test_the_predicted_memory_is_what_is_allocated(options: dict[str, object]) -> None:
    predicted, allocated = explorer(options, "meta"), explorer(options, "cpu")
    assert predicted.nbytes == allocated.nbytes > 0
    assert explorer(options, "cpu", slots=5).nbytes - allocated.nbytes == 2 * bytes_per_slot(allocated)


def bytes_per_slot(explored: Explorer) -> int:
    """Bytes of one slot, counted tensor by tensor."""
    banks = [explored.bank] if explored.memory is None else [explored.bank, explored.memory.bank]
    in_banks = sum(tensor[0].nbytes for bank in banks for tensor in bank.tensors.values())
    return in_banks + explored.tally.nbytes // explored.slots.size


def test_the_memory_of_two_settings_equals_values_by_hand() -> None:
    mean = Explorer(ESampConfig(distiller="mean"), 9, 12, slots=3, device="cpu")
    assert mean.nbytes == 3 * (4 * (12 + 4) + 8 * 3)  # sum of targets, four fields; three counts
    rls = Explorer(ESampConfig(features=5), 9, 12, slots=3, device="cpu")
    slot = 4 * 6 * 12 + 4 * 6 * 6 + 8 * 6 * 6  # W, S in float32, A in float64
    assert rls.nbytes == mean.nbytes + (3 + 2) * slot + 4 * 9 * 6  # a spare row and the template; the projection


def test_memory_is_predicted_for_settings_that_no_machine_can_hold() -> None:
    config = ESampConfig(distiller="mlp", width=65536, depth=64)
    assert Explorer(config, 8192, 8192, slots=1, device="meta").nbytes > 2**40
