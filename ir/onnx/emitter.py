"""Building nodes during import, with what is known of the contents of values beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.builder import make_node
from planish.ir.errors import UnsupportedModel
from planish.ir.graph import Attrs, Constant, Node, Result, Value, constant
from planish.ir.onnx.sizes import Sizes, Undecided, evaluate, sizes_value
from planish.ir.reference import run_node
from planish.ir.types import DType


class Emitter:
    """Makes nodes and evaluates those that depend on constants alone, on demand only.

    The importer folds nothing that it does not have to know: constant folding is a pass.
    """

    def __init__(self) -> None:
        self._fixed: set[Node] = set()  # nodes that depend on constants alone
        self._data: dict[Value, np.ndarray] = {}

    def emit(
        self, op: str, inputs: Sequence[Value], attrs: Attrs, provenance: Sequence[str]
    ) -> tuple[Value, ...]:
        """The outputs of a new node, or the known contents where inputs are sizes."""
        if any(isinstance(value, Sizes) for value in inputs):
            return (self._sizes(op, inputs, attrs, provenance),)
        first = inputs[0] if inputs else None
        if op == "reshape" and isinstance(first, Constant) and _static(attrs["shape"]):
            return (constant(first.data.reshape(attrs["shape"]), first.name),)  # a view
        node = make_node(op, inputs, attrs, provenance=provenance)
        if all(self._is_fixed(value) for value in inputs):
            self._fixed.add(node)
        return node.outputs

    def contents(self, value: Value) -> np.ndarray | None:
        """The elements of `value` if they do not depend on the inputs; int | Dim for sizes."""
        if isinstance(value, Sizes):
            return value.contents
        if isinstance(value, Constant):
            return value.data
        if not isinstance(value, Result) or value.node not in self._fixed:
            return None
        if value not in self._data:
            self._run(value.node)
        return self._data[value]

    def _is_fixed(self, value: Value) -> bool:
        return isinstance(value, Constant) or (
            isinstance(value, Result) and value.node in self._fixed
        )

    def _run(self, last: Node) -> None:
        """Evaluates `last` and what it needs, producers first."""
        stack = [last]
        while stack:
            node = stack[-1]
            missing = [
                value.node
                for value in node.inputs
                if isinstance(value, Result) and value not in self._data
            ]
            if missing:
                stack += missing
                continue
            stack.pop()
            if node.outputs[0] not in self._data:
                arrays = [
                    value.data if isinstance(value, Constant) else self._data[value]
                    for value in node.inputs
                ]
                self._data.update(zip(node.outputs, run_node(node, arrays)))

    def _sizes(
        self, op: str, inputs: Sequence[Value], attrs: Attrs, provenance: Sequence[str]
    ) -> Value:
        """Contents of an op on sizes; UnsupportedModel if they are mixed with computed data."""
        arrays = [self.contents(value) for value in inputs]
        known = [array.astype(object) for array in arrays if array is not None]
        try:
            if len(known) < len(arrays):
                raise Undecided
            contents = evaluate(op, known, attrs)
        except Undecided:
            dims = sorted({str(d) for v in inputs if isinstance(v, Sizes) for d in v.contents.flat})
            raise UnsupportedModel(
                f"computes {op} on the size of a dynamic dimension ({', '.join(dims)}); "
                f"fix it with --dim"
            ) from None
        return sizes_value(contents, _dtype(op, inputs, attrs))


_COMPARISONS = frozenset({"equal", "less", "less_equal", "greater", "greater_equal"})


def _dtype(op: str, inputs: Sequence[Value], attrs: Attrs) -> DType:
    """Element type of an op on sizes."""
    if op in _COMPARISONS:
        return DType.BOOL
    if op == "cast":
        to: DType = attrs["to"]
        return to
    return inputs[1 if op == "where" else 0].type.dtype


def _static(shape: Sequence[object]) -> bool:
    return all(isinstance(dim, int) for dim in shape)
