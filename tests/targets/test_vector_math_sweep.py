"""Every float32 through every function of one argument: minutes for each function."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.target import Target
from tests.targets.vector_math_kernels import EXACT, LEVELS, ULP, Emulated, Loaded, runner, ulps

CHUNK = 1 << 22
#: Without and with fused multiply-add; wider vectors compute the same.
ARITHMETICS = [target for target in LEVELS if target.name in ("x86-64-v2", "x86-64-v3")]


@pytest.fixture(scope="module", params=ARITHMETICS, ids=lambda target: target.name)
def kernels(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Loaded | Emulated:
    target: Target = request.param
    return runner(target, tmp_path_factory.mktemp("vec"))


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_every_float32(name: str, kernels: Loaded | Emulated) -> None:
    worst, where = 0.0, 0.0
    for start in range(0, 1 << 32, CHUNK):
        x = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
        with np.errstate(all="ignore"):
            errors = ulps(kernels.call(name, x), EXACT[name](x.astype(np.float64)))
        at = int(errors.argmax())
        if errors[at] > worst:
            worst, where = float(errors[at]), float(x[at])
    print(f"{name}: {worst:.3f} ULP at {where!r}")
    assert worst <= ULP[name], f"{name}({where!r}) is {worst:.3f} ULP off"
