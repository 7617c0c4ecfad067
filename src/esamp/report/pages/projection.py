"""`plane`: embeddings on a plane, by their principal components."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plane:
    """Vectors on their first two principal axes."""

    points: NDArray[np.float64]
    """`[n, 2]`"""
    shares: tuple[float, float]
    """of the vectors' variance that each axis keeps; 0 where all vectors are the same"""


def plane(vectors: NDArray[np.floating]) -> Plane:
    """The two axes along which `vectors` `[n, d]`, n >= 1, vary most (PCA by an SVD of the centred vectors).

    An axis may point either way: here the largest of its d components, by size, is positive, so that the same vectors
    give the same picture.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    variance = sizes**2
    total = float(variance.sum())
    points, shares = np.zeros((len(centred), 2)), [0.0, 0.0]
    for place, axis in enumerate(axes[:2]):
        if variance[place] > 1e-12 * max(total, 1e-12):
            sign = np.sign(axis[np.abs(axis).argmax()])
            points[:, place] = centred @ (sign * axis)
            shares[place] = float(variance[place]) / total
    return Plane(points, (shares[0], shares[1]))
