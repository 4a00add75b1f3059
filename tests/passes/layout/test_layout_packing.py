"""Constants packed at compile time are what the ops pack."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.ops.movement import pack_array, unpack_array
from planish.passes.layout.packing import (
    merge_groups,
    pack_channels,
    pack_conv,
    pack_depthwise,
    pack_panels,
    pad_segments,
    panel_width,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize(("channels", "segments"), [(16, 1), (10, 1), (20, 4), (12, 2)])
def test_channels(channels: int, segments: int) -> None:
    x = RNG.standard_normal((2, channels, 3, 5))
    packed = pack_channels(x, 4, segments)
    assert packed.flags.c_contiguous
    assert np.array_equal(packed, pack_array(x, 1, 4, segments))
    assert np.array_equal(unpack_array(packed, 1, channels, segments), x)


def test_surplus_gets_the_fill() -> None:
    assert pack_channels(np.full((1, 3, 1), 7.0), 4, fill=1).ravel().tolist() == [7, 7, 7, 1]
    segments = pad_segments(np.arange(6.0), 0, 2, 4)
    assert segments.tolist() == [0, 1, 2, 0, 3, 4, 5, 0]


def test_weights_of_groups() -> None:
    """[O,I/g,KH,KW] of two groups of 5 outputs and 3 inputs each."""
    w = RNG.standard_normal((10, 3, 2, 1))
    packed = pack_conv(w, 4, 8, 1, 2)
    assert packed.shape == (2, 1, 2, 1, 4, 8)
    assert np.array_equal(packed[1, 0, :, :, :3, :5], w[5:].transpose(2, 3, 1, 0))
    assert not packed[:, :, :, :, 3:].any()
    assert not packed[..., 5:].any()


def test_weights_over_an_input_in_segments() -> None:
    w = RNG.standard_normal((8, 6, 1, 1))
    packed = pack_conv(w, 4, 8, in_segments=2)
    assert np.array_equal(packed[0, 1, 0, 0, :3], w[:, 3:, 0, 0].T)
    assert not packed[0, :, 0, 0, 3].any()


def test_merged_groups_are_zero_between_them() -> None:
    """4 groups of 2 outputs and 3 inputs as 2 groups of 4 and 6."""
    w = RNG.standard_normal((8, 3, 2, 1))
    merged = merge_groups(w, 4, 2)
    assert merged.shape == (8, 6, 2, 1)
    for group in range(4):
        rows, begin = merged[2 * group : 2 * group + 2], 3 * (group % 2)
        assert np.array_equal(rows[:, begin : begin + 3], w[2 * group : 2 * group + 2])
        assert not rows[:, 3 - begin : 6 - begin].any()
    assert merge_groups(w, 4, 4) is w


def test_depthwise_weights() -> None:
    w = RNG.standard_normal((6, 1, 3, 2))
    packed = pack_depthwise(w, 4, segments=2)
    assert packed.shape == (2, 3, 2, 4)
    assert np.array_equal(packed[1, :, :, :3], w[3:, 0].transpose(1, 2, 0))
    assert not packed[..., 3].any()


@pytest.mark.parametrize(
    ("columns", "lanes", "width"),
    [(48, 8, 24), (64, 8, 32), (20, 16, 20), (7, 8, 8), (1000, 16, 40)],
)
def test_panels_divide_the_columns_or_are_whole_vectors(
    columns: int, lanes: int, width: int
) -> None:
    assert panel_width(columns, lanes) == width
    b = RNG.standard_normal((5, columns))
    panels = pack_panels(b, width)
    assert np.array_equal(panels.transpose(1, 0, 2).reshape(5, -1)[:, :columns], b)
