"""Elementary functions as straight-line arithmetic that a vectorised loop keeps in registers.

A call of libm inside a loop costs the loop its vectors. So float32 is computed here without calls
and without branches; float16 and bfloat16 go through float32. float64 has the functions of e^x and
ln(x) by the same algorithms, with more terms, and calls libm for the others.

A result defines variables, and TVM wants each defined once: who reads it twice binds it first.

The ULP bounds in the docstrings hold against the exact result, with or without fused
multiply-add, in rounding to nearest and with subnormals on; docs/vector-math.md lists them and
what is measured. They need arithmetic as written: LLVM's fast-math flags (off unless a target asks
for them) would cancel what is added to round.

Coefficients stand lowest power first. benchmarks/fit_polynomials.py prints them; those for float32
of exp, log and erf are of an earlier run of the same method, on 4,000 nodes. In units of 2^-24,
the approximation errors are 0.23 (exp), 0.08 (log), 0.07 (erf and sin), 0.08 (asin), 0.29 (gelu)
and at most 0.03 of the others.
"""

from planish.targets.expressions.vector_math.error import erf, gelu, gelu_tanh
from planish.targets.expressions.vector_math.exponential import (
    cosh,
    exp,
    exp_nonpositive,
    expm1,
    mish,
    sigmoid,
    silu,
    sinh,
    tanh,
)
from planish.targets.expressions.vector_math.logarithm import (
    acosh,
    asinh,
    atanh,
    log,
    log1p,
    softplus,
)
from planish.targets.expressions.vector_math.power import power
from planish.targets.expressions.vector_math.trigonometric import acos, asin, atan, cos, sin, tan

__all__ = [
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atanh",
    "cos",
    "cosh",
    "erf",
    "exp",
    "exp_nonpositive",
    "expm1",
    "gelu",
    "gelu_tanh",
    "log",
    "log1p",
    "mish",
    "power",
    "sigmoid",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "tan",
    "tanh",
]
