"""Types of a model's inputs, with symbolic dimensions fixed by the user's dims and shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from planish.ir.dim import Dim, DimLike
from planish.ir.errors import InvalidModel, UnsupportedModel, note
from planish.ir.onnx.declared import Declared
from planish.ir.types import TensorType
from planish.ir.wording import spell_dims, spell_shape


def input_types(
    declared: Sequence[Declared],
    dims: Mapping[str, int],
    shapes: Mapping[str, Sequence[int]],
) -> list[TensorType | None]:
    """The type of each input; None for one whose rank is not known. What is open is symbolic.

    `dims` fixes dimensions by name (`<input>.<axis>` for those without one), `shapes` whole
    inputs. Raises InvalidModel where they contradict the model or each other or name nothing.
    """
    sizes = _sizes(declared, dims, shapes)
    symbols = {name: Dim.symbol(name) for entry in declared for name in entry.open}
    types: list[TensorType | None] = []
    for entry in declared:
        shape: list[DimLike] = list(shapes[entry.name]) if entry.name in shapes else []
        if entry.name not in shapes:
            if entry.dims is None:
                types.append(None)
                continue
            for dim in entry.dims:
                shape.append(sizes.get(dim, symbols[dim]) if isinstance(dim, str) else dim)
        types.append(TensorType(entry.dtype, tuple(shape)))
    return types


def open_dimensions(
    declared: Sequence[Declared], types: Sequence[TensorType | None]
) -> list[Declared]:
    """The inputs whose types are not static, with those dimensions alone that are still open."""
    left = []
    for entry, type_ in zip(declared, types):
        if type_ is None:
            left.append(entry)
        elif not type_.is_static:
            shape = zip(entry.dims or (), type_.shape)
            dims = tuple(dim if isinstance(size, Dim) else int(size) for dim, size in shape)
            left.append(Declared(entry.name, entry.dtype, dims))
    return left


def tell_open(left: Sequence[Declared], sizes: Mapping[str, int]) -> UnsupportedModel:
    """An error that lists what is open, with `sizes` that may be given."""
    shapeless = [f"'{entry.name}'" for entry in left if entry.dims is None]
    told = []
    if shapeless:
        name = next(entry.name for entry in left if entry.dims is None)
        several = len(shapeless) > 1
        told.append(
            f"input{'s' if several else ''} {', '.join(shapeless)} {'have' if several else 'has'} "
            f"no shape in the model; give one, e.g. {spell_shape(name, (1, 3, 224, 224))}"
        )
    named = [entry for entry in left if entry.open]
    if named:
        where = "; ".join(
            f"{', '.join(map(repr, entry.open))} of input '{entry.name}'" for entry in named
        )
        names = dict.fromkeys(name for entry in named for name in entry.open)
        fixing = spell_dims({name: sizes[name] for name in names})
        first = named[0]
        shape = [sizes.get(str(dim), dim) for dim in first.dims or ()]
        told.append(
            f"the model leaves dimensions open: {where}. Fix each, e.g. {fixing}, "
            f"or whole inputs, e.g. {spell_shape(first.name, shape)}"
        )
    return UnsupportedModel("; ".join(told))


def _sizes(
    declared: Sequence[Declared], dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Name → size of every dimension that `dims` or `shapes` fix."""
    _check_names(declared, dims, shapes)
    sizes = dict(dims)
    source = {name: spell_dims({name: size}) for name, size in dims.items()}
    for entry in declared:
        if entry.name not in shapes:
            continue
        shape = tuple(shapes[entry.name])
        spelled = spell_shape(entry.name, shape)
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
    declared: Sequence[Declared], dims: Mapping[str, int], shapes: Mapping[str, Sequence[int]]
) -> None:
    inputs = [entry.name for entry in declared]
    for name in shapes:
        if name not in inputs:
            raise InvalidModel(
                f"{spell_shape(name)}: the model has no such input; its inputs are "
                f"{', '.join(map(repr, inputs)) or 'none'}"
            )
    fixed = {f"{e.name}.{i}": d for e in declared for i, d in enumerate(e.dims or ())}
    names = sorted({name for entry in declared for name in entry.open})
    for name, size in dims.items():
        spelled = spell_dims({name: size})
        if size < 0:
            raise InvalidModel(f"{spelled}: a dimension is at least 0")
        if name in names:
            continue
        if isinstance(fixed.get(name), int):
            if fixed[name] == size:
                continue
            raise InvalidModel(f"{spelled}, but that dimension is {fixed[name]} in the model")
        if not names and all(entry.dims is not None for entry in declared):
            # One command line for many models: for one of fixed shapes it asks for nothing.
            note(f"{spelled} changes nothing: the model leaves no dimension open")
            continue
        raise InvalidModel(
            f"{spelled}: the model has no such dimension; its open dimensions are "
            f"{', '.join(map(repr, names)) or 'none'}"
        )


def _spell(dims: Sequence[int | str]) -> str:
    return f"[{', '.join(map(str, dims))}]"
