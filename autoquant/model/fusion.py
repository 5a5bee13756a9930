"""What is joined before quantization, and what the user keeps apart."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fusion:
    """Whether operators take up the batch norms, multiplications and additions behind them, and which do not.

    `skip` names nodes that stay apart; users name operators with a weight, because a record can say it of no other.
    """

    enabled: bool = True
    skip: frozenset[str] = frozenset()

    def allows(self, *names: str) -> bool:
        """Whether nodes of these names may become one."""
        return self.enabled and self.skip.isdisjoint(names)


EVERYTHING = Fusion()
