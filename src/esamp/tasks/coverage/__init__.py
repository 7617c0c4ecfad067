"""Short factual questions with many right answers, for measuring how many of them a group of samples names."""

from .answers import Answers
from .questions import Question, questions
from .task import Coverage, CoverageOptions

__all__ = ["Answers", "Coverage", "CoverageOptions", "Question", "questions"]
