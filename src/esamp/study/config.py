"""`Study`: the content of a study's TOML file, validated before any model is loaded.

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
grid = { beta = [0.25, 0.5, 1.0] }              # one arm for each value, all of them reported

[primary]                                       # the comparison that the study is made for (esamp.study.claim)
question = "Does it find more different solutions at equal perplexity?"
arm = "esamp beta=0.5"
measure = "distinct"
at_equal = ["perplexity"]
"""

import itertools
import math
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from esamp.errors import InputError, OptionError
from esamp.files import read_bytes
from esamp.methods import registry as methods
from esamp.options import Options
from esamp.quoting import shortened, shown
from esamp.sampling import Sampling
from esamp.study.arm import Arm
from esamp.study.claim import Claim, unavailable_measures
from esamp.study.locations import ErrorLocation, table_location
from esamp.study.schema import MethodSpec, ModelSpec, StudyOptions, TaskSpec
from esamp.tasks import registry as tasks

Table = TypeVar("Table", bound=Options)
MOST_BYTES = 16 << 20
"""Largest size of a study's file, in bytes."""
MOST_CELLS = 100_000
"""Largest number of cells of a study, and of arms from one grid."""
PLAIN_METHODS = frozenset({"vanilla", "min_p"})
"""Methods that are plain sampling: settings of the engine's own sampler."""


@dataclass(frozen=True)
class Study:
    """A grid of models, tasks, arms, group sizes and seeds."""

    name: str
    models: tuple[ModelSpec, ...]
    tasks: tuple[TaskSpec, ...]
    arms: tuple[Arm, ...]
    groups: tuple[int, ...]
    """group sizes, in rising order"""
    seeds: tuple[int, ...]
    baseline: str
    """label of the arm that others are compared with"""
    embedder: str | None
    """sentence-transformers model of the report"""
    second_model: str | None
    """model under which the report measures a second perplexity"""
    likelihood: bool
    """whether the report has the texts' perplexity under the model that drew them"""
    traces: bool
    """whether measurements of every token are kept"""
    words: bool = True
    """whether the report counts non-words"""
    entropy: bool = True
    """whether the report also has the entropy along the texts under the model that drew them"""
    primary: Claim | None = None
    """the comparison that the study is made for"""
    max_failed: float = 0.1
    """share of the groups that may fail"""


def read(path: Path, data: Sequence[str] = ()) -> Study:
    """The study in a TOML file.

    Args:
        path: the file.
        data: local files that tasks read instead of the hub: ``TASK=FILE``, or ``FILE`` alone if there is one task.

    Raises:
        InputError: the file cannot be read, is not TOML, or names something that does not exist; the message has the
            location in the file.
        OptionError: `data` names no task of the study, or one that reads no data.
    """
    try:
        values = tomllib.loads(read_bytes(path, most=MOST_BYTES).decode())
    except (ValueError, RecursionError) as error:  # ValueError includes numbers with too many digits
        raise InputError(f"{path} is not a TOML file: {error}") from None
    try:
        study = parse(values)
    except OptionError as error:
        raise InputError(f"{path}: {error}") from None
    return replace(study, tasks=_with_data(study.tasks, data))


def _with_data(specs: tuple[TaskSpec, ...], data: Sequence[str]) -> tuple[TaskSpec, ...]:
    """The tasks with the files of ``--data`` as their option `data`."""
    files = {}
    for argument in data:
        name, _, file = argument.partition("=")
        if name in [spec.name for spec in specs] and file:
            files[name] = file
        elif len(specs) == 1:
            files[specs[0].name] = argument
        else:
            raise OptionError(f"--data {argument}: name its task, as in --data {specs[0].name}=FILE")
    for spec in specs:
        if spec.name in files and "data" not in tasks.get(spec.task).options.model_fields:
            raise OptionError(f"--data {files[spec.name]}: task {spec.task!r} generates its problems and reads no file")
    return tuple(
        spec.replace(options=spec.options | {"data": files[spec.name]}) if spec.name in files else spec
        for spec in specs
    )


def parse(values: Mapping[str, Any]) -> Study:
    """The study that the tables of a TOML file describe.

    Raises:
        OptionError: a key, value, method or task does not exist or does not fit.
    """
    lists = {name: _tables(name, values.get(name)) for name in ("models", "tasks", "methods")}
    options = StudyOptions.parse({name: v for name, v in values.items() if name not in {*lists, "primary"}})
    base_sampling = _parse_table("sampling", Sampling, options.sampling)
    models = tuple(_parse_table(location, ModelSpec, table) for location, table in lists["models"])
    task_specs = tuple(_parse_table(location, TaskSpec, table) for location, table in lists["tasks"])
    for (location, _), task in zip(lists["tasks"], task_specs, strict=True):
        with ErrorLocation(location):
            tasks.get(task.task).options.parse(task.options)
    specs = [_parse_table(location, MethodSpec, table) for location, table in lists["methods"]]
    locations = [location for location, _ in lists["methods"]]
    _check_size(locations, specs, len(models) * len(task_specs), options)
    arms_by_spec = [_arms(location, spec, base_sampling) for location, spec in zip(locations, specs, strict=True)]
    arms = tuple(itertools.chain.from_iterable(arms_by_spec))
    for kind, labels in (
        ("models", [model.name for model in models]),
        ("tasks", [task.name for task in task_specs]),
        ("methods", [arm.label for arm in arms]),
    ):
        _check_labels_differ(kind, labels)
    return Study(
        name=options.name,
        models=models,
        tasks=task_specs,
        arms=arms,
        groups=tuple(sorted(set(options.groups))),
        seeds=tuple(dict.fromkeys(options.seeds)),
        baseline=_baseline(specs, arms_by_spec),
        embedder=_model_or_none(options.embedder),
        second_model=_model_or_none(options.second_model),
        likelihood=options.likelihood,
        traces=options.traces,
        words=options.words,
        entropy=options.entropy,
        primary=_claim(values.get("primary"), options, arms),
        max_failed=options.max_failed,
    )


