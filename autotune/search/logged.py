"""What logs teach the cost model: trials of other devices and of other models' kernels.

A trial has the digest of its task only, and a digest gives no features. So the tuner also writes
each kernel that it tunes to the log, once, in text form.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from planish.autotune.log.files import append, content_of, locked
from planish.autotune.log.fingerprint import CpuFingerprint, Fingerprint, grade
from planish.autotune.log.lookup import TuningLog
from planish.autotune.log.record import Failure, KernelText, Record
from planish.autotune.measure.problem import kernel_text
from planish.autotune.search.cost_model import Group
from planish.autotune.search.tasks import Task, make_tasks
from planish.ir.errors import PlanishError
from planish.ir.graph import Node
from planish.ir.parse import parse
from planish.ir.target import Target

#: Rows of logs that are learned from: more than these slow every fit down.
_MOST_ROWS = 4000
#: LLVM feature → bytes of a vector register; NEON and SSE2 are what architectures begin with.
_WIDTHS = {"avx512f": 64, "avx2": 32}


def write_kernel(path: Path, task: Task) -> None:
    """Appends the task's kernel to a log unless it is there; TuningError if it cannot."""
    line = KernelText(task.digest, kernel_text(task.kernel)).to_line()
    with locked(path) as file:
        if line not in content_of(file):
            append(file, line)


def logged_kernels(log: TuningLog) -> dict[str, Node]:
    """The kernels that a log holds, by digest of task; those that this version cannot read are not
    among them."""
    found: dict[str, Node] = {}
    for kernel in (kernel for file in log.files for kernel in file.kernels):
        if kernel.task not in found:
            with suppress(PlanishError, ValueError):  # of another version, or with an op of others
                (found[kernel.task],) = parse(kernel.text).nodes
    return found


def groups_of(
    log: TuningLog, tasks: Sequence[Task], hardware: Fingerprint, target: Target
) -> Iterator[Group]:
    """What logs know besides what `tasks` will recall themselves: a group for each other task,
    device and number of threads, as far as _MOST_ROWS goes; those of the same tasks first."""
    own = {task.digest: task.kernel for task in tasks}
    kernels: Mapping[str, Node] = {**logged_kernels(log), **own}
    left = _MOST_ROWS
    by_terms = _by_terms(log.records).items()
    for key, records in sorted(by_terms, key=lambda item: item[0][0] not in own):
        digest, measured_on, threads = key
        exact = grade(measured_on, hardware) == "exact" and threads == target.cores
        if digest not in kernels or (digest in own and exact) or left <= 0:
            continue
        there = target_of(measured_on, threads, hardware, target)
        if there is None:
            continue
        (task,) = make_tasks([kernels[digest]], there)
        group = fill_group(task, records)
        if group.seconds:
            left -= len(group.seconds)
            yield group


def own_groups(
    log: TuningLog, tasks: Sequence[Task], hardware: Fingerprint, target: Target
) -> list[Group]:
    """What a log knows of the tasks on this very hardware, with as many threads as the target."""
    found = []
    for task in tasks:
        records = [
            record
            for record in log.of_task(task.digest)
            if record.trial.threads == target.cores
            and grade(record.header.hardware, hardware) == "exact"
        ]
        group = fill_group(task, records)
        if group.seconds:
            found.append(group)
    return found


def _by_terms(
    records: Iterable[Record],
) -> dict[tuple[str, Fingerprint, int], list[Record]]:
    found: dict[tuple[str, Fingerprint, int], list[Record]] = {}
    for record in records:
        key = (record.trial.task, record.header.hardware, record.trial.threads)
        found.setdefault(key, []).append(record)
    return found


def fill_group(task: Task, records: Iterable[Record]) -> Group:
    """The records of one task on one device, as far as its space still has their points."""
    group = Group(task.features, task.lattice.default)
    for record in records:
        trial = record.trial
        known = trial.space == task.space.name and record.space_version == task.space.version
        point = task.lattice.find(dict(trial.point)) if known else None
        if point is None:
            continue
        if trial.median is not None:
            group.seconds[point] = min(trial.median, group.seconds.get(point, math.inf))
        elif isinstance(trial.result, Failure) and trial.result.kind != "noisy":
            group.seconds.setdefault(point, math.inf)
    return group


def target_of(
    measured_on: Fingerprint, threads: int, hardware: Fingerprint, target: Target
) -> Target | None:
    """The target that trials were made for: `target` where they were made on `hardware` or its
    class, else what their fingerprint tells of one; None for a GPU."""
    if grade(measured_on, hardware) != "seed":
        return replace(target, cores=threads)
    if not isinstance(measured_on, CpuFingerprint):
        return None
    x86 = measured_on.arch == "x86_64"
    width = max([16, *(w for name, w in _WIDTHS.items() if name in measured_on.features)])
    return Target(
        name=measured_on.microarchitecture,
        arch=measured_on.arch,
        triple=f"{measured_on.arch}-linux-gnu",
        cpu="",
        features=measured_on.features,
        vector_bytes=width,
        vector_registers=16 if x86 and width < 64 else 32,
        l1=measured_on.l1,
        l2=measured_on.l2,
        l3=measured_on.l3,
        cores=threads,
    )
