"""Runs on the values that random inputs never hold: where faults hide.

NaN, infinities, signed zeros, subnormals, large and whole numbers, extremes of integers, indices
from the end and outside. They are sparse, or every output of a model would be NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from planish.inputs import index_bounds
from planish.ir.graph import Graph, Node
from planish.ir.types import DType
from planish.tolerances import Difference, bound, compare, describe
from planish.verification.judge import Judge
from planish.verification.perturbation import perturbed_inputs
from planish.verification.references import Arrays, Reference, Unusable
from planish.verification.spread import kind
from planish.verification.undefined import decided

_FINITE = (0.0, -0.0, 1e-40, -1e-40, 1e4, -1e4, 1.0, -3.0, 0.5)
_NOT_FINITE = (np.nan, np.inf, -np.inf, 0.0, -0.0)

#: Where the bound of these runs comes from.
AGREED = "what all references agree on"

#: One in so many elements is special; at most so many in a sparse run.
_EVERY, _SPARSE = 4, 3


def special_inputs(graph: Graph, ordinary: Arrays, seed: int) -> Iterator[tuple[str, Arrays]]:
    """Sets of inputs by what is special about them, made of ordinary ones; no set twice.

    `ordinary` are random inputs of the graph.
    """
    bounds = index_bounds(graph)
    rng = np.random.default_rng(seed)
    floats = any(DType.of(array.dtype).is_float and array.size for array in ordinary.values())
    integers = any(
        array.dtype.kind in "iu" and array.size and (name not in bounds or array.dtype.kind == "i")
        for name, array in ordinary.items()
    )
    if floats or integers:
        made = {n: _extreme(a, bounds.get(n), rng) for n, a in ordinary.items()}
        yield "extreme values", made
    if floats:
        for told, sparse in (("NaN and infinities", False), ("a few NaN and infinities", True)):
            yield told, {n: _not_finite(a, rng, sparse) for n, a in ordinary.items()}
    scatters = any(node.op.startswith("scatter") for node in graph.nodes)
    if bounds and not scatters:
        yield (
            "indices out of range",
            {n: _outside(a, bounds[n], rng) if n in bounds else a for n, a in ordinary.items()},
        )


def _extreme(array: np.ndarray, places: int | None, rng: np.random.Generator) -> np.ndarray:
    if places is not None:
        values: tuple[float, ...] = (-1, -places) if array.dtype.kind == "i" else (places - 1,)
    elif array.dtype.kind in "iu":
        info = np.iinfo(array.dtype)
        values = (info.min, info.max, info.max - 1, info.min + 1, 0, 1, info.max // 2 + 1)
    elif DType.of(array.dtype).is_float:
        values = _FINITE
    else:
        return array
    return _put(array, values, rng, max(1, array.size // _EVERY))


def _not_finite(array: np.ndarray, rng: np.random.Generator, sparse: bool) -> np.ndarray:
    if not DType.of(array.dtype).is_float:
        return array
    count = max(1, array.size // _EVERY)
    return _put(array, _NOT_FINITE, rng, min(count, _SPARSE) if sparse else count)


def _outside(array: np.ndarray, places: int, rng: np.random.Generator) -> np.ndarray:
    info = np.iinfo(array.dtype)
    beyond = [value for value in (places, 2 * places + 5, info.max) if value <= info.max]
    before = [-places - 1, -3 * places, info.min] if array.dtype.kind == "i" else []
    kept = [value for value in (*beyond, *before) if value >= info.min]
    return _put(array, kept, rng, max(1, array.size // _EVERY)) if kept else array


def _put(
    array: np.ndarray, values: tuple[float, ...] | list[int], rng: np.random.Generator, count: int
) -> np.ndarray:
    """`array` with so many elements, at random places, from `values` in turn."""
    if not array.size:
        return array
    made = array.copy()
    places = rng.permutation(array.size)[:count]
    with np.errstate(all="ignore"):
        drawn = [np.array(values[i % len(values)]).astype(array.dtype) for i in range(len(places))]
    made.reshape(-1)[places] = drawn
    return made


class SpecialJudge:
    """Judges outputs for special inputs, element by element.

    Elements on which the reference implementations disagree, or which depend on what nobody
    defines, on subnormal numbers, or on the sixth digit, are no measure and left out. All of that
    is computed only where an artefact differs from the first reference.
    """

    def __init__(
        self,
        graph: Graph,
        optimised: Graph | None,
        reference: Reference,
        inputs: Arrays,
        expected: Arrays,
    ) -> None:
        self._graph = graph
        self._optimised = optimised
        self._reference = reference
        self._inputs = inputs
        self._expected = expected

    def differences(self, actual: Arrays) -> dict[str, Difference]:
        """How far each output is off, and whether that is right."""
        found = {name: compare(actual[name], array) for name, array in self._expected.items()}
        open_ = {
            name: _differing(actual[name], array)
            for name, array in self._expected.items()
            if not found[name].ok and actual[name].shape == array.shape
        }
        for other in self._others() if open_ else ():
            for name in list(open_):
                expected = self._expected[name]
                if other[name].shape == expected.shape:
                    open_[name] &= ~_differing(other[name], expected)
                if not open_[name].any():
                    del open_[name]
                    found[name] = describe(actual[name], expected, "")
            if not open_:
                break
        for name, wrong in open_.items():
            if not self._is_rounding(name, actual[name], wrong):
                found[name] = _told(actual[name], self._expected[name], wrong)
            else:
                found[name] = describe(actual[name], self._expected[name], "")
        return found

    def _is_rounding(self, name: str, actual: np.ndarray, wrong: np.ndarray) -> bool:
        """Whether numbers only are off, and by no more than the reference itself moves."""
        expected = self._expected[name]
        unlike = kind(actual) != kind(expected)
        if (unlike & wrong).any():
            return False
        judge = Judge(self._reference, self._inputs, self._expected)
        return judge.differences({name: np.where(wrong, actual, expected)})[name].ok

    def _others(self) -> Iterator[Mapping[str, np.ndarray]]:
        """Results that are no worse than the expected ones."""
        yield from self._reference.others(self._inputs)
        moved = perturbed_inputs(self._inputs, np.random.default_rng(0))
        for compute, inputs in (
            (self._reference.flushed, self._inputs),
            (self._reference.outputs, moved),
        ):
            try:
                yield compute(inputs)
            except Unusable:
                continue
        for graph in (self._graph, self._winograd()):
            for choice in (0, 1):
                found = decided(graph, self._inputs, choice) if graph is not None else None
                if found is not None:
                    yield found
        for seed in range(2):
            try:
                yield self._reference.perturbed(self._inputs, seed)
            except Unusable:
                return

    def _winograd(self) -> Graph | None:
        """The optimised graph where it has Winograd's convolutions.

        They mix the pixels of a patch, so that one NaN reaches further than in the direct sum.
        """
        if self._optimised is None:
            return None
        kernels = (inner for node in self._optimised.nodes for inner in (node, *_inside(node)))
        return self._optimised if any("winograd" in each.op for each in kernels) else None


def _inside(node: Node) -> Iterator[Node]:
    for region in node.regions:
        yield from region.nodes


def _differing(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where two results are not the same value, within the tolerance."""
    if not DType.of(expected.dtype).is_float:
        return np.asarray(actual != expected)
    unlike = kind(actual) != kind(expected)
    both = (kind(actual) == 0) & (kind(expected) == 0)
    with np.errstate(all="ignore"):
        off = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return np.asarray(unlike | (both & (np.where(both, off, 0.0) > bound(expected))))


def _told(actual: np.ndarray, expected: np.ndarray, wrong: np.ndarray) -> Difference:
    first = tuple(int(i) for i in np.argwhere(wrong)[0])
    reason = (
        f"{int(wrong.sum())} of {wrong.size} elements differ where all references agree, the first "
        f"at {list(first)}: expected {expected[first]}, got {actual[first]}"
    )
    return describe(actual, expected, reason)
