"""Chooses between plain and blocked layout for every value, and packs constant weights."""

from __future__ import annotations

from collections.abc import Sequence

from planish.ir.graph import Constant, Graph, Node, Result, Value, with_inputs
from planish.ir.target import Target
from planish.passes.layout.blocking import Blocking
from planish.passes.layout.choose import Choice, choose_layouts
from planish.passes.trace import Event, report


def assign_layout(graph: Graph, target: Target) -> Graph:
    """Lower 2-D float convolutions to blocked layout, and matmuls by constants to packed panels.

    before: %1 = conv(%x, @w)            # N C H W
    after:  %1 = pack(%x, axis=1)        # N C/16 H W 16
            %2 = blocked_conv(%1, @w2)   # weights O/16 I KH KW 16 16
            %3 = unpack(%2, axis=1)

    Which ops work on blocks is chosen for the whole graph at once, so that the estimated time of
    ops and conversions is least (`planish.passes.layout`): whole networks stay blocked between
    their convolutions, and a conversion stands where the tensor is small, or where a kernel that
    moves it anyway absorbs it. A value is converted once for all who read it. Surplus channels of
    the last block hold arbitrary finite values; the weights that meet them are zero.
    """
    halves = target.fma_per_cycle == 1 and target.vector_bytes >= 32
    blocking = Blocking(graph, target.lanes(4), halves=halves)
    choice = choose_layouts(graph, target, blocking)
    report(_events(graph, choice))
    return _Rewriting(choice, blocking).run(graph)


class _Rewriting:
    """The graph in the chosen layouts; `versions` holds (value, is blocked) → its new value."""

    def __init__(self, choice: Choice, blocking: Blocking) -> None:
        self.choice = choice
        self.blocking = blocking
        self.versions: dict[tuple[Value, bool], Value] = {}

    def run(self, graph: Graph) -> Graph:
        """A new graph, or the same one if every node is in plain layout as it was."""
        self.versions.update(((value, False), value) for value in graph.inputs)
        for node in graph.nodes:
            self._add(node)
        outputs = tuple(self._version(value, False, ()) for value in graph.outputs)
        if outputs == graph.outputs:
            return graph
        return Graph(graph.inputs, outputs, graph.output_names, graph.name)

    def _add(self, node: Node) -> None:
        form, plain_form = self.choice.forms.get(node), self.choice.plain_forms.get(node)
        reads = (False,) * len(node.inputs) if form is None else form.reads
        inputs = [
            self._version(value, read, node.provenance) for value, read in zip(node.inputs, reads)
        ]
        if form is not None:
            self.versions[node.output, form.gives_blocks] = form.build(inputs)
        elif plain_form is not None:
            self.versions[node.output, False] = plain_form.build(inputs)
        else:
            kept = node if tuple(inputs) == node.inputs else with_inputs(node, inputs)
            for old, new in zip(node.outputs, kept.outputs):
                self.versions[old, False] = new

    def _version(self, value: Value, blocked: bool, reader: Sequence[str]) -> Value:
        """A value in a layout, converted when first asked for."""
        if isinstance(value, Constant) and not blocked:
            return value
        found = self.versions.get((value, blocked))
        if found is None:
            if blocked:
                plain = self._version(value, False, reader)
                found = self.blocking.pack(plain, value, reader)
            else:
                made = value.node.provenance if isinstance(value, Result) else reader
                found = self.blocking.unpack(self.versions[value, True], value, made)
            self.versions[value, blocked] = found
        return found


def _events(graph: Graph, choice: Choice) -> list[Event]:
    """What the choice saves, then what became of each convolution."""
    events = []
    for node in graph.nodes:
        if node.op != "conv":
            continue
        if node in choice.forms:
            events.append(Event("convolution on blocks", node.where()))
        elif node in choice.plain_forms:
            events.append(Event(choice.plain_forms[node].name, node.where()))
        else:
            reason = choice.refused.get(node, "plain layout costs less than its conversions")
            events.append(Event("convolution on blocks", node.where(), reason))
    return [_summary(choice), *events] if choice.forms else events


def _summary(choice: Choice) -> Event:
    saved = 1 - choice.cycles / max(1, choice.apart)
    return Event(
        "layouts of the whole graph",
        f"{len(choice.forms)} nodes on blocks; conversions: {choice.conversions}, with blocks in "
        f"convolutions alone {choice.conversions_apart}; estimated cycles: {choice.cycles:,} "
        f"instead of {choice.apart:,}, {saved:.0%} saved",
    )
