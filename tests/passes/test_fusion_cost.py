"""What fusion counts and compares, and the decisions that follow."""

from __future__ import annotations

import dataclasses

import pytest
from random_graphs import TARGET

from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, Result, Value
from planish.ir.types import tensor
from planish.passes.fuse import fuse
from planish.passes.fusion_cost import Comparison, Draft, Work, compared
from planish.passes.trace import Event, recording


def _input(*shape: int, dtype: str = "float32") -> Input:
    return Input(tensor(dtype, shape), "x")


def _draft(*outputs: Value) -> Draft:
    graph = Graph((), outputs)
    return Draft(graph.users(), TARGET).add(*reversed(list(graph.nodes)))


def _node(value: Value) -> Node:
    assert isinstance(value, Result)
    return value.node


def _kernels(graph: Graph) -> list[str]:
    return [node.attrs["name"] for node in graph.nodes if node.op == "kernel"]


def _fused(*outputs: Value, cores: int = 2) -> list[str]:
    inputs = tuple(v for v in Graph((), outputs).values() if isinstance(v, Input))
    return _kernels(fuse(Graph(inputs, outputs), dataclasses.replace(TARGET, cores=cores)))


def test_readers_at_one_index_share_an_element_and_others_do_not() -> None:
    exp = emit("exp", _input(8, 8))
    shared = _draft(emit("mul", emit("neg", exp), exp))
    turned = _draft(emit("mul", emit("transpose", exp, perm=(1, 0)), exp))
    assert (shared.counts[_node(exp)], turned.counts[_node(exp)]) == (64, 128)


@pytest.mark.parametrize(
    ("op", "attrs", "times"),
    [
        ("reduce_max", {"axes": (1,), "keepdims": False}, 1),
        ("softmax", {"axis": 1}, 2),
        ("log_softmax", {"axis": 1}, 3),
        ("slice", {"starts": (0, 0), "stops": (4, 16), "steps": (1, 1)}, 0.5),
        ("broadcast_to", {"shape": (3, 8, 16)}, 3),
        ("pad", {"before": (0, 1), "after": (2, 3), "mode": "constant", "value": 0.0}, 1),
        ("pack", {"axis": 1, "block": 12, "segments": 1}, 1),
    ],
)
def test_elements_are_counted_as_often_as_they_are_read(
    op: str, attrs: dict[str, object], times: float
) -> None:
    relu = emit("relu", _input(8, 16))
    assert _draft(emit(op, relu, **attrs)).counts[_node(relu)] == 128 * times


def test_windows_read_again_where_they_overlap() -> None:
    relu = emit("relu", _input(1, 2, 9, 9))
    none, one = (0, 0, 0, 0), (1, 1, 1, 1)
    windows = {"window": (1, 1, 3, 3), "before": none, "after": none, "dilations": one}
    pool = emit("pool", relu, kind="max", strides=(1, 1, 2, 2), **windows)
    assert _draft(pool).counts[_node(relu)] == 2 * 4 * 4 * 9


def test_broadcasting_repeats_what_the_innermost_loop_cannot_keep() -> None:
    wide, row, column = _input(8, 16), emit("exp", _input(16)), emit("exp", _input(8, 1))
    assert _draft(emit("add", wide, row)).counts[_node(row)] == 128
    assert _draft(emit("add", wide, column)).counts[_node(column)] == 8


def test_a_part_of_a_tensor_is_read_in_part() -> None:
    x = _input(64, 16)
    part = emit("slice", x, starts=(0, 0), stops=(2, 16), steps=(1, 1))
    assert _draft(emit("neg", part)).work().moved == 2 * (2 * 16 * 4)


def test_joining_saves_a_kernel_and_a_trip() -> None:
    first = emit("relu", _input(64, 64))
    second = emit("neg", first)
    users = Graph((), (second,)).users()
    draft = Draft(users, TARGET).add(_node(second))
    alone = Draft(users, TARGET).add(_node(first))
    found = compared([draft, alone], [draft.extended([_node(first)])])
    assert (found.apart.kernels, found.joined.kernels) == (2, 1)
    assert found.apart.moved - found.joined.moved == 2 * 64 * 64 * 4
    assert found.apart.flops == found.joined.flops == 2 * 64 * 64
    assert found.pays
    assert len(draft.counts) == 1  # `extended` leaves it as it was


def test_a_comparison_says_why_in_numbers() -> None:
    found = Comparison(Work(2, 12_000, 3000, 5000.0), Work(1, 8_000, 43_000, 6500.4))
    assert not found.pays
    assert str(found) == (
        "apart 12.0 kB moved, joined 8.0 kB and 40.0k more flops; 5,000 cycles apart, 6,500 joined"
    )
    copied = Comparison(Work(3, 4_000_000, 50, 5000.0), Work(2, 8_000, 0, 4600.0), copies=True)
    assert not copied.pays
    assert str(copied) == (
        "apart 4.0 MB moved, joined 8.0 kB and 50 fewer flops; "
        "5,000 cycles apart, 4,600 joined, which should save 10%"
    )


def test_arithmetic_that_only_moves_is_no_gain() -> None:
    assert not Comparison(Work(2, 100, 9, 50.0), Work(2, 100, 9, 20.0)).pays
    assert Comparison(Work(2, 100, 9, 50.0), Work(2, 90, 9, 20.0)).pays


def test_a_refusal_is_reported_where_the_producer_stands() -> None:
    x, y = _input(16), _input(512, 16)
    out = emit("mul", emit("tanh", x), y)
    with recording() as events:
        fuse(Graph((x, y), (out,)), TARGET)
    (event,) = events
    assert isinstance(event, Event)
    assert (event.rule, event.where) == ("fusion", _node(_node(out).inputs[0]).where())
    assert event.refused is not None
    assert event.refused.startswith("apart 65.7 kB moved, joined 65.6 kB and 8.2k more flops; ")


def test_copies_are_reported() -> None:
    x, low = _input(64, 64), Input(tensor("float32", (1,)), "low")
    shifted = emit("sub", x, low)
    top = emit("reduce_max", shifted, axes=(0, 1), keepdims=False)
    with recording() as events:
        after = fuse(Graph((x, low), (top, emit("relu", shifted))), TARGET)
    assert _kernels(after) == ["sub_reduce_max", "sub_relu"]
    assert events == [Event("computed in 2 kernels", _node(shifted).where())]


def test_arithmetic_of_many_cores_does_not_go_to_one() -> None:
    total = emit("reduce_sum", emit("erf", _input(512, 512)), axes=(0, 1), keepdims=False)
    assert _fused(total, cores=1) == ["erf_reduce_sum"]
    assert _fused(total, cores=16) == ["erf", "reduce_sum"]


def test_the_end_of_a_long_chain_is_not_copied_away_from_it() -> None:
    value: Value = _input(64, 64)
    for _ in range(20):
        value = emit("abs", emit("neg", value))
    top = emit("reduce_max", value, axes=(0, 1), keepdims=False)
    assert _fused(top, emit("relu", value)) == ["neg_abs", "reduce_max", "relu"]


def test_movement_before_an_anchor_keeps_what_follows_it() -> None:
    turned = emit("relu", emit("transpose", _input(64, 32), perm=(1, 0)))
    assert _fused(emit("softmax", turned, axis=1)) == ["transpose_relu", "softmax"]
