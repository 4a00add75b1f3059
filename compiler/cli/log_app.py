"""The commands of `planish log` and their options; what they do stands in tuning_log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from planish.cli.boundary import guarded

log_app = typer.Typer(
    help="Look into, merge, prune and share tuning logs; all commands take --json.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Files = Annotated[
    list[Path] | None, typer.Argument(metavar="[FILE]...", help="Logs (default: what is stored).")
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The log to write.")]


@log_app.command("ls")
@guarded
def ls_command(files: Files = None, as_json: Json = False) -> None:
    """List files, hardware and tasks, with what is of use on this machine."""
    from planish.cli.tuning_log import list_log

    list_log(files or (), as_json=as_json)


@log_app.command("show")
@guarded
def show_command(
    task: Annotated[str, typer.Argument(help="A task's digest, or how it begins.")],
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Show every measurement of TASK."""
    from planish.cli.tuning_log import show_task

    show_task(task, files or (), as_json=as_json)


@log_app.command("explain")
@guarded
def explain_command(
    subject: Annotated[
        str, typer.Argument(metavar="TASK_OR_MODEL", help="A task's digest, or an ONNX model.")
    ],
    files: Files = None,
    target: Annotated[str, typer.Option(help="Hardware, see `planish targets`.")] = "host",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads (default: all usable CPUs).")
    ] = None,
    dim: Annotated[
        list[str] | None, typer.Option(metavar="NAME=N", help="Fix a symbolic dimension.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option(metavar="INPUT=1,3,…", help="Fix an input's shape.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell which records a compilation would use, which it would not, and why."""
    from planish.cli.tuning_log import explain

    explain(
        subject,
        files or (),
        target=target,
        threads=threads,
        dims=dim or (),
        shapes=shape or (),
        as_json=as_json,
    )


@log_app.command("merge")
@guarded
def merge_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Logs to take from.")],
    output: Output,
    as_json: Json = False,
) -> None:
    """Add to a log what others have and it lacks; nothing is ever lost."""
    from planish.cli.tuning_log import merge_logs

    merge_logs(files, output, as_json=as_json)


@log_app.command("diff")
@guarded
def diff_command(left: Path, right: Path, as_json: Json = False) -> None:
    """Compare the best records of two logs, task by task."""
    from planish.cli.tuning_log import diff_logs

    diff_logs(left, right, as_json=as_json)


@log_app.command("prune")
@guarded
def prune_command(
    file: Annotated[Path | None, typer.Argument(help="The log (default: the written one).")] = None,
    keep: Annotated[int, typer.Option(min=1, help="Points to keep of each task.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell how many.")] = False,
    as_json: Json = False,
) -> None:
    """Drop records that no compilation would use: slower points, failures, old spaces."""
    from planish.cli.tuning_log import prune_log

    prune_log(file, keep=keep, dry_run=dry_run, as_json=as_json)


@log_app.command("export")
@guarded
def export_command(output: Output, files: Files = None, as_json: Json = False) -> None:
    """Write the best record of each task to a new file, to share."""
    from planish.cli.tuning_log import export_log

    export_log(output, files or (), as_json=as_json)
