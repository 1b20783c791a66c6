"""fedfsd: one driving model from data that may not leave its regions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# gRPC's C core writes lines of its own to stderr, where people read ours. It looks here when it is imported,
# so before that; whoever wants them sets GRPC_VERBOSITY=info.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

if TYPE_CHECKING:
    from fedfsd.simulation.run import Run, simulate

__all__ = ["Run", "simulate"]


def __getattr__(name: str) -> Any:
    # torch and flwr take seconds to import, and an auditor does not have them.
    if name in __all__:
        from fedfsd.simulation import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
