"""The kernel of `learn`: one step of recursive least squares, the tally, and the reset of a slot.

All programs of a group form the same matrix A and its inverse, in float64, and each changes its own columns of W. They
read A as it was before the step, so the last program to finish stores it.
"""

import triton
import triton.language as tl

from esamp.explorer.kernels.inverse import clear_square, gram_of, solved, store_seen, store_square
from esamp.explorer.kernels.parts import is_last, product, rows_of, states_of


@triton.jit
def rows_learned(lived, live, live_stride, cell, row, exists):
    """Which rows are learned from `[ROWS]`: those that lived when the step was proposed and still count."""
    still = tl.load(live + row * live_stride, mask=exists, other=0) != 0
    return exists & still & (tl.load(lived + cell, mask=exists, other=0) != 0)


@triton.jit
def count_rows(
    active, lived, steered, missed, varied, live, live_stride, cell_rows, occupied, group, lanes,
    HOLES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Of a group: how many rows are active, live, learned from and steered, and sums of the two squared distances."""
    active_rows, live_rows, learned, moved = 0, 0, 0, 0
    errors, distances = 0.0, 0.0
    for first in range(0, lanes, ROWS):
        cell, _, row, exists = rows_of(cell_rows, occupied, group, first, lanes, HOLES, ROWS)
        rows = rows_learned(lived, live, live_stride, cell, row, exists)
        active_rows += tl.sum(tl.load(active + cell, mask=exists, other=0).to(tl.int32), 0)
        live_rows += tl.sum(tl.load(lived + cell, mask=exists, other=0).to(tl.int32), 0)
        learned += tl.sum(rows.to(tl.int32), 0)
        moved += tl.sum(tl.load(steered + cell, mask=rows, other=0).to(tl.int32), 0)
        errors += tl.sum(tl.load(missed + cell, mask=rows, other=0.0), 0)
        distances += tl.sum(tl.load(varied + cell, mask=rows, other=0.0), 0)
    return active_rows, live_rows, learned, moved, errors, distances


@triton.jit
def slopes(
    final, value, slope, lived, live, live_stride, cell_rows, occupied, group, lanes, first_tile, tiles, size, stride,
    factor, HOLES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """``factor (y - hL)`` in some columns, for what the loss of a group becomes steeper by; zeros in other rows."""
    for tile in range(tiles):
        column = (first_tile + tile) * WIDTH + tl.arange(0, WIDTH)
        within = column < size
        for first in range(0, lanes, ROWS):
            cell, inside, row, exists = rows_of(cell_rows, occupied, group, first, lanes, HOLES, ROWS)
            rows = rows_learned(lived, live, live_stride, cell, row, exists)
            mask = rows[:, None] & within[None, :]
            at = cell[:, None] * size + column[None, :]
            target = states_of(final, row, column, mask, stride).to(tl.float32)
            steep = factor * (tl.load(value + at, mask=mask, other=0.0) - target)
            tl.store(slope + at, tl.where(mask, steep, 0.0), mask=inside[:, None] & within[None, :])


@triton.jit
def add_fields(sums, counts, learned, moved, errors, distances, broken):
    """Add a step to a group's fields in the tally: ``rows, rows_steered, residual, variance`` and its counts."""
    rows = tl.load(sums)
    known = (rows > 0.5).to(tl.float32)  # a group's first step explains nothing
    tl.store(sums, rows + learned)
    tl.store(sums + 1, tl.load(sums + 1) + moved)
    tl.store(sums + 2, tl.load(sums + 2) + errors * known)
    tl.store(sums + 3, tl.load(sums + 3) + distances * known)
    if learned > 0:
        tl.store(counts, tl.load(counts) + 1)
        tl.store(counts + 1, tl.load(counts + 1) + 1)
    if broken:
        tl.store(counts + 2, tl.load(counts + 2) + 1)


@triton.jit
def add_targets(
    final, sums, lived, live, live_stride, cell_rows, occupied, group, lanes, first_tile, tiles, size, stride,
    HOLES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Add the rows learned from to the sum of the targets, in some columns."""
    for tile in range(tiles):
        column = (first_tile + tile) * WIDTH + tl.arange(0, WIDTH)
        within = column < size
        total = tl.zeros([WIDTH], dtype=tl.float32)
        for first in range(0, lanes, ROWS):
            cell, _, row, exists = rows_of(cell_rows, occupied, group, first, lanes, HOLES, ROWS)
            rows = rows_learned(lived, live, live_stride, cell, row, exists)
            mask = rows[:, None] & within[None, :]
            total += tl.sum(states_of(final, row, column, mask, stride).to(tl.float32), 0)
        tl.store(sums + column, tl.load(sums + column, mask=within, other=0.0) + total, mask=within)


@triton.jit
def move_weights(
    final, weights, gain, gain_bias, z, row, rows, first_tile, tiles, features, size, stride,
    M: tl.constexpr, WIDTH: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    """``W += A^-1 F' (Y - F W)`` in some columns, for the `ROWS` rows whose features are `z`."""
    feature = tl.arange(0, M)
    for tile in range(tiles):
        column = (first_tile + tile) * WIDTH + tl.arange(0, WIDTH)
        within = column < size
        mask = (feature < features)[:, None] & within[None, :]
        at = weights + feature[:, None] * size + column[None, :]
        matrix = tl.load(at, mask=mask, other=0.0)
        last = tl.load(weights + features * size + column, mask=within, other=0.0)
        mask_rows = rows[:, None] & within[None, :]
        target = states_of(final, row, column, mask_rows, stride).to(tl.float32)
        residual = tl.where(mask_rows, target - product(z, matrix) - CONSTANT * last[None, :], 0.0)
        tl.store(at, matrix + product(gain, residual), mask=mask)
        last += tl.sum(gain_bias[:, None] * residual, 0)
        tl.store(weights + features * size + column, last, mask=within)


@triton.jit
def clear_weights(weights, first_tile, tiles, features, size, M: tl.constexpr, WIDTH: tl.constexpr):
    """Zeros in some columns of W."""
    feature = tl.arange(0, M)
    for tile in range(tiles):
        column = (first_tile + tile) * WIDTH + tl.arange(0, WIDTH)
        within = column < size
        mask = (feature < features)[:, None] & within[None, :]
        nothing = tl.zeros([M, WIDTH], dtype=tl.float32)
        tl.store(weights + feature[:, None] * size + column[None, :], nothing, mask=mask)
        tl.store(weights + features * size + column, tl.zeros([WIDTH], dtype=tl.float32), mask=within)


@triton.jit
def regress(
    final, live, kept, lived, state, gram, cell_rows, occupied, block, group, lanes, size, features,
    final_stride, live_stride, weights_at, seen_at, tiles,
    M: tl.constexpr, GATE: tl.constexpr, HOLES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
    CONSTANT: tl.constexpr, RIDGE: tl.constexpr,
):  # fmt: skip
    """A step of the recursion for each `ROWS` rows of the group, one after the other; they add up to a step of all."""
    feature = tl.arange(0, M)
    for first in range(0, lanes, ROWS):
        cell, _, row, exists = rows_of(cell_rows, occupied, group, first, lanes, HOLES, ROWS)
        rows = rows_learned(lived, live, live_stride, cell, row, exists)
        until = tl.minimum(first + ROWS, lanes)
        a, border, corner = gram_of(
            gram, kept, lived, live, live_stride, cell_rows, group, lanes, until, features, M, CONSTANT,
        )  # fmt: skip
        z = tl.load(kept + cell[:, None] * M + feature[None, :], mask=rows[:, None], other=0.0)
        turned = tl.load(kept + cell[None, :] * M + feature[:, None], mask=rows[None, :], other=0.0)
        bias = tl.where(rows, CONSTANT, 0.0).to(tl.float64)
        a, border, corner, gain, gain_bias = solved(a, border, corner, turned.to(tl.float64), bias, features, M)
        move_weights(
            final, state + weights_at, gain.to(tl.float32), gain_bias.to(tl.float32), z, row, rows,
            block * tiles, tiles, features, size, final_stride, M, WIDTH, CONSTANT,
        )  # fmt: skip
        tl.debug_barrier()  # the next rows read the columns that these have changed
        if (block == 0) & (until == lanes):
            store_seen(state + seen_at, a, border, corner, features, M, GATE, RIDGE)


@triton.jit
def finish(
    seen, gram, kept, lived, live, live_stride, cell_rows, group, lanes, features, learned, broken,
    M: tl.constexpr, GATE: tl.constexpr, CONSTANT: tl.constexpr, RIDGE: tl.constexpr,
):  # fmt: skip
    """Store A, once no other program of the group needs the old one; lambda I and no S where the slot is reset."""
    if learned > 0:
        a, border, corner = gram_of(
            gram, kept, lived, live, live_stride, cell_rows, group, lanes, lanes, features, M, CONSTANT,
        )  # fmt: skip
        store_square(gram, a, border, corner, features, M)
    if broken:
        clear_square(gram, RIDGE, features, M, tl.float64)
        if GATE:
            clear_square(seen, 0.0, features, M, tl.float32)


@triton.jit(do_not_specialize=["lanes", "features", "tiles", "blocks"])
def learn(
    final, live, kept, value, slope, reports,
    active, lived, steered, missed, varied, arrived, slots, cell_rows, occupied,
    bank, gram, tally, counts,
    lanes, size, features, final_stride, live_stride, bank_stride, gram_stride, tally_stride, count_stride,
    weights_at, seen_at, gram_at, steepness, tiles, blocks,
    M: tl.constexpr, VALUE: tl.constexpr, GATE: tl.constexpr, HOLES: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr, CONSTANT: tl.constexpr, RIDGE: tl.constexpr,
):  # fmt: skip
    """A grid of (groups, `blocks` of columns). Args are as `FusedStep.learn` passes them; M is 0 for the mean."""
    group, block = tl.program_id(0), tl.program_id(1)
    slot = tl.load(slots + group)
    sums, state, matrix = tally + slot * tally_stride, bank + slot * bank_stride, gram + slot * gram_stride + gram_at
    active_rows, live_rows, learned, moved, errors, distances = count_rows(
        active, lived, steered, missed, varied, live, live_stride, cell_rows, occupied, group, lanes, HOLES, ROWS
    )
    broken = (active_rows > 0) & (live_rows == 0)
    if VALUE:
        broken = active_rows > live_rows  # a network adds up what it kept of each row
        if block == 0:
            tl.store(reports + group, learned > 0)
            tl.store(reports + tl.num_programs(0) + group, broken)
        slopes(
            final, value, slope, lived, live, live_stride, cell_rows, occupied, group, lanes, block * tiles, tiles,
            size, final_stride, steepness / tl.maximum(learned, 1), HOLES, ROWS, WIDTH,
        )  # fmt: skip
    elif M == 0:
        broken = broken & (active_rows < 0)  # sums of finite numbers stay finite
    if block == 0:
        add_fields(sums + size, counts + slot * count_stride, learned, moved, errors, distances, broken)
    if learned > 0:
        add_targets(
            final, sums, lived, live, live_stride, cell_rows, occupied, group, lanes, block * tiles, tiles,
            size, final_stride, HOLES, ROWS, WIDTH,
        )  # fmt: skip
    if M > 0:
        if learned > 0:
            regress(
                final, live, kept, lived, state, matrix, cell_rows, occupied, block, group, lanes, size, features,
                final_stride, live_stride, weights_at, seen_at, tiles, M, GATE, HOLES, ROWS, WIDTH, CONSTANT, RIDGE,
            )  # fmt: skip
        if broken:
            clear_weights(state + weights_at, block * tiles, tiles, features, size, M, WIDTH)
        if is_last(arrived + group, blocks):
            finish(
                state + seen_at, matrix, kept, lived, live, live_stride, cell_rows, group, lanes, features,
                learned, broken, M, GATE, CONSTANT, RIDGE,
            )  # fmt: skip
