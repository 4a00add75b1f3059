"""Trials as shared libraries: their flags are those of artefacts, and the harness has its runtime.

What a kernel's library lacks is the runtime: the harness brings one and sets the hooks of every
trial to it, so that trials in one process share one thread pool, as the kernels of an artefact do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from planish.ir.target import Target
from planish.targets.linking import (
    COMPILING,
    LINKING,
    find_toolchain,
    link_with_old_glibc,
    run_compiler,
)
from planish.targets.model_source import RUNTIME, c_string
from planish.targets.runtime.cpu_features import CpuFeature, required_features

_HARNESS_EXPORTS = "planish_trial; planish_trial_report_bytes; __tvm_ffi_*"
#: Of the runtime's sources, those that a harness needs: everything but models and contexts.
_RUNTIME_SOURCES = ("cpu.c", "error.c", "memory.c", "pool.c")


def build_harness(sources: Sequence[Path], target: Target, path: Path) -> None:
    """Write the library of a harness in C to `path`, with the runtime and the target's features.

    Headers are looked for beside the first source. Raises TargetError.
    """
    architecture = find_toolchain(target.triple).architecture
    features = required_features(architecture, (*target.features, *target.matrix_units))
    with tempfile.TemporaryDirectory(prefix="planish-trial-", dir=path.parent) as scratch:
        work = Path(scratch)
        (work / "features.c").write_text(_feature_table(features), encoding="ascii")
        runtime = [RUNTIME / name for name in _RUNTIME_SOURCES]
        inputs = ["features.c", *map(str, sources), *map(str, runtime)]
        folders = [f"-I{sources[0].parent}", f"-I{RUNTIME}"]
        link_trial([*folders, *inputs], _HARNESS_EXPORTS, target, work, path)


def _feature_table(features: Sequence[CpuFeature]) -> str:
    rows = [
        f"{{{c_string(f.name)}, {f.leaf:#x}u, {f.subleaf:#x}u, {f.word}u, {f.bit}u, {f.xcr0:#x}u}}"
        for f in features
    ]
    listed = ",\n    ".join(rows or ["{0}"])  # C has no empty arrays
    return (
        '#include "harness.h"\n'
        f"const planish_cpu_feature planish_trial_features[] = {{\n    {listed}}};\n"
        f"const uint32_t planish_trial_feature_count = {len(rows)};\n"
    )


def link_trial(inputs: Sequence[str], exports: str, target: Target, work: Path, path: Path) -> None:
    """Link sources and objects in the folder `work` as artefacts are; `exports` as in a linker's
    version script. Raises TargetError with the compiler's own words."""
    toolchain = find_toolchain(target.triple)
    (work / "exports.map").write_text(f"{{ global: {exports}; local: *; }};\n", encoding="ascii")
    command = [*toolchain.command, *COMPILING, *LINKING, *inputs, "-o", str(path)]
    command += link_with_old_glibc(toolchain, work, path.stem)
    run_compiler([*command, "-ldl"], work, path.stem)
