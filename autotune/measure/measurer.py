"""Measuring a problem's candidates: a batch is built, then run while nothing is built."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from threadpoolctl import threadpool_limits

from planish.autotune.measure.backend import Backend
from planish.autotune.measure.builder import Builder
from planish.autotune.measure.layout import problem_data
from planish.autotune.measure.options import Options
from planish.autotune.measure.problem import Problem
from planish.autotune.measure.results import Built, Candidate, Incumbent, Result
from planish.autotune.measure.runner import Runner, Trial, local_runner
from planish.autotune.measure.verdict import Judge, make_judge
from planish.ir.errors import TuningError
from planish.ir.scratch import scratch_folder
from planish.ir.target import Target

#: Candidates that are built before any of them runs.
BATCH = 8
#: Problems whose input files are kept.
_KEPT = 16

#: Makes a runner: (harness, target, options, judge).
MakeRunner = Callable[[Path, Target, Options, Judge], Runner]


class Measurer:
    """A context manager that owns the workers and the scratch folder.

    Use it from the thread that entered it, which must outlive it: the workers end with it.
    """

    def __init__(
        self,
        backend: Backend,
        target: Target,
        options: Options | None = None,
        *,
        make_runner: MakeRunner = local_runner,
        builders: int = 2,
        base: Path | None = None,
    ) -> None:
        self._backend, self._target = backend, target
        self.options = options or Options()
        self._make_runner, self._count, self._base = make_runner, builders, base
        self._stack = ExitStack()
        self._numbers = itertools.count()
        self._data: OrderedDict[Problem, Path] = OrderedDict()
        self._incumbent: tuple[Candidate, Built] | None = None

    def __enter__(self) -> Measurer:
        with ExitStack() as stack:
            # The threads of numpy's BLAS spin on after a reference is computed, beside the trials.
            stack.enter_context(threadpool_limits(1))
            self._folder = stack.enter_context(scratch_folder(self._base, runs_code=True))
            self.builder = Builder(
                self._backend, self._target, self.options, self._folder, self._count
            )
            stack.callback(self.builder.close)
            judge = make_judge(self._backend, self.options)
            self.runner = self._make_runner(
                self.builder.harness(), self._target, self.options, judge
            )
            stack.callback(self.runner.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data.clear()
        self._incumbent = None
        self._stack.close()

    def measure(
        self, problem: Problem, candidates: Sequence[Candidate], incumbent: Incumbent | None = None
    ) -> Iterator[Result]:
        """One result for each candidate, as they come; candidates have ids of their own.

        TuningError if the incumbent cannot be built any more, or the kernel cannot be measured.
        """
        data = self._data_of(problem)
        beside = None if incumbent is None else self._incumbent_library(incumbent.candidate)
        seconds = 0.0 if incumbent is None else incumbent.seconds
        for begin in range(0, len(candidates), BATCH):
            built = self.builder.build(candidates[begin : begin + BATCH])
            yield from (made for made in built if isinstance(made, Result))
            ready = [made for made in built if isinstance(made, Built)]
            trials = [Trial(problem, data, made, beside, seconds) for made in ready]
            try:
                yield from self.runner.run(trials)
            finally:
                for made in ready:
                    made.library.unlink(missing_ok=True)

    def _data_of(self, problem: Problem) -> Path:
        if problem not in self._data:
            path = self._folder / f"problem-{next(self._numbers)}.bin"
            path.write_bytes(problem_data(problem))
            self._data[problem] = path
            while len(self._data) > _KEPT:
                self._data.popitem(last=False)[1].unlink()
        self._data.move_to_end(problem)
        return self._data[problem]

    def _incumbent_library(self, candidate: Candidate) -> Path:
        if self._incumbent is None or self._incumbent[0] is not candidate:
            (built,) = self.builder.build([candidate])
            if isinstance(built, Result):
                raise TuningError(f"the incumbent '{candidate.id}' fails {built.message}")
            if self._incumbent is not None:
                self._incumbent[1].library.unlink()
            self._incumbent = candidate, built
        return self._incumbent[1].library
