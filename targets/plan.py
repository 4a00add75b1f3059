"""What an artefact executes, as plain data: buffers, and the calls of kernels over them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from planish.ir.errors import TargetError

ALIGNMENT = 64
"""Bytes: every pointer that a kernel receives is a multiple of this."""

DTYPES: dict[str, tuple[int, int]] = {
    "float32": (1, 4),
    "uint8": (2, 1),
    "int8": (3, 1),
    "uint16": (4, 2),
    "int16": (5, 2),
    "int32": (6, 4),
    "int64": (7, 8),
    "bool": (9, 1),
    "float16": (10, 2),
    "float64": (11, 8),
    "uint32": (12, 4),
    "uint64": (13, 8),
}
"""numpy's name of each dtype that an input or output may have -> (ONNX's number, bytes)."""

EXPORTS = (
    "open",
    "open_file",
    "close",
    "context_create",
    "context_destroy",
    "context_threads",
    "run",
    "run_threads",
    "profile",
    "trace",
    "error",
    "input_count",
    "input",
    "output_count",
    "output",
    "kernel_count",
    "kernel_name",
    "weights_bytes",
    "arena_bytes",
)
"""The functions of the C interface, without the model's prefix."""

Space = Literal["weights", "arena", "input", "output"]

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z", re.ASCII)
_KEYWORD = re.compile(  # of C and C++
    r"(?:"
    r"alignas|alignof|and|and_eq|asm|auto|bitand|bitor|bool|break|case|catch|char|class|"
    r"compl|const|constexpr|continue|default|delete|do|double|else|enum|explicit|export|"
    r"extern|false|float|for|friend|goto|if|inline|int|long|mutable|namespace|new|not|"
    r"not_eq|nullptr|operator|or|or_eq|private|protected|public|register|restrict|return|"
    r"short|signed|sizeof|static|struct|switch|template|this|thread_local|throw|true|try|"
    r"typedef|typeof|union|unsigned|using|virtual|void|volatile|wchar_t|while|xor|xor_eq"
    r")\Z"
)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a model: the user's name, numpy's dtype name, a static shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes of the tensor, densely packed."""
        return math.prod(self.shape) * DTYPES[self.dtype][1]


@dataclass(frozen=True, slots=True)
class Arg:
    """A pointer for a kernel: a byte offset (weights, arena) or an index (input, output)."""

    space: Space
    offset_or_index: int


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a kernel's C function; the label names it in errors and profiles."""

    symbol: str
    args: tuple[Arg, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Group:
    """Calls that do not depend on each other, for one launch: a thread for each lane.

    Lane l is the calls `begins[l]` to `begins[l + 1] - 1`, one after the other.
    """

    begins: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """A whole model: `name` prefixes the C interface; `features` are LLVM names such as avx512f.

    `groups` are in the order of their calls; calls outside every group run alone. Kernels
    take subnormal numbers for zeros unless `keep_subnormals` is set. `weights_digest` is the
    SHA-256, in hexadecimal, of the weights file up to its seal (`artefact.sealing`): the library
    opens no other.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    calls: tuple[Call, ...]
    arena_bytes: int
    weights_bytes: int
    features: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    keep_subnormals: bool = False
    weights_digest: str = "00" * 32


def is_identifier(name: str) -> bool:
    """Tell whether a name can be used as it is in C and C++."""
    return _IDENTIFIER.match(name) is not None and not _KEYWORD.match(name)


def symbol_prefix(name: str) -> str:
    """Turn a model's name into the prefix of its C interface: "det-v4.1" -> "det_v4_1"."""
    prefix = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_") or "model"
    if prefix[0].isdigit() or _KEYWORD.match(prefix) or prefix == "planish":
        prefix = f"model_{prefix}"
    return prefix


def check_plan(plan: ModelPlan) -> None:
    """Raise a TargetError where a plan contradicts itself, before any C is made of it."""
    if not is_identifier(plan.name) or plan.name.startswith(("planish", "__")):
        raise TargetError(
            f"'{plan.name}' cannot prefix a C interface; use planish.targets.plan.symbol_prefix"
        )
    if plan.arena_bytes < 0 or plan.weights_bytes < 0:
        raise TargetError(f"model '{plan.name}' has a negative arena or weights size")
    if not _SHA256.match(plan.weights_digest):
        raise TargetError(f"model '{plan.name}' has '{plan.weights_digest}' as a SHA-256")
    _check_tensors(plan.name, "input", plan.inputs)
    _check_tensors(plan.name, "output", plan.outputs)
    arities: dict[str, int] = {}
    for call in plan.calls:
        _check_call(plan, call)
        expected = arities.setdefault(call.symbol, len(call.args))
        if expected != len(call.args):
            raise TargetError(
                f"kernel function '{call.symbol}' is called with {expected} arguments and, by "
                f"'{call.label}', with {len(call.args)}"
            )
    _check_groups(plan)


def _check_groups(plan: ModelPlan) -> None:
    end = 0
    for group in plan.groups:
        lanes = pairwise(group.begins)
        if len(group.begins) < 3 or group.begins[0] < end or any(b <= a for a, b in lanes):
            raise TargetError(
                f"model '{plan.name}' has a group of calls at {list(group.begins)}; expected at "
                "least two lanes, none of them empty, after the group before"
            )
        end = group.begins[-1]
    if end > len(plan.calls):
        raise TargetError(
            f"model '{plan.name}' has a group that ends at call {end} of {len(plan.calls)}"
        )


def _check_tensors(model: str, kind: str, tensors: Sequence[TensorSpec]) -> None:
    names = [tensor.name for tensor in tensors]
    if len(set(names)) != len(names):
        raise TargetError(f"model '{model}' has two {kind}s of one name among {names}")
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            raise TargetError(
                f"{kind} '{tensor.name}' of model '{model}' has dtype {tensor.dtype}; "
                f"an artefact's interface can have {', '.join(DTYPES)}"
            )
        if any(dim < 0 for dim in tensor.shape):
            raise TargetError(
                f"{kind} '{tensor.name}' of model '{model}' has shape {tensor.shape}; every "
                "dimension must be fixed"
            )


def _check_call(plan: ModelPlan, call: Call) -> None:
    taken = call.symbol.startswith("planish_") or call.symbol in {
        f"{plan.name}_{export}" for export in EXPORTS
    }
    if taken or not is_identifier(call.symbol):
        raise TargetError(
            f"kernel '{call.label}' has '{call.symbol}' as its C function's name, which is "
            f"{'taken by the runtime' if taken else 'no name in C'}; rename the kernel"
        )
    limits: dict[Space, int] = {
        "weights": plan.weights_bytes,
        "arena": plan.arena_bytes,
        "input": len(plan.inputs) - 1,
        "output": len(plan.outputs) - 1,
    }
    for arg in call.args:
        place = f"{arg.space} {arg.offset_or_index}"
        if not 0 <= arg.offset_or_index <= limits[arg.space]:
            raise TargetError(
                f"kernel '{call.label}' has an argument at {place}; the last is {limits[arg.space]}"
            )
        if arg.space in ("weights", "arena") and arg.offset_or_index % ALIGNMENT:
            raise TargetError(
                f"kernel '{call.label}' has an argument at {place}, not a multiple of {ALIGNMENT}"
            )
