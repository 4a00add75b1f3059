"""Bodies of ONNX functions: those in the model, and those of the operator schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TypeProto

from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.model import normal_domain
from planish.ir.onnx.order import subgraphs
from planish.ir.onnx.storage import onnx_type

#: Ops of so many steps that halves are taken through their bodies as float32, rounded once.
IN_FLOAT32 = frozenset({"Attention"})

FunctionKey = tuple[str, str, str]  # domain, name, overload


def local_functions(model: ModelProto) -> dict[FunctionKey, FunctionProto]:
    """The functions that the model itself defines."""
    found: dict[FunctionKey, FunctionProto] = {}
    for function in model.functions:
        key = (normal_domain(function.domain), function.name, function.overload)
        if key in found:
            raise InvalidModel(f"the model defines the function '{function.name}' twice")
        found[key] = function
    return found


def body_size(body: FunctionProto) -> int:
    """Nodes of a function, those of its branches and loops included; at least 1."""
    count, stack = 1, list(body.node)
    while stack:
        node = stack.pop()
        count += 1
        stack += [inner for graph in subgraphs(node) for inner in graph.node]
    return count


def function_key(node: NodeProto) -> FunctionKey:
    """The function that `node` calls if the model defines one of that name."""
    return normal_domain(node.domain), node.op_type, node.overload


def schema_function(
    node: NodeProto, opset: int, inputs: Sequence[Value | None]
) -> FunctionProto | None:
    """The body that ONNX gives for `node` at its types, or None."""
    if not has_body(node, opset):
        return None
    schema = onnx.defs.get_schema(node.op_type, opset, normal_domain(node.domain))
    if schema.has_function:
        version = _newest(schema.function_opset_versions, opset)
        encoded: bytes = schema.get_function_with_opset_version(version)
    else:
        version = _newest(schema.context_dependent_function_opset_versions, opset)
        types = [_type(value).SerializeToString() for value in inputs]
        try:
            encoded = schema.get_context_dependent_function_with_opset_version(
                version, node.SerializeToString(), types
            )
        except Exception as error:  # of whatever type ONNX's builder has for broken attributes
            raise UnsupportedModel(f"ONNX builds no function body for it: {error}") from None
    if not encoded:
        return None
    body = FunctionProto()
    body.ParseFromString(encoded)
    return body


def _newest(versions: Sequence[int], opset: int) -> int:
    """The opset of the body to take: the newest that is not newer than the model's.

    A body imports its own opset, so it holds in every model; where ONNX wrote the first body of an
    op for a later opset than the model's, it is that one.
    """
    return max((version for version in versions if version <= opset), default=min(versions))


def is_standard(node: NodeProto, opset: int | None) -> bool:
    """Whether ONNX itself defines the op.

    A function of the model that has the name of such an op is not called: onnx.proto leaves the
    choice to the runtime, and onnxruntime takes its own op.
    """
    domain = normal_domain(node.domain)
    return opset is not None and bool(onnx.defs.has(node.op_type, opset, domain))


def has_body(node: NodeProto, opset: int) -> bool:
    """Whether ONNX gives a body for `node` (at some types, for those that depend on them)."""
    domain = normal_domain(node.domain)
    if not onnx.defs.has(node.op_type, opset, domain):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset, domain)
    return bool(schema.has_function or schema.has_context_dependent_function)


def _type(value: Value | None) -> TypeProto:
    proto = TypeProto()
    if value is not None:
        tensor = proto.tensor_type
        tensor.elem_type = onnx_type(value.type.dtype)
        tensor.shape.SetInParent()
        for dim in value.type.shape:
            if isinstance(dim, int):
                tensor.shape.dim.add(dim_value=dim)
            else:
                tensor.shape.dim.add(dim_param=str(dim))
    return proto


def call_attributes(
    node: NodeProto, outer: Mapping[str, AttributeProto]
) -> dict[str, AttributeProto]:
    """The node's attributes; those that refer to the surrounding function's take its values.

    A reference to an attribute that the caller left out is as if it were left out here.
    """
    found: dict[str, AttributeProto] = {}
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            found[attribute.name] = attribute
        elif attribute.ref_attr_name in outer:
            actual = AttributeProto()
            actual.CopyFrom(outer[attribute.ref_attr_name])
            actual.name = attribute.name
            found[attribute.name] = actual
    return found


def body_attributes(
    node: NodeProto, body: FunctionProto, given: Mapping[str, AttributeProto], opset: int
) -> dict[str, AttributeProto]:
    """What attribute references inside `body` stand for: those given at the call, else defaults."""
    found = {attribute.name: attribute for attribute in body.attribute_proto}
    domain = normal_domain(node.domain)
    if onnx.defs.has(node.op_type, opset, domain):
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
        for name, attribute in schema.attributes.items():
            if attribute.default_value.name:
                found[name] = attribute.default_value
    return {**found, **given}


def default_of(op: str, opset: int, domain: str, name: str) -> AttributeProto | None:
    """The default that ONNX's schema gives an attribute, or None."""
    if not onnx.defs.has(op, opset, domain):
        return None
    attribute = onnx.defs.get_schema(op, opset, domain).attributes.get(name)
    return attribute.default_value if attribute and attribute.default_value.name else None
