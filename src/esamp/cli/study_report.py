"""The work of `esamp study report`."""

from collections.abc import Sequence
from pathlib import Path

from esamp.analysis import novelty
from esamp.analysis.load import Block, load
from esamp.analysis.measurement_run import measure
from esamp.cli.documents import print_document
from esamp.cli.messages import message, warn_torn
from esamp.cli.progress import MeasureBar
from esamp.cli.study_run import TORN
from esamp.cli.terminal import hush
from esamp.errors import InputError
from esamp.metrics.embedding import SentenceEmbedder
from esamp.quoting import printable
from esamp.report import novelty_report, primary_report, tables
from esamp.report.figures import FigureFile, figures
from esamp.report.markdown import figure_markdown
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
    """Measure the groups that are not measured yet, and write all files of the report."""
    study = config.read(file, data or ())
    with ErrorLocation(str(file)):
        problems = load_tasks(study)
    groups = Store(store)
    hush("sentence_transformers")
    load(study, groups, problems)  # measuring takes minutes: errors should come before it
    with MeasureBar() as bar:
        measure(study, groups, problems, on_measurement=bar.part, on_torn=lambda path: warn_torn(path, TORN))
        blocks = load(study, groups, problems)
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
        files = [*written, *(str(figure.path.relative_to(out)) for figure in drawn)]
        print_document({"folder": str(out), "files": files})
        return
    print(printable(written["report.md"]), end="")
    message(f"{', '.join(written)} are in {out}")


def _novelty(study: Study, blocks: Sequence[Block], bar: MeasureBar) -> list[novelty.ArmNovelty]:
    """Correlations of the novelty signal, if the study has traces and embeddings."""
    if not study.traces or study.embedder is None:
        return []
    encode = SentenceEmbedder(study.embedder).encode
    analyses = []
    for block in blocks:
        sizes = novelty.waves(study, block)
        analyses += novelty.analyse(block, encode, bar.count("novelty of tokens"), waves=sizes)
    return analyses


def _figures(drawn: Sequence[FigureFile], out: Path) -> dict[str, str]:
    """Markdown of each block's figures, by the title of the block."""
    texts: dict[str, list[str]] = {}
    for figure in drawn:
        text = figure_markdown(figure.path.relative_to(out), figure.alt, figure.caption)
        texts.setdefault(figure.block.title, []).append(text)
    return {title: "\n\n".join(parts) for title, parts in texts.items()}
