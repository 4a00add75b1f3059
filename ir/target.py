"""What passes, spaces and the cost model may know of hardware; `planish.targets` detects it."""

from __future__ import annotations

from dataclasses import dataclass

#: Bytes of a cache line of the CPUs that we know.
CACHE_LINE = 64


@dataclass(frozen=True, slots=True)
class Target:
    """One kind of CPU as numbers.

    Units: `vector_bytes` bytes of a vector register, `vector_registers` their count, caches in
    bytes (`l1` and `l2` of a core, `l3` shared), `cores` usable at once. `features` are LLVM
    feature names without sign ("avx512f"), sorted. `fma_per_cycle` counts vector FMA issued a
    cycle and core. `matrix_units` names tile units ("amx-bf16") that emitters may use.
    """

    name: str
    arch: str  # "x86_64" | "aarch64"
    triple: str  # LLVM and linker triple: "x86_64-linux-gnu"
    cpu: str  # LLVM CPU name; features are always spelled out beside it
    features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    l1: int
    l2: int
    l3: int
    cores: int
    fma_per_cycle: int = 2
    matrix_units: tuple[str, ...] = ()

    def lanes(self, itemsize: int = 4) -> int:
        """Elements of `itemsize` bytes in a vector register."""
        return max(1, self.vector_bytes // itemsize)
