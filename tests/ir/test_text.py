"""The text form, read and written, and the digest."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from planish.ir.builder import emit, make_node
from planish.ir.compare import difference, structurally_equal
from planish.ir.digest import digest
from planish.ir.dim import Dim
from planish.ir.errors import InvalidGraph
from planish.ir.graph import Constant, Graph, Input, Node, constant
from planish.ir.parse import parse, random_data
from planish.ir.schedule import Schedule
from planish.ir.text import constants_of, format_attr, print_graph
from planish.ir.types import DType, tensor
from planish.ir.verifier import verify


def _round_trip(graph: Graph) -> Graph:
    text = print_graph(graph)
    again = parse(text, constants_of(graph))
    assert print_graph(again) == text
    assert difference(graph, again) is None
    return again


def _kernel_graph(
    name: str = "relu6", sixes: float = 6.0, schedule: Schedule | None = None
) -> Graph:
    a = Input(tensor("float32", (2, 3)), "a")
    clipped = emit("minimum", emit("relu", a), constant(np.float32(sixes)))
    body = Graph((a,), (clipped,), ("out",), "body")
    x = Input(tensor("float32", (2, 3)), "x")
    attrs = {"name": name, "schedule": schedule}
    node = make_node("kernel", [x], attrs, [body], provenance=['Clip "0"', "Relu\n0"])
    return Graph((x,), (emit("neg", node.output),), ("y",))


SCHEDULE = Schedule.of(
    "map", [("vec", 8)], [("vectorize", "out", "d1"), ("fuse", "out", ["a", "b"], "f")]
)


def test_the_form_is_this() -> None:
    assert print_graph(_kernel_graph(schedule=Schedule.of("map", [("vec", 8)]))) == (
        'graph main(%0: float32[2, 3] "x") -> (%2 as "y") {\n'
        '  %1: float32[2, 3] = kernel(%0, name="relu6", schedule=schedule '
        '{"choices":[["vec",8]],"directives":[],"space":"map"})'
        ' from "Clip \\"0\\"", "Relu\\n0" {\n'
        '    graph body(%0: float32[2, 3] "a") -> (%2 as "out") {\n'
        "      %1: float32[2, 3] = relu(%0)\n"
        "      @0: float32[] = 6.0\n"
        "      %2: float32[2, 3] = minimum(%1, @0)\n"
        "    }\n"
        "  }\n"
        "  %2: float32[2, 3] = neg(%1)\n"
        "}\n"
    )


def test_regions_schedules_names_and_provenance_round_trip() -> None:
    again = _round_trip(_kernel_graph(schedule=SCHEDULE))
    kernel = again.nodes[0]
    assert kernel.attrs["schedule"] == SCHEDULE
    assert kernel.provenance == ('Clip "0"', "Relu\n0")
    assert kernel.regions[0].name == "body"
    assert again.inputs[0].name == "x"
    verify(again)


def test_symbolic_dims_keep_their_expressions_and_ranges() -> None:
    n, odd = Dim.symbol("n", 1, 64), Dim.symbol("batch size, 'odd'")
    x = Input(tensor("float32", (n, odd, (n + 1) // 2 * 3)), "x")
    y = emit("reshape", x, shape=(odd, n, (n + 1) // 2 * 3))
    again = _round_trip(Graph((x,), (y,)))
    assert again.inputs[0].type == x.type
    assert again.nodes[0].attrs["shape"] == y.node.attrs["shape"]
    assert print_graph(again).splitlines()[0] == "dim 'batch size, \\'odd\\'' 0.."


_AWKWARD = [0.0, -0.0, 1e-45, 0.1, 1 / 3, 16777217.0, 3.4e38, math.inf, -math.inf, math.nan, 1e-9]


@pytest.mark.parametrize(
    "dtype", [d for d in DType if d is not DType.STRING], ids=lambda d: d.value
)
def test_small_constants_keep_every_bit(dtype: DType) -> None:
    if dtype is DType.BOOL:
        data = np.array([True, False])
    elif dtype.is_integer:
        info = ml_dtypes.iinfo(dtype.numpy)
        data = np.array([int(info.min), 0, 1, int(info.max)], dtype.numpy)
    else:
        with np.errstate(all="ignore"):
            data = np.array(_AWKWARD).astype(dtype.numpy)
    value = Constant(tensor(dtype, data.shape), "c", constant(data).data)
    again = _round_trip(Graph((), (value,), ("c",))).outputs[0]
    assert isinstance(again, Constant)
    assert again.data.tobytes() == data.tobytes()
    assert again.type == value.type


def test_payloads_of_nan_and_strings_and_empty_tensors() -> None:
    nans = np.array([0x7FC00001, 0xFFC00000, 0x7F800001], np.uint32).view(np.float32)
    texts = np.array([["a, b", 'quo"te']], object)
    values = [constant(nans), constant(texts), constant(np.zeros((2, 0, 3), np.int64))]
    again = _round_trip(Graph((), tuple(values), ("n", "t", "e")))
    for before, after in zip(values, again.outputs):
        assert isinstance(after, Constant)
        assert after.type == before.type
        if before.data.dtype != object:
            assert after.data.tobytes() == before.data.tobytes()
    assert again.outputs[1].data.tolist() == texts.tolist()  # type: ignore[attr-defined]


def test_large_constants_are_found_by_digest() -> None:
    x = Input(tensor("float32", (4, 8)), "x")
    w = constant(random_data(tensor("float32", (8, 8)), 3), "w")
    graph = Graph((x,), (emit("matmul", x, w),), ("y",))
    assert '@0: float32[8, 8] "w" = data("sha256:' in print_graph(graph)
    _round_trip(graph)
    with pytest.raises(InvalidGraph, match=r"line 2 .* no data for the constant 'sha256:"):
        parse(print_graph(graph))
    wrong = {key: data.T[:4] for key, data in constants_of(graph).items()}
    with pytest.raises(InvalidGraph, match=r"@0 is float32\[8, 8\], but its data float32\[4, 8\]"):
        parse(print_graph(graph), wrong)


def test_seeded_constants_are_reproducible_and_not_trivial() -> None:
    head, tail = (
        "graph g() -> (@a, @b) {\n @a: float32[100] = ",
        "\n @b: uint8[9] = random(1, 3, 5)\n}",
    )
    first, again, other = (parse(f"{head}random({seed}){tail}") for seed in (5, 5, 6))
    assert structurally_equal(first, again)
    assert not structurally_equal(first, other)
    a, b = (value.data for value in first.outputs if isinstance(value, Constant))
    assert a.std() > 0.5
    assert set(b.tolist()) == {3, 4}


def test_attributes_of_every_kind_are_told_apart() -> None:
    values = [None, True, 1, 1.0, "1", DType.INT8, (1,), (), ((1, 2), 3), (1.0,), -0.0, 0.0]
    values += [math.inf, 1e-5, Dim.symbol("n", 2, 9) + 1, Schedule("s"), "none", ("a", (True,))]
    texts = [format_attr(value) for value in values]
    assert len(set(texts)) == len(values)
    x = Input(tensor("float32", (1,)), "x")
    for value in values:
        node = Node("relu", [x], [x.type], {"anything": value})
        read = parse(print_graph(Graph((x,), node.outputs)), {}).nodes[0].attrs["anything"]
        assert (read, type(read)) == (value, type(value))


def test_defaults_comments_and_own_names() -> None:
    graph = parse(
        """
        # a comment
        graph main(%in: float32[2, 2] "x") -> (%out as "y") {
          %out: float32[4, 2] "r" = pad(%in, before=[1, 0], after=[1, 0])
        }
        """
    )
    verify(graph)
    assert graph.nodes[0].attrs["mode"] == "constant"
    assert graph.outputs[0].name == "r"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("graph g(", "line 1 .* expected a value such as %0 at: the end of the line"),
        ("graph g() -> () {", "the text form ends before its graph does"),
        ("}", "line 1 .* '}' closes nothing"),
        ("graph g() -> (%1) {\n}", "line 2 .* %1 is used, but not defined above in graph 'g'"),
        ("graph g() -> () {\n  %0: float32[] = relu(%9)\n}", "line 2 .* %9 is used"),
        ("graph g() -> () {\n  %0: float33[] = relu()\n}", "line 2 .* 'float33'"),
        ("graph g() -> () {\n  %0: float32[] = rely()\n}", "no op 'rely'.*relu"),
        ("graph g() -> () {\n  @0: int8[2] = [1]\n}", "has 2 elements, but 1 are given"),
        ("graph g() -> () {\n  @0: int8[] = 1.5\n}", "line 2 .*1.5"),
        ("graph g() -> () {\n  @0: int8[] = 1 2\n}", "expected the end of the line at: 2"),
        ("graph g() -> () {\n  @0: int8[] = 1\n  @0: int8[] = 1\n}", "@0 is defined twice"),
        ("graph g(%0: float32[n]) -> () {\n}", "line 1 .*'?n'?"),
        ("hello", "expected a graph, node, constant, dim or '}' at: hello"),
        ("graph g() -> () {\ngraph h() -> () {", "a graph stands only at the top"),
        ("%0: float32[] = relu()", "outside a graph"),
    ],
)
def test_errors_name_the_line_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(InvalidGraph, match=f"(?s){message}"):
        parse(text)


def test_digest_ignores_names_and_sharing_only() -> None:
    base = digest(_kernel_graph())
    assert base == digest(_kernel_graph(name="other"))
    assert len(base) == 64
    assert base != digest(_kernel_graph(sixes=5.0))
    assert base != digest(_kernel_graph(schedule=SCHEDULE))
    x = Input(tensor("float32", (2,)), "x")
    c, d = constant(np.float32([1, 2])), constant(np.float32([1, 2]))
    shared = Graph((x,), (emit("mul", emit("add", x, c), c),), ("a",))
    apart = Graph((x,), (emit("mul", emit("add", x, c), d),), ("b",))
    assert digest(shared) == digest(apart)
    swapped = Graph((x,), (emit("mul", c, emit("add", x, c)),))
    assert digest(shared) != digest(swapped)


def test_difference_shows_the_first_line() -> None:
    assert difference(_kernel_graph(), _kernel_graph()) is None
    found = difference(_kernel_graph(), _kernel_graph(sixes=5.0))
    assert found is not None
    assert "minimum" in found
    assert " against " in found


def test_deep_graphs_and_deep_regions_need_no_recursion() -> None:
    x = Input(tensor("float32", (2,)), "x")
    graph = Graph((x,), (emit("neg", x),))
    for depth in range(1500):
        y = Input(tensor("float32", (2,)), "y")
        node = make_node("kernel", [y], {"name": f"k{depth}"}, [graph])
        graph = Graph((y,), node.outputs, ("y",))
    verify(graph)
    _round_trip(graph)
