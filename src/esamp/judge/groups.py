"""Groups of samples on the same problem, read from a finished study or from files of ``esamp generate``."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from esamp.analysis.load import Block, load
from esamp.errors import InputError, OptionError
from esamp.files import read_bytes
from esamp.judge.options import JudgeOptions
from esamp.report.chat import message_texts
from esamp.study import config
from esamp.study.run import TaskProblems, load_tasks
from esamp.study.store import Store


@dataclass(frozen=True)
class BlockName:
    """One model, task and group size. Only groups of the same block are compared."""

    model: str
    task: str
    n: int

    @property
    def title(self) -> str:
        """The block in one line of text."""
        return f"{self.model}, {self.task}, groups of {self.n}"


@dataclass(frozen=True)
class ProblemGroups:
    """The groups of all arms on one problem, drawn with one seed."""

    block: BlockName
    item: str
    """id of the problem"""
    seed: int
    problem: str
    """text of the problem"""
    texts: Mapping[str, tuple[str, ...]]
    """texts of the samples by arm, the arms in the study's order"""


def read(paths: Sequence[Path], store: Path, options: JudgeOptions) -> list[ProblemGroups]:
    """Read the groups of a study (one TOML file) or of several files of samples.

    Raises:
        InputError: a file cannot be read, there is nothing to compare, or a task is private.
        OptionError: the options name an arm, a task or a group size that does not exist.
    """
    if len(paths) == 1:
        return of_study(config.read(paths[0]), store, options)
    if options.task or options.groups:
        raise OptionError("--task and --groups apply to studies only: leave them out for files of samples")
    return of_files(paths, options)


def of_study(study: config.Study, store: Path, options: JudgeOptions) -> list[ProblemGroups]:
    """The groups of a study for all problems that every compared arm has finished.

    Raises:
        InputError: a task is private, or no problem is finished.
        OptionError: the study has no such arm, task or group size.
    """
    names = [spec.name for spec in study.tasks]
    _check_known("task", options.task, names)
    _check_known("groups", options.groups, study.groups)
    arms = _arms(options, [arm.label for arm in study.arms])
    selected = replace(  # problems that other arms and tasks have not finished stay in
        study,
        tasks=tuple(spec for spec in study.tasks if spec.name in (options.task or names)),
        arms=tuple(arm for arm in study.arms if arm.label in arms),
        groups=options.groups or study.groups,
    )
    problems = load_tasks(selected)
    for name, loaded in problems.items():
        if loaded.task.private:
            raise InputError(
                f"task {name!r} is private: its authors ask that none of it be published, so the store has no texts "
                "of it, and none can be sent to a judge; choose other tasks with --task"
            )
    blocks = load(selected, Store(store), problems)
    return [groups for block in blocks for groups in _of_block(block, problems[block.task], arms, options.limit)]


def of_files(paths: Sequence[Path], options: JudgeOptions) -> list[ProblemGroups]:
    """The groups of all prompts that every file contains. Each file is an arm with the name of the file.

    Raises:
        InputError: a file cannot be read or has other contents, or the files have no prompt in common.
        OptionError: two files have the same name, or the options name an arm that is no file.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise OptionError(f"the files are called {', '.join(names)}: each file names its arm, so the names must differ")
    arms = _arms(options, names)
    samples = {name: _samples(path) for name, path in zip(names, paths, strict=True) if name in arms}
    common = [key for key in samples[arms[0]] if all(key in own for own in samples.values())]
    if not common:
        raise InputError("the files have no prompt in common")
    kept = common[: options.limit]
    block = BlockName("files", "prompts", max(len(samples[arm][key]) for arm in arms for key in kept))
    return [ProblemGroups(block, key[0], 0, key[1], {arm: samples[arm][key] for arm in arms}) for key in kept]


def _of_block(block: Block, problems: TaskProblems, arms: Sequence[str], limit: int | None) -> Iterable[ProblemGroups]:
    prompts = {item.id: item.prompt for item in problems.items}
    name = BlockName(block.model, block.task, block.n)
    for item in block.items[:limit]:
        for seed in block.arms[arms[0]]:
            texts = {arm: tuple(s.text or "" for s in block.arms[arm][seed][item].samples) for arm in arms}
            yield ProblemGroups(name, item, seed, prompts[item], texts)


def _arms(options: JudgeOptions, labels: Sequence[str]) -> list[str]:
    """The labels that ``--arms`` names; a label that contains a comma must be given by itself."""
    requested = [part.strip() for text in options.arms for part in ([text] if text in labels else text.split(","))]
    _check_known("arms", requested, labels)
    arms = [label for label in labels if label in requested or not requested]
    if len(arms) < 2:
        raise OptionError("a comparison needs at least two arms")
    return arms


def _check_known(option: str, requested: Sequence[object], available: Sequence[object]) -> None:
    for value in requested:
        if value not in available:
            raise OptionError(f"--{option} {value}: choose from {', '.join(map(str, available))}")


def _samples(path: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """The samples' texts in a file, by id and prompt."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    lines = read_bytes(path).split(b"\n")[:-1]  # without the last one: it is empty, or still being written
    for number, line in enumerate(lines, 1):
        try:
            values = json.loads(line)
            if "failure" in values:
                continue
            texts = tuple(sample["text"] for sample in values["samples"])
            key = str(values["id"]), "\n\n".join(message_texts(values["prompt"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path}:{number} is not a line of esamp generate --output") from None
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{path}:{number} has no samples, or samples without a text")
        found[key] = texts
    return found
