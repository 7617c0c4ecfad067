"""Telemetry sums and what is made of them."""

import math

import pytest
import torch

from esamp.decoding.telemetry import FIELDS, Telemetry, summarise


def test_sums_per_slot() -> None:
    telemetry = Telemetry(3, "cpu")
    telemetry.add(torch.tensor([2, 0]), steps=torch.tensor([1, 1]), residual=torch.tensor([3.0, 1.0]))
    telemetry.add(torch.tensor([2]), steps=torch.tensor([True]), variance=torch.tensor([4.0]))
    two = telemetry.summary([2])
    assert (two.steps, two.explained_variance) == (2, 1 - 3 / 4)
    assert telemetry.summary([1]).steps == 0
    assert telemetry.summary([0]).steps == 1
    everything = telemetry.summary()
    assert (everything.steps, everything.explained_variance) == (3, 1 - 4 / 4)


def test_growth_keeps_and_claiming_clears() -> None:
    telemetry = Telemetry(2, "cpu")
    telemetry.add(torch.tensor([0, 1]), rows=torch.tensor([5, 6]))
    telemetry.grow(4)
    telemetry.grow(1)
    assert telemetry.sums.shape == (4, len(FIELDS))
    assert [telemetry.summary([slot]).rows for slot in range(4)] == [5, 6, 0, 0]
    telemetry.clear(0)
    assert [telemetry.summary([slot]).rows for slot in range(2)] == [0, 6]


def test_a_group_without_slots_adds_nothing() -> None:
    telemetry = Telemetry(2, "cpu")
    telemetry.add(torch.zeros(0, dtype=torch.int64), rows=torch.zeros(0))
    assert not telemetry.sums.any()


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="no telemetry fields: tokens"):
        Telemetry(1, "cpu").add(torch.tensor([0]), tokens=torch.ones(1))


def test_means_and_ratios() -> None:
    sums = dict.fromkeys(FIELDS, 0.0) | {
        "rows": 8.0,
        "rows_steered": 6.0,
        "error_norm": 4.0,
        "cos_token": 1.5,
        "cos_rows": 3.0,
        "kl": 2.0,
        "kl_rows": 4.0,
        "residual": 1.0,
        "variance": 4.0,
    }
    found = summarise(sums)
    assert (found.error_norm, found.cos_token, found.kl, found.explained_variance) == (0.5, 0.5, 0.5, 0.75)
    assert found.as_dict()["rows_steered"] == 6


def test_nothing_measured_is_nan() -> None:
    found = summarise(dict.fromkeys(FIELDS, 0.0))
    assert all(math.isnan(x) for x in (found.explained_variance, found.error_norm, found.cos_token, found.kl))
    assert found.steps == found.updates == found.resets == 0
