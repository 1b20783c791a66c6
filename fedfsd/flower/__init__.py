"""The one place that touches what Flower 1.41 keeps private; contract tests guard it."""

from __future__ import annotations

import os

# Set before flwr is imported anywhere: it would report usage and look for updates over the network.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
# All of the engine listens on loopback: a proxy that this machine uses for the world must not see its calls.
_LOOPBACK = "127.0.0.1"
_direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
if _LOOPBACK not in _direct.split(","):
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = f"{_direct},{_LOOPBACK}".strip(",")
