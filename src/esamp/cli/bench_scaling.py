"""`esamp bench scaling`: one decode step of a method alone, over sizes."""

import json as encoder
from pathlib import Path

from esamp.bench import scaling as grid
from esamp.bench import scaling_files
from esamp.bench.options import BenchOptions
from esamp.bench.scaling import LeftOut, Point
from esamp.bench.throughput import Arm
from esamp.cli.bench_arms import table
from esamp.cli.messages import message
from esamp.cli.terminal import Bar, console
from esamp.engines.hf import loading
from esamp.errors import InputError

TITLES = {
    "groups": "groups x samples",
    "size": "size of the states",
    "slots": "slots of the bank",
}


def scaling(run: BenchOptions, arm: Arm, *, as_json: bool) -> None:
    """Measure, print, and write the files that ``--out`` asks for."""
    folder = _folder(run.out)
    device, dtype = loading.place(run.device, run.dtype)
    wanted = grid.places()
    points: list[Point | LeftOut] = []
    with Bar(len(wanted), "points") as bar:
        bar.generating()
        for point in grid.measure(arm, wanted, device=str(device), dtype=dtype):
            points.append(point)
            bar.advance(1, 0)
    measured = [point for point in points if isinstance(point, Point)]
    if as_json:
        left = [{**vars(p.place), "bank_bytes": p.bank_bytes} for p in points if isinstance(p, LeftOut)]
        print(encoder.dumps({"arm": arm.label, "points": [p.as_dict() for p in measured], "left_out": left}))
    else:
        _print(arm, points)
    if folder is not None:
        try:
            written = [
                scaling_files.write_csv(measured, folder),
                scaling_files.write_figure(measured, folder, arm.label),
            ]
        except OSError as error:
            raise InputError(f"--out {folder}: {error.strerror}") from None
        message(f"written: {' and '.join(map(str, written))}")


def _folder(out: str | None) -> Path | None:
    """Where the files go; known to exist before anything is measured."""
    if out is None:
        return None
    scaling_files.check()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; give a folder that can be written to") from None
    return folder


def _print(arm: Arm, points: list[Point | LeftOut]) -> None:
    out = console()
    out.print(f"one decode step of {arm.label} alone, random states; ms by median, [quartiles] of both")
    made = table("groups x samples", "d", "slots", "predict", "learn", "[25, 75 %]", "launches", "MB", "min. MB", gap=1)
    series = ""
    for point in points:
        place = point.place
        if series and place.series != series:
            made.add_section()
            made.add_row("")
        series = place.series
        where = (f"{place.groups} x {place.samples}", str(place.size), str(place.slots))
        if isinstance(point, LeftOut):
            made.add_row(*where, "-", "-", f"bank {point.bank_bytes / 1e9:.1f} GB")
            continue
        made.add_row(
            *where,
            f"{point.predict:.2f}",
            f"{point.learn:.2f}",
            f"[{point.low:.2f}, {point.high:.2f}]",
            f"{point.counts.launches:.0f}",
            f"{point.counts.bytes / 1e6:,.1f}",
            "" if point.minimum is None else f"{point.minimum / 1e6:,.2f}",
        )
    out.print(made)
    if any(isinstance(point, LeftOut) for point in points):
        out.print(f"Banks above {grid.LARGEST / 1e9:.1f} GB are left out.")
