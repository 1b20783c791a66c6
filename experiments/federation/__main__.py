"""``python -m experiments.federation``: a federation from nothing to verified bundles, in one command."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from experiments.federation.stage import FEDFSD, Stage, StageError
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.errors import FedfsdError
from fedfsd.simulation.prepare import task_of

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None, *, stages: type[Stage] = Stage) -> int:
    """The command; 1 where something did not work, else what ``audit verify`` says."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.federation",
        description="Bring up a coordinator and an experiment's regions, run an experiment over the border,"
        " show their status, shut down, and verify what they leave.",
    )
    parser.add_argument("-o", "--output", type=Path, help="a new folder for all of it")
    parser.add_argument("--experiment", type=Path, default=HERE / "experiment.toml")
    parser.add_argument("--test-only", action="store_true", help="regions also take rehearsals")
    given = parser.parse_args(arguments)
    output = given.output or Path("runs") / time.strftime("federation-%Y%m%d-%H%M%S")
    try:
        loaded = load(Experiment, given.experiment)
        tables = task_of(loaded).tables(loaded.data.path)
    except FedfsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    names = loaded.data.regions or sorted({name for one in tables for name in one.regions})
    stage = stages(output.resolve(), names, tables=tables, test_only=given.test_only)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        return story(stage, given.experiment.resolve())
    except StageError as error:
        print(f"federation: {error}", file=sys.stderr)
        return 1
    finally:
        stage.down()


def story(stage: Stage, experiment: Path) -> int:
    """Everything, in the order in which it happens."""
    say = stage.say
    say("-- A coordinator is founded and the regions join it; each officer grants a budget")
    stage.build()
    say("-- The regions start")
    say(f"   ready after {stage.up():.1f} s")
    say("-- A run is offered; each region's operator approves the plan that arrived; rounds run")
    run = stage.folder / "run"
    process = stage.run(experiment, run)
    try:
        stage.wait(
            "the offer", lambda: stage.offered() is not None or process.poll() is not None, also=[process]
        )
        if plan := stage.offered():
            stage.approve(plan)
        if process.wait() != 0:
            raise StageError("the run did not end well: see above, and the log files")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    say("-- Where everybody stands")
    print(stage.fedfsd("coordinator", "status", "-C", stage.coordinator))
    for place in stage.places.values():
        print(stage.fedfsd("region", "status", "--region", place.folder))
    say("-- Shut down")
    stage.down()
    say("-- An auditor checks the bundles against the coordinator's receipts")
    bundles, trust = stage.evidence(stage.folder)
    notes = sorted((run / "checkpoints").glob("*.note"))
    words = ["audit", "verify", *bundles, *notes, "--receipts", run / "receipts.json", "--trust", trust]
    stage.show(words)
    code = subprocess.run([*FEDFSD, *map(str, words)], check=False).returncode
    say(f"-- {summary(run)}")
    say(f"   report: {run / 'report.html'}")
    return code


def summary(run: Path) -> str:
    """One line on how the rounds went."""
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()][1:]
    seconds = sorted(line["seconds"] for line in rounds[1:] or rounds)
    released = sum(one.get("outcome") == "released" for line in rounds for one in line["regions"].values())
    return (
        f"{len(rounds)} rounds, {released} releases;"
        f" the median round after the first took {seconds[len(seconds) // 2]:.2f} s"
    )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    raise SystemExit(main())
