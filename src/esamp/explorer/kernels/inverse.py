"""The symmetric matrices of a group: A in float64, its inverse, and S.

A symmetric matrix of size m + 1 is held as a square `a` `[M, M]` of the m features, a `border` `[M]` and a `corner` for
the constant feature, since M, m rounded up to a power of two, would be twice as large for m + 1.
"""

import triton
import triton.language as tl


@triton.jit
def gram_of(
    gram, kept, lived, live, live_stride, cell_rows, group, lanes, until, features,
    M: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    """``A + F' F`` for the rows learned from in the lanes before `until`. Every product is exact in float64.

    A cell without a row never lived.
    """
    feature = tl.arange(0, M)
    within, width = feature < features, features + 1
    a = tl.load(gram + feature[:, None] * width + feature[None, :], mask=within[:, None] & within[None, :], other=0.0)
    border = tl.load(gram + features * width + feature, mask=within, other=0.0)
    corner = tl.load(gram + features * width + features)
    for lane in range(until):
        cell = group * lanes + lane
        row = tl.load(cell_rows + cell)
        learned = (tl.load(lived + cell) != 0) & (tl.load(live + row * live_stride) != 0)
        z = tl.where(learned, tl.load(kept + cell * M + feature), 0.0).to(tl.float64)
        constant = tl.where(learned, CONSTANT, 0.0).to(tl.float64)
        a += z[:, None] * z[None, :]
        border += constant * z
        corner += constant * constant
    return a, border, corner


@triton.jit
def solved(a, border, corner, x, x_last, features, M: tl.constexpr):
    """``-A^-1`` and ``A^-1 X`` in float64, for X the rows `x` `[M, ROWS]` and, of the constant feature, `x_last`.

    Gauss-Jordan elimination by the symmetric sweep operator (Goodnight 1979), one feature after the other. A is
    positive definite, so that no pivot is to be searched for. What lies beyond the m features stays zero.
    """
    feature = tl.arange(0, M)
    for step in range(features):
        here = feature == step
        column = tl.sum(tl.where(here[None, :], a, 0.0), 1)
        across = tl.sum(tl.where(here[:, None], a, 0.0), 0)  # the same numbers, along the other axis
        pivot = tl.sum(tl.where(here, column, 0.0), 0)
        scaled = across / pivot
        below = tl.where(here[None, :], (column / pivot)[:, None], a - column[:, None] * scaled[None, :])
        a = tl.where(here[:, None], tl.where(here, -1.0 / pivot, scaled)[None, :], below)
        own = tl.sum(tl.where(here[:, None], x, 0.0), 0) / pivot
        x = tl.where(here[:, None], own[None, :], x - column[:, None] * own[None, :])
        edge = tl.sum(tl.where(here, border, 0.0), 0)
        x_last -= edge * own
        corner -= edge * edge / pivot
        border = tl.where(here, edge / pivot, border - column * (edge / pivot))
    x_last = x_last / corner
    x -= border[:, None] * x_last[None, :]
    a -= border[:, None] * (border / corner)[None, :]
    return a, border / corner, -1.0 / corner, x, x_last


@triton.jit
def store_square(at, a, border, corner, features, M: tl.constexpr):
    """Store a matrix of size m + 1."""
    feature = tl.arange(0, M)
    within, width = feature < features, features + 1
    tl.store(at + feature[:, None] * width + feature[None, :], a, mask=within[:, None] & within[None, :])
    tl.store(at + feature * width + features, border, mask=within)
    tl.store(at + features * width + feature, border, mask=within)
    tl.store(at + features * width + features, corner)


@triton.jit
def store_seen(at, a, border, corner, features, M: tl.constexpr, GATE: tl.constexpr, RIDGE: tl.constexpr):
    """Store ``S = I - lambda A^-1`` in float32, given ``-A^-1``; nothing without a gate, which alone reads it."""
    if GATE:
        feature = tl.arange(0, M)
        one = (feature[:, None] == feature[None, :]).to(tl.float64)
        ridge = tl.full([], RIDGE, tl.float64)
        square, edge, last = one + a * ridge, border * ridge, 1.0 + corner * ridge
        store_square(at, square.to(tl.float32), edge.to(tl.float32), last.to(tl.float32), features, M)


@triton.jit
def clear_square(at, DIAGONAL: tl.constexpr, features, M: tl.constexpr, TYPE: tl.constexpr):
    """Store a multiple of the identity of size m + 1."""
    feature = tl.arange(0, M)
    diagonal, nothing = tl.full([M, M], DIAGONAL, TYPE), tl.zeros([M, M], dtype=TYPE)
    a = tl.where(feature[:, None] == feature[None, :], diagonal, nothing)
    store_square(at, a, tl.zeros([M], dtype=TYPE), tl.full([], DIAGONAL, TYPE), features, M)
