"""planish.autotune.log: what was measured, where, and for which hardware it may be used."""

from planish.autotune.log.fingerprint import (
    CpuFingerprint,
    Fingerprint,
    GpuFingerprint,
    Grade,
    fingerprint_of,
)
from planish.autotune.log.lookup import Found, Seed, TuningLog, Verdict
from planish.autotune.log.race import Race
from planish.autotune.log.record import Failure, Header, Record, Timing, Trial
from planish.autotune.log.store import open_log, stored_paths, written_path
from planish.autotune.log.task import task_digest
from planish.autotune.log.writing import LogWriter

__all__ = [
    "CpuFingerprint",
    "Failure",
    "Fingerprint",
    "Found",
    "GpuFingerprint",
    "Grade",
    "Header",
    "LogWriter",
    "Race",
    "Record",
    "Seed",
    "Timing",
    "Trial",
    "TuningLog",
    "Verdict",
    "fingerprint_of",
    "open_log",
    "stored_paths",
    "task_digest",
    "written_path",
]
