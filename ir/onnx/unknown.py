"""Ops that cannot be imported at any shape, and how nodes that cannot be are told of."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from onnx import FunctionProto, ModelProto, NodeProto

from planish.ir.errors import UnsupportedModel
from planish.ir.onnx.frame import Frame
from planish.ir.onnx.functions import FunctionKey, function_key, has_body, local_functions
from planish.ir.onnx.model import normal_domain, opset_versions, parameters
from planish.ir.onnx.table import converter_of

#: What is not supported for a reason that the user may want to know.
_REASONS = {
    "Loop": "loops are not compiled yet",
    "Scan": "loops are not compiled yet",
}


def unknown_ops(model: ModelProto) -> list[str]:
    """The nodes that the outputs need whose ops nothing here knows, each with its reason.

    Nodes in the branches of an If are left out: whether one is taken is not known before shapes.
    """
    graph = model.graph
    functions = local_functions(model)
    opsets = opset_versions(model.opset_import, "the model")
    frame = Frame(graph.node, opsets, tuple(value.name for value in graph.output), lambda _: None)
    frame.scope.update((value.name, None) for value in parameters(graph))
    frame.scope.update((tensor.values.name, None) for tensor in graph.sparse_initializer)
    frame.tensors.update((tensor.name, tensor) for tensor in graph.initializer)
    frame.start()
    found = ((node, _unknown(graph.node[node], functions, opsets)) for node in frame.order)
    return [
        f"{spell_node(graph.node[node], frame.labels[node])}: {reason}"
        for node, reason in found
        if reason
    ]


def _unknown(
    node: NodeProto, functions: Mapping[FunctionKey, FunctionProto], opsets: Mapping[str, int]
) -> str:
    """Why no node of this op can be imported; empty if some can."""
    domain = normal_domain(node.domain)
    version = opsets.get(domain)
    if function_key(node) in functions or (domain == "" and node.op_type == "If"):
        return ""
    if version is None:
        return f"the model does not import its operator set '{domain}'"
    known = converter_of(domain, node.op_type, version) is not None or has_body(node, version)
    return "" if known else why_unknown(node)


def why_unknown(node: NodeProto) -> str:
    """Why an op without a converter or a body is refused."""
    return _REASONS.get(node.op_type, "this op is not supported")


def spell_node(node: NodeProto, label: str) -> str:
    """The node as messages name it."""
    domain = normal_domain(node.domain)
    return f"node '{label}' ({domain + '.' if domain else ''}{node.op_type})"


def tell_refused(refused: Collection[str]) -> UnsupportedModel:
    """One error that lists all that cannot be imported."""
    count = len(refused)
    nodes = "\n  ".join(refused)
    return UnsupportedModel(
        f"{count} {'part' if count == 1 else 'parts'} of the model cannot be compiled:\n  {nodes}"
    )
