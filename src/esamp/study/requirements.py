"""Packages and models that a study's report needs, checked before the study is run."""

from collections.abc import Collection
from importlib.util import find_spec

from esamp.errors import EsampError, MissingDependencyError
from esamp.extras import install_command
from esamp.metrics.embedding import SentenceEmbedder, is_local
from esamp.study.config import Study

ALTERNATIVES = {
    "sentence-transformers": 'embedder = "none" in the study',
    "wordfreq": "words = false in the study",
    "matplotlib": "`esamp study report --no-figures`",
}
"""The setting with which a report does not need a package."""


def check_report(study: Study, *, texts: bool = True) -> None:
    """Refuse a study whose report would fail because a package or the embedding model is missing.

    An embedding model that is not on this machine is downloaded now.

    Args:
        study: the study to check.
        texts: whether any task keeps its texts. Private tasks do not, and their texts are not measured.

    Raises:
        MissingDependencyError: the message names every missing package, the command that installs them, and the
            settings that make them unnecessary.
        InputError: an embedding model other than the default cannot be loaded.
    """
    required: dict[str, str] = {}
    if texts and study.embedder is not None:
        required["sentence-transformers"] = "metrics"
    if texts and study.words:
        required["wordfreq"] = "metrics"
    required["matplotlib"] = "figures"
    missing = {name: extra for name, extra in required.items() if find_spec(name.replace("-", "_")) is None}
    if missing:
        raise MissingDependencyError(_explain(missing, set(missing.values())))
    if texts and study.embedder is not None and not is_local(study.embedder):
        try:
            SentenceEmbedder(study.embedder)
        except EsampError as error:
            raise type(error)(
                f"the report of this study would fail: {error}; or run it with --no-report-check, or leave it out with "
                f"{ALTERNATIVES['sentence-transformers']}"
            ) from None


def _explain(missing: Collection[str], extras: Collection[str]) -> str:
    command = install_command(*sorted(extras))
    without = "; ".join(f"without {name}: {ALTERNATIVES[name]}" for name in missing)
    return (
        f"the report of this study needs {' and '.join(missing)}: install what is missing with: {command}. "
        f"Or run it now and report elsewhere with --no-report-check ({without})"
    )
