"""Types of a model's inputs, with symbolic dimensions fixed by the user's --dim and --shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnx import TensorShapeProto, ValueInfoProto

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel
from planish.ir.onnx.storage import dtype_of
from planish.ir.types import DType, TensorType

# Names that exporters give to every dimension they do not know (Paddle writes "?"): two such
# dimensions are not equal, unlike two that share a real name.
NO_NAME = frozenset({"", "?", "-1", "None"})


@dataclass(frozen=True, slots=True)
class _Declared:
    """An input as the model declares it; `dims` are ints or names, None if the rank is unknown."""

    name: str
    dtype: DType
    dims: tuple[int | str, ...] | None


def input_types(
    values: Sequence[ValueInfoProto],
    dims: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
    dynamic: bool,
) -> list[TensorType]:
    """The type of each input.

    `dims` fixes dimensions by name (`<input>.<axis>` for those without one), `shapes` whole
    inputs. Raises InvalidModel where they contradict the model or each other or name nothing, and
    UnsupportedModel that lists what is still open if not `dynamic`.
    """
    declared = [_declare(value) for value in values]
    sizes = _sizes(declared, dims, shapes)
    symbols = {name: Dim.symbol(name) for entry in declared for name in _names(entry)}
    types = []
    for entry in declared:
        shape: list[DimLike] = list(shapes[entry.name]) if entry.name in shapes else []
        if entry.name not in shapes:
            if entry.dims is None:
                raise UnsupportedModel(
                    f"input '{entry.name}' has no shape in the model; give one, "
                    f"e.g. --shape {entry.name}=1,3,224,224"
                )
            for dim in entry.dims:
                shape.append(sizes.get(dim, symbols[dim]) if isinstance(dim, str) else dim)
        types.append(TensorType(entry.dtype, tuple(shape)))
    if not dynamic:
        _require_static(declared, types)
    return types


def _declare(value: ValueInfoProto) -> _Declared:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        spelled = (kind or "untyped").removesuffix("_type").replace("_", " ")
        raise UnsupportedModel(f"input '{value.name}' is {spelled}; only tensors are supported")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type, f"input '{value.name}'")
    if dtype in (DType.STRING, DType.COMPLEX64, DType.COMPLEX128):
        raise UnsupportedModel(f"input '{value.name}' is {dtype.value}, which is not supported")
    if not tensor.HasField("shape"):
        return _Declared(value.name, dtype, None)
    dims = (_dimension(value.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))
    return _Declared(value.name, dtype, tuple(dims))


def _dimension(name: str, axis: int, dim: TensorShapeProto.Dimension) -> int | str:
    """A positive size or a name; exporters write unknown sizes as 0 or -1 as well."""
    if dim.WhichOneof("value") == "dim_value" and dim.dim_value > 0:
        return int(dim.dim_value)
    param = str(dim.dim_param)
    return f"{name}.{axis}" if param in NO_NAME else param


def _names(entry: _Declared) -> list[str]:
    return [dim for dim in entry.dims or () if isinstance(dim, str)]


def _sizes(
    declared: Sequence[_Declared], dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Name → size of every dimension that `dims` or `shapes` fix."""
    _check_names(declared, dims, shapes)
    sizes = dict(dims)
    source = {name: f"--dim {name}={size}" for name, size in dims.items()}
    for entry in declared:
        if entry.name not in shapes:
            continue
        shape = tuple(shapes[entry.name])
        spelled = f"--shape {entry.name}={','.join(map(str, shape))}"
        if any(size < 0 for size in shape):
            raise InvalidModel(f"{spelled}: a dimension is at least 0")
        if entry.dims is not None and len(entry.dims) != len(shape):
            raise InvalidModel(
                f"{spelled} has {len(shape)} dimensions, but the model gives input "
                f"'{entry.name}' {len(entry.dims)}: {_spell(entry.dims)}"
            )
        for axis, (dim, size) in enumerate(zip(entry.dims or (), shape)):
            if isinstance(dim, str):
                known = sizes.setdefault(dim, size)
                if known != size:
                    raise InvalidModel(
                        f"{spelled} makes dimension '{dim}' {size}, but "
                        f"{source[dim]} makes it {known}"
                    )
                source.setdefault(dim, spelled)
            elif dim != size:
                raise InvalidModel(
                    f"{spelled}, but dimension {axis} of input '{entry.name}' is {dim} in the model"
                )
    return sizes


def _check_names(
    declared: Sequence[_Declared], dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> None:
    inputs = [entry.name for entry in declared]
    for name in shapes:
        if name not in inputs:
            raise InvalidModel(
                f"--shape {name}=…: the model has no such input; its inputs are "
                f"{', '.join(map(repr, inputs)) or 'none'}"
            )
    fixed = {f"{e.name}.{i}": d for e in declared for i, d in enumerate(e.dims or ())}
    names = sorted({name for entry in declared for name in _names(entry)})
    for name, size in dims.items():
        if size < 0:
            raise InvalidModel(f"--dim {name}={size}: a dimension is at least 0")
        if name in names:
            continue
        if isinstance(fixed.get(name), int):
            raise InvalidModel(
                f"--dim {name}={size}, but that dimension is {fixed[name]} in the model"
            )
        raise InvalidModel(
            f"--dim {name}={size}: the model has no such dimension; its open dimensions are "
            f"{', '.join(map(repr, names)) or 'none'}"
        )


def _require_static(declared: Sequence[_Declared], types: Sequence[TensorType]) -> None:
    open_inputs = []
    flags: dict[str, None] = {}
    for entry, type_ in zip(declared, types):
        names = [str(d) for d, size in zip(entry.dims or (), type_.shape) if isinstance(size, Dim)]
        if names:
            open_inputs.append(f"{', '.join(map(repr, names))} of input '{entry.name}'")
            flags.update(dict.fromkeys(f"--dim {name}=1" for name in names))
    if open_inputs:
        example = next(e for e, t in zip(declared, types) if not t.is_static)
        shape = ",".join("1" if isinstance(d, str) else str(d) for d in example.dims or ())
        raise UnsupportedModel(
            f"the model leaves dimensions open: {'; '.join(open_inputs)}. Fix each, "
            f"e.g. {' '.join(flags)}, or whole inputs, e.g. --shape {example.name}={shape}"
        )


def _spell(dims: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, dims))}]"
