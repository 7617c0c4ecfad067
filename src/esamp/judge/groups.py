"""Groups of samples on the same problem, from a finished study or from files that `esamp generate` wrote."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from esamp.analysis.load import Block, load
from esamp.errors import InputError, OptionError
from esamp.files import read_bytes
from esamp.judge.options import JudgeOptions
from esamp.study import config
from esamp.study.run import TaskProblems, load_tasks
from esamp.study.store import Store


@dataclass(frozen=True)
class Place:
    """What is compared within itself: one model on one task with one group size."""

    model: str
    task: str
    n: int

    @property
    def title(self) -> str:
        """A line for people."""
        return f"{self.model}, {self.task}, groups of {self.n}"


@dataclass(frozen=True)
class Contest:
    """The groups of all arms on one problem, drawn with one seed."""

    place: Place
    item: str
    seed: int
    problem: str
    texts: Mapping[str, tuple[str, ...]]
    """by arm, in the study's order"""


def read(paths: Sequence[Path], store: Path, options: JudgeOptions) -> list[Contest]:
    """One study's TOML file, or two or more files of samples.

    Raises:
        InputError: a file cannot be read, nothing is there to compare, or a task's texts are not to be shown.
        OptionError: an arm, a task or a group size that is not there.
    """
    if len(paths) == 1:
        return of_study(config.read(paths[0]), store, options)
    if options.task or options.groups:
        raise OptionError("--task and --groups choose from a study: files of samples have neither")
    return of_files(paths, options)


def of_study(study: config.Study, store: Path, options: JudgeOptions) -> list[Contest]:
    """What all arms that are compared have finished.

    Raises:
        InputError: a task is private, or nothing of what is asked for is finished.
        OptionError: an arm, a task or a group size that the study does not have.
    """
    names = [spec.name for spec in study.tasks]
    _known("task", options.task, names)
    _known("groups", options.groups, study.groups)
    arms = _arms(options, [arm.label for arm in study.arms])
    part = replace(  # what the other arms and tasks have not finished does not matter
        study,
        tasks=tuple(spec for spec in study.tasks if spec.name in (options.task or names)),
        arms=tuple(arm for arm in study.arms if arm.label in arms),
        groups=options.groups or study.groups,
    )
    problems = load_tasks(part)
    for name, loaded in problems.items():
        if loaded.task.private:
            raise InputError(
                f"task {name!r} is private: its authors ask that nothing of it be published, so no text of it is in "
                "the store, and none is sent to a judge; choose others with --task"
            )
    blocks = load(part, Store(store), problems)
    return [each for block in blocks for each in _of_block(block, problems[block.task], arms, options.limit)]


def of_files(paths: Sequence[Path], options: JudgeOptions) -> list[Contest]:
    """Prompts that are in all files, one file an arm that is called as the file is.

    Raises:
        InputError: a file cannot be read, or is not one of samples, or the files have no prompt in common.
        OptionError: two files have the same name, or an arm is none of them.
    """
    names = [path.stem for path in paths]
    if len(set(names)) < len(names):
        raise OptionError(f"the files are called {', '.join(names)}: the names tell them apart, so make them differ")
    arms = _arms(options, names)
    samples = {name: _samples(path) for name, path in zip(names, paths, strict=True) if name in arms}
    common = [key for key in samples[arms[0]] if all(key in own for own in samples.values())]
    if not common:
        raise InputError("the files have no prompt in common")
    contests = []
    for key in common[: options.limit]:
        texts = {arm: samples[arm][key] for arm in arms}
        place = Place("files", "prompts", max(map(len, texts.values())))
        contests.append(Contest(place, key[0], 0, key[1], texts))
    most = max(each.place.n for each in contests)
    return [Contest(Place("files", "prompts", most), each.item, 0, each.problem, each.texts) for each in contests]


def _of_block(block: Block, problems: TaskProblems, arms: Sequence[str], limit: int | None) -> Iterable[Contest]:
    prompts = {item.id: item.prompt for item in problems.items}
    place = Place(block.model, block.task, block.n)
    for item in block.items[:limit]:
        for seed in block.arms[arms[0]]:
            texts = {arm: tuple(s.text or "" for s in block.arms[arm][seed][item].samples) for arm in arms}
            yield Contest(place, item, seed, prompts[item], texts)


def _arms(options: JudgeOptions, labels: Sequence[str]) -> list[str]:
    """The labels that are asked for; one that holds a comma is given by itself."""
    asked = [part.strip() for text in options.arms for part in ([text] if text in labels else text.split(","))]
    _known("arms", asked, labels)
    arms = [label for label in labels if label in asked or not asked]
    if len(arms) < 2:
        raise OptionError("there must be two arms or more to compare")
    return arms


def _known(name: str, asked: Sequence[object], there: Sequence[object]) -> None:
    for each in asked:
        if each not in there:
            raise OptionError(f"--{name} {each}: there are {', '.join(map(str, there))}")


def _samples(path: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """The texts of a file by id and prompt."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for number, line in enumerate(
        read_bytes(path).split(b"\n")[:-1], 1
    ):  # the last is empty, or the end of what is just being written
        try:
            values = json.loads(line)
            if "failure" in values:
                continue
            texts = tuple(sample["text"] for sample in values["samples"])
            key = str(values["id"]), _prompt(values["prompt"])
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path}:{number} is not a line of esamp generate --output") from None
        if not texts or not all(isinstance(text, str) for text in texts):
            raise InputError(f"{path}:{number} has no samples with texts")
        found[key] = texts
    return found


def _prompt(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
