"""How to measure: cache, precision, limits."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from planish.ir.target import Target

MIB = 1 << 20


class Cache(enum.StrEnum):
    """What is in the caches when a call begins.

    MODEL: what is there in the model. Inputs are as the producer left them: the buffers are used
    again and again. Weights were last read one inference ago, so as many bytes of copies take
    turns as the model has weights (at most twice the last cache: beyond that, all are as cold).
    WARM: everything as the last call left it. COLD: all caches flushed before every call.
    """

    MODEL = "model"
    WARM = "warm"
    COLD = "cold"


@dataclass(frozen=True, slots=True)
class Options:
    """Seconds, bytes and shares.

    `precision` is half the interval's width relative to the median, `losing` what is enough for a
    candidate that is surely slower than the incumbent; `hopeless` how many times the incumbent's
    time a candidate may take before it is given up; `quiet` how many CPUs others may
    use; `patience` how long in all to wait for that, a trial at a time. With
    `keep_subnormals` kernels compute with subnormal numbers, as in a model that keeps them.
    """

    cache: Cache = Cache.MODEL
    precision: float = 0.02
    losing: float = 0.08
    hopeless: float = 1.5
    least_pairs: int = 8
    most_pairs: int = 512
    least_sample: float = 100e-6
    budget: float = 0.4
    timeout: float = 10.0
    build_timeout: float = 60.0
    memory: int = 1024 * MIB
    build_memory: int = 4096 * MIB
    quiet: float = 0.15
    patience: float = 4.0
    keep_subnormals: bool = False

    def rotated(self, weights: int, model_weights: int, target: Target) -> int:
        """Bytes in which copies of `weights` bytes take turns."""
        if self.cache is not Cache.MODEL or weights == 0:
            return weights
        return max(weights, min(model_weights, 2 * _last_cache(target)))

    def flushed(self, target: Target) -> int:
        """Bytes to touch before each call: each core's private caches, and twice the last."""
        if self.cache is not Cache.COLD:
            return 0
        return max(2 * _last_cache(target), 4 * target.l2 * target.cores)


def _last_cache(target: Target) -> int:
    """The cache that all cores share, else theirs together."""
    return target.l3 or target.l2 * target.cores
