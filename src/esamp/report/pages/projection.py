"""`plane`: embeddings projected onto a plane by their principal components."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Plane:
    """Vectors on their first two principal axes."""

    points: NDArray[np.float64]
    """`[n, 2]`"""
    shares: tuple[float, float]
    """share of the vectors' variance along each axis; 0 if all vectors are the same"""


def plane(vectors: NDArray[np.floating]) -> Plane:
    """The two axes along which `vectors` `[n, d]`, n >= 1, vary most (PCA by an SVD of the centred vectors).

    The sign of an axis is arbitrary. Here the component with the largest absolute value is made positive, so that the
    same vectors always give the same picture.
    """
    centred = np.asarray(vectors, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    variance = sizes**2
    total = float(variance.sum())
    points, shares = np.zeros((len(centred), 2)), [0.0, 0.0]
    for index, axis in enumerate(axes[:2]):
        if variance[index] > 1e-12 * max(total, 1e-12):
            sign = np.sign(axis[np.abs(axis).argmax()])
            points[:, index] = centred @ (sign * axis)
            shares[index] = float(variance[index]) / total
    return Plane(points, (shares[0], shares[1]))
