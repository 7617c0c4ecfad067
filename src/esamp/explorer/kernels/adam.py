"""The kernels that train the published network: the gradient's length; clipping, Adam and the reset in one pass."""

import triton
import triton.language as tl


@triton.jit
def finite(gradient, at, within):
    """Some numbers of a gradient, zeros for those that are not finite."""
    g = tl.load(gradient + at, mask=within, other=0.0)
    return tl.where(tl.abs(g) < float("inf"), g, 0.0)


@triton.jit
def measure(
    gradient, partials, corrections, decay, flags, slots, size, decay_stride, decay_at, tiles, blocks,
    WIDTH: tl.constexpr, KEEP1: tl.constexpr, KEEP2: tl.constexpr,
):  # fmt: skip
    """A grid of (groups, `blocks` of numbers): squares of the gradient `[G, size]`, summed by block.

    ``1 - beta^t`` of this step goes to `corrections` `[G, 2]`, and the bank's ``beta^t`` moves on in groups that learn.
    """
    group, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    total = tl.zeros([WIDTH], dtype=tl.float32)
    for tile in range(tiles):
        at = (block * tiles + tile) * WIDTH + tl.arange(0, WIDTH)
        g = finite(gradient + group * size, at, at < size)
        total += g * g
    tl.store(partials + group * blocks + block, tl.sum(total, 0))
    if block == 0:
        power = decay + tl.load(slots + group) * decay_stride + decay_at
        first, second = tl.load(power), tl.load(power + 1)
        tl.store(corrections + 2 * group, 1 - first)
        tl.store(corrections + 2 * group + 1, 1 - second)
        if tl.load(flags + group) != 0:
            tl.store(power, first * KEEP1)
            tl.store(power + 1, second * KEEP2)


@triton.jit
def adam(
    gradient, partials, corrections, weights, moments, template, flags, slots, groups, size, weights_stride,
    moments_stride, weights_at, first_at, second_at, clip, lr, eps, tiles, blocks,
    WIDTH: tl.constexpr, SHARE1: tl.constexpr, SHARE2: tl.constexpr,
):  # fmt: skip
    """A grid of (groups, `blocks` of numbers): one clipped step of Adam, written into the slots.

    `flags` `[2, groups]` say which groups learn, and whose weights start again from the `template`; where both hold,
    the moments take the step. A `clip` of 0 does not clip.
    """
    group, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    learns, starts_again = tl.load(flags + group) != 0, tl.load(flags + groups + group) != 0
    slot = tl.load(slots + group)
    weights += slot * weights_stride + weights_at
    first_moment, second_moment = (
        moments + slot * moments_stride + first_at,
        moments + slot * moments_stride + second_at,
    )
    square = 0.0
    for other in range(blocks):
        square += tl.load(partials + group * blocks + other)
    length, scale = tl.sqrt(square), 1.0
    if (clip > 0) & (length > clip):
        scale = clip / (length + 1e-7)
    correction1, correction2 = tl.load(corrections + 2 * group), tl.load(corrections + 2 * group + 1)
    for tile in range(tiles):
        at = (block * tiles + tile) * WIDTH + tl.arange(0, WIDTH)
        within = at < size
        if learns:
            g = finite(gradient + group * size, at, within) * scale
            first = tl.load(first_moment + at, mask=within, other=0.0)
            second = tl.load(second_moment + at, mask=within, other=0.0)
            first += SHARE1 * (g - first)
            second += SHARE2 * (g * g - second)
            step = lr * (first / correction1) / (tl.sqrt(second / correction2) + eps)
            tl.store(first_moment + at, first, mask=within)
            tl.store(second_moment + at, second, mask=within)
            tl.store(weights + at, tl.load(weights + at, mask=within, other=0.0) - step, mask=within)
        if starts_again:
            tl.store(weights + at, tl.load(template + at, mask=within, other=0.0), mask=within)
