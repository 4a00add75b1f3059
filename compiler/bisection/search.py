"""From a model to the first pass, node or kernel that is wrong, and a minimal model of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto

from planish.bisection.cut import Cutter
from planish.bisection.kernels import BadCode, check_code, check_kernels, check_lowering
from planish.bisection.shrink import shrink
from planish.custom import CustomPass, assemble, custom_ops, labelled
from planish.ir.errors import PassError
from planish.ir.extension import CustomOp, extended
from planish.ir.graph import Graph, Node, Result, Value
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.target import Target
from planish.passes.pass_ import Step
from planish.passes.pipeline import run_pipeline
from planish.targets.hardware import detect_host, find_target
from planish.verification.judge import Judge
from planish.verification.references import NumpyReference
from planish.verify import model_inputs

if TYPE_CHECKING:
    from planish.ir.onnx.model import Source

#: Called with (stage, done, total); total 0 where it is not known.
Progress = Callable[[str, int, int], None]
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong first.

    `stage` is "pass", "lowering", "code generation" or "code"; `step` the pass by its label (empty
    elsewhere), `origin` whose it is, `crash` whether it failed rather than computed something else.
    `where` is the node or kernel in the user's words, `nodes` its ONNX nodes. `minimal` shows the
    same failure with `minimal_nodes` nodes; None if no part of the model does, on random inputs.
    """

    stage: str
    step: str
    origin: str
    crash: bool
    where: str
    nodes: tuple[str, ...]
    message: str
    minimal: ModelProto | None = None
    minimal_nodes: tuple[str, ...] = ()


def bisect(
    model: Source,
    *,
    target: str | Target = "host",
    dims: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[CustomPass] = (),
    ops: Sequence[CustomOp | str] = (),
    pipeline: Sequence[Step] | None = None,
    seed: int = 0,
    compiled: bool = True,
    progress: Progress | None = None,
) -> Finding | None:
    """Finds what first makes the model's outputs leave the tolerance on random inputs, or fails.

    The graph after each pass is computed by the reference and compared with the model as imported,
    by binary search; then, if `compiled` and the code runs on this machine, the compiled code with
    the reference. None if all is well. Takes what `planish.compile` takes. Raises InvalidModel or
    UnsupportedModel.
    """
    steps = assemble(passes, pipeline)
    chosen = find_target(target) if isinstance(target, str) else target
    tell = progress or (lambda stage, done, total: None)
    with extended(custom_ops(ops)):
        tell("import", 0, 0)
        cutter = Cutter(model, dims or {}, shapes or {})
        search = _Search(cutter, steps, chosen, seed, compiled, tell)
        return search.run()


