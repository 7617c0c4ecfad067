"""Reasoning Gym: a hundred families of generated problems, graded by the library's own verifiers."""

import json
import re
import warnings
from typing import Any, Self

from pydantic import Field
from typing_extensions import override

from esamp.errors import MissingDependencyError, OptionError
from esamp.extras import install_command
from esamp.options import Options, narrowed
from esamp.tasks.base import Grade, Item, ItemsTask
from esamp.tasks.boxed import last_boxed
from esamp.tasks.final_answer import stated, undressed
from esamp.tasks.gym_verifier import LENIENT, GymVerifier
from esamp.tasks.thought import without_thought

INSTRUCTION = "Give your final answer, and nothing else, between <answer> and </answer> at the end."
MAX_SIZE = 100_000
"""Largest number of problems of one seed.

The library generates problem i of a seed from seed + i, so the seeds given to it must be that far apart.
"""
_TAGGED = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.DOTALL | re.IGNORECASE)


class LenientVerifierWarning(UserWarning):
    """The library's own verifier of a family rewards answers without content."""


class ReasoningGymOptions(Options):
    """Options of Reasoning Gym."""

    family: str = "basic_arithmetic"
    """which of the library's data sets"""
    size: int = Field(default=100, ge=1, le=MAX_SIZE)
    """how many problems"""
    problem_seed: int = Field(default=0, ge=0, le=20_000)
    """seed of the problems, not of the samples; different seeds share no problem"""
    config: dict[str, Any] = Field(default_factory=dict)
    """the family's own settings, under the library's names"""


class ReasoningGym(ItemsTask):
    """Problems of one family.

    The answer is the content of the last ``<answer>...</answer>``, else the rest of the line after the last
    ``Answer:``, else the last box, else the last line; thoughts are ignored. It is right if the library's verifier
    gives it a score of 1, either unchanged or without surrounding markup. An answer that says NaN or infinity is wrong
    unless the reference says so too.
    """

    name = "reasoning_gym"
    summary = "Reasoning Gym: generated problems of a family, with its own verifier"
    source = "Stojanovski et al. 2025, arXiv 2505.24760: the library reasoning-gym"
    options = ReasoningGymOptions

    def __init__(self, items: list[Item], entries: dict[str, dict[str, Any]], verifier: GymVerifier) -> None:
        super().__init__(items)
        self._entries, self._verifier = entries, verifier

    @classmethod
    @override
    def build(cls, options: Options) -> Self:
        """Generate the problems.

        Raises:
            OptionError: the family or one of its settings does not exist, or a setting is out of range.
            MissingDependencyError: reasoning-gym is not installed.
        """
        wanted = narrowed(options, ReasoningGymOptions)
        settings = _settings(wanted)
        problems = _generate(wanted.family, settings)
        if wanted.family in LENIENT:
            warnings.warn(
                f"reasoning-gym's own verifier of {wanted.family!r} is lenient: {LENIENT[wanted.family]}. "
                "Do not reward a model by it, and read its scores with care",
                LenientVerifierWarning,
                stacklevel=2,
            )
        hashed = json.dumps(wanted.config, sort_keys=True, default=str)
        items, entries = [], {}
        for place, entry in enumerate(problems):
            name = f"{wanted.family}/{wanted.problem_seed}/{place:05d}"
            prompt = f"{str(entry['question']).strip()}\n\n{INSTRUCTION}"
            items.append(Item(name, prompt, {"answer": str(entry["answer"]), "config": hashed}))
            entries[name] = entry
        return cls(items, entries, GymVerifier(wanted.family, settings))

    @override
    def grade(self, item: Item, text: str) -> Grade:
        answer = answer_of(text)
        if not answer:
            return Grade(False, None, None, "no answer")
        reason = ""
        for form in dict.fromkeys((answer, undressed(answer))):
            score, reason = self._verifier.score(form, self._entries[item.id])
            if score >= 1.0:
                return Grade(True, answer, " ".join(form.split()), "correct")
        return Grade(False, answer, " ".join(undressed(answer).split()), reason)


def answer_of(text: str) -> str:
    """The answer of a text; empty if it has none."""
    text = without_thought(text)
    tagged = _TAGGED.findall(text)
    if tagged:
        return str(tagged[-1]).strip()
    after_mark = stated(text)
    if after_mark is not None:
        return after_mark.strip(" \t\r*_")
    boxed = last_boxed(text)
    return boxed if boxed is not None else text.rstrip().rpartition("\n")[2].strip()


def _settings(wanted: ReasoningGymOptions) -> dict[str, Any]:
    for name, instead in (("seed", "problem_seed"), ("size", "size")):
        if name in wanted.config:
            raise OptionError(f"config has {name!r}: give the option {instead!r} instead")
    return {**wanted.config, "seed": wanted.problem_seed * MAX_SIZE, "size": wanted.size}


def _generate(family: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ModuleNotFoundError:
        raise MissingDependencyError(
            f"the package 'reasoning-gym' generates this task: {install_command('tasks')}"
        ) from None
    if family not in DATASETS:
        raise OptionError(f"reasoning-gym has no family {family!r}: choose from {', '.join(sorted(DATASETS))}")
    try:
        problems = create_dataset(family, **settings)
        return [problems[place] for place in range(len(problems))]
    except (AssertionError, TypeError, ValueError) as error:  # the exceptions of its configurations
        reason = str(error).partition("\n")[0][:200]
        raise OptionError(f"reasoning-gym's {family} refuses its config: {reason}") from None
