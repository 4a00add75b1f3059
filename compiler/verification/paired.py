"""Whether outputs that rounding moves at random are off in one direction all the same.

Where a model takes steps, single results of two right implementations lie far apart, but neither
is biased: on the same inputs, moved a little again and again, each is as often off this way as
that. A fault is always off the same way, and averaging shows it below the noise of one run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from planish.verification.perturbation import perturbed_inputs
from planish.verification.references import Arrays

#: So many pairs of runs; so far their inputs move, which is the same for both of a pair.
PAIRS, _STEP = 16, 1e-4

#: Signs drawn for the test; a right artefact fails it once in so many.
_DRAWS = 4000

#: A bias below this many times the noise that is left in the mean is not acted on: two right
#: implementations are not off by exactly the same on average.
_LEAST = 2.0

#: Elements of an output that are looked at.
_ELEMENTS = 1 << 20

#: Where inputs alone move the results by less than this part of what weights and inputs do, the
#: rest of the noise is the same in every pair and would look like a bias.
_OWN = 0.5


def paired_runs(
    ours: Callable[[Arrays], Arrays],
    theirs: Callable[[Arrays], Arrays],
    inputs: Arrays,
    names: Sequence[str],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Results of both on inputs that move: output → (ours, theirs), each [PAIRS, elements]."""
    rows: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {n: ([], []) for n in names}
    for seed in range(PAIRS):
        moved = perturbed_inputs(inputs, np.random.default_rng(seed), _STEP)
        for side, run in enumerate((ours, theirs)):
            found = run(moved)
            for name in names:
                flat = np.asarray(found[name]).ravel()
                rows[name][side].append(flat[:: -(-max(1, flat.size) // _ELEMENTS)].astype("f8"))
    return {name: (np.stack(a), np.stack(b)) for name, (a, b) in rows.items()}


def moves_enough(theirs: np.ndarray, spread: float) -> bool:
    """Whether moving inputs alone brings out the noise, of which one draw has length `spread`."""
    noise = np.sqrt(np.square(theirs - theirs.mean(axis=0)).sum() / (len(theirs) - 1))
    return bool(noise >= _OWN * spread)


def bias(ours: np.ndarray, theirs: np.ndarray) -> str:
    """How the pairs are off in one direction; empty if they are not.

    Were both right, each difference would be as likely as its negative: the sum of all of them is
    compared with sums under random signs.
    """
    with np.errstate(all="ignore"):
        off = ours - theirs
    off = off[:, np.isfinite(off).all(axis=0)]
    gram = off @ off.T
    found = float(gram.sum())
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_DRAWS, len(off)))
    drawn = np.einsum("ki,ij,kj->k", signs, gram, signs)
    noise = float(np.trace(gram)) - found / len(off)  # about the mean, times the number of pairs
    if found <= drawn.max() or found <= _LEAST**2 * max(noise, 0.0):
        return ""
    length = np.sqrt(found) / len(off)
    left = np.sqrt(max(noise, 0.0)) / len(off)
    return (
        f"over {len(off)} runs with inputs that move by {_STEP:g} it is always off in one "
        f"direction, by a length of {length:.3g} where rounding leaves {left:.3g}"
    )
