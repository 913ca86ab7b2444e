"""Clouds divided into tiles that each program finds alone: no table, no wait for the device."""

import triton
import triton.language as tl


def num_tiles(num_points: int, num_clouds: int, size: int) -> int:
    """Programs needed to meet every tile of `size` points of every cloud.

    The tiles of cloud b are numbered from `first(b) = ptr[b] // size + b`. There is room for all of
    them: with `ptr[b] = a size + r`, `0 <= r < size`, and n points in the cloud,

        first(b + 1) - first(b) = (r + n) // size + 1 >= n // size + 1 >= ceil(n / size)

    so numbers of different clouds never meet, `first` grows strictly, and every number is below
    `first(B) = N // size + B`, which is known without looking at `ptr`. At most one number per
    cloud belongs to no tile.
    """
    return num_points // size + num_clouds


@triton.jit
def find_tile(p_ptr, tile, num_clouds, size):  # type: ignore[no-untyped-def]
    """Tile number to `(cloud, first point, number of points)`; 0 points if there is no such tile.

    The cloud is the last b with `first(b) <= tile`, found by bisection in log2 B steps.
    """
    low = tile * 0
    high = low + num_clouds - 1
    while low < high:
        middle = (low + high + 1) // 2
        first = tl.load(p_ptr + middle) // size + middle
        if first <= tile:
            low = middle
        else:
            high = middle - 1
    start = tl.load(p_ptr + low)
    end = tl.load(p_ptr + low + 1)
    begin = start + (tile - (start // size + low)) * size
    count = tl.minimum(end - begin, size).to(tl.int32)
    return low, begin, count


@triton.jit
def load_rows(p_x, o_row, m_row, STRIDE: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr):  # type: ignore[no-untyped-def]
    """`[rows, BLOCK_D]` of a matrix whose rows lie STRIDE apart; zero beyond D and off the mask."""
    o_d = tl.arange(0, BLOCK_D)
    m_x = m_row[:, None] & (o_d < D)[None, :]
    return tl.load(p_x + o_row[:, None] * STRIDE + o_d[None, :], mask=m_x, other=0.0)


@triton.jit
def load_block(p_x, o_row, m_row, o_col, WIDTH, stride):  # type: ignore[no-untyped-def]
    """Some columns of rows `stride` apart; zero beyond WIDTH and off the mask."""
    mask = m_row[:, None] & (o_col < WIDTH)[None, :]
    return tl.load(p_x + o_row[:, None] * stride + o_col[None, :], mask=mask, other=0.0)


@triton.jit
def store_rows(p_x, b_x, o_row, m_row, STRIDE: tl.constexpr, D: tl.constexpr):  # type: ignore[no-untyped-def]
    """The way back of `load_rows`, rounded to the type of the matrix."""
    o_d = tl.arange(0, b_x.shape[1])
    m_x = m_row[:, None] & (o_d < D)[None, :]
    p_to = p_x + o_row[:, None] * STRIDE + o_d[None, :]
    tl.store(p_to, b_x.to(p_x.dtype.element_ty), mask=m_x)
