"""The median of a sample and how well it is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Standard deviations that hold 95 % of a normal distribution.
_NORMAL_95 = 1.96


@dataclass(frozen=True, slots=True)
class Interval:
    """A median and the bounds of its 95 % confidence interval, in the unit of the sample."""

    median: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width as a share of the median."""
        return (self.high - self.low) / 2 / self.median

    def scaled(self, factor: float) -> Interval:
        """The interval of the sample times `factor`."""
        return Interval(self.median * factor, self.low * factor, self.high * factor)


def median_interval(sample: Sequence[float]) -> Interval:
    """The median between two order statistics, which holds for any distribution.

    The ranks are n/2 -+ 1.96 sqrt(n)/2, rounded outwards (the normal approximation of the
    binomial), and the whole range of fewer than six values, which then is less than 95 %.
    Source: Conover, Practical Nonparametric Statistics, section 3.2.
    """
    ordered = sorted(sample)
    count = len(ordered)
    spread = _NORMAL_95 * math.sqrt(count) / 2
    low = max(1, math.floor(count / 2 - spread))
    high = min(count, math.ceil(count / 2 + 1 + spread))
    median = (ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    return Interval(median, ordered[low - 1], ordered[high - 1])
