"""Sizes without limit: each is told with the node, at once, and nothing is allocated for it."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper
from onnx_models import model, node, value

from planish.ir.dim import Dim
from planish.ir.errors import InvalidModel, PlanishError, UnsupportedModel
from planish.ir.limits import MOST_ELEMENTS, MOST_EXPANDED_NODES, excess
from planish.ir.onnx import import_model
from planish.ir.reference import evaluate
from planish.ir.types import tensor

HUGE = [10**12, 2**31, 2**40, 2**62, 2**63 - 1]


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """What allocates gigabytes for a size in a model fails, as it should."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def one(op: str, shape: list[int], *operands: Any, **attributes: Any) -> ModelProto:
    """A node 'n' of an input x of that shape and known operands; None is omitted."""
    names = ["_" if array is None else f"c{i}" for i, array in enumerate(operands)]
    weights = {f"c{i}": np.asarray(a) for i, a in enumerate(operands) if a is not None}
    call = node(op, " ".join(["x", *names]), "y", name="n", **attributes)
    return model([call], [value("x", shape)], ["y"], weights, opset=18)


@pytest.mark.parametrize("size", HUGE)
def test_huge_tensors_are_refused_by_name(size: int):
    ints = np.int64
    zero, step = ints(0), ints(1)
    models = [
        one("Expand", [1], ints([size])),
        one("Expand", [1, 1], ints([size, 1])),
        one("Tile", [2, 2], ints([size, 1])),
        one("Tile", [1], ints([size])),
        one("Resize", [1, 1, 4], None, None, ints([1, 1, size]), mode="nearest"),
        one("Resize", [1, 1, 4], None, ints([1, 1, 2]).astype("f4") * 1e20, mode="nearest"),
        one("Pad", [4], ints([0, size])),
        one("Pad", [4, 4], ints([size, 0, 0, 0])),
        one("OneHot", [4], ints(size), np.float32([0, 1])),
        model(
            [node("ConstantOfShape", "s", "y", name="n")],
            [value("x", [1])],
            ["y"],
            {"s": ints([size])},
        ),
        model(
            [node("Range", "a b c", "y", name="n")],
            [value("x", [1])],
            ["y"],
            {"a": zero, "b": ints(size), "c": step},
        ),
        model(
            [node("Range", "a b c", "y", name="n")],
            [value("x", [1])],
            ["y"],
            {"a": np.float32(0), "b": np.float32(size), "c": np.float32(1)},
        ),
        model(
            [node("ConstantOfShape", "s", "m"), node("EyeLike", "m", "y", name="n")],
            [value("x", [1])],
            ["y"],
            {"s": ints([size, 2])},
        ),
    ]
    for proto in models:
        with pytest.raises((UnsupportedModel, InvalidModel), match=r"'(n|ConstantOfShape_0)'"):
            import_model(proto)


@pytest.mark.parametrize("dims", [[2**62], [2**31], [0, 2**62], [2**20, 2**20], [1] * 65])
def test_huge_inputs_and_initializers(dims: list[int]):
    proto = model([node("Relu", "x", "y", name="n")], [value("x", dims)], ["y"])
    if 0 in dims:  # which in a declared shape is an open dimension
        with pytest.raises(UnsupportedModel, match="'x'"):
            import_model(proto, shapes={"x": dims})
    else:
        with pytest.raises(UnsupportedModel, match="input 'x'"):
            import_model(proto)
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"1234")
    proto = model([node("Add", "x w", "y", name="n")], [value("x", [1])], ["y"])
    proto.graph.initializer.append(weight)
    with pytest.raises((UnsupportedModel, InvalidModel), match="'w'"):
        import_model(proto)


def test_the_most_elements():
    assert excess(tensor("int8", (MOST_ELEMENTS,))) is None
    assert excess(tensor("int8", (MOST_ELEMENTS + 1,))) is not None
    proto = model([node("Relu", "x", "y")], [value("x", [MOST_ELEMENTS])], ["y"])
    assert len(import_model(proto).nodes) == 1


