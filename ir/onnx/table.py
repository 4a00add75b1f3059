"""Which converter takes which ONNX op, by the opset version since which it applies.

A row lists (since_version, converter), oldest first; the newest that is not newer than the model's
opset is taken. Versions that only added element types need no entry of their own. A row may start
at a version before the oldest opset that is supported. Ops without a row are expanded by the
function body that ONNX gives for them, or refused.
"""

from __future__ import annotations

from planish.ir.extension import custom_converter
from planish.ir.onnx import (
    activation,
    attention,
    convolution,
    einsum,
    elementwise,
    generator,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    recurrent,
    reduction,
    resizing,
    shaping,
    slicing,
)
from planish.ir.onnx.call import Converter, in_float32
from planish.ir.onnx.elementwise import binary, unary, variadic
from planish.ir.onnx.reduction import by_attribute, by_input, plain

Row = tuple[tuple[int, Converter], ...]


def _reduction(reduce: reduction.Reduction, moved: int) -> Row:
    """A reduction whose axes became an input in opset `moved`."""
    return (1, by_attribute(reduce)), (moved, by_input(reduce))


def _wide_reduction(reduce: reduction.Reduction, moved: int) -> Row:
    """One of several steps."""
    return tuple((since, in_float32(converter)) for since, converter in _reduction(reduce, moved))


