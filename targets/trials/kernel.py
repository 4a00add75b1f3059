"""One kernel as a shared library of its own; the tuner's workers call this."""

from __future__ import annotations

import tempfile
from pathlib import Path

from planish.ir.graph import Node
from planish.ir.parse import parse
from planish.ir.target import Target
from planish.targets.codegen import build_object
from planish.targets.lowering import lower_kernel
from planish.targets.trials.linking import link_trial

_CODE = "planish_kernel_code"
#: The hooks stay visible: the harness sets them.
_EXPORTS = "planish_trial_kernel; __TVMBackend*"


def build_kernel(text: str, target: Target, path: Path) -> None:
    """Write the library of the one kernel in `text`, the text form of a graph, to `path`.

    It exports `int32_t planish_trial_kernel(void *const *parameters)`: inputs, then outputs.
    Raises ScheduleError where the schedule does not fit, TargetError for what is not compiled, and
    whatever TVM raises.
    """
    (kernel,) = parse(text).nodes
    code = build_object({_CODE: lower_kernel(kernel)}, target).code
    with tempfile.TemporaryDirectory(prefix="planish-trial-", dir=path.parent) as scratch:
        work = Path(scratch)
        (work / "kernel.o").write_bytes(code)
        (work / "thunk.c").write_text(_thunk(kernel), encoding="ascii")
        link_trial(["thunk.c", "kernel.o"], _EXPORTS, target, work, path)


def _thunk(kernel: Node) -> str:
    count = len(kernel.inputs) + len(kernel.outputs)
    return (
        "#include <stdint.h>\n"
        f"int32_t {_CODE}({', '.join(['void *'] * count)});\n"
        '__attribute__((visibility("default")))\n'
        "int32_t planish_trial_kernel(void *const *p) {\n"
        f"    return {_CODE}({', '.join(f'p[{i}]' for i in range(count))});\n}}\n"
    )
