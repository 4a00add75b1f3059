"""`planish log`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from planish.autotune.apply_log import LogReport, apply_log
from planish.autotune.log.files import LogFile
from planish.autotune.log.fingerprint import Fingerprint, fingerprint_to_json, grade
from planish.autotune.log.lookup import TuningLog, Verdict
from planish.autotune.log.record import Failure, Header, Record, Timing, spell_point
from planish.autotune.log.sets import (
    Difference,
    best_records,
    by_terms,
    differences,
    export,
    merge,
    prune,
)
from planish.autotune.log.store import stored_paths, user_store, written_path
from planish.autotune.spaces import SPACES
from planish.cli.options import parse_dims, parse_shapes
from planish.cli.printing import print_table, spell_bytes, spell_seconds
from planish.cli.terminal import say
from planish.custom import PASSES, custom_ops
from planish.ir.errors import PlanishError
from planish.ir.extension import extended
from planish.ir.onnx import import_model
from planish.ir.target import Target
from planish.logged_schedules import before_defaults, hardware_of
from planish.passes.pipeline import run_pipeline
from planish.targets.hardware import detect_host, find_target

#: Digits of a task's digest that tables show.
SHORT = 12


def list_log(files: Sequence[Path], *, as_json: bool) -> None:
    """Prints what is in the files, by file, hardware and task."""
    log, here = _read(files), hardware_of(detect_host())
    headers = list(dict.fromkeys(header for file in log.files for header in file.headers))
    facts = {
        "files": [_file_json(file) for file in log.files],
        "hardware": [_header_json(header, log, here) for header in headers],
        "tasks": _tasks_json(log, here),
    }
    if as_json:
        say(json.dumps(facts))
        return
    print_table(
        "Files",
        ("file", ">size", ">records", ">races", ">torn", ">foreign", ">without header"),
        [
            (
                f["file"],
                spell_bytes(f["bytes"]),
                *(f[key] for key in ("records", "races", "torn", "foreign", "orphans")),
            )
            for f in facts["files"]
        ],
    )
    print_table(
        "Hardware; 'exact' is this machine, 'class' one of its features and caches",
        ("id", "hardware", "here", "planish", "TVM", ">records"),
        [
            (h["id"], h["name"], h["grade"], h["planish"], h["tvm"], h["records"])
            for h in facts["hardware"]
        ],
    )
    print_table(
        "Tasks",
        ("task", "what", "space", "hardware", "here", ">threads", ">trials", ">failed", ">best"),
        [
            (
                t["task"][:SHORT],
                t["about"],
                f"{t['space']} v{t['version']}",
                t["header"],
                t["grade"],
                t["threads"],
                t["trials"],
                t["failed"],
                "none" if t["best"] is None else spell_seconds(t["best"]),
            )
            for t in facts["tasks"]
        ],
    )


def _file_json(file: LogFile) -> dict[str, Any]:
    return {
        "file": str(file.path),
        "bytes": sum(len(line) + 1 for line in file.lines),
        "records": len(file.records),
        "races": len(file.races),
        "torn": len(file.torn),
        "foreign": len(file.foreign),
        "orphans": len(file.orphans),
    }


def _header_json(header: Header, log: TuningLog, here: Fingerprint) -> dict[str, Any]:
    return {
        "id": header.id,
        "name": str(header.hardware),
        "grade": grade(header.hardware, here),
        "planish": header.planish,
        "tvm": header.tvm,
        "spaces": dict(header.spaces),
        "records": sum(record.header == header for record in log.records),
        "hardware": fingerprint_to_json(header.hardware),
    }


def _tasks_json(log: TuningLog, here: Fingerprint) -> list[dict[str, Any]]:
    rows = []
    for terms, records in by_terms(log.records):
        best = best_records(records)
        rows.append(
            {
                "task": terms.task,
                "about": records[0].trial.about,
                "space": terms.space,
                "version": terms.version,
                "header": records[0].header.id,
                "grade": grade(terms.hardware, here),
                "threads": terms.threads,
                "trials": len(records),
                "failed": sum(isinstance(r.trial.result, Failure) for r in records),
                "best": best[0].trial.median if best else None,
            }
        )
    return rows


def show_task(task: str, files: Sequence[Path], *, as_json: bool) -> None:
    """Prints the records of a task; PlanishError if its digest is not in the log."""
    log = _read(files)
    digest = _task(log, task)
    records = log.of_task(digest)
    if as_json:
        say(json.dumps({"task": digest, "records": [_record_json(r) for r in records]}))
        return
    print_table(
        f"{digest}: {records[0].trial.about}",
        ("date", "hardware", "space", ">threads", "point", ">median", "interval or failure"),
        [
            (
                record.trial.date,
                record.header.id,
                f"{record.trial.space} v{record.space_version}",
                record.trial.threads,
                spell_point(record.trial.point),
                *_spell_result(record),
            )
            for record in records
        ],
    )


def explain(
    subject: str,
    files: Sequence[Path],
    *,
    target: str,
    threads: int | None,
    dims: Sequence[str],
    shapes: Sequence[str],
    as_json: bool,
) -> None:
    """Prints what a compilation would use for a task, or for each kernel of a model."""
    log, chosen = _read(files), find_target(target)
    if threads is not None:
        chosen = dataclasses.replace(chosen, cores=threads)
    if Path(subject).is_file():
        with extended(custom_ops(())):
            graph = import_model(subject, dims=parse_dims(dims), shapes=parse_shapes(shapes))
            fused = run_pipeline(graph, chosen, PASSES[: before_defaults(PASSES)])
            report = apply_log(fused, chosen, log, hardware_of(chosen))[1]
        _explain_model(report, as_json)
    else:
        digest = _task(log, subject)
        _explain_task(digest, _verdicts(log, digest, chosen), as_json)


def _explain_model(report: LogReport, as_json: bool) -> None:
    if as_json:
        say(json.dumps(report.to_json()))
        return
    rows = [(k.kernel, k.task[:SHORT], k.outcome, k.reason) for k in report.kernels]
    print_table("Kernels", ("kernel", "task", "log", "why"), rows)
    say(report)


def _explain_task(digest: str, verdicts: Sequence[Verdict], as_json: bool) -> None:
    if as_json:
        rows = [
            {**_record_json(v.record), "grade": v.grade, "used": v.used, "reason": v.reason}
            for v in verdicts
        ]
        say(json.dumps({"task": digest, "records": rows}))
        return
    print_table(
        f"{digest}: {verdicts[0].record.trial.about}",
        ("date", "hardware", "point", ">median", "grade", "why"),
        [
            (
                v.record.trial.date,
                v.record.header.id,
                spell_point(v.record.trial.point),
                _spell_result(v.record)[0],
                v.grade,
                v.reason,
            )
            for v in verdicts
        ],
    )


def _verdicts(log: TuningLog, task: str, target: Target) -> list[Verdict]:
    """What is made of each record, each as if the kernel's space were the one it names."""
    hardware = hardware_of(target)
    found = []
    for name in dict.fromkeys(record.trial.space for record in log.of_task(task)):
        if name in SPACES:
            told = log.explain(task, SPACES[name], hardware, target.cores)
            found += [verdict for verdict in told if verdict.record.trial.space == name]
        else:
            reason = f"not used: planish has no space '{name}'"
            own = (record for record in log.of_task(task) if record.trial.space == name)
            found += [Verdict(record, "seed", False, reason) for record in own]
    return found


