"""`esamp bench scaling`: one decode step of a method alone, over sizes."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from esamp.bench import scaling
from esamp.bench.scaling import ScalingCase, ScalingPoint, SkippedCase, cases, measure
from esamp.bench.throughput import BenchArm
from esamp.cli import main
from esamp.errors import OptionError
from esamp.methods import registry
from esamp.methods.esamp import ESamp

SMALL = ScalingCase("groups", groups=2, samples=3, size=64, slots=4)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid that takes no time."""
    grid = [SMALL, replace(SMALL, groups=1), ScalingCase("size", 1, 2, 32, 1), ScalingCase("slots", 1, 2, 32, 2)]
    monkeypatch.setattr(scaling, "cases", lambda: grid)
    monkeypatch.setattr(scaling, "SECONDS", 0.0)


def arm(method: str = "esamp", **options: Any) -> BenchArm:
    return BenchArm(method, method, registry.get(method).options(**options))


def measured(chosen: BenchArm, case: ScalingCase = SMALL) -> ScalingPoint:
    (point,) = measure(chosen, [case])
    assert isinstance(point, ScalingPoint)
    return point


def test_the_grids_cover_the_documented_sizes() -> None:
    found = cases()
    assert {(p.groups, p.samples) for p in found if p.series == "groups"} >= {(1, 1), (1, 16), (32, 1), (32, 16)}
    assert [p.size for p in found if p.series == "size"] == [576, 896, 2048, 4096, 8192]
    assert [p.slots for p in found if p.series == "slots"] == [1, 4, 16, 64, 256]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("esamp", {}),
        ("esamp", dict(distiller="mean")),
        ("esamp", dict(preset="paper", width=8)),
        ("esamp", dict(signal="action")),
        ("esamp", dict(cap=1.0)),
        ("override", {}),
        ("esamp+xtc", {}),
        ("arithmetic", {}),
        ("dola", {}),
    ],
)
def test_a_step_is_timed_and_counted(few: None, method: str, options: dict[str, Any]) -> None:
    point = measured(arm(method, **options))
    assert point.total > 0
    assert point.low <= point.high
    assert point.counts.launches > 0
    assert point.counts.waits == 0


def test_measured_bytes_exceed_the_minimum(few: None) -> None:
    point = measured(arm(distiller="mean"))
    assert point.minimum == 6 * 2 * 64 * 4 + 2 * 2 * (64 * 4 + 4)
    assert point.counts.bytes > point.minimum
    assert measured(arm("rarity")).minimum is None


def test_every_step_learns(few: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def spied(name: str) -> Callable[..., Any]:
        original = getattr(ESamp, name)

        def call(*arguments: Any) -> Any:
            calls[name] += 1
            return original(*arguments)

        return call

    for name in ("steer", "observe"):
        monkeypatch.setattr(ESamp, name, spied(name))
    measured(arm())
    assert calls["observe"] == calls["steer"] == scaling.WARM + scaling.LEAST + 1  # one step is counted, not timed


def test_a_bank_that_is_too_large_is_left_out(few: None) -> None:
    (found,) = measure(arm(preset="paper"), [replace(SMALL, size=8192, slots=64)])
    assert isinstance(found, SkippedCase)
    assert found.bank_bytes > scaling.LARGEST


def test_a_method_that_reads_tokens_is_refused() -> None:
    with pytest.raises(OptionError, match="only random states"):
        list(measure(arm("contrastive"), [SMALL]))


def test_the_command_prints_and_writes(few: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib: pip install 'esamp[figures]'")
    folder = tmp_path / "new" / "folder"
    assert main(["bench", "scaling", "--distiller", "mean", "--out", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 x 3" in out
    assert max(map(len, out.splitlines())) <= 80
    with (folder / "scaling.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["series"] for row in rows] == ["groups", "groups", "size", "slots"]
    assert float(rows[0]["ms_predict"]) > 0
    drawing = (folder / "scaling.svg").read_text()
    assert "<svg" in drawing
    assert "Cost of one decode step of esamp" in drawing


def test_json(few: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scaling", "--method", "override:heads=published", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["arm"] == "override:heads=published"
    assert [point["slots"] for point in document["points"]] == [4, 4, 1, 2]
    assert document["left_out"] == []


def test_skipped_cases_are_listed(
    few: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scaling, "LARGEST", 1000)
    assert main(["bench", "scaling", "--distiller", "mean"]) == 0
    out = capsys.readouterr().out
    assert "left out" in out
    assert main(["bench", "scaling", "--distiller", "mean", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["left_out"]) + len(document["points"]) == 4
    assert document["left_out"]


def test_options_of_esamp_reach_the_method(few: None) -> None:
    assert measured(arm(features=0)).bank_bytes > measured(arm(features=4)).bank_bytes
