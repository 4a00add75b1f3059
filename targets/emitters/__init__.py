"""planish.targets.emitters: kernels whose TensorIR is written directly."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tvm import tirx

from planish.ir.graph import Node
from planish.targets.emitters import attention, cumulative, indexing, permute, recurrent, sorting

#: Op → writer of the function of the kernel that holds it.
EMITTERS: Mapping[str, Callable[[Node], tirx.PrimFunc]] = {
    "attention": attention.attention,
    "lstm": recurrent.lstm,
    "gru": recurrent.gru,
    "rnn": recurrent.rnn,
    "scatter_elements": indexing.scatter_elements,
    "scatter_nd": indexing.scatter_nd,
    "top_k": sorting.top_k,
    "cumsum": cumulative.cumsum,
}

#: Emitter name (as in Schedule.emitter) → writer of the kernel's function. Beside the ops': those
#: that a space prefers to directives at some of its points.
WRITERS: Mapping[str, Callable[[Node], tirx.PrimFunc]] = {**EMITTERS, "permute": permute.permute}
