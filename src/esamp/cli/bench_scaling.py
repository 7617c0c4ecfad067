"""The work of `esamp bench scaling`: one decode step of a method alone, over sizes."""

from pathlib import Path

from esamp.bench import scaling as measurement
from esamp.bench import scaling_files
from esamp.bench.options import BenchOptions
from esamp.bench.scaling import ScalingPoint, SkippedCase
from esamp.bench.throughput import BenchArm
from esamp.cli.documents import print_document
from esamp.cli.messages import message
from esamp.cli.progress import SampleBar
from esamp.cli.terminal import console, plain_table
from esamp.engines.hf import loading
from esamp.errors import InputError
from esamp.report.figures.requirement import check_matplotlib


def scaling(run: BenchOptions, arm: BenchArm, *, as_json: bool) -> None:
    """Measure and print all cases, and write the files of ``--out``."""
    folder = _folder(run.out)
    device, dtype = loading.place(run.device, run.dtype)
    cases = measurement.cases()
    points: list[ScalingPoint | SkippedCase] = []
    with SampleBar(len(cases), unit="points") as bar:
        bar.generating()
        for point in measurement.measure(arm, cases, device=str(device), dtype=dtype, capture=run.capture):
            points.append(point)
            bar.advance(1, 0)
    measured = [point for point in points if isinstance(point, ScalingPoint)]
    if as_json:
        skipped = [{**vars(p.case), "bank_bytes": p.bank_bytes} for p in points if isinstance(p, SkippedCase)]
        print_document({"arm": arm.label, "points": [p.as_dict() for p in measured], "left_out": skipped})
    else:
        _print_points(arm, points)
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
    """The folder for the files, created before anything is measured."""
    if out is None:
        return None
    check_matplotlib()
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror}; give a folder in which files can be written") from None
    return folder


def _print_points(arm: BenchArm, points: list[ScalingPoint | SkippedCase]) -> None:
    out = console()
    out.print(f"one decode step of {arm.label} alone, random states; ms by median, [quartiles] of both")
    heads = ("groups x samples", "d", "slots", "predict", "learn", "[25, 75 %]", "launches", "MB", "min. MB")
    table = plain_table(heads, gap=1)
    series = ""
    for point in points:
        case = point.case
        if series and case.series != series:
            table.add_section()
            table.add_row("")
        series = case.series
        where = (f"{case.groups} x {case.samples}", str(case.size), str(case.slots))
        if isinstance(point, SkippedCase):
            table.add_row(*where, "-", "-", f"bank {point.bank_bytes / 1e9:.1f} GB")
            continue
        table.add_row(
            *where,
            f"{point.predict:.2f}",
            f"{point.learn:.2f}",
            f"[{point.low:.2f}, {point.high:.2f}]",
            f"{point.counts.launches:.0f}",
            f"{point.counts.bytes / 1e6:,.1f}",
            "" if point.minimum is None else f"{point.minimum / 1e6:,.2f}",
        )
    out.print(table)
    if any(isinstance(point, SkippedCase) for point in points):
        out.print(f"Banks above {measurement.LARGEST / 1e9:.1f} GB are left out.")
