"""Take out of a run folder what nobody else should get: run keys, and test windows as they were recorded."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fedfsd.engine import randomness
from fedfsd.gate.gate import LEDGER, open_ledger
from fedfsd.plan.plan import Plan
from fedfsd.report.page import WrittenRun, read_run, write_report
from fedfsd.report.run_folder import CONDUCTED, EXAMPLES, PICTURED
from fedfsd.service import lock


@dataclass(frozen=True)
class Cleaned:
    """What was there and is not any more."""

    keys: int
    windows: bool


def clean(path: Path, ledgers: Path | None = None) -> Cleaned:
    """Destroy the run keys of a run and the windows in its examples; its page is written anew without them.

    A run that has not reached its end is settled in its regions' ledgers first: it cannot be resumed, and
    what its rounds never reserved is free again.

    Args:
        ledgers: where the regions' ledgers are kept, if not in the run folder.

    Raises:
        NotReadyError: not a run folder, one that a process is working on, or matplotlib is missing for its
            page.
        PlanError, ConfigError: as of ``read_run``.
    """
    run = read_run(path)
    with lock.hold(path / CONDUCTED, what="this run"):
        return _clean(run, path, ledgers)


def _clean(run: WrittenRun, path: Path, ledgers: Path | None) -> Cleaned:
    regions = [ledgers / name if ledgers else run.folder.region(name) for name in run.plan.regions]
    keys = sum(_forget(folder, run.plan) for folder in regions)
    windows = [path / name for name in (EXAMPLES, PICTURED) if (path / name).exists()]
    for file in windows:
        file.unlink()
    if (path / "report.html").exists():
        write_report(path)
    return Cleaned(keys, bool(windows))


def _forget(folder: Path, plan: Plan) -> int:
    """End the plan in one region's ledger and destroy its key; how many keys there were."""
    if (folder / LEDGER).exists():
        with closing(open_ledger(folder)) as ledger:
            if plan.hash in ledger.state.runs and not ledger.state.runs[plan.hash].settled:
                ledger.settle(plan.hash)
    found = len(list((folder / "keys").glob(f"{plan.hash}.key")))
    randomness.destroy_run_key(folder / "keys", plan.hash)
    return found
