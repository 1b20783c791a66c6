"""Write what this release writes, for later releases to read: ``python -m tests.evolution.write OUT``.

Run it from the root of the checkout, once a release, into a new folder, and add that folder to
``tests/evolution`` as ``release_X_Y_Z``. Everything is made by really running the code: simulations
(finished, a rehearsal, one that was killed), a federation over the border (one run to its end, one that was
stopped half-way), and the messages that crossed. All commands run inside OUT with relative paths, so that
nothing in it says where it was made. Takes about three minutes on two cores.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # border is a package of the tests

from border import recorder  # noqa: E402

from experiments.federation.stage import FEDFSD, Place, Stage  # noqa: E402

HERE = Path(__file__).parent
REGIONS = ("CN", "EU")
NOISE_KEY = "5a" * 32
# Without public training and with one round nothing is trained on what a CPU has rounded before.
ONE_ROUND = (
    "--set",
    "training.num_rounds=1",
    "--set",
    "privacy.target_epsilon=4",
    "--set",
    "pretraining.path=none",
)
KILLED_AFTER, STOPPED_AFTER = 3, 3
"""Rounds."""
RECORDED = 24_000
"""Bytes of one method's messages."""
FIRST, SECOND = "federation/finished.toml", "federation/stopped.toml"
PACKAGES = ("fedfsd", "torch", "numpy", "opacus", "flwr", "dp-accounting", "pyarrow", "safetensors", "grpcio")

