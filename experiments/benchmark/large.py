"""Runs of large updates over the border, round by round, with regions whose runners hand in noise."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from experiments.benchmark import turn
from experiments.federation.stage import Stage
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.coordinator.run import await_answers, offered
from fedfsd.flower.engine import Engine
from fedfsd.plan.plan import Plan
from fedfsd.simulation import real
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

ROUND_SECONDS = 120.0
COORDINATOR = "coordinator"
_REST_SECONDS, _END_SECONDS = 3.0, 10.0
# Of this depth and width; the noise witness block fills up what is missing of the size.
_MODEL = {"width": 512, "heads": 8, "layers": 4}


class NoiseRegions:
    """A gate for each region of ``stage``, and a runner that hands in noise."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._idle: dict[str, int] = {}
        try:
            for name, place in stage.places.items():
                self._start(name, "fedfsd.node.region_gate", "--region", place.folder)
                socket = place.folder / "run" / "gate.sock"
                self._start(f"noise-{name}", "experiments.benchmark.noise", socket, name, self._busy(name))
            for name in stage.places:
                stage.wait(name, lambda name=name: stage.ready(name))
        except BaseException:
            self.close()
            raise

    def rest(self) -> None:
        """Every gate is idle now: what it takes from here on is what it takes for updates."""
        time.sleep(_REST_SECONDS)
        for name, process in self._gates().items():
            Path("/proc", str(process), "clear_refs").write_text("5")  # the peak begins anew
            self._idle[name] = _memory(process, "VmRSS")

    def peaks(self) -> dict[str, int]:
        """Bytes that each gate took at most above what it had at rest."""
        return {name: _memory(process, "VmHWM") - self._idle[name] for name, process in self._gates().items()}

    def gate_seconds(self, plan: Plan) -> list[float]:
        """Of each round but the first of a plan of one region: both gates' share, by the region's log.

        From the task's arrival until its receipt is kept, less the seconds that the runner was busy itself.
        """
        (name,) = plan.regions
        events: dict[int, dict[str, datetime]] = {}
        for line in (self._stage.places[name].folder / "log" / "gate.jsonl").read_text().splitlines():
            found = json.loads(line)
            if found.get("plan") == plan.hash and found["event"] in ("round", "receipt"):
                seen = datetime.fromisoformat(found["time"])
                events.setdefault(found["round"], {}).setdefault(found["event"], seen)
        busy = dict(line.split() for line in self._busy(name).read_text().splitlines())
        return [
            (one["receipt"] - one["round"]).total_seconds() - float(busy[f"{plan.hash}/{round}"])
            for round, one in sorted(events.items())
            if round > 1 and "receipt" in one
        ]

    def close(self) -> None:
        """End them all."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _busy(self, name: str) -> Path:
        """Where the runner of a region notes how long it was busy."""
        return self._folder / f"{name}.busy"

    def _start(self, name: str, module: str, *words: object) -> None:
        command = [sys.executable, "-m", module, *map(str, words)]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _gates(self) -> dict[str, int]:
        status = json.loads((self._stage.coordinator / "status.json").read_bytes())
        found = {name: self._processes[name].pid for name in self._stage.places}
        return found | {COORDINATOR: status["pid"]}


class Large:
    """A run of ``floats`` numbers each way, one round at a time."""

    def __init__(self, stage: Stage, output: Path, names: Sequence[str], floats: int, rounds: int) -> None:
        self._stage, self.folder = stage, output
        self._turn = output.with_suffix(".turn")
        coordinator = open_coordinator(stage.coordinator)
        self._engine = Engine(coordinator.flower, coordinator.settings.flower_port)
        experiment = load(Experiment, _experiment(stage, names, floats, rounds))
        _, self.plan = real.begin(experiment, output)
        self._stack = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(offered(coordinator, self.plan))
            stage.approve(self.plan.hash, names)
            await_answers(coordinator, self.plan, timeout=ROUND_SECONDS, say=stage.say)
            config = {"run": str(output), "coordinator": str(stage.coordinator), turn.KEY: str(self._turn)}
            number = self._engine.submit("experiments.benchmark.turn:server", config)
            stack.callback(self._engine.stop, number)
            stage.wait("a first large round", lambda: bool(turn.arrivals(self._turn)), seconds=ROUND_SECONDS)
            self._stack = stack.pop_all()

    def round(self) -> float:
        """Seconds of one more round."""
        done = len(turn.arrivals(self._turn))
        turn.lend(self._turn)
        self._stage.wait(
            "a large round", lambda: len(turn.arrivals(self._turn)) > done, seconds=ROUND_SECONDS
        )
        return turn.arrivals(self._turn)[-1]

    def close(self) -> None:
        """Stop the run and take its plan off."""
        self._stack.close()


def _experiment(stage: Stage, names: Sequence[str], floats: int, rounds: int) -> dict[str, object]:
    model = registry.build("transformer", _MODEL, WindowSpec(), seed=1)
    witness = floats - sum(parameter.numel() for parameter in model.parameters())
    return {
        "name": "large",
        "data": {"path": real.NO_TABLE},
        "regions": {
            name: {"roster": stage.places[name].roster, "identity": stage.places[name].identity}
            for name in names
        },
        "model": {"name": "transformer", "options": _MODEL, "witness_size": witness},
        "pretraining": {"path": "none"},
        "privacy": {"noise_multiplier": 200.0},
        "training": {"num_rounds": rounds, "schedule": "constant"},
    }


def _memory(process: int, which: str) -> int:
    """Bytes: ``VmRSS`` now, ``VmHWM`` at most."""
    status = Path("/proc", str(process), "status").read_text()
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", status)[1])  # type: ignore[index]
