"""The one judgement of whether outputs are right: compile, bisect and opt decide by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from planish.tolerances import Difference, compare, describe
from planish.verification.paired import bias, moves_enough, paired_runs
from planish.verification.references import Arrays, Reference, Unusable
from planish.verification.spread import (
    compare_spread,
    is_gross,
    is_hopeless,
    spread_length,
)

#: So many perturbations tell how far rounding moves the results before anything is refused. What
#: is within the bound of the first few is right, and most models need none.
_FIRST, _MOST = 2, 8

#: Noise of more than this part of an output's length could hide a fault: then it is averaged out.
_QUIET = 1e-3

#: Where the reference in single precision is off by more than this part of the largest value, the
#: one in double precision is no excuse: the model is another than the one that was read.
_WORST_REFERENCE = 0.01

ROUNDING = "rounding in another order"
SPREAD = "how far the reference moves where inputs and weights are off by a millionth"


class Judge:
    """Judges outputs for one set of inputs, of which the reference's results are `expected`.

    What the sharp tolerance allows is right. Else the model may be one that rounding moves: that
    is measured on the reference, once, when it is first needed.
    """

    def __init__(self, reference: Reference, inputs: Arrays, expected: Arrays) -> None:
        self.reference = reference
        self.expected = expected
        self._inputs = inputs
        self._centres: list[Arrays] | None = None
        self._moved: list[Arrays] = []

    def differences(
        self, actual: Arrays, run: Callable[[Arrays], Arrays] | None = None
    ) -> dict[str, Difference]:
        """How far each output in `actual` is off, and whether that is right.

        `run` computes outputs for other inputs: where rounding moves much, a fault is looked for
        below its noise. Without it an error of a gross fault's length is one.
        """
        found = {
            name: compare(array, self.expected[name], sharp=True) for name, array in actual.items()
        }
        wrong = [name for name, difference in found.items() if not difference.ok]
        noisy = []
        for centre, moved in self._measures() if wrong else ():
            for name in list(wrong):
                plain, others = self.expected[name], [each[name] for each in moved]
                judged = compare_spread(actual[name], centre[name], plain, others)
                if judged.ok or centre is self.expected:
                    found[name] = judged
                if judged.ok:
                    wrong.remove(name)
                    noisy += [name] if others else []
            hopeless = self._moved and any(self._is_hopeless(actual, name) for name in wrong)
            if not wrong or hopeless:
                break
        for name, reason in self._faults_in_noise(actual, noisy, run).items():
            found[name] = describe(actual[name], self.expected[name], reason)
        return found

    def wrong(self, actual: Arrays) -> str:
        """What is wrong with the first output that is; empty if none is."""
        for name, difference in self.differences(actual).items():
            if not difference.ok:
                return f"'{name}': {difference.reason}"
        return ""

    @property
    def bound(self) -> str:
        """Where the bound came from that was applied last."""
        return f"{SPREAD} ({len(self._moved)} draws)" if self._moved else ROUNDING

    def _measures(self) -> Iterator[tuple[Arrays, list[Arrays]]]:
        """Ever wider measures: what outputs may be near to, and the moved results that say how."""
        centres = self._all_centres()
        for centre in centres[1:]:
            yield centre, []
        for count in (_FIRST, _MOST):
            while len(self._moved) < count:
                moved = self._perturbed(len(self._moved))
                if moved is None:
                    break
                self._moved.append(moved)
            for centre in centres:
                yield centre, self._moved[:count]
        exact = self._exact()
        if exact is not None:
            yield exact, []

    def _all_centres(self) -> list[Arrays]:
        """The expected results, and those of other independent implementations."""
        if self._centres is None:
            self._centres = [self.expected, *self.reference.others(self._inputs)]
        return [each for each in self._centres if _shapes(each) == _shapes(self.expected)]

    def _exact(self) -> Arrays | None:
        """The results in float64, where the reference itself is off by rounding only."""
        exact = self.reference.exact(self._inputs)
        if exact is None or _shapes(exact) != _shapes(self.expected):
            return None
        near = (compare(array, exact[name]) for name, array in self.expected.items())
        return exact if all(each.max_rel <= _WORST_REFERENCE for each in near) else None

    def _perturbed(self, seed: int) -> Arrays | None:
        """A perturbed result with the shapes of the expected one; None where there is none."""
        try:
            found = self.reference.perturbed(self._inputs, seed)
        except Unusable:
            return None
        return found if _shapes(found) == _shapes(self.expected) else None

    def _is_hopeless(self, actual: Arrays, name: str) -> bool:
        """Whether no further measure can make an output right."""
        moved = [each[name] for each in self._moved]
        centres = self._all_centres()
        return actual[name].shape == self.expected[name].shape and all(
            is_hopeless(actual[name], centre[name], self.expected[name], moved)
            for centre in centres
        )

    def _faults_in_noise(
        self, actual: Arrays, names: list[str], run: Callable[[Arrays], Arrays] | None
    ) -> dict[str, str]:
        """What is wrong with outputs that are within the noise; those that are right are not in it.

        Outputs that inputs alone do not move cannot be averaged: then no gross error is right.
        """
        lengths = {
            name: spread_length(self.expected[name], [moved[name] for moved in self._moved])
            for name in names
        }
        loud = [name for name in names if lengths[name] > _QUIET * self._length(name)]
        gross = {n: is_gross(actual[n], self.expected[n]) for n in loud}
        faults = {n: "the error is as long as a gross fault's" for n in loud if gross[n]}
        floats = [name for name in loud if self.expected[name].dtype.kind not in "iub"]
        if run is None or not floats:
            return faults
        for theirs in (self.reference.outputs, self.reference.optimised):
            try:
                pairs = paired_runs(run, theirs, self._inputs, floats)
            except Unusable:
                break
            for name in list(floats):
                ours, others = pairs[name]
                if not moves_enough(others, lengths[name]):
                    floats.remove(name)
                    continue
                told = bias(ours, others)
                if told:
                    faults[name] = told
                else:
                    faults.pop(name, None)
                    floats.remove(name)
            if not floats:
                break
        return faults

    def _length(self, name: str) -> float:
        wide = self.expected[name].astype(np.float64)
        return float(np.linalg.norm(wide[np.isfinite(wide)]))


def _shapes(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}
