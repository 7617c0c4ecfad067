"""What a study's report needs beside the records, checked before anything is run rather than after."""

from collections.abc import Collection
from importlib.util import find_spec

from esamp.errors import EsampError, MissingDependencyError
from esamp.extras import install_command
from esamp.metrics.embedding import SentenceEmbedder, is_local
from esamp.study.config import Study

WAYS_OUT = {
    "sentence-transformers": 'embedder = "none" in the study',
    "wordfreq": "words = false in the study",
    "matplotlib": "`esamp study report --no-figures`",
}
"""How a report does without a package."""


def check_report(study: Study, *, texts: bool = True) -> None:
    """Refuse a study whose report would fail for want of a package or of the embedding model.

    A model of embeddings that is not on this machine is fetched now.

    Args:
        study: what is to be run.
        texts: whether texts are kept of any task. Of private tasks they are not, and nothing is measured of them.

    Raises:
        MissingDependencyError: names every package that is missing, the command that installs them, and how to do
            without.
        InputError: an embedding model that is no default cannot be loaded.
    """
    wanted: dict[str, str] = {}
    if texts and study.embedder is not None:
        wanted["sentence-transformers"] = "metrics"
    if texts and study.words:
        wanted["wordfreq"] = "metrics"
    wanted["matplotlib"] = "figures"
    lacking = {name: extra for name, extra in wanted.items() if find_spec(name.replace("-", "_")) is None}
    if lacking:
        raise MissingDependencyError(_explain(lacking, set(lacking.values())))
    if texts and study.embedder is not None and not is_local(study.embedder):
        try:
            SentenceEmbedder(study.embedder)
        except EsampError as error:
            raise type(error)(
                f"the report of this study would fail: {error}; {_either('sentence-transformers')}"
            ) from None


def _explain(lacking: Collection[str], extras: Collection[str]) -> str:
    command = install_command(*sorted(extras))
    without = "; ".join(f"without {name}: {WAYS_OUT[name]}" for name in lacking)
    return (
        f"the report of this study needs {' and '.join(lacking)}: install what is missing with: {command}. "
        f"Or run it now and report elsewhere with --no-report-check ({without})"
    )


def _either(name: str) -> str:
    return f"or run it with --no-report-check, or leave it out with {WAYS_OUT[name]}"
