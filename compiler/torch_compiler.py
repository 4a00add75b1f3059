"""`torch.compile(model, backend="planish")`: graphs that Dynamo captures, compiled by planish.

Weights are compiled in: Dynamo hands parameters and buffers over with each call, and what was
compiled with other weights (another module, new values in place) is compiled again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from planish.artefact.loading import Model
from planish.driver import compile
from planish.ir.errors import PlanishError, TargetError, UnsupportedModel
from planish.torch_models import spell_error

#: Specialisations of a graph (input shapes, weights) that stay compiled.
_KEPT = 8


def torch_backend(
    graph: Any,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """The function that runs a graph of torch.compile(model, backend="planish"), for inference.

    `graph` is a torch.fx.GraphModule; `options` are those of planish.compile, such as
    {"threads": 1}. A graph is compiled for the shapes that it is called with; eight of them stay
    compiled. Raises UnsupportedModel, naming the node, for what torch cannot export or planish
    cannot compile, and where gradients are recorded: call the model under torch.no_grad() or
    torch.inference_mode().
    """
    import torch

    if mode is not None:
        raise PlanishError(f"mode={mode!r}: planish has no modes; give options={{…}} instead")
    tensors = [value for value in example_inputs if isinstance(value, torch.Tensor)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise UnsupportedModel(
            "planish compiles inference only, and gradients are recorded here: call the model "
            "under torch.no_grad() or torch.inference_mode()"
        )
    devices = {str(tensor.device) for tensor in tensors if tensor.device.type != "cpu"}
    if devices:
        raise TargetError(f"planish runs on the CPU; a tensor is on {min(devices)}: model.cpu()")
    compiled = _Specialised(graph, options or {})
    concrete = all(type(value) in (torch.Tensor, torch.nn.Parameter) for value in example_inputs)
    if concrete:  # errors come while Dynamo compiles, so that it can fall back where that is wanted
        with torch._guards.tracing(None):  # our export has tensors of its own, none of Dynamo's
            compiled.find(example_inputs)
    return compiled


class _Specialised:
    """A graph, compiled for the shapes, numbers and weights that it is called with."""

    def __init__(self, graph: Any, options: Mapping[str, Any]) -> None:
        self._graph = graph
        self._options = options
        self._static = [_is_weight(node) for node in graph.graph.nodes if node.op == "placeholder"]
        self._found: OrderedDict[Hashable, Callable[[Sequence[Any]], Any]] = OrderedDict()

    def __call__(self, *args: Any) -> Any:
        return self.find(args)(args)

    def find(self, args: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        """The function for arguments like these, compiled if it is not there."""
        key = tuple(map(_key, self._static, args))
        if key not in self._found:
            self._found[key] = self._compile(args)
            if len(self._found) > _KEPT:
                self._found.popitem(last=False)
        self._found.move_to_end(key)
        return self._found[key]

    def _compile(self, args: Sequence[Any]) -> Callable[[Sequence[Any]], Any]:
        import torch

        varying = [
            index
            for index, (static, value) in enumerate(zip(self._static, args))
            if not static and isinstance(value, torch.Tensor)
        ]
        program, results = _export(self._graph, args, varying)
        if all(result is not _TENSOR for result in results):
            return lambda values: tuple(results)
        model: Model = compile(program, **{"name": "graph", **self._options})

        def run(values: Sequence[Any]) -> Any:
            found = iter(
                model.run(dict(zip(names, (values[i].detach() for i in varying)))).values()
            )
            return tuple(
                torch.from_numpy(next(found)) if result is _TENSOR else result for result in results
            )

        names = [tensor.name for tensor in model.inputs]
        assert len(names) == len(varying), "an exported program keeps inputs that nobody reads"
        return run


_TENSOR = object()
"""Stands for a tensor among the results of a graph, which may hold numbers and None as well."""


def _is_weight(node: Any) -> bool:
    """Whether Dynamo says of a placeholder that it is a parameter or buffer of a module."""
    return "_dynamo_static_input_type" in (node.meta.get("tensor_dict") or {})


def _key(static: bool, value: Any) -> Hashable:
    """What code is specialised for: a weight's memory and version, else shape and dtype."""
    import torch

    if not isinstance(value, torch.Tensor):
        return int(value)
    if static:
        version = -1 if value.is_inference() else value._version
        return value.data_ptr(), version, tuple(value.shape), tuple(value.stride())
    return tuple(value.shape), value.dtype


def _export(graph: Any, args: Sequence[Any], varying: Sequence[int]) -> tuple[Any, list[Any]]:
    """The graph as an exported program whose inputs are the varying arguments, the others held.

    Also its results, _TENSOR for each that the program gives. Raises UnsupportedModel.
    """
    import torch

    results: list[Any] = []

    class Held(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.graph = graph
            for index, value in enumerate(args):
                if isinstance(value, torch.Tensor) and index not in varying:
                    self.register_buffer(f"held_{index}", value.detach())

        def forward(self, *given: Any) -> Any:
            tensors = dict(zip(varying, given))
            full = [
                tensors[i] if i in tensors else getattr(self, f"held_{i}", value)
                for i, value in enumerate(args)
            ]
            found = self.graph(*full)
            found = found if isinstance(found, tuple | list) else (found,)
            is_tensor = [isinstance(value, torch.Tensor) for value in found]
            results[:] = [_TENSOR if yes else value for yes, value in zip(is_tensor, found)]
            return tuple(value for yes, value in zip(is_tensor, found) if yes)

    inputs = tuple(args[index].detach() for index in varying)
    try:
        program = torch.export.export(Held(), inputs, strict=False)
    except Exception as error:  # torch raises whatever its tracer or its ops raise
        raise UnsupportedModel(
            f"torch.export cannot export a graph of torch.compile: {spell_error(error)}"
        ) from error
    return program, results
