"""Game of 24: make 24 from four numbers. Puzzles come from a local file; Countdown's grader grades them."""

from .task import TARGET, Game24, read_puzzles

__all__ = ["TARGET", "Game24", "read_puzzles"]
