"""A tuning as observers and reports get it."""

from __future__ import annotations

from planish.autotune.search import Standing, Step, Tuning

STANDING = Standing(
    task="aa",
    about="conv float32[1, 8]",
    kernels=("conv", "conv_1"),
    space="conv",
    size=100,
    default=7.5e-4,
    best=5e-4,
    point={"ow": 14, "parallel": True},
    roofline=1e-4,
    bound="compute",
    trials=36,
    known=4,
    failures=1,
    note="",
    curve=(Step(1, 1.0, 7.5e-4), Step(9, 5.0, 5e-4)),
)
OTHER = Standing(
    task="bb",
    about="relu<b>",
    kernels=("relu",),
    space="pointwise",
    size=4,
    default=3e-4,
    best=2e-4,
    point={},
    roofline=1.8e-4,
    bound="memory",
    trials=4,
    known=0,
    failures=0,
    note="",
    curve=(Step(2, 2.0, 3e-4), Step(6, 3.0, 2e-4)),
)
UNREACHED = Standing(
    "cc", "gelu", ("gelu",), "pointwise", 4, None, None, {}, 1e-4, "memory", 0, 0, 0, "", ()
)
TUNING = Tuning(
    standings=(STANDING, OTHER, UNREACHED),
    trials=40,
    elapsed=20.0,
    left=12.0,
    curve=(Step(2, 2.0, 1.8e-3), Step(9, 5.0, 1.2e-3)),
    current="aa",
)
