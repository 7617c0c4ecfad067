"""The kernel of `propose`: features, prediction, confidence, what was missed, the tilted states and the decision."""

import triton
import triton.language as tl

from esamp.explorer.kernels.parts import is_last, product, rows_of, states_of


@triton.jit
def features_of(
    source, row, exists, size, stride, projection, features, M: tl.constexpr, DEPTH: tl.constexpr, ROWS: tl.constexpr
):
    """``x / |x|`` times the projection `[ROWS, M]`; zeros in the columns from `features` m on."""
    feature = tl.arange(0, M)
    total = tl.zeros([ROWS, M], dtype=tl.float32)
    square = tl.zeros([ROWS], dtype=tl.float32)
    for start in range(0, size, DEPTH):
        at = start + tl.arange(0, DEPTH)
        mask = exists[:, None] & (at < size)[None, :]
        x = tl.load(source + row[:, None] * stride + at[None, :], mask=mask, other=0.0).to(tl.float32)
        mask = (at < size)[:, None] & (feature < features)[None, :]
        matrix = tl.load(projection + at[:, None] * (features + 1) + feature[None, :], mask=mask, other=0.0)
        square += tl.sum(x * x, 1)
        total += product(x, matrix)
    return total / tl.maximum(tl.sqrt(square), 1.1754944e-38)[:, None]  # the smallest normal number


@triton.jit
def confidence_of(z, seen, features, M: tl.constexpr, CONSTANT: tl.constexpr):
    """``phi S phi' / phi phi'`` `[ROWS]` for phi = [z, constant], with S `[m + 1, m + 1]`."""
    feature = tl.arange(0, M)
    within, width = feature < features, features + 1
    mask = within[:, None] & within[None, :]
    inner = tl.load(seen + feature[:, None] * width + feature[None, :], mask=mask, other=0.0)
    border = tl.load(seen + features * width + feature, mask=within, other=0.0)
    corner = tl.load(seen + features * width + features)
    known = tl.sum(product(z, inner) * z, 1) + 2 * CONSTANT * tl.sum(z * border[None, :], 1)
    return (known + CONSTANT * CONSTANT * corner) / (tl.sum(z * z, 1) + CONSTANT * CONSTANT)


@triton.jit
def predicted(z, weights, column, within, features, size, M: tl.constexpr, CONSTANT: tl.constexpr):
    """``phi W`` `[ROWS, WIDTH]`, some columns of it."""
    feature = tl.arange(0, M)
    mask = (feature < features)[:, None] & within[None, :]
    matrix = tl.load(weights + feature[:, None] * size + column[None, :], mask=mask, other=0.0)
    bias = tl.load(weights + features * size + column, mask=within, other=0.0)
    return product(z, matrix) + CONSTANT * bias[None, :]


@triton.jit
def decide(
    partials, numbers, flags, cells, cell, inside, exists, active, confidence, seen, blocks,
    MEAN: tl.constexpr, GATE: tl.constexpr, STEERS: tl.constexpr, NARROW: tl.constexpr,
    ROWS: tl.constexpr, TINY: tl.constexpr,
):  # fmt: skip
    """Add up what all programs of these rows found, store it with the decision; returns which are steered `[ROWS]`."""
    at = tl.arange(0, ROWS)
    missed = tl.zeros([ROWS], dtype=tl.float32)
    varied = tl.zeros([ROWS], dtype=tl.float32)
    beyond = tl.zeros([ROWS], dtype=tl.float32)
    for block in range(blocks):
        base = partials + block * 3 * ROWS + at
        missed += tl.load(base, cache_modifier=".cg")
        varied += tl.load(base + ROWS, cache_modifier=".cg")
        if NARROW:
            beyond += tl.load(base + 2 * ROWS, cache_modifier=".cg")
    reach = missed
    if MEAN:
        if GATE:
            missed = missed * seen
            reach = missed
        varied = missed
    elif GATE:
        reach = missed * confidence
    live = active & (reach < float("inf"))
    steered = live & (reach > TINY)
    if NARROW:
        steered = steered & (beyond == 0)
    if not STEERS:
        steered = steered & (reach != reach)
    tl.store(numbers + cell, missed, mask=inside)
    tl.store(numbers + cells + cell, varied, mask=inside)
    tl.store(flags + cell, active, mask=inside)
    tl.store(flags + cells + cell, live, mask=inside)
    tl.store(flags + 2 * cells + cell, steered, mask=inside)
    return steered


