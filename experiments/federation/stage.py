"""A coordinator and regions on this machine, each with folders, keys, officer and processes of its own.

Everything is done by the commands a person would type; each is shown as it is run.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fedfsd.drive import source, table
from fedfsd.drive.table import Table
from fedfsd.service import patience

FEDFSD = (str(Path(sys.executable).with_name("fedfsd")),)
DATA_SET = "generated-2026"
EPSILON, DELTA = 10.0, 1e-4
IDLE_SECONDS = 120.0
# Numbers of users that need no account; systemd units name real ones (fedfsd-gate, fedfsd-train).
GATE_USER, TRAIN_USER = 64101, 64102


class StageError(Exception):
    """A command ended otherwise than it should; the text is what it said."""


@dataclass
class Place:
    """Where one region's things are."""

    name: str
    folder: Path
    """Keys, ledger and outbox: the gate's alone."""
    train: Path
    """Settings of the runner and run keys: the runner's alone."""
    data: Path
    officer: Path
    """The data officer's machine: the key never lies in the region's folder."""
    roster: int
    identity: str


@dataclass
class Stage:
    """``build``, ``up``, then runs; ``down`` ends every process that was started."""

    folder: Path
    names: Sequence[str]
    tables: Sequence[Table] = ()
    """The regions' drives, by region; without any, the generated traffic inside the package."""
    test_only: bool = False
    separate: bool | None = None
    """Whether gate and runner are users of their own; by default where this machine and folder allow it."""
    host: str = "127.0.0.1"
    """Where regions reach the coordinator."""
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By region, or "coordinator": words before each of its commands, as "ip netns exec eu"."""
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    places: dict[str, Place] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def coordinator(self) -> Path:
        """The coordinator's folder."""
        return self.folder / "coordinator"

    # Set up.

    def build(self) -> None:
        """Found the coordinator, enrol every region and have its officer grant a budget."""
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)
        if self.separate is None:
            self.separate = can_separate(self.folder)
        ports = [str(port) for port in free_ports(3)]
        self.fedfsd(
            *("coordinator", "init", "demo", "-o", self.coordinator, "--host", self.host),
            *("--port", ports[0], "--join-port", ports[1], "--flower-port", ports[2]),
        )
        self.start_coordinator()
        for name in self.names:
            self._enrol(name)

    def _enrol(self, name: str) -> None:
        place = self.places[name] = self._place(name)
        key, vkey = place.officer / "officer.key", place.officer / "officer.vkey"
        self.fedfsd("keys", "new", f"fedfsd/{name}/officer", "-o", key)
        invitation = place.officer.parent / f"invitation-{name}.json"
        invited = self.document(*("coordinator", "invite", name, "-C", self.coordinator, "-o", invitation))
        made = self.document(
            *("region", "init", name, "-o", place.folder, "--officer-vkey", vkey, "--join", invitation),
            *("--root-fingerprint", invited["root_fingerprint"], "--data", place.data),
            *("--train", place.train, "--roster", place.roster, "--identity", place.identity),
            *("--purpose", "a demonstration", "--data-set", f"{name}:{DATA_SET}"),
            *("--epsilon", EPSILON, "--delta", DELTA),
            at=name,
        )
        # Read out over the telephone: both sides see the same fingerprint.
        self.fedfsd("coordinator", "invite", name, "-C", self.coordinator, "--confirm", made["fingerprint"])
        # On a machine of the officer's own; the signed papers go back to the region.
        draft = Path(made["file"])
        signed = place.officer / f"{draft.stem}.signed.json"
        self.fedfsd("region", "sign", draft, "--officer-key", key, "-o", signed)
        self.fedfsd("region", "add", signed, "--region", place.folder)
        policy = place.folder / "policy.toml"
        text = policy.read_text(encoding="utf-8")
        text = text.replace("round_seconds = 10.0", "round_seconds = 0.0")  # nothing is hidden, nobody waits
        policy.write_text(text, encoding="utf-8")
        if self.separate:
            chown(place.folder, GATE_USER)
            chown(place.train, TRAIN_USER)
            chown(place.data.parent, TRAIN_USER)

    def _place(self, name: str) -> Place:
        """Folders of one region; its data hold its own vehicles and nobody else's."""
        home = self.folder / name.lower()
        for inner in ("data", "officer"):
            (home / inner).mkdir(parents=True, mode=0o700)
        (mine,) = table.in_region(self.tables or source.tables("embedded"), name)
        data = home / "data" / "drives.parquet"
        table.write(mine, data, schema=mine.rows.schema)
        rows = mine.rows
        training = rows.filter(pc.invert(rows["test"]))
        roster = len(pc.unique(pa.chunked_array(training["vehicle"])))
        return Place(name, home / "gate", home / "train", data, home / "officer", roster, mine.identity)

    # Processes.

    def start_coordinator(self) -> None:
        """Start it and wait until it takes calls."""
        self.start("coordinator", "coordinator", "up", "-C", self.coordinator)
        self.wait("the coordinator", lambda: self.ready("coordinator"))

    def start_region(self, name: str) -> None:
        """Start one region; it is ready when gate and runner are."""
        place = self.places[name]
        words: list[object] = ["region", "up", "--region", place.folder, "--train", place.train]
        if self.test_only:
            words.append("--test-only")
        if self.separate:
            words += ["--gate-user", GATE_USER, "--train-user", TRAIN_USER]
        self.start(name, *words)

    def up(self) -> float:
        """Start every region and return the seconds until the last was ready."""
        started = time.monotonic()
        for name in self.places:
            self.start_region(name)
        for name in self.places:
            self.wait(name, lambda name=name: self.ready(name))
        return time.monotonic() - started

    def down(self) -> None:
        """End what was started, the coordinator last, each as an operator would: by SIGTERM."""
        for name in [*self.places, "coordinator"]:
            self.stop(name)

    def stop(self, name: str) -> int | None:
        """End one ``up`` and all it supervises."""
        process = self.processes.pop(name, None)
        if process is None:
            return None
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            return process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def start(self, name: str, *words: object) -> None:
        """Start a long-running command; what it says goes to a log file."""
        self.show(words)
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                [*self.within.get(name, ()), *FEDFSD, *map(str, words)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    # Runs.

    def approve(self, plan: str, names: Iterable[str] | None = None) -> None:
        """Each region's operator looks at the plan that arrived and approves it."""
        for name in names or self.places:
            place = self.places[name]
            document = place.folder / "plans" / f"{plan}.json"
            self.wait(f"the plan in {name}", document.exists)
            self.fedfsd("region", "approve", plan[:16], "--yes", "--region", place.folder)

    def offered(self) -> str | None:
        """The hash of the plan on offer."""
        found = sorted((self.coordinator / "offers").glob("*.json"))
        return found[-1].stem if found else None

    def run(self, experiment: Path, output: Path, *words: object) -> subprocess.Popen[bytes]:
        """Start ``coordinator run``; the caller waits for it."""
        command = ["coordinator", "run", experiment, "-C", self.coordinator, "-o", output, *words]
        self.show(command)
        before = self.within.get("coordinator", ())
        return subprocess.Popen([*before, *FEDFSD, *map(str, command)], stdin=subprocess.DEVNULL)

    # Evidence.

    def evidence(self, output: Path) -> tuple[list[Path], Path]:
        """Every region's bundle, and a trust file from keys that each side showed by itself."""
        lines = self.fedfsd("keys", "show", self.coordinator / "coordinator.key").splitlines()
        bundles = []
        for name, place in self.places.items():
            found = self.document("region", "status", "--region", place.folder)
            lines += [f"node {found['node_key']}", f"officer {found['officer_key']}"]
            bundle = output / f"{name}.zip"
            self.fedfsd("region", "bundle", "--region", place.folder, "-o", place.folder / bundle.name)
            bundle.write_bytes((place.folder / bundle.name).read_bytes())
            bundles.append(bundle)
        trust = output / "trust.keys"
        trust.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return bundles, trust

    # How commands are run.

    def fedfsd(self, *words: object, code: int = 0, at: str = "") -> str:
        """Run one command to its end and return what it printed. StageError where it ends otherwise."""
        self.show(words)
        command = [*self.within.get(at, ()), *FEDFSD, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != code:
            raise StageError(f"{shlex.join(map(str, words))}\n{done.stderr or done.stdout}")
        return done.stdout

    def document(self, *words: object, at: str = "") -> dict[str, Any]:
        """The JSON document that a command prints."""
        return dict(json.loads(self.fedfsd(*words, "--json", at=at)))

    def wait(
        self,
        what: str,
        holds: Callable[[], bool],
        *,
        seconds: float = IDLE_SECONDS,
        also: Sequence[subprocess.Popen[bytes]] = (),
    ) -> None:
        """Look again until ``holds``. StageError when a process has ended, or all were idle for so long."""

        def gone() -> list[str]:
            return [name for name, process in self.processes.items() if process.poll() is not None]

        watched = [*self.processes.values(), *also]
        found = patience.until(
            lambda: holds() or bool(gone()), seconds=seconds, pids=lambda: [one.pid for one in watched]
        )
        if not found or gone():
            logs = "\n".join((self.folder / f"{name}.log").read_text()[-2000:] for name in gone())
            raise StageError(f"waited for {what}; ended: {', '.join(gone()) or 'nothing'}\n{logs}")

    def ready(self, name: str) -> bool:
        """What its own status says."""
        words: list[object] = ["coordinator", "status", "-C", self.coordinator]
        if name != "coordinator":
            words = ["region", "status", "--region", self.places[name].folder]
        done = subprocess.run([*FEDFSD, *map(str, words), "--json"], capture_output=True, text=True)
        return done.returncode == 0 and bool(json.loads(done.stdout).get("ready"))

    def show(self, words: Iterable[object]) -> None:
        self.say("$ fedfsd " + shlex.join(_shorter(self.folder, word) for word in words))


def can_separate(folder: Path) -> bool:
    """Whether other users' processes can work in ``folder``: started by root, with a Python they may run."""
    code = "import os, sys, fedfsd; os.stat(sys.argv[1])"
    command = [sys.executable, "-c", code, str(folder / ".")]
    other = {"user": GATE_USER, "group": GATE_USER, "extra_groups": []}
    try:
        return os.geteuid() == 0 and subprocess.run(command, capture_output=True, **other).returncode == 0
    except OSError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def chown(folder: Path, user: int) -> None:
    """Give a folder and all in it to one user, who alone can look into it."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user)
    folder.chmod(0o700)


def _shorter(folder: Path, word: object) -> str:
    return str(word).replace(f"{folder}/", "")
