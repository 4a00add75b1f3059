"""Our search against others, over recorded measurements: the same space, the same budget.

    python benchmarks/search.py record FOLDER TABLE     measures every point of some kernels, once
    python benchmarks/search.py compare TABLE...        has each search look for the best points

FOLDER is a model's, as for zoo.py; its heaviest kernels are taken. TABLE is a tuning log. Recording
goes on where it ended; comparing needs neither model nor hardware.
A search is told the default's time and then asks for batches of eight. For each search, means over
the kernels and seeds: `final` is the best time found by the optimum of the table, `area` the mean
over the trials of the best time so far by the optimum (geometric means; 1 would be perfect),
`within 5 %` the trials until the best is that near, a search that never is counting its budget.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from spaces import heaviest, kernels_of
from zoo import print_table_head, print_table_line

from planish.autotune.log import Header, LogWriter, TuningLog
from planish.autotune.measure import Incumbent, Measurer, Options, make_problem
from planish.autotune.search import (
    CostModel,
    DescentSearcher,
    Group,
    Limit,
    ModelSearcher,
    RandomSearcher,
    Searcher,
    Task,
    make_tasks,
)
from planish.autotune.search.logged import fill_group, logged_kernels, target_of, write_kernel
from planish.autotune.search.task_search import TaskSearch, logged_trial
from planish.ir.target import Target
from planish.logged_schedules import hardware_of
from planish.measuring import BACKEND
from planish.targets.hardware import detect_host

BATCH = 8
NEAR = 1.05


@dataclass(frozen=True, slots=True)
class Score:
    """One search on one kernel from one seed; see the module."""

    final: float
    area: float
    near: int


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A task with all its times; points without one fail."""

    task: Task
    group: Group

    @property
    def optimum(self) -> float:
        """The least time of the table."""
        return min(self.group.seconds.values())


def chosen_tasks(options: argparse.Namespace, target: Target) -> list[Task]:
    """The model's heaviest kernels whose spaces have --least to --most points."""
    found = make_tasks((kernel for kernel, _ in kernels_of(options.folder, target)), target)
    fitting = {
        task.kernel: task for task in found if options.least <= task.lattice.size <= options.most
    }
    weighed = [(kernel, task.count) for kernel, task in fitting.items()]
    return [fitting[kernel] for kernel, _ in heaviest(weighed, options.kernels, options.each)]


def record(tasks: Sequence[Task], table: Path, target: Target) -> None:
    """Measures all points of the tasks that the table lacks."""
    header = Header.of(hardware_of(target))
    with (
        LogWriter(table, header) as writer,
        Measurer(BACKEND, target, Options(budget=0.2, patience=1.0)) as measurer,
    ):
        known = TuningLog.read([table])
        for task in tasks:
            print(f"{task.about}: {task.lattice.size} points", file=sys.stderr)
            search = RandomSearcher(task.lattice, 0)
            state = TaskSearch(task, target, search, Limit())
            state.recall(known, header.hardware)
            write_kernel(table, task)
            problem = make_problem(task.kernel, BACKEND)
            default = state.candidate(task.lattice.default)
            if state.default is None:
                (result,) = measurer.measure(problem, [default])
                writer.append(logged_trial(task, target, task.lattice.default, result))
                state.start(result, default)
            assert state.default is not None, f"{task.about}: {state.note}"
            while batch := state.next_batch(BATCH):
                beside = Incumbent(default, state.default)
                results = list(measurer.measure(problem, batch, beside))
                for result in results:
                    writer.append(logged_trial(task, target, int(result.candidate), result))
                state.finish(dict(map(state.take, results)))


def read_tables(paths: Sequence[Path]) -> list[Recorded]:
    """The tasks of tables, for the hardware that they were recorded on."""
    log, host = TuningLog.read(paths), detect_host()
    found = []
    for digest, kernel in logged_kernels(log).items():
        records = log.of_task(digest)
        measured_on, threads = records[0].header.hardware, records[0].trial.threads
        target = target_of(measured_on, threads, hardware_of(host), host)
        assert target is not None, "tables are of CPUs"
        (task,) = make_tasks([kernel], target)
        found.append(Recorded(task, fill_group(task, records)))
    return found


