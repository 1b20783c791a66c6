"""Small worlds for tests: a table of a few regions, drawn once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# gRPC reads this once, when it is loaded; in this process tests read why a handshake was refused. A worker of
# pytest-xdist finds what fedfsd set in its parent.
os.environ.pop("GRPC_VERBOSITY", None)

import grpc
import numpy as np
import pytest
import remembered
from hypothesis import settings
from setting import EXAMPLES

from fedfsd.audit import epsilon
from fedfsd.drive import table
from fedfsd.mechanism import accountant

# A busy machine is no failure, and in CI the same examples are tried each time.
settings.register_profile("fedfsd", deadline=None, max_examples=EXAMPLES, derandomize="CI" in os.environ)
settings.load_profile("fedfsd")

grpc.insecure_channel("127.0.0.1:1").close()
os.environ["GRPC_VERBOSITY"] = "NONE"  # as in every process that a test starts

for module in (accountant, epsilon):
    remembered.install(module)
# A ledger waits for the disk at every entry, here for a memory where there is one.
MEMORY, ROOM = Path("/dev/shm"), 4 * 2**30
if MEMORY.is_dir():
    _room = os.statvfs(MEMORY)
    if _room.f_bavail * _room.f_frsize > ROOM and not _room.f_flag & os.ST_NOEXEC:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
STARTUP = Path(__file__).parent / "startup"
# Python imports one of these by its name at its start; neither is a test.
collect_ignore = [str(STARTUP), str(STARTUP.parent / "border" / "site")]
paths = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one not in ("", str(STARTUP))]
os.environ["PYTHONPATH"] = os.pathsep.join([str(STARTUP), *paths])


LONGEST = (
    "survival/test_survival.py",
    "mechanism/test_accountant.py",
    "mechanism/test_calibration.py",
    "cli/test_simulate.py",
    "plugin/test_plugin.py",
    "service/test_kit.py",
    "drive/test_traffic.py",
    "security/test_whole_federation.py",
    "stories/test_readme.py",
    "cli/test_serve.py",
    "evolution/test_evolution.py",
    "test_contributing.py",
    "stories/test_federation.py",
    "simulation/test_run.py",
    "flower/test_engine.py",
    "coordinator/test_run_engine.py",
    "coordinator/test_coordinator_run.py",
)
"""Files that take longest, longest first: a worker that began one last would end long after the others. Those
that start whole federations stand beside others that do not."""


class AskAnew:
    """Tests of the accountants, their doctests included, ask the accountants; not where a folder is given."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        with remembered.asking_anew() if "mechanism" in item.path.parts else nullcontext():
            return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those with slow tests, each file in one piece."""
    folder = Path(__file__).parent
    rank = {folder / name: number for number, name in enumerate(LONGEST)}
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: rank.get(item.path, len(rank) + (item.path not in slow)))


def pytest_configure(config: pytest.Config) -> None:
    if "FEDFSD_ANSWERS" not in os.environ:
        config.pluginmanager.register(AskAnew())


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A main function that ran in this process leaves no handler to the next test."""
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for one, handler in before.items():
        if threading.current_thread() is threading.main_thread() and signal.getsignal(one) != handler:
            signal.signal(one, handler)


def drives(regions: dict[str, int], *, seed: int = 0, origin: str = "synthetic") -> table.Table:
    """Smooth generated drives at 2 Hz: ``regions`` gives the number of vehicles of each region."""
    random = np.random.default_rng(seed)
    columns: dict[str, list] = {name: [] for name in (*table.TEXT_COLUMNS, *table.NUMBER_COLUMNS)}
    for region, count in regions.items():
        for number in range(count):
            points = int(random.integers(14, 30))
            t = 0.5 * np.arange(points)
            speed = np.clip(random.uniform(3, 12) + np.cumsum(random.normal(0, 0.4, points)), 0, None)
            heading = random.uniform(0, 6) + np.cumsum(random.normal(0, 0.05, points))
            vx, vy = speed * np.cos(heading), speed * np.sin(heading)
            values = {
                "region": [region] * points,
                "source": ["drawn"] * points,
                "recording": [f"{region}-{number % 3}"] * points,
                "vehicle": [f"{region}/{number}"] * points,
                "type": ["car"] * points,
                "t": t,
                "x": np.cumsum(0.5 * vx),
                "y": np.cumsum(0.5 * vy),
                "vx": vx,
                "vy": vy,
                "heading": heading,
                "length": np.full(points, 4.5),
                "width": np.full(points, 1.8),
                "hz": np.full(points, 2.0),
            }
            for name, part in values.items():
                columns[name].extend(part)
    return table.of_rows(columns, licence="CC0-1.0", identity="physical", origin=origin)


def experiment_of(path: str, *, rounds: int, rosters: dict[str, int] | None = None) -> dict[str, Any]:
    """A rehearsal on the table at ``path``: within one process, or of real regions with these rosters."""
    written = {
        "name": "small",
        "mode": "rehearsal",
        "data": {"path": path},
        "pretraining": {"path": "none"},
        "model": {"witness_size": 512},
        "privacy": {"noise_multiplier": 2.0, "target_delta": 1e-3, "sample_rate": 0.5},
        "training": {"num_rounds": rounds, "learning_rate": 0.1, "device": "cpu"},
    }
    if rosters is None:
        return written | {"training": written["training"] | {"local_steps": 2}}
    declared = {name: {"roster": size, "identity": "physical"} for name, size in rosters.items()}
    return written | {"regions": declared, "privacy": written["privacy"] | {"noise_multiplier": 4.0}}


@pytest.fixture(scope="session")
def drives_path(tmp_path_factory) -> str:
    """A table of three regions with 30, 20 and 12 vehicles."""
    path = tmp_path_factory.mktemp("drives") / "drives.parquet"
    table.write(drives({"CN": 30, "EU": 20, "US": 12}), path)
    return str(path)


@pytest.fixture(scope="session")
def granted(tmp_path_factory) -> Path:
    """The folder of a region with a grant, made once and never changed."""
    from node import station_kit

    path = tmp_path_factory.mktemp("granted")
    station_kit.folder(path)
    return path / "eu"


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pages without their pictures, which take longer to draw than a small run to train."""
    monkeypatch.setattr("fedfsd.report.page._figures", lambda run: {})
