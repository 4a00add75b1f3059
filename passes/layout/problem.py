"""The choice of layouts as numbers: what is to be chosen, and what a choice costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

#: The decision that is always for plain layout: model inputs and outputs, ops that know no blocks.
PLAIN = 0


@dataclass(frozen=True, slots=True)
class Transfer:
    """A tensor between the decision that writes it and those that read it.

    If it is written plain and anybody reads blocks, it is converted once, for `to_blocks`; the
    other way round once, for `to_plain`.
    """

    writer: int
    readers: tuple[int, ...]
    to_blocks: int
    to_plain: int


@dataclass(slots=True)
class Problem:
    """Decisions between plain and blocked layout, with their costs in cycles.

    Decision number i costs `plain[i]` or `blocked[i]`; None is out of the question.
    """

    plain: list[int | None] = field(default_factory=lambda: [0])
    blocked: list[int | None] = field(default_factory=lambda: [None])
    transfers: list[Transfer] = field(default_factory=list)

    def decision(self, plain: int | None, blocked: int | None) -> int:
        """The number of a new decision."""
        assert plain is not None or blocked is not None, "nothing to choose from"
        self.plain.append(plain)
        self.blocked.append(blocked)
        return len(self.plain) - 1

    def transfer(self, writer: int, readers: Sequence[int], to_blocks: int, to_plain: int) -> None:
        """Say that what `writer` makes is read by `readers`."""
        distinct = tuple(dict.fromkeys(reader for reader in readers if reader != writer))
        if distinct:
            self.transfers.append(Transfer(writer, distinct, to_blocks, to_plain))

    def cost(self, chosen: Sequence[bool]) -> int | None:
        """Cycles of a choice (True: blocks) for each decision; None if it is no possible one."""
        total = 0
        for is_blocked, plain, blocked in zip(chosen, self.plain, self.blocked):
            cost = blocked if is_blocked else plain
            if cost is None:
                return None
            total += cost
        return total + sum(self.converted(chosen))

    def converted(self, chosen: Sequence[bool]) -> list[int]:
        """The cycles of each conversion that a choice needs."""
        costs = []
        for transfer in self.transfers:
            written = chosen[transfer.writer]
            if any(chosen[reader] != written for reader in transfer.readers):
                costs.append(transfer.to_plain if written else transfer.to_blocks)
        return costs
