"""`GymVerifier`: Reasoning Gym's verifiers in a process that can be killed and that has few permissions."""

import os
import re
import resource
import sys
import sysconfig
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from esamp.tasks.verifier_process import SECONDS, VerifierProcess, encodable, limit_memory, silence

MEMORY = 4 << 30
LONGEST = 10_000
"""Characters of an answer that is verified; a longer one is wrong."""
EVALUATING = frozenset({"binary_matrix", "n_queens", "spiral_matrix", "string_insertion"})
"""Families that run `eval` on an answer in order to give partial scores to lists.

A partial score counts as wrong here, so no list needs to reach them.
"""
SYMBOLIC = frozenset(
    {"countdown", "intermediate_integration", "polynomial_multiplication", "puzzle24", "simple_integration"}
)
"""Families that pass an answer to sympy's parser, which runs it as Python code."""
_NAMES = "[A-Za-z]|a?(?:sin|cos|tan|sec|csc|cot)h?|arc(?:sin|cos|tan)|sinh|cosh|tanh|exp|log|ln|sqrt|pi|Abs"
_FORMULA = re.compile(rf"(?:(?:{_NAMES})(?![A-Za-z_])|[0-9]++(?:\.[0-9]*+)?+|[-+*/^()=,\s])*+", re.ASCII)
_FORBIDDEN = ("os.", "subprocess.", "socket.", "ctypes.", "shutil.", "pty.", "webbrowser.", "urllib.")
LENIENT = {
    "coin_flip": "a prefix of the right answer, such as 0 for 0.5, counts as right",
    "game_of_life_halting": "any answer counts as right",
}
"""Families whose own verifiers give a score of 1 to answers without content (see scripts/gym_rewards.py)."""
_NOT_A_NUMBER = re.compile(r"(?<![a-z])(?:nan|inf(?:inity)?)[ij]?(?![a-z])", re.IGNORECASE | re.ASCII)
FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, SyntaxError)
"""Exceptions of verifiers on answers that they cannot parse, in addition to `TypeError` and `ValueError`."""


class GymVerifier(VerifierProcess):
    """The verifier of one family in another process.

    Some verifiers run an answer as Python code or never return. The former get only formulas and exact answers. All
    run with limits of memory and processor time; they may not open files for writing, start processes or use the
    network.
    """

    def __init__(self, family: str, settings: Mapping[str, Any], seconds: float = SECONDS) -> None:
        super().__init__(__name__, (family, dict(settings)), package="reasoning-gym", seconds=seconds)
        self._family = family

    def score(self, answer: str, entry: Mapping[str, Any]) -> tuple[float, str]:
        """The library's score of an answer, from 0 to 1 or -1 if it cannot be parsed, and why the score is below 1.

        Raises:
            MissingDependencyError: reasoning-gym is not installed.
            UnsupportedError: the process was stopped or killed from outside.
        """
        if answer == entry["answer"] and self._family in EVALUATING:
            return 1.0, ""
        if _NOT_A_NUMBER.search(answer) and not _NOT_A_NUMBER.search(str(entry["answer"])):
            return 0.0, "not a number"  # some verifiers turn a distance of NaN into a score of 1
        if not is_safe(self._family, answer):
            return 0.0, "not in the form of an answer"
        score = self.call((encodable(answer), entry))
        if not isinstance(score, float):
            return 0.0, "the verifier did not return in time"
        return score, "another answer" if score >= 0 else "the verifier cannot parse it"


def is_safe(family: str, answer: str) -> bool:
    """Whether an answer may be passed to the family's verifier: it cannot run code there."""
    if len(answer) > LONGEST or "\0" in answer:
        return False
    if family in EVALUATING:  # without brackets, calls and attributes, eval only fails
        return re.fullmatch(r"[A-Za-z0-9_\s]*", answer, re.ASCII) is not None
    return family not in SYMBOLIC or _FORMULA.fullmatch(answer) is not None


def start(settings: tuple[str, dict[str, Any]]) -> Callable[[tuple[str, Mapping[str, Any]]], float]:
    """Load the family's verifier and restrict this process.

    Raises:
        ModuleNotFoundError: reasoning-gym is not installed.
    """
    from reasoning_gym.factory import create_dataset

    family, config = settings
    problems = create_dataset(family, **config)
    warnings.simplefilter("ignore")
    silence()
    limit_memory(MEMORY)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    packages = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    sys.addaudithook(partial(_audit, packages))

    def score(request: tuple[str, Mapping[str, Any]]) -> float:
        try:
            return float(problems.score_answer(*request))
        except (*FAILURES, TypeError, ValueError):
            return -1.0

    return score


def _audit(packages: tuple[str, ...], event: str, arguments: tuple[Any, ...]) -> None:
    """Audit hook that forbids what no verifier needs. Reading `packages` stays allowed, because they import lazily."""
    if event == "open":
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) or not str(path).startswith(packages):
            raise PermissionError("a verifier may not open files")
    elif event.startswith(_FORBIDDEN) and event not in ("os.listdir", "os.scandir"):
        raise PermissionError(f"a verifier may not use {event}")
