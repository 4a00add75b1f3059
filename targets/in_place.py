"""Which kernels write their result over an input that nobody reads afterwards.

Legal where each element of that input is read only to compute the element of the result in the
same place: by element-wise ops of the result's own shape, as the residual of an addition after a
convolution. What an anchor, a movement or a broadcast reads is needed for other elements as well.
A kernel whose tiles overlap would read at the second time what it wrote at the first.

The function of such a kernel reaches both tensors through one pointer (`targets.codegen`), so that
what LLVM is told of its parameters (`noalias`) stays true.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from planish.ir.digest import digest
from planish.ir.graph import Node, Result, Value
from planish.passes.views import Place, Places
from planish.targets.expressions.elementwise import ELEMENTWISE
from planish.targets.lowering import recomputes

Step = Sequence[Node]
"""Kernels that run at the same time."""


def overwritable(kernel: Node) -> tuple[int, ...]:
    """The inputs, by number, whose memory the result of a kernel may take, whatever its schedule.

    Element types must agree too: LLVM takes accesses of different types for accesses of different
    memory.
    """
    if len(kernel.outputs) != 1:
        return ()
    (body,) = kernel.regions
    result = body.outputs[0].type
    users = body.users()
    return tuple(
        number
        for number, value in enumerate(body.inputs)
        if (value.type.dtype, value.type.elements) == (result.dtype, result.elements)
        and _is_read_in_place(value, users)
    )


def _is_read_in_place(value: Value, users: Mapping[Value, list[tuple[Node | None, int]]]) -> bool:
    """True if `value` reaches the kernel's result through element-wise ops alone."""
    seen = {value}
    stack = [value]
    while stack:
        current = stack.pop()
        for user, _ in users[current]:
            if user is None:
                continue
            if user.op not in ELEMENTWISE or user.output.type.shape != current.type.shape:
                return False
            if user.output not in seen:
                seen.add(user.output)
                stack.append(user.output)
    return True


def choose_in_place(
    steps: Sequence[Step], views: Places, fixed: Container[Value]
) -> dict[Node, int]:
    """The number of the input that each kernel's result takes the memory of, where one does.

    Kernels of one step run side by side: no other may read what one of them overwrites. Values in
    `fixed` lie in the caller's buffers or in the weights.
    """
    last: dict[Value, int] = {}
    readers: Counter[tuple[int, Value]] = Counter()
    for number, step in enumerate(steps):
        for node in step:
            for value in (*node.inputs, *node.outputs):
                last[views.of(value).owner] = number
            readers.update((number, views.of(value).owner) for value in node.inputs)
    single_pass = _SinglePass()

    def is_free(value: Value, number: int, nbytes: int) -> bool:
        place = views.of(value)
        owner = place.owner
        if owner in fixed or not isinstance(owner, Result) or owner.type.nbytes != nbytes:
            return False
        return last[owner] == number and readers[number, owner] == 1

    chosen: dict[Node, int] = {}
    for number, step in enumerate(steps):
        for node in step:
            if not _has_own_memory(node, views, fixed):
                continue
            free = [i for i, v in enumerate(node.inputs) if is_free(v, number, _bytes(node))]
            free = [i for i in free if i in overwritable(node)] if free else []
            if free and single_pass.holds(node):
                chosen[node] = free[0]
    return chosen


def _has_own_memory(node: Node, views: Places, fixed: Container[Value]) -> bool:
    """True if the node has one result, which is no part of a larger tensor."""
    if node.op != "kernel" or len(node.outputs) != 1:
        return False
    (result,) = node.outputs
    return views.of(result) == Place(result, 0) and result not in fixed and _bytes(node) > 0


def _bytes(node: Node) -> int:
    return node.outputs[0].type.nbytes


class _SinglePass:
    """Which kernels compute each element of their result once; equal ones are looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, bool] = {}

    def holds(self, kernel: Node) -> bool:
        schedule = kernel.attrs["schedule"]
        if schedule is None or schedule.emitter is not None:
            return False
        key = digest(kernel.regions[0]) + schedule.to_json()
        if key not in self._known:
            self._known[key] = not recomputes(kernel)
        return self._known[key]


def storage_of(
    steps: Sequence[Step], views: Places, in_place: Mapping[Node, int]
) -> dict[Value, Value]:
    """The value that was first in the memory of each kernel's result that overwrites an input."""
    first: dict[Value, Value] = {}
    for step in steps:
        for node in step:
            if node in in_place:
                owner = views.of(node.inputs[in_place[node]]).owner
                first[node.output] = first.get(owner, owner)
    return first