def merge_logs(files: Sequence[Path], output: Path, *, as_json: bool) -> None:
    """Merges and prints how many lines were added."""
    merged = merge(files, output)
    if as_json:
        say(json.dumps({"output": str(output), **dataclasses.asdict(merged)}))
    else:
        say(f"{output}: {merged.added} lines added, {merged.present} were there")


def diff_logs(left: Path, right: Path, *, as_json: bool) -> None:
    """Prints the best of both sides under the same terms."""
    found = differences(*(TuningLog.read([path]).records for path in (left, right)))
    if as_json:
        say(json.dumps({"tasks": [_difference_json(difference) for difference in found]}))
        return
    rows = [
        (
            d.terms.task[:SHORT],
            _about(d),
            d.terms.hardware,
            d.terms.threads,
            *(_spell_best(side) for side in (d.left, d.right)),
            _spell_ratio(d),
        )
        for d in found
    ]
    headings = ("task", "what", "hardware", ">threads", ">left", ">right", ">right / left")
    print_table(f"{left} and {right}", headings, rows)
    only = [sum(getattr(d, side) is None for d in found) for side in ("right", "left")]
    say(f"{len(found)} tasks, {only[0]} only in {left}, {only[1]} only in {right}")


def prune_log(file: Path | None, *, keep: int, dry_run: bool, as_json: bool) -> None:
    """Prunes and prints how many records went, and why."""
    path = file or written_path()
    pruned = prune(path, keep=keep, dry_run=dry_run)
    if as_json:
        facts = {"file": str(path), "dry_run": dry_run, "dropped": pruned.dropped}
        say(json.dumps({**facts, **dataclasses.asdict(pruned)}))
        return
    done = "would be dropped" if dry_run else "dropped"
    say(
        f"{path}: {pruned.dropped} records {done} ({pruned.dominated} of slower points, "
        f"{pruned.failed} failures, {pruned.old} of older spaces), {pruned.kept} kept"
    )


