"""One promise with what was measured, and where that was."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("fedfsd", "torch", "flwr", "opacus", "dp-accounting")


@dataclass(frozen=True)
class Row:
    """``measured`` in ``unit``; ``limit`` is what it must not exceed, or not fall below."""

    name: str
    measured: float
    limit: float
    unit: str
    relation: str
    """``<=``, ``<``, ``>=`` or ``>``."""
    detail: str = ""
    """What else was measured beside it."""

    @property
    def passed(self) -> bool:
        """Whether the promise is kept; nothing measured keeps none."""
        return {
            "<=": self.measured <= self.limit,
            "<": self.measured < self.limit,
            ">=": self.measured >= self.limit,
            ">": self.measured > self.limit,
        }[self.relation]

    @property
    def target(self) -> str:
        """The promise in words."""
        return f"{self.relation} {self.limit:g} {self.unit}".rstrip()

    def document(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        measured = round(self.measured, 4) if math.isfinite(self.measured) else None
        found = {"name": self.name, "measured": measured, "target": self.target, "pass": self.passed}
        return found | ({"detail": self.detail} if self.detail else {})


def place() -> Mapping[str, str]:
    """Versions and processor: a number without them says little."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _PACKAGES},
        "cpu": _cpu(),
        "cores": f"{len(os.sched_getaffinity(0))} used of {os.cpu_count()}",
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