def _claim(table: object, options: StudyOptions, arms: Sequence[Arm]) -> Claim | None:
    """The primary comparison, if the file declares one."""
    if table is None:
        return None
    with ErrorLocation("[primary]"):
        if not isinstance(table, dict):
            raise OptionError("give a table with question, arm, measure, at_equal and not_above")
        claim = Claim.parse(table)
        unavailable = unavailable_measures(
            embedder=_model_or_none(options.embedder) is not None,
            likelihood=options.likelihood,
            entropy=options.likelihood and options.entropy,
            second=_model_or_none(options.second_model) is not None,
            words=options.words,
        )
        claim.check({arm.label: arm.method in PLAIN_METHODS for arm in arms}, unavailable)
        return claim


def _model_or_none(name: str) -> str | None:
    return None if name == "none" else name


def _tables(name: str, value: object) -> list[tuple[str, Mapping[str, Any]]]:
    """The tables of a list with their locations."""
    if not isinstance(value, list) or not value or not all(isinstance(table, dict) for table in value):
        raise OptionError(f"a study needs {name}: give at least one [[{name}]]")
    return [(table_location(name, number), table) for number, table in enumerate(value, 1)]


def _parse_table(location: str, cls: type[Table], values: Mapping[str, Any]) -> Table:
    with ErrorLocation(location):
        return cls.parse(values)


def _arms(location: str, spec: MethodSpec, base_sampling: Sampling) -> list[Arm]:
    """One arm for each point of the method's grid."""
    with ErrorLocation(location):
        method = methods.get(spec.method)
        arms = []
        for values in itertools.product(*spec.grid.values()):
            point = dict(zip(spec.grid, values, strict=True))
            sampler = {name.removeprefix("sampling."): v for name, v in point.items() if name.startswith("sampling.")}
            own = {name: value for name, value in point.items() if not name.startswith("sampling.")}
            options = method.options.parse(spec.options | own)
            sampling = base_sampling.replace(**(spec.sampling | sampler))
            method.sampler(options, sampling)  # refuses combinations that make no sense
            labelled = {} if spec.label else spec.options | spec.sampling
            words = [f"{name.removeprefix('sampling.')}={_short(v)}" for name, v in (labelled | point).items()]
            arms.append(Arm(" ".join([spec.label or spec.method, *words]), spec.method, options, sampling))
        return arms


def _check_size(locations: Sequence[str], specs: Sequence[MethodSpec], blocks: int, options: StudyOptions) -> None:
    """Count the arms and cells before any of them is built.

    Args:
        locations: of the methods' tables.
        specs: the methods.
        blocks: number of models times number of tasks.
        options: with the group sizes and seeds.

    Raises:
        OptionError: a grid is empty, or there are more than `MOST_CELLS`.
    """
    counts = [math.prod(map(len, spec.grid.values())) for spec in specs]
    for location, spec, count in zip(locations, specs, counts, strict=True):
        with ErrorLocation(location):
            if empty := next((name for name, values in spec.grid.items() if not values), None):
                raise OptionError(f"grid: {shown(empty)} has no values: give some, or leave it out")
            if count > MOST_CELLS:
                raise OptionError(f"grid: {shown(count)} combinations are more than {MOST_CELLS:,}: give fewer values")
    cells = sum(counts) * blocks * len(options.groups) * len(options.seeds)
    if cells > MOST_CELLS:
        raise OptionError(
            f"models x tasks x methods x groups x seeds are {shown(cells)} cells, more than {MOST_CELLS:,}: divide the "
            "study"
        )


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else shortened(value) if isinstance(value, str) else shown(value)


def _baseline(specs: Sequence[MethodSpec], arms_by_spec: Sequence[Sequence[Arm]]) -> str:
    """The label of the marked arm, or of the first vanilla one."""
    marked = [arms[0].label for spec, arms in zip(specs, arms_by_spec, strict=True) if spec.baseline]
    if len(marked) > 1:
        raise OptionError("only one of the methods can be the baseline")
    plain = [arms[0].label for spec, arms in zip(specs, arms_by_spec, strict=True) if spec.method == "vanilla"]
    if not marked and not plain:
        raise OptionError(
            "a study needs something to compare with: add method = 'vanilla', or mark one baseline = true"
        )
    return (marked or plain)[0]


def _check_labels_differ(kind: str, labels: Sequence[str]) -> None:
    label, count = max(Counter(labels).items(), key=lambda entry: entry[1])
    if count > 1:
        raise OptionError(f"two of the {kind} are called {shown(label)}: give one a label of its own")
