"""A hundred light clients, ten a round, beside Apple's pfl and Flower on Ray.

A client trains the same transformer by five steps of ten of its fifty vehicles, one window each. What is
measured is the time from one round to the next, the coordinator's part included: with one worker beside pfl,
which has one process, and with one worker for each of two cores beside Ray. A peer that is not installed
has no row that passes, and the row says so: Ray comes with fedfsd's extra ``ray``; pfl 0.6.0 wants an older
dp-accounting, so it is installed without its dependencies. pfl and ours run in turn.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from experiments.benchmark.crowd import drives
from experiments.benchmark.row import Row
from fedfsd.drive import table

REGIONS, VEHICLES, A_ROUND, STEPS, BATCH = 100, 50, 10, 5, 10
_WARM = 10  # rounds, until every client has been asked once and has its data
_TABLE = "clients.parquet"


def clients(output: Path, *, quick: bool) -> list[Row]:
    """Time a client, as a ratio to each peer's."""
    output.mkdir(parents=True)
    table.write(drives(REGIONS, VEHICLES), output / _TABLE)
    rounds, times = (_WARM + 4, 1) if quick else (_WARM + 20, 3)
    found: dict[str, list[float]] = {"pfl": [], "none": [], "private": [], "wide": [], "ray": []}
    for turn in range(times):
        for name, seconds in found.items():
            package = name if name in ("pfl", "ray") else None
            if package is None or importlib.util.find_spec(package) is not None:
                seconds += _periods(name, output, turn, rounds)
    return [
        _row("client_none_to_pfl", found["none"], found["pfl"], 1.0, "pfl"),
        _row("client_private_to_pfl", found["private"], found["pfl"], 1.5, "pfl"),
        _row("client_none_to_flower_on_ray", found["wide"], found["ray"], 0.4, "ray"),
    ]


def _row(name: str, ours: Sequence[float], peers: Sequence[float], limit: float, package: str) -> Row:
    if not peers:
        return Row(name, float("nan"), limit, "times", "<=", f"{package} is not installed")
    return Row(
        name, median(ours) / median(peers), limit, "times", "<=", f"{_told(ours)}; {package} {_told(peers)}"
    )


def _told(seconds: Sequence[float]) -> str:
    low, _, high = quantiles(seconds, n=4)
    a_client = 1000 / A_ROUND
    return f"{median(seconds) * a_client:.1f} ms ({low * a_client:.1f} to {high * a_client:.1f})"


def _periods(name: str, output: Path, turn: int, rounds: int) -> list[float]:
    """Seconds from each warm round to the next, in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "experiments.benchmark.clients",
        name,
        str(output),
        f"{name}-{turn}",
        str(rounds),
    ]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    ends = json.loads(done.stdout.splitlines()[-1])
    return [later - sooner for sooner, later in pairwise(ends[_WARM:])]


def _experiment(output: Path, mode: str, rounds: int) -> Any:
    from fedfsd.config.experiment import Experiment
    from fedfsd.config.load import load

    return load(
        Experiment,
        {
            "name": "clients",
            "mode": mode,
            "data": {"path": str(output / _TABLE)},
            "model": {"name": "transformer"},
            "pretraining": {"path": "none"},
            "privacy": {"sample_rate": BATCH / VEHICLES, "windows_per_vehicle": 1, "noise_multiplier": 4.0},
            "training": {"num_rounds": rounds, "local_steps": STEPS},
            "server": {"regions_per_round": A_ROUND, "evaluate_every": rounds, "average_last": 0.0},
        },
    )


def _ours(output: Path, run: str, mode: str, rounds: int, *, workers: int | None) -> list[float]:
    """When each round ended; without ``workers`` on Ray."""
    import time

    from fedfsd.federation.grid import ProcessGrid
    from fedfsd.simulation import run as runs
    from fedfsd.simulation.trail import Trail

    ends: list[float] = []
    finish = Trail.on_round

    def on_round(trail: Trail, done: Any) -> None:
        finish(trail, done)
        ends.append(time.monotonic())

    Trail.on_round = on_round  # type: ignore[method-assign]
    experiment = _experiment(output, mode, rounds)
    if workers is None:
        runs.run(experiment, engine="ray", output=output / run, resume=False, progress=lambda _: None)
        return ends
    names = [f"R{number:03}" for number in range(REGIONS)]
    nodes = {
        number: runs.node_config(experiment, output / run, name) for number, name in enumerate(names, start=2)
    }
    with ProcessGrid(runs.CLIENT, nodes, workers=workers) as grid:
        runs.run_on(grid, experiment, output=output / run)
    return ends


def _pfl(output: Path, rounds: int) -> list[float]:
    """When each of pfl's rounds ended, for the same model, data and steps."""
    import time

    import numpy as np
    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel

    from fedfsd.simulation.prepare import task_of
    from fedfsd.task.gather import gather

    torch.set_num_threads(1)
    experiment = _experiment(output, "none", rounds)
    task = task_of(experiment)
    tables = task.tables(experiment.data.path)
    users = {}
    for number in range(REGIONS):
        examples, _ = gather(task, tables, f"R{number:03}")
        # One window of each vehicle; of those without one, another's again, so that there are as many.
        _, first = np.unique(examples.owner, return_index=True)
        rows = np.resize(first, VEHICLES)
        history, future = examples.inputs["history"][rows], examples.targets["future"][rows]
        users[number] = [torch.from_numpy(history), torch.from_numpy(future)]

    class Peer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = task.model("transformer", {}, seed=1)

        def loss(self, history: torch.Tensor, future: torch.Tensor, eval: bool = False) -> torch.Tensor:
            self.train(not eval)
            return task.loss(self.model(history), {"future": future}).mean()

        def metrics(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {}  # nothing is evaluated

    class Ends(TrainingProcessCallback):  # type: ignore[misc]
        def after_central_iteration(self, *_: Any, **__: Any) -> tuple[bool, Any]:
            ends.append(time.monotonic())
            return False, Metrics()

    ends: list[float] = []
    peer = Peer()
    model = PyTorchModel(
        peer,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(peer.parameters(), lr=1.0),
    )
    data = FederatedDataset(lambda user: Dataset(users[user]), get_user_sampler("random", list(users)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=rounds,
            evaluation_frequency=rounds + 1,
            train_cohort_size=A_ROUND,
            val_cohort_size=None,
        ),
        backend=SimulatedBackend(training_data=data, val_data=None),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_batch_size=BATCH, local_num_epochs=1, local_learning_rate=0.03
        ),
        callbacks=[Ends()],
    )
    return ends


def main(name: str, output: Path, run: str, rounds: int) -> list[float]:
    """One federation; when its rounds ended."""
    if name == "pfl":
        return _pfl(output, rounds)
    workers = {"none": 1, "private": 1, "wide": 2, "ray": None}[name]
    return _ours(output, run, "private" if name == "private" else "none", rounds, workers=workers)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
