"""What each core takes of a kernel's work.

That is no choice of a tuner's: a kernel that is timed alone finds its inputs where its own cores
left them, and in a model where the cores of the kernel before put them. The analytic model knows
the kernels around; so all points that are tried, and all that a log is asked for, share as its
pick does.
"""

from __future__ import annotations

import numpy as np

from planish.autotune.spaces.space import Choices, Points


def sharing(points: Points) -> np.ndarray:
    """For each point a name of how it shares: the same name, the same parts for each core."""
    parallel = np.asarray(points["parallel"], bool)
    share = np.asarray(points.get("share", np.full(parallel.shape, "loops")), str)
    outer = np.asarray(points.get("outer", np.full(parallel.shape, "all")), str)
    parts = np.where(share == "loops", np.char.add("loops over ", outer), share)
    return np.where(parallel, parts, "one core")


def sharing_of(choices: Choices) -> str:
    """The same of one point."""
    return str(sharing({name: np.asarray([value]) for name, value in choices.items()})[0])
