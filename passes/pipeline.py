"""The order of the passes, and running them."""

from __future__ import annotations

import reprlib
import time
import traceback
from collections.abc import Callable, Sequence

from planish.ir.errors import CustomPassError, PassError, UnsupportedModel
from planish.ir.graph import Graph
from planish.ir.limits import excess
from planish.ir.target import Target
from planish.ir.text import all_graphs
from planish.ir.verifier import verify as verify_graph
from planish.passes.assign_layout import assign_layout
from planish.passes.canonicalize_conv import canonicalize_conv
from planish.passes.choose_algorithm import choose_algorithm
from planish.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from planish.passes.fold_batch_norm import fold_batch_norm
from planish.passes.fold_constants import fold_constants
from planish.passes.fold_input_scale import fold_input_scale
from planish.passes.fold_scale import fold_scale
from planish.passes.fuse import fuse
from planish.passes.lower_conv_transpose import lower_conv_transpose
from planish.passes.lower_resize import lower_resize
from planish.passes.merge_siblings import merge_siblings
from planish.passes.pass_ import Step
from planish.passes.recognize_activations import recognize_activations
from planish.passes.recognize_attention import recognize_attention
from planish.passes.recognize_norms import recognize_norms
from planish.passes.recognize_rope import recognize_rope
from planish.passes.simplify import simplify
from planish.passes.space_to_depth import space_to_depth
from planish.passes.split_reductions import split_reductions

PIPELINE: tuple[Step, ...] = (
    Step(fold_constants, "weights that the model computes become weights"),
    Step(simplify, "what exporters leave behind would hide the patterns of later steps"),
    Step(recognize_activations, "one op of one operand sinks and fuses where arithmetic forks"),
    Step(recognize_norms, "one kernel for each; softmax before the attention around it"),
    Step(recognize_rope, "one pass over memory; attention reads through the transposes before it"),
    Step(recognize_attention, "while its products are plain matmuls, its views plain transposes"),
    Step(fold_batch_norm, "a batch norm costs nothing inside the weights before it"),
    Step(fold_input_scale, "nor does what scales the input of weights; padding is still theirs"),
    Step(fold_scale, "nor does a scale; before convolutions are reshaped apart from theirs"),
    Step(canonicalize_conv, "one rank of convolution and pooling for layouts and schedules"),
    Step(lower_conv_transpose, "schedules know convolutions only"),
    Step(space_to_depth, "rows of pixels fill the vectors of narrow convolutions, at stride 1"),
    Step(lower_resize, "gathers sink through layouts and fuse; schedules need not know it"),
    Step(fold_constants, "reshaped, flipped and transposed weights"),
    Step(simplify, "the reshapes that the lowerings put between ops"),
    Step(eliminate_common_subexpressions, "once more is equal now than was in the model"),
    Step(merge_siblings, "scales and biases are folded, weights not yet packed"),
    Step(recognize_rope, "it reads the heads of a merged projection where they lie"),
    Step(recognize_attention, "it reads the slices of a merged projection where they lie"),
    Step(assign_layout, "convolutions reach the roofline in blocked layout only"),
    Step(choose_algorithm, "it is on blocks; fused kernels could not exchange their anchor"),
    Step(fold_constants, "operands packed for the layouts"),
    Step(simplify, "the reshapes that packing put between ops"),
    Step(eliminate_common_subexpressions, "two convolutions of one tensor pad and pack it once"),
    Step(split_reductions, "sums of sums round less; layouts tell what is along the vectors"),
    Step(fuse, "last: kernels are what remains"),
)

#: Called after each step: its name, the graph before and after, and the seconds it took.
Observer = Callable[[str, Graph, Graph, float], None]


def run_pipeline(
    graph: Graph,
    target: Target,
    passes: Sequence[Step] = PIPELINE,
    *,
    verify: bool = True,
    observer: Observer | None = None,
) -> Graph:
    """Run the passes in order, verifying the graph after each that changed it.

    A pass that raises, or leaves a graph that the verifier rejects, is a PassError that names
    it (a CustomPassError that names file and line, if its step has an `origin`).
    UnsupportedModel goes through as it is: it is about the model, not about the pass.
    """
    for step in passes:
        start = time.perf_counter()
        after = _run(step, graph, target)
        seconds = time.perf_counter() - start
        if verify and after is not graph:
            _verify(step, graph, after)
        if observer is not None:
            observer(step.name, graph, after, seconds)
        graph = after
    _require_within_limits(graph)
    return graph


def _require_within_limits(graph: Graph) -> None:
    """UnsupportedModel for a tensor that a pass made too large (im2col, padding, Winograd)."""
    for part in all_graphs(graph):
        for node in part.nodes:
            for result in node.outputs:
                over = excess(result.type)
                if over is not None:
                    raise UnsupportedModel(f"{node.where()} needs {over}")


def _run(step: Step, graph: Graph, target: Target) -> Graph:
    try:
        after = step.run(graph, target)
    except KeyboardInterrupt:
        raise
    except UnsupportedModel as error:
        if not step.origin:
            raise
        raise UnsupportedModel(f"{_name(step)}: {_told(error)}") from error
    except PassError as error:
        if not step.origin:
            raise
        raise _failed(step, graph, error) from error
    except Exception as error:
        raise _failed(step, graph, error) from error
    except BaseException as error:  # whoever calls sys.exit in a pass has not compiled a model
        if not step.origin:
            raise
        raise _failed(step, graph, error) from error
    if not isinstance(after, Graph):
        raise _error(step, f"must return a Graph, got {_shown(after)}")
    return after


def _failed(step: Step, graph: Graph, error: BaseException) -> PassError:
    where = f" at {_place(error)}" if step.origin else ""
    detail = f"{type(error).__name__}: {_told(error)}"
    return _error(step, f"failed{where} on graph '{graph.name}': {detail}")


def _told(error: BaseException) -> str:
    """The message of an error of somebody else's, whose `__str__` may fail as well."""
    try:
        return str(error)
    except Exception:
        return "it has no message that can be read"


def _shown(value: object) -> str:
    """A short `repr` of what somebody else made, which may fail as well."""
    try:
        text = reprlib.repr(value)
    except Exception:
        return f"an object of {type(value).__qualname__}"
    return f"{text} ({type(value).__qualname__})"


def _verify(step: Step, before: Graph, after: Graph) -> None:
    try:
        verify_graph(after)
    except Exception as error:
        raise _error(step, f"left an invalid graph: {_told(error)}") from error
    for side in ("inputs", "outputs"):
        old, new = ([str(value.type) for value in getattr(g, side)] for g in (before, after))
        if old != new:
            raise _error(step, f"changed the {side} of the graph: {old} became {new}")
    if before.output_names != after.output_names:
        raise _error(
            step,
            f"renamed the outputs {list(before.output_names)} to {list(after.output_names)}; "
            "hand them on: Graph(graph.inputs, outputs, graph.output_names)",
        )


def _error(step: Step, what: str) -> PassError:
    kind = CustomPassError if step.origin else PassError
    return kind(f"{_name(step)} {what}")


def _name(step: Step) -> str:
    return f"pass '{step.name}'" + (f" (from {step.origin})" if step.origin else "")


def _place(error: BaseException) -> str:
    """File and line that raised an error or, if a chain of them, the first one."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return "an unknown place"
    frame = frames[-1]
    return f"{frame.filename}:{frame.lineno}"
