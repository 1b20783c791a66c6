"""``python -m experiments.benchmark``: measure every promise on two cores of this machine."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.benchmark.audit import audit
from experiments.benchmark.beside import beside
from experiments.benchmark.border import border
from experiments.benchmark.clients import clients
from experiments.benchmark.crowd import crowd
from experiments.benchmark.demo import demo, help_seconds
from experiments.benchmark.fleet import fleet
from experiments.benchmark.imports import imports
from experiments.benchmark.ledger import ledger
from experiments.benchmark.overhead import overhead
from experiments.benchmark.recordings import recordings
from experiments.benchmark.row import Row, place
from experiments.benchmark.step import step
from experiments.benchmark.windows import windows
from experiments.benchmark.wire import wire
from experiments.federation.stage import StageError
from fedfsd.errors import FedfsdError


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 1 where a promise is not kept."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmark", description="Measure what the project promises."
    )
    names = ("help", "demo", "step", "windows", "overhead", "clients", "crowd", "wire")
    names += ("ledger", "audit", "recordings", "border", "imports", "fleet", "beside")
    parser.add_argument("--only", choices=names, action="append", help="this part alone; may be repeated")
    parser.add_argument("--data", help="real recordings to train on; else the study's published results")
    parser.add_argument("--full", action="store_true", help="fleet: 100,000 vehicles instead of 10,000")
    parser.add_argument("--quick", action="store_true", help="try the machinery: its numbers mean nothing")
    parser.add_argument("--json", action="store_true", help="one document on standard output")
    given = parser.parse_args(arguments)
    # The promises are for two cores; processes started from here inherit them.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    # Processes started from here are ended by those who started them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="fedfsd-benchmark-") as temporary:
        folder = Path(temporary)
        parts: dict[str, Callable[[], list[Row]]] = {
            "help": lambda: help_seconds(quick=given.quick),
            "demo": lambda: demo(folder / "demo", quick=given.quick),
            "step": lambda: step(quick=given.quick),
            "windows": lambda: windows(given.data, quick=given.quick),
            "clients": lambda: clients(folder / "clients", quick=given.quick),
            "wire": lambda: wire(folder / "wire", quick=given.quick),
            "overhead": lambda: overhead(folder / "overhead", quick=given.quick),
            "crowd": lambda: crowd(folder / "crowd", quick=given.quick),
            "ledger": lambda: ledger(folder / "ledger", quick=given.quick),
            "audit": lambda: audit(folder / "audit", quick=given.quick),
            "recordings": lambda: recordings(given.data, folder / "recordings", quick=given.quick),
            "border": lambda: border(folder / "border", quick=given.quick),
            "fleet": lambda: fleet(folder / "fleet", full=given.full, quick=given.quick),
            "beside": lambda: beside(quick=given.quick),
            "imports": lambda: imports(folder / "imports", quick=given.quick),
        }
        for name in names:
            if given.only and name not in given.only:
                continue
            print(f"measuring: {name}", file=sys.stderr, flush=True)
            try:
                rows += parts[name]()
            except FedfsdError as error:
                print(error, file=sys.stderr)
                return error.exit_code
            except StageError as error:
                print(error, file=sys.stderr)
                return 1
    if given.json:
        document = {"quick": given.quick, **place(), "rows": [row.document() for row in rows]}
        print(json.dumps(document, indent=1))
    else:
        print("\n".join(f"{key}: {value}" for key, value in place().items()))
        width = max(len(row.name) for row in rows)
        for row in rows:
            word = "pass" if row.passed else "FAIL"
            print(f"{word}  {row.name:<{width}}  {row.measured:10.4g}  {row.target}")
            if row.detail:
                print(f"      {row.detail}")
    return 0 if all(row.passed for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
