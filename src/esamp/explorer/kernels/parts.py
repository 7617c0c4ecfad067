"""What the kernels share: the rows of a group, features on their way to a product, and who is the last to finish.

A kernel runs many programs, which know each other's numbers only through memory. Arrays have sizes that are powers
of two; what lies beyond the true size is masked. Pointers carry the name of the tensor that they point to.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of(cells, occupied, group, first, lanes, HOLES: tl.constexpr, ROWS: tl.constexpr):
    """Of the lanes from `first` on: their cell, whether it is on the grid, its row, whether it has one. `[ROWS]`."""
    lane = first + tl.arange(0, ROWS)
    cell = group * lanes + lane
    inside = lane < lanes
    row = tl.load(cells + cell, mask=inside, other=0)
    exists = inside
    if HOLES:
        exists = inside & (tl.load(occupied + cell, mask=inside, other=0) != 0)
    return cell, inside, row, exists


@triton.jit
def states_of(final, row, column, mask, stride):
    """Deep states `[ROWS, WIDTH]`, zeros outside of `mask`."""
    return tl.load(final + row[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def product(left, right):
    """A matrix product in float32 proper: the tensor cores' shorter mantissa loses three digits."""
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def is_last(arrived, programs):
    """Whether all others of the `programs` that share a counter have come this far. Counts from zero again then.

    Everything that a program wrote or read before is done when another one sees that it has arrived: threads of a
    program meet first, then the counter is changed with acquire and release semantics.
    """
    tl.debug_barrier()
    before = tl.atomic_add(arrived, 1, sem="acq_rel", scope="gpu")
    tl.debug_barrier()
    last = before == programs - 1
    if last:
        tl.store(arrived, 0)
    return last
