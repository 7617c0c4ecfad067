"""`esamp study report`: measure what is not measured yet, and write tables, figures and the page."""

import json as encoder
from collections.abc import Sequence
from pathlib import Path

from esamp.analysis import novelty
from esamp.analysis.load import Block, load
from esamp.analysis.measurement_run import measure
from esamp.cli.bars import MeasureBar
from esamp.cli.messages import message
from esamp.cli.study_flags import torn
from esamp.cli.terminal import hush
from esamp.errors import InputError
from esamp.metrics.embedding import SentenceEmbedder
from esamp.quoting import printable
from esamp.report import novelty as novelty_report
from esamp.report import primary_report, tables
from esamp.report.figures import Figure, figures
from esamp.report.markdown import figure
from esamp.report.pages.study_page import study_page
from esamp.study import config
from esamp.study.config import Study
from esamp.study.locations import ErrorLocation
from esamp.study.run import load_tasks
from esamp.study.store import Store


def report(
    file: Path,
    store: Path,
    data: list[str] | None,
    out: Path,
    *,
    draw: bool,
    page_problems: int | None,
    json: bool,
) -> None:
    """Measure what is not measured yet, and write all files of the report."""
    study = config.read(file, data or ())
    with ErrorLocation(str(file)):
        problems = load_tasks(study)
    place = Store(store)
    hush("sentence_transformers")
    load(study, place, problems)  # measuring takes minutes, so an error comes before it
    with MeasureBar() as bar:
        measure(study, place, problems, on_measurement=bar.part, on_torn=torn)
        blocks = load(study, place, problems)
        signal = _novelty(study, blocks, bar)
        try:
            drawn = figures(study, blocks, out / "figures") if draw else []
        except OSError as error:
            raise InputError(f"cannot write to {out / 'figures'}: {error.strerror}") from None
    if failed := sum(len(block.failed) for block in blocks):
        message(f"warning: {failed} groups failed; their problems are left out of all methods (esamp study status)")
    written = {
        "report.md": tables.markdown(
            study,
            blocks,
            _figures(drawn, out),
            primary=primary_report.markdown(study, blocks),
            novelty=novelty_report.markdown(signal),
        ),
        **({"primary.csv": primary_report.csv(study, blocks)} if study.primary else {}),
        "estimates.csv": tables.estimates_csv(blocks),
        "differences.csv": tables.differences_csv(study, blocks),
        "matched.csv": tables.matched_csv(study, blocks),
        **({"novelty.csv": novelty_report.csv(signal)} if signal else {}),
        "index.html": study_page(study, blocks, problems, problems_shown=page_problems),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from None
    if json:
        files = [*written, *(str(each.path.relative_to(out)) for each in drawn)]
        print(encoder.dumps({"folder": str(out), "files": files}))
        return
    print(printable(written["report.md"]), end="")
    message(f"{', '.join(written)} are in {out}")


def _novelty(study: Study, blocks: Sequence[Block], bar: MeasureBar) -> list[novelty.ArmNovelty]:
    """What the signal means, if the study keeps traces and may embed texts."""
    if not study.traces or study.embedder is None:
        return []
    encode = SentenceEmbedder(study.embedder).encode
    found = []
    for block in blocks:
        sizes = novelty.waves(study, block)
        found += novelty.analyse(block, encode, bar.count("novelty of tokens"), waves=sizes)
    return found


def _figures(drawn: Sequence[Figure], out: Path) -> dict[str, str]:
    """Markdown of each block's figures, by its title."""
    found: dict[str, list[str]] = {}
    for each in drawn:
        found.setdefault(each.block.title, []).append(figure(each.path.relative_to(out), each.alt, each.caption))
    return {title: "\n\n".join(parts) for title, parts in found.items()}
