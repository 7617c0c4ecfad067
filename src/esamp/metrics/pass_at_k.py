"""Pass@k: the probability that at least one of k samples is right."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from esamp.errors import InputError


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> NDArray[np.float64]:
    """`pass@k (subset of n)`: the unbiased estimator 1 - C(n-c, k) / C(n, k), one value per problem.

    It estimates the result of a run with k samples only if samples are generated independently. Samples of ESamp,
    OverRIDE and other methods that learn within a group are coupled: k samples of a group of n are not a group of k.
    For such methods, run groups of exactly k and use `group_pass`, and label this number as an estimate from subsets.

    Args:
        n: samples drawn, whole numbers, any shape.
        c: how many of them are correct; broadcasts against n.
        k: size of the subset, at least 1.

    Returns:
        The broadcast shape of n and c; NaN where n < k.

    Raises:
        InputError: k < 1, n < 0, c outside 0..n, or a count that is not a whole number.
    """
    if k < 1:
        raise InputError(f"k = {k}: give a subset size of at least 1")
    total, correct = np.broadcast_arrays(_counts(n, "n"), _counts(c, "c"))
    if np.any(total < 0) or np.any(correct < 0) or np.any(correct > total):
        raise InputError("n and c must be counts with 0 <= c <= n for every problem")
    drawn = np.arange(k)  # the j-th draw is wrong with probability (n - c - j) / (n - j)
    missing = np.maximum((total - correct)[..., None] - drawn, 0)  # [..., k]
    left = np.maximum(total[..., None] - drawn, 1)
    estimate = 1.0 - np.prod(missing / left, axis=-1)
    return np.where(total >= k, estimate, np.nan)


def mean_pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> float:
    """Mean of `pass_at_k` over problems; NaN without problems or if any problem has fewer than k samples.

    Problems with too few samples are not skipped, because the mean would then describe another set of problems.
    """
    values = pass_at_k(n, c, k)
    return float(values.mean()) if values.size else float("nan")


def group_pass(correct: ArrayLike) -> float:
    """`pass@k (group of k)`: the share of problems that at least one sample of their group solves.

    Valid for coupled and for independent samples, provided that each row is a group generated with exactly k samples,
    not a selection from a larger group.

    Args:
        correct: booleans `[problems, k]`; for several seeds stack their groups as further rows.

    Returns:
        A share in [0, 1]; NaN without problems.

    Raises:
        InputError: not two-dimensional, not boolean, or groups of no samples.
    """
    grades = np.asarray(correct)
    if grades.ndim != 2 or grades.dtype != np.bool_ or grades.shape[1] == 0:
        raise InputError(
            f"correct has shape {grades.shape} and type {grades.dtype}: give booleans [problems, k] with k >= 1"
        )
    return float(grades.any(axis=1).mean()) if len(grades) else float("nan")


def _counts(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise InputError(f"{name} has type {array.dtype}: give whole numbers")
    return array.astype(np.int64)