def test_what_the_import_must_compute_is_limited():
    """A shape that hangs on the contents of a large tensor."""
    nodes = [
        node("ConstantOfShape", "s", "big", name="b"),
        node("NonZero", "big", "found", name="n"),
        node("Cast", "found", "y", to=1),
    ]
    proto = model(nodes, [value("x", [1])], ["y"], {"s": np.int64([2**15, 2**15])})
    with pytest.raises(UnsupportedModel, match=r"'n' \(NonZero\): needs the contents of"):
        import_model(proto)


@pytest.mark.parametrize("size", [-1, -5, -(2**31), -(2**63)])
def test_negative_sizes(size: int):
    for proto in (
        one("Expand", [1], np.int64([size])),
        one("Tile", [3], np.int64([size])),
        one("OneHot", [3], np.int64(size), np.float32([0, 1])),
        one("Pad", [3], np.int64([min(size, -2)] * 2)),
        model(
            [node("ConstantOfShape", "s", "y", name="n")],
            [value("x", [1])],
            ["y"],
            {"s": np.int64([size])},
        ),
    ):
        with pytest.raises((InvalidModel, UnsupportedModel), match="'n'"):
            import_model(proto)


def test_ranges_of_no_number():
    for bounds in ([0, np.nan, 1], [0, np.inf, 1], [-np.inf, 0, 1], [0, 3, np.nan], [0, 3, 0]):
        weights = {name: np.float32(bound) for name, bound in zip("abc", bounds)}
        call = node("Range", "a b c", "y", name="n")
        with pytest.raises(UnsupportedModel, match="'n'"):
            import_model(model([call], [value("x", [1])], ["y"], weights))
    for start, limit, step, count in [
        (0, 2**62 + 3, 2**62, 2),
        (2**63 - 1, 0, -(2**62), 2),
        (5, 0, 1, 0),
        (-(2**63), 2**63 - 1, 2**62, 4),
    ]:
        weights = {"a": np.int64(start), "b": np.int64(limit), "c": np.int64(step)}
        call = node("Range", "a b c", "y", name="n")
        graph = import_model(model([call], [value("x", [1])], ["y"], weights))
        assert graph.outputs[0].type.shape == (count,)


def doubling(depth: int) -> ModelProto:
    """Functions of which each calls the next one twice: 2^depth nodes."""
    functions = []
    for i in range(depth):
        inner = f"F{i + 1}" if i < depth - 1 else "Abs"
        where = "my" if i < depth - 1 else ""
        calls = [node(inner, "a", "b", domain=where), node(inner, "b", "c", domain=where)]
        opsets = [helper.make_opsetid("my", 1), helper.make_opsetid("", 18)]
        functions.append(helper.make_function("my", f"F{i}", ["a"], ["c"], calls, opsets))
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("my", 1)]
    return model(
        [node("F0", "x", "y", domain="my", name="n")],
        [value("x", [2])],
        ["y"],
        functions=functions,
        opset_imports=imports,
    )


def test_functions_expand_within_a_limit(monkeypatch: pytest.MonkeyPatch):
    assert len(import_model(doubling(6)).nodes) == 64
    assert MOST_EXPANDED_NODES < 2**25
    monkeypatch.setattr("planish.ir.onnx.importer.MOST_EXPANDED_NODES", 1000)
    with pytest.raises(UnsupportedModel, match="expand to more than 1,000 nodes") as caught:
        import_model(doubling(25))
    assert "'n/" in str(caught.value)
    assert len(str(caught.value)) < 2000


def test_functions_that_call_each_other_in_a_ring():
    proto = doubling(3)
    proto.functions[2].node[0].op_type = "F0"
    proto.functions[2].node[0].domain = "my"
    with pytest.raises(InvalidModel, match="calls itself"):
        import_model(proto)


def test_a_function_may_be_called_again_after_a_refusal():
    proto = doubling(2)
    proto.functions[1].node[0].op_type = "Bernoulli"
    with pytest.raises(UnsupportedModel) as caught:
        import_model(proto)
    assert "calls itself" not in str(caught.value)


EDGES = [-(2**63), -(2**63) + 1, -(10**9) - 1, -5, -1, 0, 1, 3, 5, 10**9, 10**9 + 1, 2**63 - 1]


