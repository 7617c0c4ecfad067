"""Countdown, a numbers game: make the target from all the numbers with + - * /, using each number once."""

from .expression import ExpressionError, canonical
from .problem import Problem, Rules, held_out_problems, random_problems
from .solver import solve
from .task import Countdown, grade_answer

__all__ = [
    "Countdown",
    "ExpressionError",
    "Problem",
    "Rules",
    "canonical",
    "grade_answer",
    "held_out_problems",
    "random_problems",
    "solve",
]
