"""A progress bar for what takes more than two seconds."""

from __future__ import annotations

import threading
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

PATIENCE_SECONDS = 2.0


class StageProgress:
    """Shows the current stage, how much of it is done and the time it will still take, on stderr.

    Nothing appears before `PATIENCE_SECONDS`, nor where stderr is no terminal. Call it with (stage,
    done, total); total 0 means unknown.
    """

    def __init__(self, enabled: bool = True) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._stage = ""
        self._timer: threading.Timer | None = None
        if enabled and console.is_terminal:
            self._timer = threading.Timer(PATIENCE_SECONDS, self._bar.start)
            self._timer.daemon = True

    def __enter__(self) -> StageProgress:
        if self._timer is not None:
            self._timer.start()
        return self

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._task is None or stage != self._stage:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._stage = stage
            self._task = self._bar.add_task(stage, total=total or None)
        self._bar.update(self._task, completed=done, total=total or None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()  # or the bar could still start after it was stopped
            self._bar.stop()
