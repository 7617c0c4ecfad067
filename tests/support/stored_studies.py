"""Reads a study that a test has run in a folder of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from esamp.study import config
from esamp.study.config import Study
from esamp.study.run import TaskProblems, load_tasks
from esamp.study.store import Store


def opened(folder: Path, **changes: Any) -> tuple[Study, Store, dict[str, TaskProblems]]:
    """The study of ``study.toml`` with some fields changed, its store ``store``, and its problems."""
    study = replace(config.read(folder / "study.toml"), **changes)
    return study, Store(folder / "store"), load_tasks(study)
