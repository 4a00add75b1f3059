"""A backend whose kernels may be written in C, and a kernel to write."""

from __future__ import annotations

import dataclasses

import numpy as np

from planish.autotune.default_schedules import default_schedule
from planish.autotune.measure import Backend, Candidate, Problem, make_problem
from planish.ir.builder import emit
from planish.ir.graph import Graph, Input, Node, constant
from planish.ir.schedule import Schedule
from planish.ir.types import tensor
from planish.measuring import BACKEND
from planish.passes.fuse import fuse
from planish.passes.local import with_schedule
from planish.targets.hardware import detect_host
from tests.measure.c_builder import build

HOST = dataclasses.replace(detect_host(), cores=2, matrix_units=())
COUNT = 1000


def multiplication() -> Node:
    """y = x * w over 1000 floats, w a constant, as a scheduled kernel."""
    x = Input(tensor("float32", (COUNT,)), "x")
    w = constant(np.random.default_rng(5).standard_normal(COUNT).astype("float32"))
    graph = fuse(Graph((x,), (emit("mul", x, w),)), HOST)
    (kernel,) = graph.nodes
    return with_schedule(kernel, default_schedule(kernel, HOST))


def in_c(kernel: Node, body: str) -> Candidate:
    """A candidate that is one of c_builder.BODIES, or what `build` does for it."""
    return Candidate(body, with_schedule(kernel, Schedule.of("c", [("body", body)])))


def problem_of(kernel: Node, *, model_weights: int = 0) -> Problem:
    """The kernel's problem on random inputs."""
    return make_problem(kernel, BACKEND, model_weights=model_weights)


C_BACKEND = Backend(build, BACKEND.build_harness, BACKEND.random_inputs, BACKEND.compare)