# Two regions, few rounds, the smallest noise witness that a real region takes.
EXPERIMENT = """\
# Two regions with generated traffic of their own, few rounds, a small noise witness.
name = "golden"
mode = "private"
seed = 3

[data]
path = "drives.parquet"

[regions.EU]
policy = "policy.toml"

[model]
name = "mlp"
witness_size = 1024

[pretraining]
path = "public"
steps = 20
batch_size = 64

[privacy]
target_epsilon = 8.0
target_delta = 1e-3
windows_per_vehicle = 2

[training]
num_rounds = 6
local_steps = 2
learning_rate = 0.03
momentum = 0.5
device = "cpu"

[server]
strategy = "FedAvgM"
average_last = 0.5

[server.options]
server_momentum = 0.9
"""
POLICY = """\
# What the region EU of the simulations allows; every key that a policy has.
modes = ["private"]
max_epsilon = 9.0
max_delta = 1e-3
min_noise_multiplier = 0.6
max_sample_rate = 1.0
max_grad_norm = 10.0
max_windows_per_vehicle = 16
max_roster = 1000
max_steps = 1000
max_rounds = 100
max_release_bytes = 1_000_000
min_witness_size = 1024
max_inbound_magnitude = 1e4
round_seconds = 0.0
approve = "by hand"
models = [
  { name = "camera", distribution = "camera-models", version = "1.2.0", sha256 = "%s" },
]
""" % ("ab" * 32)
# A run over the border; its regions follow.
FEDERATED = """\
name = "{name}"
mode = "private"
seed = {seed}

[data]
path = "drives.parquet"

[model]
witness_size = 1024

[pretraining]
steps = 20
batch_size = 64

[privacy]
target_epsilon = {epsilon}
target_delta = 1e-4
windows_per_vehicle = 2

[training]
num_rounds = {rounds}
learning_rate = 0.03
device = "cpu"

[server]
strategy = "FedAvg"
round_timeout_seconds = 60.0
"""
# Killed from inside, right behind its checkpoint, as a machine that loses its power.
KILLED = """\
import os, signal, fedfsd
def seen(progress):
    if progress.round == %d:
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    fedfsd.simulate("experiment.toml", output="simulation/interrupted", progress=seen)
"""
# By glob: logs, locks and the engine's own state, which no later release has to read; what is there twice.
LEFT_OUT = (
    *("**/log", "**/lock", "**/*.lock", "**/*.log", "**/*.out", "**/*.sqlite-shm", "killed.py", "kept/run"),
    *(
        "federation/coordinator/flower",
        "federation/*/run",
        "federation/*/gate/run",
        "federation/*/train/flwr",
    ),
    *("federation/*/gate/*.zip", "federation/finished/report.html", "simulation/rehearsal/report.html"),
    *("federation/finished/figures", "simulation/*/figures", "simulation/one_round/[!emp]*"),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.evolution.write", description=__doc__)
    parser.add_argument("output", type=Path, help="a new folder")
    output = parser.parse_args().output.resolve()
    output.mkdir(parents=True)
    # Commands started from elsewhere run this checkout's code, one thread each.
    os.environ |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    os.chdir(output)
    files()
    simulations()
    with tempfile.TemporaryDirectory() as sink:
        os.environ |= recorder.environment(Path(sink))
        federation()
        record(Path(sink), Path("federation/border.jsonl"))
    clear()
    document()


def files() -> None:
    """Tables, experiment and policy."""
    fedfsd(
        "data", "generate", *_each("--region", REGIONS), "--vehicles", 40, "--seed", 3, "-o", "drives.parquet"
    )
    shutil.copy(ROOT / "tests/drive/fixture/vehicle_tracks_001.csv", "vehicle_tracks_001.csv")
    fedfsd(
        *("data", "import", "vehicle_tracks_001.csv", "--format", "interaction", "--region", "EU"),
        *(
            "--licence",
            "CC0-1.0",
            "--identity",
            "recording",
            "--origin",
            "published",
            "-o",
            "imported.parquet",
        ),
    )
    Path("vehicle_tracks_001.csv").unlink()
    Path("experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
    Path("policy.toml").write_text(POLICY, encoding="utf-8")


def simulations() -> None:
    """Run folders: finished, rehearsed, killed; ledgers kept over runs; a comparison."""
    rehearsal = ("--set", "mode=rehearsal", "--set", f"privacy.noise_key={NOISE_KEY}")
    fedfsd("simulate", "experiment.toml", "-o", "simulation/finished")
    fedfsd("simulate", "experiment.toml", *rehearsal, "-o", "simulation/rehearsal")
    fedfsd("simulate", "experiment.toml", *rehearsal, *ONE_ROUND, "-o", "simulation/one_round")
    Path("killed.py").write_text(KILLED % KILLED_AFTER, encoding="utf-8")
    done = subprocess.run([sys.executable, "killed.py"], check=False)
    if done.returncode != -signal.SIGKILL:
        raise SystemExit(f"the run to be killed ended with {done.returncode}")
    fedfsd("simulate", "experiment.toml", *ONE_ROUND, "-o", "kept/run", "--ledgers", "kept/ledgers")
    fedfsd("compare", "simulation/finished", "simulation/rehearsal", "-o", "simulation/comparison")


@dataclass
class Golden(Stage):
    """The stage of ``make federation`` on the small table, its settings with relative paths only."""

    def _place(self, name: str) -> Place:
        home = self.folder / name.lower()
        for inner in ("data", "officer"):
            (home / inner).mkdir(parents=True, mode=0o700)
        rows = pq.read_table("drives.parquet")
        mine = rows.filter(pc.equal(rows["region"], name))
        data = home / "data" / "drives.parquet"
        pq.write_table(mine, data)
        roster = len(pc.unique(mine.filter(pc.invert(mine["test"]))["vehicle"]))
        identity = mine.schema.metadata[b"fedfsd.identity"].decode()
        return Place(name, home / "gate", home / "train", data, home / "officer", roster, identity)

    def _enrol(self, name: str) -> None:
        super()._enrol(name)
        settings = self.places[name].train / "train.toml"
        text = settings.read_text(encoding="utf-8").replace(
            f"{self.folder.absolute()}/{name.lower()}/", "../"
        )
        settings.write_text(text, encoding="utf-8")


def federation() -> None:
    """A coordinator and two regions: a run to its end with the evidence of it, and one stopped half-way."""
    stage = Golden(Path("federation"), REGIONS, separate=False)
    try:
        stage.build()
        stage.up()
        for path, name, rounds, seed in ((FIRST, "finished", 3, 5), (SECOND, "stopped", 40, 6)):
            text = FEDERATED.format(name=name, rounds=rounds, seed=seed, epsilon=2.0)
            for region, place in stage.places.items():
                text += f'\n[regions.{region}]\nroster = {place.roster}\nidentity = "{place.identity}"\n'
            Path(path).write_text(text, encoding="utf-8")
        first = stage.run(Path(FIRST), Path("federation/finished"))
        _approve(stage, first)
        if first.wait() != 0:
            raise SystemExit("the first run did not end well")
        stage.evidence(Path("federation"))
        second = stage.run(Path(SECOND), Path("federation/stopped"))
        _approve(stage, second)
        rounds = Path("federation/stopped/rounds.jsonl")
        stage.wait("rounds", lambda: rounds.exists() and len(rounds.read_text().splitlines()) > STOPPED_AFTER)
        second.send_signal(signal.SIGTERM)
        second.wait()
        time.sleep(2)  # the regions end the round in hand
    finally:
        stage.down()


def _approve(stage: Stage, run: subprocess.Popen[bytes]) -> None:
    stage.wait("the offer", lambda: stage.offered() is not None or run.poll() is not None)
    plan = stage.offered()
    if plan is None:
        raise SystemExit("nothing was offered")
    stage.approve(plan)


def record(sink: Path, path: Path) -> None:
    """What the regions sent and got, one JSON object a line: method, kind, call, content in base64.

    Of each method as much as fits into RECORDED: several rounds of both regions.
    """
    kept: dict[str, int] = {}
    calls: dict[int, int] = {}
    with path.open("w", encoding="utf-8") as file:
        for one in recorder.read(sink):
            size = kept.get(one.method, 0) + len(one.content)
            if one.side != "client" or one.kind not in ("request", "reply") or size > RECORDED:
                continue
            kept[one.method] = size
            call = calls.setdefault(one.call, len(calls) + 1)
            line = {"method": one.method, "kind": one.kind, "call": call}
            file.write(json.dumps(line | {"content": base64.b64encode(one.content).decode()}) + "\n")


def clear() -> None:
    """Take away what is left out; of a run over the border, the place where it was made."""
    for pattern in LEFT_OUT:
        for path in sorted(Path().glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    metrics = Path("federation/finished/metrics.json")
    text = metrics.read_text(encoding="utf-8").replace(f"{Path.cwd()}/", "")
    metrics.write_text(text, encoding="utf-8")


def document() -> None:
    """written.json: by which code on which machine; README.md: what each file is."""
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%H", "--", "fedfsd"]
    written = {
        "commit": subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip(),
        "versions": {name: metadata.version(name) for name in PACKAGES}
        | {"python": platform.python_version()},
        "cpu": cpu(),
    }
    Path("written.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    text = (HERE / "README.template.md").read_text(encoding="utf-8")
    text = text.format(commit=written["commit"], release=written["versions"]["fedfsd"])
    Path("README.md").write_text(text, encoding="utf-8")


def cpu() -> dict[str, str]:
    """What equal bits depend on beside the versions."""
    import torch

    facts = {"machine": platform.machine(), "kernels": torch.backends.cpu.get_cpu_capability()}
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("vendor_id", "cpu family", "model", "stepping"):
            facts[key.strip()] = value.strip()
    return facts


def fedfsd(*words: object) -> str:
    """One command, which must end well; what it printed."""
    print("$ fedfsd", *words, file=sys.stderr, flush=True)
    done = subprocess.run([*FEDFSD, *map(str, words)], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def _each(option: str, values: tuple[str, ...]) -> list[str]:
    return [word for value in values for word in (option, value)]


if __name__ == "__main__":
    main()