def test_slices_at_the_edges_of_int64_are_as_in_numpy():
    x = np.arange(5, dtype=np.float32)
    steps = [1, 2, -1, -3, 10**9, 2**63 - 1, -(2**63), -(2**63) + 1]
    for start in [*EDGES[::2], 1, 2**31]:
        for stop in EDGES:
            for step in steps:
                proto = one(
                    "Slice", [5], *(np.int64([n]) for n in (start, stop)), None, np.int64([step])
                )
                # ONNX clamps the start of a negative step to the last element, as Python does
                got = evaluate(import_model(proto), {"x": x})["y"]
                assert got.tolist() == x[slice(start, stop, step)].tolist(), (start, stop, step)


@pytest.mark.parametrize(
    "ops",
    [["Mul s s"], ["Add s one", "Mul t s"], ["Add s one", "Div s t"], ["Max s one", "Mul t s"]],
)
def test_expressions_of_dimensions_do_not_grow_without_limit(ops: list[str]):
    nodes = [node("Shape", "x", "s0")]
    last = "s0"
    for step in range(60):
        for number, text in enumerate(ops):
            op, a, b = text.split()
            names = {"s": last, "t": f"t{step}_{number - 1}", "one": "one"}
            nodes.append(node(op, f"{names[a]} {names[b]}", f"t{step}_{number}", name=f"n{step}"))
        last = f"t{step}_{len(ops) - 1}"
    nodes.append(node("Expand", f"x {last}", "y", name="n"))
    inputs = [value("x", ["N", "M"])]
    proto = model(nodes, inputs, ["y"], {"one": np.int64([3])})
    with pytest.raises((UnsupportedModel, InvalidModel), match="'n"):
        import_model(proto, dynamic=True)


def test_names_of_nodes_are_spelled_out():
    proto = model([node("Zork", "x", "y", name="a\x1b[2J\nb\u202e")], [value("x", [2])], ["y"])
    with pytest.raises(UnsupportedModel, match=r"node 'a\\x1b\[2J\\nb\\u202e' \(Zork\)"):
        import_model(proto)


def test_open_dimensions_do_not_lift_the_limits():
    assert excess(tensor("float32", (2**31, Dim.symbol("n")))) is not None
    proto = one("Tile", [1, 2], np.int64([1, 2**40]))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    with pytest.raises(PlanishError, match="'n'"):
        import_model(proto, dynamic=True)


def test_a_location_that_is_no_text():
    proto = model([node("Add", "x w", "y")], [value("x", [1])], ["y"])
    weight = proto.graph.initializer.add(name="w", data_type=1, dims=[1], data_location=1)
    weight.external_data.add(key="location", value="QQQQ")
    with pytest.raises(InvalidModel, match=r"tensor 'w' is external, .* is not UTF-8"):
        import_model(proto.SerializeToString().replace(b"QQQQ", b"Q\xff\xfeQ"))


@pytest.mark.parametrize("shape", [None, [9, 2**40 + 5]])
def test_output_padding_is_less_than_a_step(shape: list[int] | None):
    weight = np.ones((2, 3, 3, 3), np.float32)
    more = {} if shape is None else {"output_shape": shape}

    def padded(*extra: int) -> ModelProto:
        steps = {"strides": [2, 1], "dilations": [1, 3]}
        return one("ConvTranspose", [1, 2, 4, 4], weight, output_padding=extra, **steps, **more)

    for extra in ((2, 0), (0, 3), (0, 2**40), (-1, 0)):
        with pytest.raises(InvalidModel, match=r"'n' \(ConvTranspose\) has the output_padding"):
            import_model(padded(*extra))
    if shape is None:
        import_model(padded(1, 2))


@pytest.mark.parametrize("p", [0, -1])
def test_norms_of_no_order(p: int):
    for op, shape, more in (
        ("LpPool", [1, 2, 4, 4], {"kernel_shape": [2, 2]}),
        ("GlobalLpPool", [1, 2, 4, 4], {}),
        ("LpNormalization", [3, 4], {}),
    ):
        with pytest.raises(InvalidModel, match=rf"'n' \({op}\) takes a norm with p={p}"):
            import_model(one(op, shape, p=p, **more))
    with pytest.raises(InvalidModel, match="'n'"):
        import_model(one("LRN", [1, 2, 4, 4], size=p))
