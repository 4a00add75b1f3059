"""Converters of convolutions; the bias becomes an add, automatic padding becomes numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from planish.ir.dim import DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.graph import Value
from planish.ir.onnx.call import Call
from planish.ir.onnx.linear import without_zero_point
from planish.ir.wording import fix_by_dims


@dataclass(frozen=True, slots=True)
class Window:
    """How a window moves over the spatial dimensions; one number for each."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def reach(self, axis: int) -> int:
        """Elements from the first to the last tap."""
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1


def window_of(call: Call, kernel: Sequence[int], spatial: Sequence[DimLike]) -> Window:
    """Strides, dilations and padding of a convolution or pool with auto_pad resolved."""
    rank = len(kernel)
    strides = call.integers("strides", (1,) * rank)
    dilations = call.integers("dilations", (1,) * rank)
    pads = call.integers("pads", (0,) * (2 * rank))
    mode = call.text("auto_pad", "NOTSET")
    if not len(strides) == len(dilations) == len(pads) // 2 == len(spatial) == rank:
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) has kernel {tuple(kernel)}, strides {strides}, "
            f"dilations {dilations} and pads {pads} for {len(spatial)} spatial dimensions"
        )
    if min((*strides, *dilations, *kernel), default=1) < 1:
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) has kernel {tuple(kernel)}, strides {strides} and "
            f"dilations {dilations}; they are at least 1"
        )
    zeros = (0,) * rank
    window = Window(tuple(kernel), strides, dilations, zeros, zeros)
    if mode in ("NOTSET", ""):
        return Window(window.kernel, strides, dilations, pads[:rank], pads[rank:])
    if mode == "VALID":
        return window
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedModel(f"its auto_pad '{mode}' is not known")
    totals = []
    for axis, dim in enumerate(spatial):
        if not isinstance(dim, int):
            raise UnsupportedModel(f"pads the dynamic dimension {dim} by auto_pad; {fix_by_dims()}")
        steps = -(-dim // strides[axis])
        totals.append(max(0, (steps - 1) * strides[axis] + window.reach(axis) - dim))
    before, after = _halves(totals, mode == "SAME_UPPER")
    return Window(window.kernel, strides, dilations, before, after)


def _halves(totals: Sequence[int], more_behind: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after; the odd one stands behind or in front."""
    small = tuple(total // 2 for total in totals)
    large = tuple(total - total // 2 for total in totals)
    return (small, large) if more_behind else (large, small)


def conv(call: Call) -> Value:
    """Conv with an optional bias."""
    return conv_of(call, call.value(0), call.value(1), call.optional(2))


def conv_of(call: Call, x: Value, w: Value, bias: Value | None) -> Value:
    """Convolution with the attributes of `call`."""
    kernel = _kernel(call, x, w)
    window = window_of(call, kernel, x.type.shape[2:])
    result = call.emit(
        "conv",
        x,
        w,
        strides=window.strides,
        dilations=window.dilations,
        before=window.before,
        after=window.after,
        groups=call.integer("group", 1),
    )
    return result if bias is None else _with_bias(call, result, bias)


def _kernel(call: Call, x: Value, w: Value) -> tuple[int, ...]:
    if x.type.rank < 2 or w.type.rank != x.type.rank:
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) convolves {x.type} with weights {w.type}"
        )
    kernel = call.static_shape(w)[2:]
    declared = call.integers("kernel_shape", kernel)
    if declared != kernel:
        raise InvalidModel(
            f"node '{call.label}' ({call.op}) declares the kernel {declared}, its weights "
            f"have {kernel}"
        )
    return kernel


def _with_bias(call: Call, x: Value, bias: Value) -> Value:
    """Adds one number for each channel."""
    shape = (*bias.type.shape, *(1,) * (x.type.rank - 2))
    return call.emit("add", x, call.reshape(bias, shape))


def conv_transpose(call: Call) -> Value:
    """ConvTranspose; output_shape and auto_pad become padding."""
    x, w, bias = call.value(0), call.value(1), call.optional(2)
    kernel = _kernel(call, x, w)
    rank = len(kernel)
    extra = call.integers("output_padding", (0,) * rank)
    _check_output_padding(call, extra)
    wish = call.integers("output_shape", None)
    mode = call.text("auto_pad", "NOTSET")
    if wish is None and mode in ("NOTSET", "VALID", ""):
        window = window_of(call, kernel, x.type.shape[2:])
    else:
        window, extra = _wished(call, call.static_shape(x)[2:], kernel, extra)
    result = call.emit(
        "conv_transpose",
        x,
        w,
        strides=window.strides,
        dilations=window.dilations,
        before=window.before,
        after=window.after,
        output_padding=extra,
        groups=call.integer("group", 1),
    )
    return result if bias is None else _with_bias(call, result, bias)


def _check_output_padding(call: Call, extra: tuple[int, ...]) -> None:
    """Raises InvalidModel unless each is what ONNX allows: less than the stride or the dilation."""
    ones = (1,) * len(extra)
    steps = zip(call.integers("strides", ones), call.integers("dilations", ones))
    limits = tuple(max(pair) for pair in steps)
    if any(not 0 <= e < limit for e, limit in zip(extra, limits)):
        raise InvalidModel(
            f"node '{call.label}' (ConvTranspose) has the output_padding {extra}; each must be "
            f"less than the stride or the dilation, {limits}"
        )


def _wished(
    call: Call, spatial: tuple[int, ...], kernel: tuple[int, ...], extra: tuple[int, ...]
) -> tuple[Window, tuple[int, ...]]:
    """Padding and output padding that give the output shape asked for.

    auto_pad SAME asks for input · stride. What the output has beyond the reach of the taps stands
    behind, and holds the bias alone.
    """
    call.ignore("pads")
    rank, zeros = len(kernel), (0,) * len(kernel)
    strides = call.integers("strides", (1,) * rank)
    dilations = call.integers("dilations", (1,) * rank)
    window = Window(kernel, strides, dilations, zeros, zeros)
    wish = call.integers("output_shape", tuple(n * s for n, s in zip(spatial, strides)))
    if not len(strides) == len(dilations) == len(extra) == rank <= len(wish):
        raise InvalidModel(
            f"node '{call.label}' (ConvTranspose) has strides {strides}, dilations {dilations}, "
            f"output_padding {extra} and output_shape {wish} for {rank} spatial dimensions"
        )
    totals = [
        strides[i] * (spatial[i] - 1) + extra[i] + window.reach(i) - wish[-rank:][i]
        for i in range(rank)
    ]
    more_behind = call.text("auto_pad", "NOTSET") == "SAME_UPPER"
    before, after = _halves([max(0, total) for total in totals], more_behind)
    padding = tuple(e + max(0, -total) for e, total in zip(extra, totals))
    return Window(kernel, strides, dilations, before, after), padding


def conv_integer(call: Call) -> Value:
    """ConvInteger: int32 convolution of 8-bit operands without their zero points."""
    x = without_zero_point(call, call.value(0), call.optional(2), 1)
    w = without_zero_point(call, call.value(1), call.optional(3), 0)
    return conv_of(call, x, w, None)
