"""What the two fuzz tests share: how many mutations, what was reached, and how that is told."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from border.mutation import Mutation, Sample
from border.session import KINDS, Side

MUTATIONS = int(os.environ.get("FEDFSD_MUTATIONS", "2000"))
"""Of both sides together; FEDFSD_MUTATIONS=100000 for the whole."""
SEED = int(os.environ.get("FEDFSD_MUTATION_SEED", "1"))
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where syncing costs nothing."""
TEXT = "Kestrel7Marlin4Ibis"
"""A canary: in every path and exception, and never on the wire."""


def mutation(sides: list[Side]) -> Mutation:
    """The engine over everything that crossed in these sessions."""
    samples = {
        Sample(KINDS[method][0 if ours else 1], content): None
        for side in sides
        for method, ours, content in side.crossed
    }
    return Mutation(list(samples), SEED)


@contextmanager
def folder() -> Iterator[Path]:
    """A folder in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        yield Path(name)


@contextmanager
def named(mutant: str) -> Iterator[None]:
    """A crash tells which mutant it was."""
    try:
        yield
    except Exception as error:
        error.add_note(f"mutation: {mutant[:10_000]}")
        raise


class Reach:
    """Which checks were asked since ``clear``."""

    def __init__(self, monkeypatch: Any) -> None:
        self._patch, self.names = monkeypatch, set[str]()

    def watch(self, owner: Any, name: str) -> None:
        """Note when the function ``owner.name`` is called."""
        plain: Callable[..., Any] = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.names.add(name)
            return plain(*args, **kwargs)

        self._patch.setattr(owner, name, watched)


def tell(side: str, count: int, reached: int, outcomes: Counter[str], operators: Counter[str]) -> None:
    """Print the counts."""
    print(f"\n{side}: {count} mutations, {reached} ({reached / count:.0%}) reached the policy check")
    for title, counter in (("outcomes", outcomes), ("reached by operator", operators)):
        print(f"  {title}: " + ", ".join(f"{name} {number}" for name, number in counter.most_common()))
