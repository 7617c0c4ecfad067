"""`Study`: what a TOML file asks for, checked before anything is loaded.

name = "countdown"
seeds = [0, 1]
groups = [16]                                   # samples of a group; several sizes measure pass@k by groups of k
sampling = { max_tokens = 480 }

[[models]]
model = "countdown"                             # and engine, device, dtype, batch_rows, chat, label

[[tasks]]
task = "countdown"                              # and limit, options, label
limit = 30

[[methods]]
method = "vanilla"                              # and label, options, sampling, baseline

[[methods]]
method = "esamp"
grid = { beta = [0.25, 0.5, 1.0] }              # one arm for each, all of them reported

[primary]                                       # what the study is made for (esamp.study.claim)
question = "Does it find more different solutions at equal perplexity?"
arm = "esamp beta=0.5"
measure = "distinct"
at_equal = ["perplexity"]
"""

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from esamp.errors import InputError, OptionError
from esamp.files import read_bytes
from esamp.methods import registry as methods
from esamp.options import Options
from esamp.quoting import shortened, shown
from esamp.sampling import Sampling
from esamp.study.claim import Claim, missing
from esamp.study.places import at, entry
from esamp.study.specs import MethodSpec, ModelSpec, StudyOptions, TaskSpec
from esamp.tasks import registry as tasks

Part = TypeVar("Part", bound=Options)
MOST_BYTES = 16 << 20
"""Bytes of a study's file."""
MOST_CELLS = 100_000
"""Cells of a study, and ways to decode among them."""
PLAIN = frozenset({"vanilla", "min_p"})
"""Methods that are plain sampling: settings of the engine's own sampler."""


@dataclass(frozen=True)
class Arm:
    """One way to decode."""

    label: str
    method: str
    options: Options
    sampling: Sampling


@dataclass(frozen=True)
class Study:
    """A grid of models, tasks, arms, group sizes and seeds."""

    name: str
    models: tuple[ModelSpec, ...]
    tasks: tuple[TaskSpec, ...]
    arms: tuple[Arm, ...]
    groups: tuple[int, ...]
    seeds: tuple[int, ...]
    baseline: str
    """label of the arm that others are compared with"""
    embedder: str | None
    """sentence-transformers model for the report"""
    second_model: str | None
    """model for the report's perplexity"""
    likelihood: bool
    """whether the report has the texts' perplexity under the model that drew them"""
    traces: bool
    """whether per-token measurements are kept"""
    words: bool = True
    """whether the report counts non-words"""
    entropy: bool = True
    """whether the report has that model's entropy along the texts as well"""
    primary: Claim | None = None
    """the comparison that the study is made for"""
    max_failed: float = 0.1
    """share of the groups that may fail"""


def read(path: Path, data: Sequence[str] = ()) -> Study:
    """The study in a TOML file.

    Args:
        path: the file.
        data: files for tasks to read instead of the hub: ``TASK=FILE``, or ``FILE`` alone where there is one task.

    Raises:
        InputError: the file cannot be read, is no TOML, or asks for what does not exist; names the place in it.
        OptionError: `data` names no task of the study, or one that reads no data.
    """
    try:
        values = tomllib.loads(read_bytes(path, most=MOST_BYTES).decode())
    except (ValueError, RecursionError) as error:  # a number of too many digits is one as well
        raise InputError(f"{path} is not a TOML file: {error}") from None
    try:
        study = parse(values)
    except OptionError as error:
        raise InputError(f"{path}: {error}") from None
    return replace(study, tasks=_reading(study.tasks, data))


def _reading(specs: tuple[TaskSpec, ...], data: Sequence[str]) -> tuple[TaskSpec, ...]:
    """The tasks, with their files."""
    files = {}
    for each in data:
        name, _, file = each.partition("=")
        if name in [spec.name for spec in specs] and file:
            files[name] = file
        elif len(specs) == 1:
            files[specs[0].name] = each
        else:
            raise OptionError(f"--data {each}: say whose it is, as in --data {specs[0].name}=FILE")
    for spec in specs:
        if spec.name in files and "data" not in tasks.get(spec.task).options.model_fields:
            raise OptionError(f"--data {files[spec.name]}: task {spec.task!r} makes its problems and reads no file")
    return tuple(
        spec.replace(options=spec.options | {"data": files[spec.name]}) if spec.name in files else spec
        for spec in specs
    )


