"""The harness's structs (harness.h) in Python: what goes in, and what comes out."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum

from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem, Role, aligned
from planish.ir.errors import TuningError
from planish.ir.target import Target

PARAMETERS, PATH, MESSAGE = 64, 512, 256

_U64, _F64 = ctypes.c_uint64, ctypes.c_double


class Ended(IntEnum):
    """How the child of a trial ended: `trial_status` of harness.h."""

    DONE = 0
    CRASHED = 1
    TIMED_OUT = 2
    OUT_OF_MEMORY = 3
    KERNEL_FAILED = 4
    WROTE_OUTSIDE = 5
    CHANGED_INPUT = 6
    NOT_LOADED = 7
    UNSUPPORTED_CPU = 8
    NO_MEMORY = 9
    SYSTEM = 10


class _Parameter(ctypes.Structure):
    _fields_ = (("offset", _U64), ("bytes", _U64), ("role", _U64))


class Spec(ctypes.Structure):
    """`trial_spec`."""

    _fields_ = (
        ("threads", _U64),
        ("parameter_count", _U64),
        ("output_bytes", _U64),
        ("rotate_bytes", _U64),
        ("flush_bytes", _U64),
        ("least_sample", _U64),
        ("least_pairs", _U64),
        ("most_pairs", _U64),
        ("budget", _U64),
        ("timeout", _U64),
        ("memory", _U64),
        ("keep_subnormals", _U64),
        ("precision", _F64),
        ("losing", _F64),
        ("hopeless", _F64),
        ("candidate", ctypes.c_char * PATH),
        ("incumbent", ctypes.c_char * PATH),
        ("parameters", _Parameter * PARAMETERS),
    )


class _Header(ctypes.Structure):
    _fields_ = (
        ("status", _U64),
        ("detail", ctypes.c_int64),
        ("side", _U64),
        ("done", _U64),
        ("pairs", _U64),
        ("narrow", _U64),
        ("hopeless", _U64),
        ("calls", _U64 * 2),
        ("foreign_cpus", _F64),
        ("message", ctypes.c_char * MESSAGE),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """`trial_report`: how it ended, the samples in seconds a call, the outputs' bytes twice."""

    ended: Ended
    detail: int
    by_incumbent: bool
    message: str
    candidate: tuple[float, ...]
    incumbent: tuple[float, ...]
    calls: int
    hopeless: bool
    narrow: bool
    foreign_cpus: float
    outputs: tuple[bytes, bytes]


def make_spec(
    problem: Problem, target: Target, options: Options, candidate: str, incumbent: str
) -> Spec:
    """The spec of a trial; the paths are those on the machine that runs it.

    TuningError if the kernel has more parameters than a spec holds, or a path is too long.
    """
    arrays = [*problem.inputs, *((Role.OUTPUT, array) for array in problem.expected)]
    if len(arrays) > PARAMETERS:
        raise TuningError(
            f"{problem.where} has {len(arrays)} inputs and outputs, and {PARAMETERS} can be "
            "measured; leave it on its default schedule"
        )
    spec = Spec()
    spec.threads, spec.parameter_count = target.cores, len(arrays)
    offsets = {True: 0, False: 0}  # in the report's outputs, and in the data
    for place, (role, array) in zip(spec.parameters, arrays):
        output = role is Role.OUTPUT
        place.offset, place.bytes, place.role = offsets[output], array.nbytes, role
        offsets[output] += aligned(array.nbytes)
    spec.output_bytes = offsets[True]
    weights = sum(aligned(array.nbytes) for role, array in problem.inputs if role is Role.WEIGHTS)
    spec.rotate_bytes = options.rotated(weights, problem.model_weights, target)
    spec.flush_bytes = options.flushed(target)
    spec.least_sample = _nanoseconds(options.least_sample)
    spec.least_pairs, spec.most_pairs = options.least_pairs, options.most_pairs
    spec.budget, spec.timeout = _nanoseconds(options.budget), _nanoseconds(options.timeout)
    buffers = sum(offsets.values()) + spec.rotate_bytes + spec.flush_bytes
    spec.memory = options.memory + 4 * buffers  # the report holds outputs too, twice
    spec.keep_subnormals = options.keep_subnormals
    spec.precision, spec.losing = options.precision, options.losing
    spec.hopeless = options.hopeless
    spec.candidate, spec.incumbent = _path(candidate), _path(incumbent)
    return spec


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)


def _path(path: str) -> bytes:
    spelled = path.encode()
    if len(spelled) >= PATH:
        raise TuningError(f"the path '{path}' is too long to measure in; set TMPDIR to another")
    return spelled


def problem_data(problem: Problem) -> bytes:
    """The inputs and weights, each at a multiple of 64 bytes, as `make_spec` lays them out."""
    pieces: list[bytes] = []
    for _, array in problem.inputs:
        pieces += [array.tobytes(), bytes(aligned(array.nbytes) - array.nbytes)]
    return b"".join(pieces)


def report_bytes(spec: Spec) -> int:
    """The size of a report; `planish_trial_report_bytes` says the same."""
    return ctypes.sizeof(_Header) + 16 * int(spec.most_pairs) + 2 * int(spec.output_bytes)


def read_report(spec: Spec, content: bytes) -> Report:
    """The report that the harness wrote."""
    header = _Header.from_buffer_copy(content)
    begin, most, size = ctypes.sizeof(_Header), int(spec.most_pairs), int(spec.output_bytes)
    pairs = min(int(header.pairs), most)  # a kernel that runs wild may have written here
    outputs = begin + 16 * most
    alone = not spec.incumbent
    return Report(
        ended=Ended(min(header.status, Ended.SYSTEM)),
        detail=header.detail,
        by_incumbent=header.side == 1,
        message=header.message.decode(errors="replace"),
        candidate=_doubles(content, begin, pairs),
        incumbent=() if alone else _doubles(content, begin + 8 * most, pairs),
        calls=header.calls[0],
        hopeless=bool(header.hopeless),
        narrow=bool(header.narrow),
        foreign_cpus=header.foreign_cpus,
        outputs=(content[outputs : outputs + size], content[outputs + size :]),
    )


def _doubles(content: bytes, begin: int, count: int) -> tuple[float, ...]:
    return tuple((_F64 * count).from_buffer_copy(content, begin))