class _Search:
    def __init__(
        self,
        cutter: Cutter,
        steps: Sequence[Step],
        target: Target,
        seed: int,
        compiled: bool,
        progress: Progress,
    ) -> None:
        self.cutter = cutter
        self.steps = tuple(steps)
        self.labels = labelled(steps)
        self.target = target
        self.seed = seed
        self.compiled = compiled and _runs_here(target)
        self.progress = progress
        self.inputs = model_inputs(cutter.graph, seed)

    def run(self) -> Finding | None:
        """The first failure, with its minimal model."""
        states, error = self._all_states()
        wrong = self._first_wrong(states, _judge(states[0], self.inputs))
        if wrong is not None:
            return self._wrong_pass(wrong, states[wrong], states[wrong + 1])
        if error is not None:
            return self._crashed_pass(len(states) - 1, error)
        return self._bad_code(states[-1]) if self.compiled else None

    def _all_states(self) -> tuple[list[Graph], PassError | None]:
        """The graph before and after every pass, up to the first that fails."""
        states = [self.cutter.graph]
        for index, step in enumerate(self.steps):
            self.progress("passes", index, len(self.steps))
            try:
                states.append(run_pipeline(states[-1], self.target, [step]))
            except PassError as error:
                return states, error
        return states, None

    def _first_wrong(self, states: Sequence[Graph], judge: Judge) -> int | None:
        """The number of the first pass after which the outputs are wrong, by binary search.

        What one pass spoils, no later one repairs: the last state tells whether there is any.
        Passes that changed nothing need no looking at.
        """
        changed = [i for i, (a, b) in enumerate(pairwise(states)) if a is not b]
        if not changed or self._is_right(states[-1], judge):
            return None
        right, wrong = 0, len(changed)  # so many changes leave the outputs right, or wrong
        while wrong - right > 1:
            self.progress("search", len(changed) - (wrong - right), len(changed))
            middle = (right + wrong) // 2
            if self._is_right(states[changed[middle - 1] + 1], judge):
                right = middle
            else:
                wrong = middle
        return changed[wrong - 1]

    def _is_right(self, graph: Graph, judge: Judge) -> bool:
        return _told(judge, graph, self.inputs) is None

    # -- passes -----------------------------------------------------------------------------------

    def _wrong_pass(self, index: int, before: Graph, after: Graph) -> Finding:
        node, message = _first_difference(before, after, self.inputs)
        nodes = node.provenance if node is not None else ()
        minimal = self._minimal(nodes, lambda graph: self._pass_is_wrong(index, graph))
        step = self.steps[index]
        where = node.where() if node is not None else "an output"
        return self._with_minimal(
            Finding("pass", self.labels[index], step.origin, False, where, nodes, message), minimal
        )

    def _pass_is_wrong(self, index: int, graph: Graph) -> bool:
        before = run_pipeline(graph, self.target, self.steps[:index])
        after = run_pipeline(before, self.target, [self.steps[index]])
        if after is before:
            return False
        inputs = model_inputs(graph, self.seed)
        return _told(_judge(before, inputs), after, inputs) is not None

    def _crashed_pass(self, index: int, error: PassError) -> Finding:
        kind = _kind(error)

        def crashes(graph: Graph) -> bool:
            before = run_pipeline(graph, self.target, self.steps[:index])
            try:
                run_pipeline(before, self.target, [self.steps[index]])
            except PassError as again:
                return _kind(again) == kind
            return False

        minimal = self._minimal((), crashes)
        nodes = tuple(minimal[1]) if minimal is not None else ()
        where = f"the ONNX nodes {', '.join(nodes)}" if nodes else "the model"
        step = self.steps[index]
        found = Finding("pass", self.labels[index], step.origin, True, where, nodes, str(error))
        return self._with_minimal(found, minimal)

    # -- code -------------------------------------------------------------------------------------

    def _bad_code(self, graph: Graph) -> Finding | None:
        self.progress("compiled code", 0, 0)
        bad = check_lowering(graph) or check_code(graph, self.target, self.inputs)
        if bad is None:
            return None
        if bad.kernel is None:
            bad = check_kernels(graph, self.target, self.inputs) or bad
        nodes = bad.kernel.provenance if bad.kernel is not None else ()
        minimal = self._minimal(nodes, lambda cut: self._code_is_bad(cut, bad))
        where = bad.kernel.where() if bad.kernel is not None else "the whole artefact"
        crash = bad.stage != "code" or "process" in bad.message or "end" in bad.message
        finding = Finding(bad.stage, "", "", crash, where, nodes, bad.message)
        return self._with_minimal(finding, minimal)

    def _code_is_bad(self, graph: Graph, like: BadCode) -> bool:
        optimised = run_pipeline(graph, self.target, self.steps)
        if like.stage == "lowering":
            found = check_lowering(optimised)
        else:
            found = check_code(optimised, self.target, model_inputs(graph, self.seed))
        return found is not None and found.stage == like.stage

    # -- the minimal model ------------------------------------------------------------------------

    def _minimal(
        self, nodes: Collection[str], shows: Callable[[Graph], bool]
    ) -> tuple[ModelProto, list[str]] | None:
        """The smallest cut that shows the failure, and its nodes; None if not even all of it does.

        Begins at `nodes` and takes in neighbours until the failure shows, so that most of a large
        model is never computed again; then leaves out whatever can be left out.
        """

        def holds(positions: Sequence[int]) -> bool:
            self.progress("minimise", 0, 0)
            try:
                return shows(import_model(self.cutter.cut(positions)))
            except Exception:  # a cut that fails in another way shows something else
                return False

        everything = list(self.cutter.positions)
        start = self._showing(self.cutter.positions_of(nodes), everything, holds)
        if start is None:
            return None
        kept = shrink(start, holds)
        return self.cutter.cut(kept), [self.cutter.labels[at] for at in kept]

    def _showing(
        self, seeds: set[int], everything: list[int], holds: Callable[[Sequence[int]], bool]
    ) -> list[int] | None:
        """The first of ever larger neighbourhoods of `seeds` that shows the failure."""
        area = seeds
        radius = 1
        while area and len(area) < len(everything):
            ordered = [at for at in everything if at in area]
            if holds(ordered):
                return ordered
            for _ in range(radius):
                area = self.cutter.around(area)
            if area == seeds:
                break
            radius *= 2
        return everything if holds(everything) else None

    @staticmethod
    def _with_minimal(finding: Finding, minimal: tuple[ModelProto, list[str]] | None) -> Finding:
        if minimal is None:
            return finding
        return replace(finding, minimal=minimal[0], minimal_nodes=tuple(minimal[1]))


