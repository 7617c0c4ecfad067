"""Invariants of the worker's groups: slots, banks and live samples."""

from typing import Any


def check_consistency(groups: Any) -> None:
    """After every step: slots, banks and live samples agree, and no more is remembered than the settings allow."""
    settings = groups._settings
    known = list(groups._groups.values())
    assert groups.slots_in_use + groups.slots_idle <= settings.slots
    assert {name for group in known for name in group.live} == set(groups.samples)
    assert all(sample.group.live >= {name} for name, sample in groups.samples.items())
    assert all(group.live for group in known if group.slot is None), "a group without a slot or a live sample is kept"
    holders = [group for group in known if group.slot is not None]
    for built in {id(group.built): group.built for group in holders}.values():
        slots = [group.slot for group in holders if group.built is built]
        bank = built.method.explorer.slots
        assert bank.in_use == len(set(slots)), f"{bank.in_use} slots are claimed for {slots}"
        assert built.method.config.scope == "batch" or len(set(slots)) == len(slots)
        assert bank.size <= settings.slots
    kept = max(settings.kept, len(groups.samples))
    assert len(groups._known) <= kept
    assert set(groups._traces) <= set(groups._known)
    assert len(groups._parents) <= kept
    assert len(groups._pool._removed) <= 65
    assert sum(groups._live.values()) == len(groups.samples)


def check_all_released(groups: Any) -> None:
    """After the last request has ended: no sample is live, and only groups that expect samples have a slot."""
    assert not groups.samples
    assert groups.slots_in_use == 0
    assert all(group.slot is not None and not group.live for group in groups._groups.values())
