"""The op table is whole: each op has every piece, and its pieces agree."""

from __future__ import annotations

import numpy as np
import pytest

from planish.ir.errors import InvalidGraph
from planish.ir.op import OpKind
from planish.ir.ops import OPS, op_def
from planish.ir.types import DType, TensorType

WINDOW = {"strides": (1, 2), "dilations": (1, 1), "before": (1, 0), "after": (0, 1)}
TRANSPOSED = {**WINDOW, "groups": 2, "output_padding": (0, 1)}
BLOCKED = {"strides": (1, 2), "dilations": (1, 1)}
POOL = {"window": (1, 1, 3), "strides": (1, 1, 2), "dilations": (1, 1, 1)}
POOL |= {"before": (0, 0, 1), "after": (0, 0, 1)}
RESIZE = {"sizes": (2, 8), "scales": (1.0, 2.0), "mode": "cubic", "coordinate": "half_pixel"}

ATTENTION = {"sizes": (2, 2, 3, 5, 4, 3), "group": 2, "scale": 0.5, "causal": 2}
ATTENTION |= {"q": (0, 24, 4, 8, 1), "k": (0, 20, 20, 4, 1), "v": (30, 15, 0, 3, 1)}

#: op → shapes of its inputs, attributes, and shapes' types where they are not all float32
EXAMPLES: dict[str, tuple] = {
    "not": ([(2, 3)], {}, "?"),
    "and": ([(2, 3), (3,)], {}, "??"),
    "or": ([(2, 3), (3,)], {}, "??"),
    "xor": ([(2, 3), (3,)], {}, "??"),
    "bitwise_not": ([(2, 3)], {}, "i"),
    "bitwise_and": ([(2, 3), (3,)], {}, "ii"),
    "bitwise_or": ([(2, 3), (3,)], {}, "ii"),
    "bitwise_xor": ([(2, 3), (3,)], {}, "ii"),
    "shift_left": ([(2, 3), (3,)], {}, "ii"),
    "shift_right": ([(2, 3), (3,)], {}, "ii"),
    "cast": ([(2, 3)], {"to": DType.BFLOAT16}),
    "gelu": ([(2, 3)], {"approximate": "tanh"}),
    "where": ([(2, 3), (3,), (2, 1)], {}, "?ff"),
    "reshape": ([(4, 6)], {"shape": (3, 8)}),
    "transpose": ([(4, 6)], {"perm": (1, 0)}),
    "broadcast_to": ([(4, 1)], {"shape": (2, 4, 3)}),
    "slice": ([(4, 6)], {"starts": (0, 5), "stops": (3, -1), "steps": (2, -2)}),
    "concat": ([(4, 6), (2, 6)], {"axis": 0}),
    "pad": ([(4, 6)], {"before": (1, 2), "after": (0, -1)}),
    "pack": ([(4, 6)], {"axis": 1, "block": 4}),
    "unpack": ([(4, 2, 4)], {"axis": 1, "block": 4, "size": 6}),
    "gather": ([(4, 6), (3,)], {"axis": 0}, "fi"),
    "gather_elements": ([(4, 6), (2, 6)], {"axis": 0}, "fi"),
    "gather_nd": ([(4, 6), (5, 1)], {}, "fi"),
    "scatter_elements": ([(4, 6), (2, 6), (2, 6)], {"axis": 0, "reduction": "add"}, "fif"),
    "scatter_nd": ([(4, 6), (2, 1), (2, 6)], {"reduction": "max"}, "fif"),
    "top_k": ([(4, 6)], {"k": 3, "axis": 1, "largest": True}),
    "resize": ([(2, 4)], RESIZE),
    "arg_max": ([(4, 6)], {"axis": 1, "keepdims": True}),
    "arg_min": ([(4, 6)], {"axis": 0, "keepdims": False}),
    "cumsum": ([(4, 6)], {"axis": 1, "exclusive": True}),
    "pool": ([(2, 3, 9)], {**POOL, "kind": "average"}),
    "matmul": ([(2, 3, 4), (4, 5)], {}),
    "packed_matmul": ([(3, 4), (2, 4, 8)], {"size": 13}),
    "conv": ([(1, 4, 6, 7), (6, 2, 3, 2)], {**WINDOW, "groups": 2}),
    "conv_transpose": ([(1, 4, 3, 4), (4, 3, 3, 2)], TRANSPOSED),
    "blocked_conv": ([(1, 2, 5, 6, 4), (3, 2, 3, 2, 4, 8)], BLOCKED),
    "winograd_conv": ([(1, 2, 5, 6, 4), (3, 4, 4, 2, 4, 8)], {}),
    "blocked_depthwise_conv": ([(1, 2, 5, 6, 4), (2, 3, 2, 4)], BLOCKED),
    "softmax": ([(4, 6)], {"axis": 0}),
    "log_softmax": ([(4, 6)], {"axis": 1}),
    "layer_norm": ([(4, 6), (6,), (6,)], {"axis": 1, "epsilon": 1e-5}),
    "rms_norm": ([(4, 6), (6,)], {"axis": 1, "epsilon": 1e-5}),
    "attention": ([(2, 3, 8), (2, 20), (60,), (1, 1, 3, 5)], ATTENTION),
    "rotary_embedding": ([(2, 3, 8), (3, 3), (2, 1, 6)], {"width": 6, "interleaved": True}),
    "batch_norm": ([(4, 6, 2), (6,), (6,), (6,), (6,)], {"epsilon": 1e-5}),
    "lstm": ([(5, 2, 12), (12, 3), (2, 3), (2, 3), (9,)], {}),
    "gru": ([(5, 2, 9), (9, 3), (9,), (2, 3)], {}),
    "rnn": ([(5, 2, 3), (3, 3), (2, 3)], {}),
}  # fmt: skip
LETTERS = {"f": DType.FLOAT32, "i": DType.INT64, "?": DType.BOOL}


