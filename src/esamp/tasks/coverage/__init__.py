"""Short factual questions with many right answers: how many of them does a group of samples name?"""

from .answers import Answers
from .questions import Question, questions
from .task import Coverage, CoverageOptions

__all__ = ["Answers", "Coverage", "CoverageOptions", "Question", "questions"]
