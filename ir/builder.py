"""Building nodes: attributes checked and defaulted, output types inferred."""

from __future__ import annotations

from collections.abc import Sequence

from planish.ir.errors import InvalidGraph
from planish.ir.graph import Attr, Attrs, Graph, Node, Result, Value
from planish.ir.op import OpDef, OpKind
from planish.ir.ops import op_def
from planish.ir.ops.region import region_types


def make_node(
    op: str,
    inputs: Sequence[Value],
    attrs: Attrs | None = None,
    regions: Sequence[Graph] = (),
    provenance: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Node:
    """A node of the op table with inferred output types.

    Raises InvalidGraph that names the node where op, inputs or attributes do not fit.
    """
    definition = op_def(op)
    where = f"{op} (from {', '.join(map(repr, provenance))})" if provenance else op
    full = _complete(definition, attrs or {}, where)
    fewest, most = definition.arity
    if len(inputs) < fewest or (most is not None and len(inputs) > most):
        raise InvalidGraph(f"{where} takes {fewest} to {most} inputs, got {len(inputs)}")
    given = [value.type for value in inputs]
    try:
        if definition.kind is OpKind.REGION:
            types = region_types(op, given, full, regions)
        else:
            types = definition.infer(given, full)
    except InvalidGraph as error:
        raise InvalidGraph(f"{where}: {error}") from None
    return Node(op, inputs, types, full, regions, provenance, names)


def emit(op: str, *inputs: Value, provenance: Sequence[str] = (), **attrs: Attr) -> Result:
    """The only output of a new node: `emit("add", a, b)`, `emit("transpose", a, perm=(1, 0))`."""
    return make_node(op, inputs, attrs, provenance=provenance).output


def _complete(definition: OpDef, attrs: Attrs, where: str) -> dict[str, Attr]:
    """`attrs` with defaults; unknown, missing and wrongly typed ones are errors."""
    unknown = set(attrs) - set(definition.attrs)
    if unknown:
        raise InvalidGraph(f"{where} has no attribute {', '.join(sorted(unknown))}")
    full: dict[str, Attr] = {}
    for name, spec in definition.attrs.items():
        if name not in attrs:
            if spec.required:
                raise InvalidGraph(f"{where} needs the attribute {name}")
            full[name] = spec.default
            continue
        value = attrs[name]
        if value is not None and not isinstance(value, spec.types):
            expected = " or ".join(t.__name__ for t in spec.types)
            raise InvalidGraph(f"{where}: attribute {name} must be {expected}, got {value!r}")
        full[name] = value
    return full
