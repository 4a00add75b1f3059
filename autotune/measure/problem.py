"""A kernel to tune, with the data it is run on and what it must compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from planish.autotune.measure.backend import Backend
from planish.ir.errors import TuningError
from planish.ir.extension import custom_op
from planish.ir.graph import Constant, Graph, Input, Node, Value, with_inputs
from planish.ir.reference import run_graph
from planish.ir.text import print_graph


class Role(IntEnum):
    """What a parameter of the kernel's function is; harness.h has the same numbers."""

    INPUT, WEIGHTS, OUTPUT = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One kernel's inputs and outputs, by the order of its parameters.

    `inputs` are (role, array), `expected` what the numpy reference computes of them.
    `model_weights` are the bytes of weights that the whole model reads between two calls of this
    kernel: they decide how cold its own are.
    """

    where: str
    inputs: tuple[tuple[Role, np.ndarray], ...]
    expected: tuple[np.ndarray, ...]
    model_weights: int = 0


#: Where random inputs make NaN (a logarithm, a root, an arc cosine), others are tried.
_DOMAINS: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
    lambda x: x,
    lambda x: np.abs(x) + x.dtype.type(0.1),
    lambda x: np.tanh(x) * x.dtype.type(0.9),
    lambda x: np.abs(x) + x.dtype.type(1.1),
)


def make_problem(
    kernel: Node, backend: Backend, *, seed: int = 0, model_weights: int = 0
) -> Problem:
    """The problem of a kernel on random inputs, the same for the same seed; weights are its own.

    Raises TuningError for a kernel with a custom op, which is known to this process only; and if
    the reference computes NaN of every kind of input tried, as a candidate's NaN could then not be
    told from a right one.
    """
    for node in kernel.regions[0].nodes:
        if custom_op(node.op) is not None:
            raise TuningError(
                f"{kernel.where()} holds the custom op '{node.op}', which the workers that measure "
                "do not know; leave it on its default schedule"
            )
    body = _with_distinct_names(kernel.regions[0])
    drawn = backend.random_inputs(body, seed)
    given = [value.data if isinstance(value, Constant) else None for value in kernel.inputs]
    for domain in _DOMAINS:
        arrays = [
            np.ascontiguousarray(_moved(array, domain) if data is None else data)
            for data, array in zip(given, drawn)
        ]
        with np.errstate(all="ignore"):
            expected = run_graph(body, arrays)
        if not any(_has_nan(array) for array in expected):
            roles = [Role.INPUT if data is None else Role.WEIGHTS for data in given]
            results = tuple(np.ascontiguousarray(array) for array in expected)
            return Problem(kernel.where(), tuple(zip(roles, arrays)), results, model_weights)
    raise TuningError(
        f"{kernel.where()} computes NaN of all random inputs tried, so that no schedule of it can "
        "be checked; leave it on its default schedule"
    )


def kernel_text(kernel: Node) -> str:
    """The kernel on its own, as the text form of a graph; its weights become inputs."""
    alone = with_inputs(kernel, [Input(value.type, "") for value in kernel.inputs])
    inputs = tuple(value for value in alone.inputs if isinstance(value, Input))
    names = tuple(f"out{i}" for i in range(len(alone.outputs)))
    return print_graph(Graph(inputs, alone.outputs, names))


def _with_distinct_names(body: Graph) -> Graph:
    """The same graph, its inputs named apart, as those who draw inputs by name need it."""
    new: dict[Value, Value] = {
        value: Input(value.type, f"x{i}") for i, value in enumerate(body.inputs)
    }
    inputs = tuple(new[value] for value in body.inputs)
    for node in body.nodes:
        copy = with_inputs(node, [new.get(value, value) for value in node.inputs])
        new.update(zip(node.outputs, copy.outputs))
    outputs = tuple(new.get(value, value) for value in body.outputs)
    return Graph(inputs, outputs, body.output_names)  # type: ignore[arg-type]


def _moved(array: np.ndarray, domain: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return domain(array) if array.dtype.kind == "f" else array


def _has_nan(array: np.ndarray) -> bool:
    return array.dtype.kind in "fc" and bool(np.isnan(array).any())


def split_outputs(problem: Problem, data: bytes) -> Sequence[np.ndarray]:
    """The arrays that lie one after another in `data`, each at a multiple of 64 bytes."""
    arrays: list[np.ndarray] = []
    begin = 0
    for expected in problem.expected:
        flat = np.frombuffer(data, expected.dtype, expected.size, begin)
        arrays.append(flat.reshape(expected.shape))
        begin += aligned(expected.nbytes)
    return arrays


def aligned(size: int) -> int:
    """`size` rounded up to the alignment of all buffers."""
    return -(-size // 64) * 64