#: ai.onnx
OPS: dict[str, Row] = {
    # element-wise
    "Abs": ((1, unary("abs")),),
    "Acos": ((7, unary("acos")),),
    "Acosh": ((9, unary("acosh")),),
    "Add": ((7, binary("add")),),
    "And": ((7, binary("and")),),
    "Asin": ((7, unary("asin")),),
    "Asinh": ((9, unary("asinh")),),
    "Atan": ((7, unary("atan")),),
    "Atanh": ((9, unary("atanh")),),
    "BitShift": ((11, elementwise.bit_shift),),
    "BitwiseAnd": ((18, binary("bitwise_and")),),
    "BitwiseNot": ((18, unary("bitwise_not")),),
    "BitwiseOr": ((18, binary("bitwise_or")),),
    "BitwiseXor": ((18, binary("bitwise_xor")),),
    "Cast": ((6, elementwise.cast),),
    "CastLike": ((15, elementwise.cast_like),),
    "Ceil": ((1, unary("ceil")),),
    "Clip": ((6, elementwise.clip_by_attributes), (11, elementwise.clip)),
    "Cos": ((7, unary("cos")),),
    "Cosh": ((9, unary("cosh")),),
    "Div": ((7, binary("div")),),
    "Dropout": ((7, elementwise.dropout),),
    "Equal": ((7, binary("equal")),),
    "Erf": ((9, unary("erf")),),
    "Exp": ((1, unary("exp")),),
    "Floor": ((1, unary("floor")),),
    "Greater": ((7, binary("greater")),),
    "GreaterOrEqual": ((12, binary("greater_equal")),),
    "Identity": ((1, elementwise.identity),),
    "IsInf": ((10, elementwise.is_infinite),),
    "IsNaN": ((9, unary("is_nan")),),
    "Less": ((7, binary("less")),),
    "LessOrEqual": ((12, binary("less_equal")),),
    "Log": ((1, unary("log")),),
    "Max": ((6, variadic("maximum")),),
    "Mean": ((6, in_float32(elementwise.mean)),),
    "Min": ((6, variadic("minimum")),),
    "Mod": ((10, elementwise.modulo),),
    "Mul": ((7, binary("mul")),),
    "Neg": ((1, unary("neg")),),
    "Not": ((1, unary("not")),),
    "Or": ((7, binary("or")),),
    "Pow": ((7, elementwise.power),),
    "Reciprocal": ((1, unary("reciprocal")),),
    "Round": ((11, unary("round")),),
    "Sign": ((9, unary("sign")),),
    "Sin": ((7, unary("sin")),),
    "Sinh": ((9, unary("sinh")),),
    "Sqrt": ((1, unary("sqrt")),),
    "Sub": ((7, binary("sub")),),
    "Sum": ((6, in_float32(variadic("add"))),),
    "Tan": ((7, unary("tan")),),
    "Tanh": ((1, unary("tanh")),),
    "Where": ((9, elementwise.where),),
    "Xor": ((7, binary("xor")),),
    # activations
    "Celu": ((12, in_float32(activation.celu)),),
    "Elu": ((6, in_float32(activation.elu)),),
    "Gelu": ((20, activation.gelu),),
    "HardSigmoid": ((6, activation.hard_sigmoid),),
    "HardSwish": ((14, unary("hard_swish")),),
    "Hardmax": ((1, activation.hardmax_of_rows), (13, activation.hardmax)),
    "LeakyRelu": ((6, activation.leaky_relu),),
    "LogSoftmax": ((1, activation.softmax_of_rows), (13, activation.softmax)),
    "Mish": ((18, unary("mish")),),
    "PRelu": ((7, activation.prelu),),
    "Relu": ((1, unary("relu")),),
    "Selu": ((6, in_float32(activation.selu)),),
    "Shrink": ((9, activation.shrink),),
    "Sigmoid": ((1, unary("sigmoid")),),
    "Softmax": ((1, activation.softmax_of_rows), (13, activation.softmax)),
    "Softplus": ((1, unary("softplus")),),
    "Softsign": ((1, in_float32(activation.softsign)),),
    "Swish": ((24, in_float32(activation.swish)),),
    "ThresholdedRelu": ((10, activation.thresholded_relu),),
    # shapes
    "Concat": ((4, shaping.concat),),
    "DepthToSpace": ((1, shaping.depth_to_space),),
    "Expand": ((8, shaping.expand),),
    "Flatten": ((1, shaping.flatten),),
    "Pad": ((2, slicing.pad_by_attributes), (11, slicing.pad_by_inputs)),
    "Reshape": ((5, shaping.reshape),),
    "Slice": ((1, slicing.slice_by_attributes), (10, slicing.slice_by_inputs)),
    "SpaceToDepth": ((1, shaping.space_to_depth),),
    "Split": ((2, shaping.split_by_attribute), (13, shaping.split)),
    "Squeeze": ((1, shaping.squeeze_by_attribute), (13, shaping.squeeze)),
    "Tile": ((6, shaping.tile),),
    "Transpose": ((1, shaping.transpose),),
    "Unsqueeze": ((1, shaping.unsqueeze_by_attribute), (13, shaping.unsqueeze)),
    # tensors from sizes
    "Constant": ((1, generator.constant_node),),
    "ConstantOfShape": ((9, generator.constant_of_shape),),
    "EyeLike": ((9, generator.eye_like),),
    "Range": ((11, generator.number_range),),
    "Shape": ((1, generator.shape),),
    "Size": ((1, generator.size),),
    "Trilu": ((14, generator.triangle),),
    # indices
    "Compress": ((9, indexing.compress),),
    "Gather": ((1, indexing.gather),),
    "GatherElements": ((11, indexing.gather_elements),),
    "GatherND": ((11, indexing.gather_nd),),
    "NonZero": ((9, indexing.non_zero),),
    "OneHot": ((9, indexing.one_hot),),
    "ReverseSequence": ((10, indexing.reverse_sequence),),
    "Scatter": ((9, indexing.scatter_elements),),
    "ScatterElements": ((11, indexing.scatter_elements),),
    "ScatterND": ((11, indexing.scatter_nd),),
    # reductions
    "ArgMax": ((1, reduction.arg_extreme("arg_max")),),
    "ArgMin": ((1, reduction.arg_extreme("arg_min")),),
    "CumSum": ((11, reduction.cumulative_sum),),
    "GlobalAveragePool": ((1, reduction.global_pool("reduce_mean")),),
    "GlobalLpPool": ((2, in_float32(reduction.global_lp_pool)),),
    "GlobalMaxPool": ((1, reduction.global_pool("reduce_max")),),
    "ReduceL1": _reduction(reduction.l1, 18),
    "ReduceL2": _wide_reduction(reduction.l2, 18),
    "ReduceLogSum": _wide_reduction(reduction.log_sum, 18),
    "ReduceLogSumExp": _wide_reduction(reduction.log_sum_exp, 18),
    "ReduceMax": _reduction(plain("reduce_max"), 18),
    "ReduceMean": _reduction(plain("reduce_mean"), 18),
    "ReduceMin": _reduction(plain("reduce_min"), 18),
    "ReduceProd": _reduction(plain("reduce_prod"), 18),
    "ReduceSum": _reduction(plain("reduce_sum"), 13),
    "ReduceSumSquare": _wide_reduction(reduction.sum_square, 18),
    "TopK": ((1, reduction.top_k_by_attribute), (10, reduction.top_k)),
    # windows
    "AveragePool": ((7, pooling.average_pool),),
    "LRN": ((1, in_float32(pooling.local_response_norm)),),
    "LpPool": ((2, in_float32(pooling.lp_pool)),),
    "MaxPool": ((1, pooling.max_pool),),
    # products
    "Conv": ((1, convolution.conv),),
    "ConvInteger": ((10, convolution.conv_integer),),
    "ConvTranspose": ((1, convolution.conv_transpose),),
    "AffineGrid": ((20, linear.affine_grid),),
    "Einsum": ((12, einsum.einsum),),
    "Gemm": ((7, linear.gemm),),
    "MatMul": ((1, linear.matmul),),
    "MatMulInteger": ((10, linear.matmul_integer),),
    # normalisation
    "BatchNormalization": ((7, normalization.batch_norm),),
    "GroupNormalization": (
        (18, in_float32(normalization.group_norm_by_group)),
        (21, in_float32(normalization.group_norm)),
    ),
    "InstanceNormalization": ((6, in_float32(normalization.instance_norm)),),
    "LayerNormalization": ((17, normalization.layer_norm),),
    "MeanVarianceNormalization": ((9, in_float32(normalization.mean_variance_norm)),),
    "LpNormalization": ((1, in_float32(normalization.lp_norm)),),
    # attention
    "RotaryEmbedding": ((23, attention.rotary_embedding),),
    # recurrent cells
    "GRU": ((7, recurrent.gru),),
    "LSTM": ((7, recurrent.lstm),),
    "RNN": ((7, recurrent.rnn),),
    # resizing
    "Resize": ((10, resizing.upsample), (11, resizing.resize)),
    "Upsample": ((7, resizing.upsample_by_attribute), (9, resizing.upsample)),
    # quantisation
    "DequantizeLinear": ((10, quantization.dequantize),),
    "QLinearConv": ((10, quantization.qlinear_conv),),
    "QLinearMatMul": ((10, quantization.qlinear_matmul),),
    "QuantizeLinear": ((10, quantization.quantize),),
}

#: ai.onnx.ml
ML_OPS: dict[str, Row] = {
    "ArrayFeatureExtractor": ((1, indexing.array_feature_extractor),),
}

TABLES: dict[str, dict[str, Row]] = {"": OPS, "ai.onnx.ml": ML_OPS}


def converter_of(domain: str, op: str, version: int) -> Converter | None:
    """The converter of an op at a version of its operator set, None if there is none.

    That of a custom op goes first: its author wants the node as it is.
    """
    added = custom_converter(domain, op)
    if added is not None:
        return added
    row = TABLES.get(domain, {}).get(op, ())
    found = None
    for since, converter in row:
        if since <= version:
            found = converter
    return found
