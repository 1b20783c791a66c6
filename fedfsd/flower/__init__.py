"""The one place that touches what Flower 1.41 keeps private; contract tests guard it."""

from __future__ import annotations

import os

# Set before flwr is imported anywhere: it would report usage and look for updates over the network.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
