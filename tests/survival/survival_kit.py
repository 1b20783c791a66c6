"""A federation in processes of its own on which anything may be killed, cut, filled or stopped."""

from __future__ import annotations

import collections
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack as Stack
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stage_kit import Typed, typed
from survival.relay import Relay

from experiments.federation.stage import FEDFSD, StageError
from fedfsd.node import join
from fedfsd.node.node import open_node
from fedfsd.plan import plan as plans
from fedfsd.service.supervise import standing

REGIONS = ("CN", "EU", "US")
WAIT_SECONDS = 180.0
MAX_STOPS = 5
EXPERIMENT = """
name = "survival"
mode = "private"
seed = {seed}
[data]
path = "none"
[pretraining]
path = "none"
[privacy]
noise_multiplier = 60.0
max_grad_norm = 1.0
target_delta = 1e-4
[training]
num_rounds = {rounds}
learning_rate = 0.01
device = "cpu"
[server]
round_timeout_seconds = {timeout}
late_updates = "{late}"
"""


@dataclass
class Scene(Typed):
    """A stage whose regions reach the coordinator through a relay each, and approve what policy allows."""

    relays: dict[str, Relay] = field(default_factory=dict)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    plug: Callable[[bool], None] | None = None
    """Where a region is a host of its own: plugs its cable in or out."""
    fill: Callable[[bool], None] | None = None
    """Where a region has a small disk of its own: fills it up or frees it."""

    def build(self) -> None:
        """As the stage's, with a relay before the coordinator for each region."""
        super().build()
        for name, place in self.places.items():
            self.route(name)
            assert join.fetch_certificate(
                open_node(place.folder)
            )  # its gate may be where the join port is not reached
            edit(place.folder / "policy.toml", 'approve = "by hand"', 'approve = "within policy"')

    def route(self, name: str, host: str = "127.0.0.1") -> None:
        """Have a region call a relay that listens on ``host``, from its next start on."""
        port = json.loads(self.fedfsd("coordinator", "status", "-C", self.coordinator, "--json"))["address"]
        if old := self.relays.get(name):
            old.close()
        relay = self.relays[name] = Relay(("127.0.0.1", int(port.rpartition(":")[2])), host=host)
        settings = self.places[name].folder / "region.toml"
        lines = settings.read_text(encoding="utf-8").splitlines()
        lines = [
            f'coordinator = "{relay.address}"' if line.startswith("coordinator =") else line for line in lines
        ]
        settings.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def down(self) -> None:
        """End everything."""
        super().down()
        for relay in self.relays.values():
            relay.close()
        self.relays.clear()

    # Processes.

    def pid(self, place: str, unit: str) -> int | None:
        """The process ``unit`` of a region or of "coordinator", by its supervisor's own word."""
        if unit == "serverapp":
            above = self.pid("coordinator", "superexec")
            return (
                next((pid for pid in below(above) if b"serverapp" in command(pid)), None) if above else None
            )
        found = standing(self._folder(place)) or {"processes": []}
        return next((one["pid"] for one in found["processes"] if one["name"] == unit), None)

    def kill(self, place: str, unit: str) -> int:
        """kill -9; what was killed is counted."""
        self.wait(f"{place} {unit}", lambda: self.pid(place, unit) is not None)
        pid = self.pid(place, unit)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.kills[unit if place == "coordinator" or unit == "runner" else f"region {unit}"] += 1
        return pid

    def kill_up(self, place: str) -> None:
        """kill -9 of a whole ``up``; its processes die with it."""
        process = self.processes.pop(place)
        process.kill()
        process.wait()
        self.kills[f"{'coordinator' if place == 'coordinator' else 'region'} up"] += 1

    def log(self, place: str, name: str = "gate") -> list[dict[str, Any]]:
        """The lines that a gate, or another process, has logged."""
        paths = sorted(
            (self._folder(place) / "log").glob(f"{name}.jsonl*"), key=lambda path: path.stat().st_mtime
        )
        return [json.loads(line) for path in paths for line in path.read_text().splitlines()]

    def logged(self, place: str, event: str, since: int = 0, **fields: object) -> bool:
        """Whether an event was logged, after the first ``since`` lines."""
        wanted = {"event": event} | fields
        return any(wanted.items() <= line.items() for line in self.log(place)[since:])

    def _folder(self, place: str) -> Path:
        return self.coordinator if place == "coordinator" else self.places[place].folder

    # Runs.

    def begin(self, name: str, *, rounds: int, timeout: float = 60.0, late: str = "drop") -> Conducted:
        """Start a run over all regions and wait until its first round is over."""
        text = EXPERIMENT.format(
            seed=len(list(self.folder.glob("*.toml"))), rounds=rounds, timeout=timeout, late=late
        )
        for region, place in self.places.items():
            text += f'[regions.{region}]\nroster = {place.roster}\nidentity = "{place.identity}"\n'
        experiment = self.folder / f"{name}.toml"
        experiment.write_text(text, encoding="utf-8")
        made = Conducted(self, experiment, self.folder / name)
        made.start()
        made.reach(1)
        return made

    def verify(self, run: Conducted) -> tuple[object, str]:
        """What an auditor says of every region's bundle: (exit code, text)."""
        bundles, trust = self.evidence(run.folder)
        notes = sorted((run.folder / "checkpoints").glob("*.note"))
        words = [
            "audit",
            "verify",
            *bundles,
            *notes,
            "--receipts",
            run.folder / "receipts.json",
            "--trust",
            trust,
        ]
        code, out, err = typed(*words)
        return code, out + err

    def booked(self, name: str, plan: str) -> collections.Counter[tuple[str, int]]:
        """How often a region's ledger has (type, round) of a plan."""
        return collections.Counter(
            (one["type"], one["round"])
            for one in self.entries(name)
            if one.get("plan") == plan and one["type"] in ("reserve", "release")
        )

    def dates(self, name: str) -> set[str]:
        """The dates in a region's ledger."""
        return {one["date"] for one in self.entries(name) if "date" in one}

    def entries(self, name: str) -> list[dict[str, Any]]:
        """A region's ledger, from its second copy."""
        (mirror,) = (self.places[name].folder / "mirror").glob("*.jsonl")
        return [json.loads(line) for line in mirror.read_text().splitlines()]


