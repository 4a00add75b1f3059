"""`planish targets`."""

from __future__ import annotations

import dataclasses
import json

from planish.cli.printing import print_table, spell_bytes
from planish.cli.terminal import say
from planish.targets.hardware import TARGETS, detect_host


def list_targets(*, as_json: bool) -> None:
    """Prints this machine and the named targets."""
    targets = [detect_host(), *TARGETS]
    if as_json:
        say(json.dumps({"targets": [dataclasses.asdict(target) for target in targets]}))
        return
    rows = [
        (
            target.name,
            target.arch,
            f"{8 * target.vector_bytes} bits x {target.vector_registers}",
            target.cores,
            " / ".join(spell_bytes(size) for size in (target.l1, target.l2, target.l3)),
            " ".join((*target.features, *target.matrix_units)),
        )
        for target in targets
    ]
    headings = ("target", "architecture", "vectors", ">cores", "L1 / L2 / L3", "features")
    print_table("Targets; 'host' is this machine", headings, rows)