@triton.jit
def mix(
    final, tilted, z, weights, value, cell, sums, count, confidence, row, exists, first_tile, tiles, features, size,
    stride, beta, M: tl.constexpr, VALUE: tl.constexpr, GATE: tl.constexpr, STEERS: tl.constexpr, NARROW: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    """Store ``hL + beta c (hL - y)`` in some columns.

    Returns of each row what these columns add to ``|hL - y|^2`` and ``|hL - mean|^2``, and how many numbers of its
    tilted state are not finite in the type of hL.
    """
    missed = tl.zeros([ROWS], dtype=tl.float32)
    varied = tl.zeros([ROWS], dtype=tl.float32)
    beyond = tl.zeros([ROWS], dtype=tl.float32)
    for tile in range(tiles):
        column = (first_tile + tile) * WIDTH + tl.arange(0, WIDTH)
        within = column < size
        mask = exists[:, None] & within[None, :]
        raw = states_of(final, row, column, mask, stride)
        target = raw.to(tl.float32)
        mean = (tl.load(sums + column, mask=within, other=0.0) / count)[None, :]
        if M > 0:
            residual = target - predicted(z, weights, column, within, features, size, M, CONSTANT)
        elif VALUE:
            residual = target - tl.load(value + cell[:, None] * size + column[None, :], mask=mask, other=0.0)
        else:
            residual = target - mean
        missed += tl.sum(residual * residual, 1)
        varied += tl.sum((target - mean) * (target - mean), 1)
        if STEERS:
            change = residual * beta
            if GATE:
                change = change * confidence[:, None]
            mixed = (target + change).to(raw.dtype)
            tl.store(tilted + row[:, None] * size + column[None, :], mixed, mask=mask)
            if NARROW:
                beyond += tl.sum(tl.where(tl.abs(mixed.to(tl.float32)) < float("inf"), 0.0, 1.0), 1)
    return missed, varied, beyond


@triton.jit
def propose_group(
    unit, block, source, value, final, live, tilted, kept, numbers, flags, partials, arrived,
    slots, cell_rows, occupied, bank, tally, projection,
    groups, lanes, source_size, size, features, source_stride, final_stride, live_stride, bank_stride,
    tally_stride, weights_at, seen_at, beta, half, tiles, blocks,
    M: tl.constexpr, VALUE: tl.constexpr, GATE: tl.constexpr, STEERS: tl.constexpr, NARROW: tl.constexpr,
    HOLES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, CONSTANT: tl.constexpr,
    TINY: tl.constexpr,
):  # fmt: skip
    """Some rows of a group and some columns of their states. The last program of these rows decides for all columns."""
    parts = tl.cdiv(lanes, ROWS)
    group = unit // parts
    cell, inside, row, exists = rows_of(cell_rows, occupied, group, unit % parts * ROWS, lanes, HOLES, ROWS)
    active = exists & (tl.load(live + row * live_stride, mask=exists, other=0) != 0)
    slot = tl.load(slots + group)
    sums, state = tally + slot * tally_stride, bank + slot * bank_stride
    count = tl.load(sums + size)
    confidence = tl.zeros([ROWS], dtype=tl.float32) + count / (count + half)
    if M > 0:
        z = features_of(source, row, exists, source_size, source_stride, projection, features, M, DEPTH, ROWS)
        if GATE:
            confidence = confidence_of(z, state + seen_at, features, M, CONSTANT)
        if block == 0:
            tl.store(kept + cell[:, None] * M + tl.arange(0, M)[None, :], z, mask=inside[:, None])
    else:
        z = confidence  # not read
    missed, varied, beyond = mix(
        final, tilted, z, state + weights_at, value, cell, sums, count, confidence, row, exists, block * tiles, tiles,
        features, size, final_stride, beta, M, VALUE, GATE, STEERS, NARROW, ROWS, WIDTH, CONSTANT,
    )  # fmt: skip
    own = partials + unit * blocks * 3 * ROWS
    base = own + block * 3 * ROWS + tl.arange(0, ROWS)
    tl.store(base, missed)
    tl.store(base + ROWS, varied)
    tl.store(base + 2 * ROWS, beyond)
    if is_last(arrived + unit, blocks):
        known = (count > 0.5).to(tl.float32)
        steered = decide(
            own, numbers, flags, groups * lanes, cell, inside, exists, active, confidence, known, blocks,
            M == 0 and not VALUE, GATE, STEERS, NARROW, ROWS, TINY,
        )  # fmt: skip
        if STEERS:
            left = exists & (steered == 0)
            if tl.sum(left.to(tl.int32), 0) > 0:
                copy_rows(final, tilted, row, left, 0, tl.cdiv(size, WIDTH), size, final_stride, WIDTH)


@triton.jit
def copy_rows(final, tilted, row, chosen, first, tiles, size, stride, WIDTH: tl.constexpr):
    """Final hidden states of the rows that are `chosen` `[ROWS]`, unchanged, in the column tiles from `first` on."""
    for tile in range(tiles):
        column = (first + tile) * WIDTH + tl.arange(0, WIDTH)
        mask = chosen[:, None] & (column < size)[None, :]
        tl.store(tilted + row[:, None] * size + column[None, :], states_of(final, row, column, mask, stride), mask=mask)


@triton.jit(do_not_specialize=["rows", "groups", "lanes", "features", "tiles", "blocks"])
def propose(
    source, value, final, live, tilted, kept, numbers, flags, partials, arrived,
    slots, place, cell_rows, occupied, bank, tally, projection,
    rows, groups, lanes, source_size, size, features, source_stride, final_stride, live_stride, bank_stride,
    tally_stride, weights_at, seen_at, beta, half, tiles, blocks,
    M: tl.constexpr, VALUE: tl.constexpr, GATE: tl.constexpr, STEERS: tl.constexpr, NARROW: tl.constexpr,
    HOLES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, DEPTH: tl.constexpr, CONSTANT: tl.constexpr,
    TINY: tl.constexpr,
):  # fmt: skip
    """A grid of (units of `ROWS` rows, `blocks` of columns): first the groups' rows, then all rows for those in none.

    Args are as `FusedStep.propose` passes them. M is the number of features, rounded up; 0 for the running mean and
    where what is predicted is given as `value` `[G, C, d]`.
    """
    unit, block = tl.program_id(0), tl.program_id(1)
    units = groups * tl.cdiv(lanes, ROWS)
    if unit < units:
        propose_group(
            unit, block, source, value, final, live, tilted, kept, numbers, flags, partials, arrived,
            slots, cell_rows, occupied, bank, tally, projection,
            groups, lanes, source_size, size, features, source_stride, final_stride, live_stride, bank_stride,
            tally_stride, weights_at, seen_at, beta, half, tiles, blocks,
            M, VALUE, GATE, STEERS, NARROW, HOLES, ROWS, WIDTH, DEPTH, CONSTANT, TINY,
        )  # fmt: skip
    else:
        row = (unit - units).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        nowhere = tl.load(place + row, mask=row < rows, other=0) >= groups * lanes
        copy_rows(final, tilted, row, nowhere & (row < rows), block * tiles, tiles, size, final_stride, WIDTH)
