import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from esamp.errors import InputError
from esamp.metrics.vendi import mean_cosine, vendi_score

MATRICES = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(-1e6, 1e6, allow_nan=False),
)


def from_definition(rows: NDArray[np.float64]) -> float:
    """exp(H(eig(K / n))), computed from the full kernel."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    shares = np.clip(np.linalg.eigvalsh(unit @ unit.T / len(rows)), 1e-300, None)
    return float(np.exp(-np.sum(shares * np.log(shares))))


def test_copies_count_once_and_orthogonal_samples_each() -> None:
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1)
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score([[1, 0], [2, 0], [0, 1], [0, 5]]) == pytest.approx(2)
    assert vendi_score([[3.0, 4.0]]) == 1


def test_a_pair_matches_hand_computed_values() -> None:
    # cos = 0.6: the eigenvalues of K / 2 are 0.8 and 0.2
    assert vendi_score([[1.0, 0.0], [0.6, 0.8]]) == pytest.approx(np.exp(-0.8 * np.log(0.8) - 0.2 * np.log(0.2)))
    assert mean_cosine([[1.0, 0.0], [0.6, 0.8]]) == pytest.approx(0.6)
    assert mean_cosine([[1, 0], [-2, 0], [0, 1]]) == pytest.approx(-1 / 3)


def test_zero_rows_count_as_copies_of_each_other_only() -> None:
    rows = np.array([[0, 0], [0, 0], [1, 0], [2, 0]])
    assert vendi_score(rows) == pytest.approx(2)
    assert mean_cosine(rows) == pytest.approx(2 / 6)


@pytest.mark.parametrize("shape", [(7, 3), (3, 7), (6, 6)])
def test_both_gram_matrices_give_the_score_of_the_definition(shape: tuple[int, int]) -> None:
    rows = np.random.default_rng(1).normal(size=shape)
    assert vendi_score(rows) == pytest.approx(from_definition(rows))


STRUCTURED = {
    "copies": np.repeat(np.random.default_rng(1).normal(size=(1, 5)), 6, axis=0),
    "orthogonal": np.eye(7, 9),
    "two clusters": np.repeat(np.random.default_rng(2).normal(size=(2, 8)), [9, 3], axis=0),
    "opposites": np.vstack([np.eye(4), -np.eye(4)]),
    "positive": np.abs(np.random.default_rng(3).normal(size=(12, 4))),
    "low rank": np.random.default_rng(4).normal(size=(20, 3)) @ np.random.default_rng(5).normal(size=(3, 30)),
    "one": np.ones((1, 3)),
} | {f"random {n} x {d}": np.random.default_rng(n).normal(size=(n, d)) for n, d in ((2, 2), (16, 384), (50, 10))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", STRUCTURED)
def test_vendi_score_matches_the_package_of_its_authors(name: str) -> None:
    theirs = pytest.importorskip("vendi_score.vendi", reason="pip install vendi-score")
    rows = STRUCTURED[name]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert vendi_score(rows) == pytest.approx(theirs.score_X(rows, q=1), rel=1e-9)
    assert vendi_score(rows) == pytest.approx(theirs.score_K(unit @ unit.T, q=1), rel=1e-9)
    assert vendi_score(rows) == pytest.approx(theirs.score_dual(rows, q=1), rel=1e-9)


@given(MATRICES)
def test_vendi_score_lies_between_one_and_the_number_of_samples(rows: NDArray[np.float64]) -> None:
    score = vendi_score(rows)
    assert 1 <= score <= len(rows) + 1e-6
    assert vendi_score(rows[::-1]) == pytest.approx(score, rel=1e-6)
    assert vendi_score(np.vstack([rows, rows])) == pytest.approx(score, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_scores_do_not_depend_on_the_norm_of_rows(scale: float) -> None:
    rows = np.random.default_rng(3).normal(size=(6, 4))
    assert vendi_score(rows * scale) == pytest.approx(vendi_score(rows))
    assert mean_cosine(rows * scale) == pytest.approx(mean_cosine(rows))


@given(MATRICES)
def test_mean_cosine_is_the_mean_over_pairs(rows: NDArray[np.float64]) -> None:
    rows = rows + np.where(np.abs(rows).max(axis=1, keepdims=True) < 1e-3, 1.0, 0.0)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = (unit @ unit.T)[np.triu_indices(len(rows), k=1)]
    if len(rows) < 2:
        assert np.isnan(mean_cosine(rows))
    else:
        assert mean_cosine(rows) == pytest.approx(pairs.mean(), abs=1e-9)


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(3), [[np.nan, 1.0]], [[np.inf, 1.0]]])
def test_invalid_embeddings_are_refused(bad: NDArray[np.float64]) -> None:
    for metric in (vendi_score, mean_cosine):
        with pytest.raises(InputError):
            metric(bad)