def searches(
    recorded: Recorded, others: Sequence[Recorded], seed: int
) -> Iterator[tuple[str, Searcher, CostModel | None]]:
    """What is compared, each with the model that has to be fitted after a batch."""
    lattice, features = recorded.task.lattice, recorded.task.features
    yield "random", RandomSearcher(lattice, seed), None
    yield "coordinate descent", DescentSearcher(lattice, seed), None
    yield "no cost model", ModelSearcher(lattice, Group(features), None, seed), None
    for name, taught in (("planish", ()), ("planish, taught by the others", others)):
        model, group = CostModel(seed), Group(features, lattice.default)
        for other in taught:
            model.add(other.group)
        model.add(group)
        model.fit()
        yield name, ModelSearcher(lattice, group, model, seed), model


def simulate(
    searcher: Searcher, recorded: Recorded, budget: int, learn: Callable[[], None]
) -> Score:
    """Runs a search over the table for `budget` trials."""
    batch, best, spent = [recorded.task.lattice.default], np.inf, []
    while batch and len(spent) < budget:
        found = {point: recorded.group.seconds.get(point, np.inf) for point in batch}
        for seconds in found.values():
            best = min(best, seconds)
            spent.append(best / recorded.optimum)
        searcher.tell(found)
        learn()
        batch = searcher.ask(min(BATCH, max(1, budget - len(spent))))
    curve = np.asarray(spent + [best / recorded.optimum] * (budget - len(spent)))
    near = np.flatnonzero(curve <= NEAR)
    area = float(np.exp(np.log(curve).mean()))
    return Score(float(curve[-1]), area, int(near[0]) + 1 if len(near) else budget)


def compare(recorded: Sequence[Recorded], budget: int, seeds: int) -> dict[str, Score]:
    """Each search's mean score."""
    scores: dict[str, list[Score]] = {}
    for one in recorded:
        others = [other for other in recorded if other is not one]
        for seed in range(seeds):
            for name, searcher, model in searches(one, others, seed):
                learn = model.fit if model is not None else lambda: None
                scores.setdefault(name, []).append(simulate(searcher, one, budget, learn))
    return {name: _mean(found) for name, found in scores.items()}


def _mean(scores: Sequence[Score]) -> Score:
    final = float(np.exp(np.mean([np.log(score.final) for score in scores])))
    area = float(np.exp(np.mean([np.log(score.area) for score in scores])))
    return Score(final, area, round(float(np.mean([score.near for score in scores]))))


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="measure every point of some kernels")
    recording.add_argument("folder", type=Path)
    recording.add_argument("table", type=Path)
    recording.add_argument("--kernels", type=int, default=4)
    recording.add_argument("--each", type=int, default=2, help="kernels of a space and anchor (2)")
    recording.add_argument("--least", type=int, default=64, help="points of a kernel (64)")
    recording.add_argument("--most", type=int, default=1000, help="points of a kernel (1000)")
    comparing = commands.add_parser("compare", help="run every search over a table")
    comparing.add_argument("table", type=Path, nargs="+")
    comparing.add_argument("--trials", type=int, default=64)
    comparing.add_argument("--seeds", type=int, default=5)
    comparing.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.command == "record":
        host = detect_host()
        record(chosen_tasks(given, host), given.table, host)
        return
    recorded = read_tables(given.table)
    scores = compare(recorded, given.trials, given.seeds)
    if given.json:
        print(json.dumps({name: asdict(score) for name, score in scores.items()}))
        return
    print(f"{len(recorded)} kernels, {given.seeds} seeds, {given.trials} trials")
    heads, wide = ("search", "  final", "   area", "within 5 %"), max(map(len, scores))
    print_table_head(heads, wide)
    for name, score in scores.items():
        cells = (name, f"{score.final:.3f}", f"{score.area:.3f}", str(score.near))
        print_table_line(cells, heads, wide)


if __name__ == "__main__":
    main()
