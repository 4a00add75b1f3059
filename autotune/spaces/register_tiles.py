"""Which operands of a register tile stay in registers, and how many those are.

A step of the inner loop multiplies each broadcast of `broadcasts` by each of `vectors`. AVX-512
multiplies straight by a broadcast from memory, and NEON by a lane of a vector; other x86 CPUs need
a register for each broadcast, and have 16.
"""

from __future__ import annotations

import numpy as np

from planish.autotune.analytic import Numbers
from planish.autotune.spaces.space import operand_registers
from planish.ir.target import Target

#: Instructions of a loop that LLVM writes out at most, if its steps are known.
_WRITTEN_OUT = 300
#: Vectors that LLVM loads together, where the steps of a loop are written out, and those that
#: NEON's 32 registers must have room for.
_LOADED_TOGETHER, _LOADED_AHEAD = 4, 2
#: Registers too few that cost as much as sums that wander, measured: 3 to 4 cycles a step,
#: however many they are.
_WANDERING = 0.4


def keeps_broadcasts(target: Target, broadcasts: Numbers, vectors: Numbers) -> np.ndarray:
    """True where all broadcasts stay beside the sums, so that each vector is used up at once.

    The loop over broadcasts is then the inner one. It is the outer one, and the vectors stay, where
    those of this step and of the next ones that LLVM loads with them leave a register, and where
    the broadcasts are too many.
    """
    broadcasts, vectors = np.asarray(broadcasts), np.asarray(vectors)
    few = target.arch == "x86_64" and target.vector_bytes < 64
    left = target.vector_registers - broadcasts * vectors
    return few & (broadcasts + 1 <= left) & (vectors + _LOADED_TOGETHER + 1 > left)


def product_registers(target: Target, broadcasts: Numbers, vectors: Numbers) -> np.ndarray:
    """Registers of a step: the sums, and the operands in the order of `keeps_broadcasts`."""
    broadcasts, vectors = np.asarray(broadcasts), np.asarray(vectors)
    kept = keeps_broadcasts(target, broadcasts, vectors)
    operands = operand_registers(target, broadcasts, vectors)
    return np.asarray(broadcasts * vectors + np.where(kept, broadcasts + 1, operands))


def written_out_registers(
    target: Target, broadcasts: Numbers, vectors: Numbers, steps: int
) -> np.ndarray:
    """Registers of one of so many steps in the inner loop, which LLVM writes out if it is short.

    A broadcast by a single vector is used once, so that LLVM adds in its register: a sum wanders
    from step to step, and takes two.
    """
    broadcasts, vectors = np.asarray(broadcasts), np.asarray(vectors)
    registers = product_registers(target, broadcasts, vectors)
    if target.vector_bytes == 64:  # which adds to the sum what it broadcasts from memory
        return registers
    if target.arch == "aarch64":
        registers = registers + _LOADED_AHEAD
    short = steps * 3 * (broadcasts + 1) <= _WRITTEN_OUT  # load, broadcast and multiply-add
    wandering = 2 * broadcasts + _LOADED_TOGETHER + 1
    most = np.minimum(wandering, target.vector_registers + _WANDERING)
    return np.where(short & (vectors == 1), most, registers)
