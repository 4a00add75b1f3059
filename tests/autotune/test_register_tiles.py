"""What stays in registers beside the sums, for tiles whose assembly was looked at."""

from __future__ import annotations

import numpy as np
import pytest

from planish.autotune.spaces.register_tiles import (
    keeps_broadcasts,
    product_registers,
    written_out_registers,
)
from planish.ir.target import Target
from planish.targets.hardware import find_target

AVX2, AVX512, NEON = map(find_target, ("x86-64-v3", "x86-64-v4", "neoverse-n1"))
#: Broadcasts and vectors of tiles for 16 registers.
TILES = np.array([(5, 2), (3, 4), (2, 5), (4, 2), (6, 2), (4, 3), (7, 2), (2, 1)])


def test_avx2_keeps_broadcasts_that_fit() -> None:
    kept = keeps_broadcasts(AVX2, *TILES.T)
    assert kept.tolist() == [True, True, True, False, False, False, False, False]
    for target in (AVX512, NEON):
        assert not keeps_broadcasts(target, *TILES.T).any()


def test_tiles_that_fill_sixteen_registers() -> None:
    needed = product_registers(AVX2, *TILES.T)
    assert needed.tolist() == [16, 16, 13, 12, 16, 17, 18, 5]
    assert product_registers(AVX512, np.array([28, 14]), np.array([1, 2])).tolist() == [29, 31]


@pytest.mark.parametrize(
    ("target", "lanes", "fitting", "wandering"),
    [(AVX2, 8, (1, 5, 12, 13), range(6, 12)), (NEON, 4, (8, 12, 13), range(14, 25))],
    ids=lambda value: getattr(value, "name", None),
)
def test_sums_wander_where_a_single_vector_is_written_out(
    target: Target, lanes: int, fitting: tuple[int, ...], wandering: range
) -> None:
    """Loops of more rows are not written out, and their sums stay; in AVX-512 they always do."""
    room = target.vector_registers
    assert (written_out_registers(target, np.array(fitting), np.array(1), lanes) <= room).all()
    over = written_out_registers(target, np.array(wandering), np.array(1), lanes) - room
    assert ((over > 0) & (over < 1)).all()
    assert written_out_registers(AVX512, 28, 1, 16) == 29
