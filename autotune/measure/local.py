"""The harness in this process: it forks a child for each trial."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path


def call_locally(files: Mapping[str, Path], spec: bytes, data: Path, report_bytes: int) -> bytes:
    """The report of `planish_trial` in the library `files["harness.so"]`.

    `spec` holds the paths of candidate and incumbent; `data` is the file of the inputs.
    """
    harness = ctypes.CDLL(str(files["harness.so"]))  # loaded once, whatever the number of calls
    report = ctypes.create_string_buffer(report_bytes)
    content = ctypes.create_string_buffer(data.read_bytes())
    harness.planish_trial(ctypes.create_string_buffer(spec), content, report)
    return report.raw