def export_log(output: Path, files: Sequence[Path], *, as_json: bool) -> None:
    """Exports and prints how many records were written."""
    written = export(_read(files), output)
    if as_json:
        say(json.dumps({"output": str(output), "records": written}))
    else:
        say(f"{output}: {written} records")


def _read(files: Sequence[Path]) -> TuningLog:
    """The log of these files, or what is stored; PlanishError if nothing is."""
    paths = tuple(files) or stored_paths()
    if not paths:
        raise PlanishError(
            f"there is no tuning log: '{user_store()}' does not exist yet, and no file is named"
        )
    return TuningLog.read(paths)


def _task(log: TuningLog, prefix: str) -> str:
    """The task whose digest begins so; PlanishError if there is none, or more than one."""
    found = [task for task in log.tasks if task.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(str(file.path) for file in log.files)
    if not found:
        raise PlanishError(f"no task '{prefix}' in {names}; `planish log ls` lists them")
    raise PlanishError(
        f"'{prefix}' begins {len(found)} tasks: {', '.join(task[:SHORT] for task in found)}"
    )


def _record_json(record: Record) -> dict[str, Any]:
    trial = record.trial
    return {
        "header": record.header.id,
        "space": trial.space,
        "version": record.space_version,
        "point": dict(trial.point),
        "threads": trial.threads,
        "date": trial.date,
        **dataclasses.asdict(trial.result),
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    terms = difference.terms
    return {
        "task": terms.task,
        "about": _about(difference),
        "space": terms.space,
        "version": terms.version,
        "threads": terms.threads,
        "hardware": fingerprint_to_json(terms.hardware),
        "left": None if difference.left is None else _record_json(difference.left),
        "right": None if difference.right is None else _record_json(difference.right),
    }


def _about(difference: Difference) -> str:
    return next(r.trial.about for r in (difference.left, difference.right) if r is not None)


def _median(record: Record | None) -> float | None:
    return None if record is None else record.trial.median


def _spell_best(record: Record | None) -> str:
    median = _median(record)
    return "none" if median is None else spell_seconds(median)


def _spell_ratio(difference: Difference) -> str:
    left, right = _median(difference.left), _median(difference.right)
    return "" if left is None or right is None else f"{right / left:.3f}"


def _spell_result(record: Record) -> tuple[str, str]:
    result = record.trial.result
    if isinstance(result, Timing):
        low, high = result.ci
        return spell_seconds(result.median), f"{spell_seconds(low)} to {spell_seconds(high)}"
    return "none", f"{result.kind}: {result.message}"