def example(name: str) -> tuple[list[TensorType], dict[str, object]]:
    """Input types and all attributes of a small call of the op."""
    definition = op_def(name)
    if name in EXAMPLES:
        shapes, attrs, *letters = EXAMPLES[name]
    elif name.startswith("reduce_"):
        shapes, attrs, letters = [(4, 5, 6)], {"axes": (0, 2), "keepdims": False}, []
    else:
        shapes, attrs, letters = [(2, 3), (3,), (2, 1)][: definition.arity[0]], {}, []
    kinds = letters[0] if letters else "f" * len(shapes)
    types = [TensorType(LETTERS[kind], shape) for kind, shape in zip(kinds, shapes)]
    return types, {key: spec.default for key, spec in definition.attrs.items()} | attrs


def random_array(type_: TensorType, rng: np.random.Generator) -> np.ndarray:
    if type_.dtype is DType.BOOL:
        return rng.uniform(size=type_.static_shape) < 0.5
    if type_.dtype is DType.INT64:
        return rng.integers(0, 4, type_.static_shape)
    return rng.uniform(0.1, 0.9, type_.static_shape).astype(np.float32)


PLAIN = [name for name, definition in OPS.items() if definition.kind is not OpKind.REGION]


@pytest.mark.parametrize("name", PLAIN)
def test_the_pieces_of_an_op_agree(name, rng):
    definition = op_def(name)
    types, attrs = example(name)
    outputs = definition.infer(types, attrs)
    arrays = [random_array(type_, rng) for type_ in types]
    results = definition.reference(arrays, attrs)
    found = tuple(TensorType(DType.of(y.dtype), y.shape) for y in results)
    assert found == outputs, f"{name}: the reference disagrees with inference"
    assert all(isinstance(y, np.ndarray) for y in results)
    cost = definition.cost(types, outputs, attrs)
    assert cost.bytes == sum(type_.nbytes for type_ in (*types, *outputs))
    only_moves = definition.kind is OpKind.MOVEMENT and name != "rotary_embedding"
    assert (cost.flops == 0) == only_moves, f"{name}: flops"
    loops = definition.axes(types, outputs, attrs)
    assert len({loop.name for loop in loops}) == len(loops), f"{name}: axes of one name"
    assert all(loop.extent >= 1 for loop in loops)


@pytest.mark.parametrize("name", PLAIN)
def test_loops_cover_the_output(name):
    definition = op_def(name)
    types, attrs = example(name)
    outputs = definition.infer(types, attrs)
    extents = [a.extent for a in definition.axes(types, outputs, attrs) if not a.reduce]
    if name.startswith("scatter"):  # they loop over the updates
        assert extents == list(types[2].static_shape)
    elif name == "top_k":  # rows
        assert extents == [4]
    else:
        assert extents == list(outputs[0].static_shape)


@pytest.mark.parametrize("definition", OPS.values(), ids=OPS.keys())
def test_every_op_is_described(definition):
    assert definition.name == definition.name.lower()
    assert definition.summary
    assert definition.summary[-1] != "."
    for attr, spec in definition.attrs.items():
        assert spec.required or spec.default is None or isinstance(spec.default, spec.types), attr


@pytest.mark.parametrize(
    ("name", "loops", "flops"),
    [
        ("conv", "n1 oc6 oh5 ow4 | ic2 kh3 kw2", 2 * 6 * 5 * 4 * 2 * 3 * 2),
        ("matmul", "b2 m3 n5 | k4", 2 * 2 * 3 * 5 * 4),
        ("packed_matmul", "m3 n13 | k4", 2 * 3 * 13 * 4),
        ("blocked_conv", "n1 oc3 oh3 ow3 oci8 | ic2 kh3 kw2 ici4", 2 * 3 * 9 * 8 * 2 * 3 * 2 * 4),
        (
            "winograd_conv",
            "n1 oc3 oh3 ow4 oci8 | i4 j4 ic2 ici4",
            4 * (2 * 16 * 8 * 24 + 32 * 8 + 24 * 24),
        ),
        ("blocked_depthwise_conv", "n1 oc2 oh3 ow3 oci4 | kh3 kw2", 2 * 2 * 9 * 4 * 3 * 2),
        ("conv_transpose", "n1 oc6 oh4 ow8 | ic2 kh3 kw2", 2 * 4 * 12 * 3 * 3 * 2),
        ("reduce_sum", "d5 | r4 r6", 120),
        ("pool", "d2 d3 d5 | r3", 90),
        ("softmax", "d4 d6 | r4", 120),
        ("add", "d2 d3 |", 6),
        ("lstm", "t5 b2 h3 | k3", 5 * 2 * 12 * (6 + 10)),
    ],
)
def test_loops_and_flops(name, loops, flops):
    types, attrs = example(name)
    outputs = op_def(name).infer(types, attrs)
    axes = op_def(name).axes(types, outputs, attrs)
    outer, inner = (
        " ".join(f"{a.name.rstrip('0123456789')}{a.extent}" for a in axes if a.reduce is reduce)
        for reduce in (False, True)
    )
    assert f"{outer} | {inner}".rstrip() == loops
    assert op_def(name).cost(types, outputs, attrs).flops == flops


def test_unknown_ops_name_the_nearest():
    with pytest.raises(InvalidGraph, match="there is no op 'soft_max'; did you mean softmax"):
        op_def("soft_max")
    with pytest.raises(InvalidGraph, match=r"there is no op 'qqq'$"):
        op_def("qqq")
