"""Building nodes during import, with what is known of the contents of values beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from planish.ir.builder import make_node
from planish.ir.errors import InvalidGraph, UnsupportedModel
from planish.ir.graph import Attrs, Constant, Node, Result, Value, constant
from planish.ir.limits import computed_excess, excess
from planish.ir.onnx.sizes import Sizes, Undecided, evaluate, sizes_value
from planish.ir.reference import run_node
from planish.ir.wording import fix_by_dims


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
        node = make_node(op, inputs, attrs, provenance=provenance)
        for result in node.outputs:
            _require_within_limits(node, result)
        if any(isinstance(value, Sizes) for value in inputs):
            return (self._sizes(node),)
        first = inputs[0] if inputs else None
        if op == "reshape" and isinstance(first, Constant):
            return (constant(first.data.reshape(node.output.type.static_shape), first.name),)
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
                for result in node.outputs:
                    over = computed_excess(result.type)
                    if over is not None:
                        raise UnsupportedModel(f"needs the contents of {over}")
                self._data.update(zip(node.outputs, run_node(node, arrays)))

    def _sizes(self, node: Node) -> Value:
        """Contents of a node on sizes; UnsupportedModel if they are mixed with computed data."""
        arrays = [self.contents(value) for value in node.inputs]
        known = [array.astype(object) for array in arrays if array is not None]
        try:
            if len(known) < len(arrays):
                raise Undecided
            contents = evaluate(node.op, known, node.attrs)
        except Undecided:
            sizes = [value for value in node.inputs if isinstance(value, Sizes)]
            dims = sorted({str(d) for value in sizes for d in value.contents.flat})
            raise UnsupportedModel(
                f"computes {node.op} on the size of a dynamic dimension ({', '.join(dims)}); "
                f"{fix_by_dims()}"
            ) from None
        return sizes_value(contents, node.output.type.dtype)


def _require_within_limits(node: Node, result: Result) -> None:
    """InvalidGraph for a negative dimension, UnsupportedModel for a tensor beyond the limits."""
    if any(isinstance(dim, int) and dim < 0 for dim in result.type.shape):
        raise InvalidGraph(f"{node.op} gives {result.type}; a dimension is at least 0")
    over = excess(result.type)
    if over is not None:
        raise UnsupportedModel(f"gives {over}")