def parse(values: Mapping[str, Any]) -> Study:
    """The study that the tables of a TOML file describe.

    Raises:
        OptionError: a key, a value, a method or a task that does not exist or does not fit.
    """
    lists = {name: _tables(name, values.get(name)) for name in ("models", "tasks", "methods")}
    whole = StudyOptions.parse({name: v for name, v in values.items() if name not in {*lists, "primary"}})
    usual = _part("sampling", Sampling, whole.sampling)
    models = tuple(_part(where, ModelSpec, table) for where, table in lists["models"])
    asked = tuple(_part(where, TaskSpec, table) for where, table in lists["tasks"])
    for (where, _), spec in zip(lists["tasks"], asked, strict=True):
        with at(where):
            tasks.get(spec.task).options.parse(spec.options)
    specs = [_part(where, MethodSpec, table) for where, table in lists["methods"]]
    _check_size([where for where, _ in lists["methods"]], specs, len(models) * len(asked), whole)
    found = [_arms(where, spec, usual) for (where, _), spec in zip(lists["methods"], specs, strict=True)]
    arms = tuple(itertools.chain.from_iterable(found))
    for kind, labels in (
        ("models", [model.name for model in models]),
        ("tasks", [task.name for task in asked]),
        ("methods", [arm.label for arm in arms]),
    ):
        _distinct(kind, labels)
    return Study(
        whole.name,
        models,
        asked,
        arms,
        tuple(sorted(set(whole.groups))),
        tuple(dict.fromkeys(whole.seeds)),
        _baseline(specs, found),
        _named(whole.embedder),
        _named(whole.second_model),
        whole.likelihood,
        whole.traces,
        whole.words,
        whole.entropy,
        _claim(values.get("primary"), whole, arms),
        whole.max_failed,
    )


def _claim(given: object, whole: StudyOptions, arms: Sequence[Arm]) -> Claim | None:
    """The primary comparison, if the file declares one."""
    if given is None:
        return None
    with at("[primary]"):
        if not isinstance(given, dict):
            raise OptionError("give a table with question, arm, measure, at_equal and not_above")
        claim = Claim.parse(given)
        embedder, second = (_named(each) is not None for each in (whole.embedder, whole.second_model))
        own = dict(likelihood=whole.likelihood, entropy=whole.likelihood and whole.entropy, words=whole.words)
        lacks = missing(embedder=embedder, second=second, **own)
        claim.check({arm.label: arm.method in PLAIN for arm in arms}, lacks)
        return claim


def _named(model: str) -> str | None:
    return None if model == "none" else model


def _tables(name: str, given: object) -> list[tuple[str, Mapping[str, Any]]]:
    if not isinstance(given, list) or not given or not all(isinstance(table, dict) for table in given):
        raise OptionError(f"a study needs {name}: give at least one [[{name}]]")
    return [(entry(name, place), table) for place, table in enumerate(given, 1)]


def _part(where: str, cls: type[Part], values: Mapping[str, Any]) -> Part:
    with at(where):
        return cls.parse(values)


def _arms(where: str, spec: MethodSpec, usual: Sampling) -> list[Arm]:
    with at(where):
        method = methods.get(spec.method)
        arms = []
        for point in _points(spec.grid):
            sampler = {name.removeprefix("sampling."): v for name, v in point.items() if name.startswith("sampling.")}
            own = {name: value for name, value in point.items() if not name.startswith("sampling.")}
            options = method.options.parse(spec.options | own)
            sampling = usual.replace(**(spec.sampling | sampler))
            method.sampler(options, sampling)  # refuses what makes no sense together
            given = {} if spec.label else spec.options | spec.sampling
            words = [f"{name.removeprefix('sampling.')}={_short(v)}" for name, v in (given | point).items()]
            arms.append(Arm(" ".join([spec.label or spec.method, *words]), spec.method, options, sampling))
        return arms


def _check_size(places: Sequence[str], specs: Sequence[MethodSpec], blocks: int, whole: StudyOptions) -> None:
    """Count what would be run before any of it is built.

    Raises:
        OptionError: it is nothing, or too much.
    """
    counts = [math.prod(map(len, spec.grid.values())) for spec in specs]
    for where, spec, count in zip(places, specs, counts, strict=True):
        with at(where):
            if empty := next((name for name, values in spec.grid.items() if not values), None):
                raise OptionError(f"grid: {shown(empty)} has no values: give some, or leave it out")
            if count > MOST_CELLS:
                raise OptionError(f"grid: {shown(count)} combinations are more than {MOST_CELLS:,}: give fewer values")
    cells = sum(counts) * blocks * len(whole.groups) * len(whole.seeds)
    if cells > MOST_CELLS:
        raise OptionError(
            f"models x tasks x methods x groups x seeds are {shown(cells)} cells, more than {MOST_CELLS:,}: divide the "
            "study"
        )


def _points(grid: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else shortened(value) if isinstance(value, str) else shown(value)


def _baseline(specs: Sequence[MethodSpec], found: Sequence[Sequence[Arm]]) -> str:
    marked = [arms[0].label for spec, arms in zip(specs, found, strict=True) if spec.baseline]
    if len(marked) > 1:
        raise OptionError("only one of the methods can be the baseline")
    plain = [arms[0].label for spec, arms in zip(specs, found, strict=True) if spec.method == "vanilla" and arms]
    if not marked and not plain:
        raise OptionError(
            "a study needs something to compare with: add method = 'vanilla', or mark one baseline = true"
        )
    return (marked or plain)[0]


def _distinct(kind: str, labels: Sequence[str]) -> None:
    label, count = max(Counter(labels).items(), key=lambda each: each[1])
    if count > 1:
        raise OptionError(f"two of the {kind} are called {shown(label)}: give one a label of its own")