@dataclass
class Conducted:
    """One ``coordinator run``."""

    scene: Scene
    experiment: Path
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    stops: int = 0
    """How often it ended with a name for what was wrong, and was continued."""

    def start(self, *words: object) -> None:
        """Start it, or go on with --resume."""
        log = self.folder.with_name(f"{self.folder.name}.out").open("ab")
        with log:
            command = [
                "coordinator",
                "run",
                self.experiment,
                "-C",
                self.scene.coordinator,
                "-o",
                self.folder,
                *words,
            ]
            self.process = subprocess.Popen(
                [*FEDFSD, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def said(self) -> str:
        """What it printed."""
        return self.folder.with_name(f"{self.folder.name}.out").read_text()

    @property
    def document(self) -> plans.Plan:
        """Its plan."""
        return plans.read((self.folder / "plan.json").read_text(encoding="utf-8"))

    @property
    def plan(self) -> str:
        """The hash of its plan."""
        return self.document.hash

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Each round that is over."""
        path = self.folder / "rounds.jsonl"
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [one for one in map(json.loads, lines) if one["round"]]

    @property
    def newest(self) -> int:
        """The last round that is over."""
        return self.rounds[-1]["round"] if self.rounds else 0

    def reach(self, round: int) -> None:
        """Wait until ``round`` is over."""

        def over() -> bool:
            self.tend()
            return self.newest >= round

        self.scene.wait(
            f"round {round} of {self.folder.name}; it is at {self.newest}", over, seconds=WAIT_SECONDS
        )

    def further(self, rounds: int = 1) -> None:
        """Wait until that many more rounds are over."""
        self.reach(self.newest + rounds)

    def tend(self) -> None:
        """Continue it where it stopped as it may, by name: this machine may be too slow for a deadline."""
        if self.process is not None and self.process.poll() not in (None, 0):
            if self.process.returncode != 4 or "continue with --resume" not in self.said:
                raise StageError(self.said)
            self.stops += 1
            if self.stops > MAX_STOPS:
                raise StageError(self.said)
            self.start("--resume")

    def end(self) -> None:
        """Wait until it is complete."""

        def over() -> bool:
            self.tend()
            return self.process is not None and self.process.poll() == 0

        self.scene.wait(f"the end of {self.folder.name}; it is at {self.newest}", over, seconds=WAIT_SECONDS)

    def kill(self) -> None:
        """kill -9 of whoever follows the run."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.scene.kills["coordinator run"] += 1


@contextmanager
def small_disk(folder: Path, *, kibibytes: int) -> Iterator[Callable[[bool], None]]:
    """Meanwhile ``folder`` is a file system of its own; what it yields fills it up or frees it."""
    kept = shutil.copytree(folder, folder.with_name(folder.name + ".kept"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", folder], check=True)
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        filler = folder / "filler"

        def full(yes: bool) -> None:
            filler.unlink(missing_ok=True)
            if yes:
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while True:
                        file.write(bytes(4096))

        yield full
        filler.unlink(missing_ok=True)
        shutil.rmtree(kept)
        shutil.copytree(folder, kept)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        shutil.rmtree(kept)


@contextmanager
def namespace(name: str) -> Iterator[tuple[str, Callable[[bool], None]]]:
    """A host of its own, by one cable: (this side's address, what plugs it in or out).

    Raises CalledProcessError or OSError where network namespaces cannot be had.
    """
    net = f"10.{64 + os.getpid() % 128}.{os.getpid() // 128 % 256}"
    here, there = f"{name}h", f"{name}r"
    ip("netns", "add", name)
    try:
        ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        ip("addr", "add", f"{net}.1/30", "dev", here)
        ip("link", "set", here, "up")
        ip("-n", name, "addr", "add", f"{net}.2/30", "dev", there)
        ip("-n", name, "link", "set", there, "up")
        ip("-n", name, "link", "set", "lo", "up")
        yield f"{net}.1", lambda up: ip("link", "set", here, "up" if up else "down")
    finally:
        with suppress(subprocess.CalledProcessError):
            ip("link", "del", here)
        ip("netns", "del", name)


@contextmanager
def netem(within: Sequence[str], *words: str) -> Iterator[None]:
    """Meanwhile the cable of a host is as ``tc qdisc ... netem`` says."""
    device = within[-1] + "r"
    subprocess.run([*within, "tc", "qdisc", "add", "dev", device, "root", "netem", *words], check=True)
    try:
        yield
    finally:
        subprocess.run([*within, "tc", "qdisc", "del", "dev", device, "root"], check=True)


def ip(*words: str) -> None:
    """One command of iproute2."""
    subprocess.run(["ip", *words], check=True, capture_output=True)


def may_mount() -> bool:
    """Whether file systems can be mounted here."""
    return os.geteuid() == 0 and _can("unshare", "-m", "sh", "-c", "mount -t tmpfs none /mnt")


def may_shape() -> bool:
    """Whether tc netem can be had here."""
    return os.geteuid() == 0 and _can(
        "unshare", "-n", "sh", "-c", "ip link set lo up && tc qdisc add dev lo root netem delay 1ms"
    )


def edit(path: Path, old: str, new: str) -> None:
    """Replace what must be there in a file."""
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def below(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *below(child)]
    return found


def children(pid: int) -> Sequence[int]:
    """The processes that a process started."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(one) for task in tasks for one in (task / "children").read_text().split()]
    return []


def command(pid: int) -> bytes:
    """A process's command line."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def until(holds: Callable[[], bool], *, seconds: float = WAIT_SECONDS) -> bool:
    """Look again until something holds; whether it does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _can(*words: str) -> bool:
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except OSError:
        return False


__all__ = [
    "REGIONS",
    "Conducted",
    "Scene",
    "Stack",
    "edit",
    "may_mount",
    "may_shape",
    "namespace",
    "netem",
    "small_disk",
    "until",
]