def _runs_here(target: Target) -> bool:
    host = detect_host()
    return target.arch == host.arch and set(target.features) <= set(host.features)


def _judge(graph: Graph, inputs: Arrays) -> Judge:
    """By what a graph gives by the ops' own definitions."""
    reference = NumpyReference(graph)
    return Judge(reference, inputs, reference.outputs(inputs))


def _told(judge: Judge, graph: Graph, inputs: Arrays) -> str | None:
    """What is wrong with the first output of a graph that is."""
    found = judge.differences(evaluate(graph, inputs), lambda moved: evaluate(graph, moved))
    wrong = (f"'{name}': {each.reason}" for name, each in found.items() if not each.ok)
    return next(wrong, None)


def _first_difference(before: Graph, after: Graph, inputs: Arrays) -> tuple[Node | None, str]:
    """The first node of `after` whose value differs from what `before` has under its name.

    Values that a pass renamed, blocked or fused away are passed over; outputs never are.
    """
    old, new = _named(before), _named(after)
    shared = [n for n in new if n in old and old[n].type == new[n].type]
    judge = _judge(_showing_values(before, [old[n] for n in shared], shared), inputs)
    found = evaluate(_showing_values(after, [new[n] for n in shared], shared), inputs)
    for name in shared:
        value, told = new[name], judge.wrong({name: found[name]})
        if told:
            return (value.node if isinstance(value, Result) else None), told
    return None, "the outputs differ"


def _named(graph: Graph) -> dict[str, Value]:
    """Results by their names, producers first; a graph's outputs by their output names, last."""
    found: dict[str, Value] = {}
    outputs = set(graph.outputs)
    for node in graph.nodes:
        found.update((v.name, v) for v in node.outputs if v.name and v not in outputs)
    for name, value in zip(graph.output_names, graph.outputs):
        found.pop(name, None)
        found[name] = value
    return found


def _showing_values(graph: Graph, values: Iterable[Value], names: Iterable[str]) -> Graph:
    return Graph(graph.inputs, tuple(values), tuple(names), graph.name)


def _kind(error: PassError) -> tuple[str, str]:
    """What makes two failures of a pass the same: the first error, and whose check it was."""
    bottom: BaseException = error
    while bottom.__cause__ is not None:
        bottom = bottom.__cause__
    return type(bottom).__name__, "invalid graph" if "left an invalid graph" in str(error) else ""
