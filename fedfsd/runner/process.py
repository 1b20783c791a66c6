"""The pinned runner: the warm process that reads a region's data, and trains what the region's gate hands it.

    python -m fedfsd.runner --train FOLDER

It has one Unix socket and needs no network. It calls the installed ClientApp with Flower's own messages;
nothing that comes with a task is imported or run. In its folder: train.toml, keys/ (the run keys, 0600),
region.log (failures in full, and what is odd about the data), figures.jsonl (the errors of the models it was
sent, on its own test vehicles), the model as last sent and the region's own; nothing of them is ever sent.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn

from pydantic import Field, model_validator

from fedfsd.config.experiment import GradientEngine, RegionName
from fedfsd.config.load import Frozen, load
from fedfsd.drive.source import EMBEDDED
from fedfsd.errors import ConfigError, FedfsdError, FormatError, NotReadyError
from fedfsd.gate.frame import address
from fedfsd.ledger import program as programs
from fedfsd.service import address as addresses

if TYPE_CHECKING:
    from fedfsd.runner.group import Members
    from fedfsd.runner.worker import Worker

SETTINGS = "train.toml"
_IDLE_SECONDS = 7 * 86_400.0
_GENTLE = 19
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0  # s, between attempts to reach the gate


class Together(Frozen):
    """Processes of several machines of one region."""

    address: str
    """HOST:PORT of the first machine, in the region's own network."""
    processes: Annotated[int, Field(ge=2, le=4096)]
    """Of all machines."""
    first: Annotated[int, Field(ge=0)] = 0
    """The number of this machine's first process; the machine that has 0 has the gate."""


class Settings(Frozen):
    """``train.toml``; paths are relative to the folder it lies in."""

    FORMAT: ClassVar[str] = "train.toml"

    format: Literal[1, 2] = 1
    name: RegionName
    data_path: str
    """A table, a folder of tables, or ``embedded``."""
    device: str = "auto"
    devices: Annotated[tuple[str, ...], Field(strict=False, max_length=4096)] = ()
    """A process for each, which train together; none: one process on ``device``. From format 2 on."""
    together: Together | None = None
    """How processes of several machines meet. From format 2 on."""
    socket: str = "../run/gate.sock"
    """Where the region's gate listens."""
    backbones: str = "backbones"
    """A folder of weights files for plans that train a part of their model, or one such file."""
    engine: GradientEngine = "auto"
    """How each vehicle's gradient is had: as training.engine of an experiment."""
    test_only: bool = False
    """Rehearse, too: for trials on synthetic or published data."""

    @model_validator(mode="after")
    def _several_since_format_2(self) -> Settings:
        if self.format == 1 and (self.devices or self.together):
            raise ConfigError(
                "format", got="format 1 with several devices", expected="format 2", hint="write format = 2"
            )
        if self.together and not self.devices:
            raise ConfigError(
                "devices", got="none", expected="those of this machine, as together is set", hint='["cpu"]'
            )
        return self

    def members(self) -> Members:
        """The processes that train together."""
        from fedfsd.runner.group import LOCAL, Members

        if self.together is None:
            return Members(self.devices or (self.device,))
        host, port = addresses.split(self.together.address)
        if host in (LOCAL, "localhost"):
            raise ConfigError("together.address", got=host, expected="an address of the region's network")
        return Members(self.devices, host, port, self.together.first, self.together.processes)

    def data(self, folder: Path) -> str:
        """The data path as seen from anywhere."""
        return self.data_path if self.data_path in EMBEDDED else str((folder / self.data_path).absolute())

    def weights(self, folder: Path) -> str:
        """Where backbones are, as seen from anywhere."""
        return str((folder / self.backbones).absolute())


def run(folder: Path, settings: Settings) -> NoReturn:
    """Serve the gate until a signal comes; a gate that is not there is waited for."""
    os.umask(0o077)
    if settings.together is not None and settings.together.first:
        _accompany(folder, settings.members())
    # Connected before anything is loaded, which takes long on a busy machine: the gate knows who is coming.
    first = _connected(folder / settings.socket)
    worker = _loaded(folder, settings)
    threading.Thread(target=_look, args=(folder, settings), daemon=True).start()
    wait, told = _FIRST_WAIT, ""
    while True:
        try:
            connection, first = first or _connected(folder / settings.socket), None
            if connection is None:
                raise NotReadyError("gate", got="no gate", expected="its socket")
            with connection:
                worker.greet(connection)
                wait = _FIRST_WAIT
                while True:
                    worker.work(seconds=_IDLE_SECONDS)
        except (FedfsdError, OSError) as error:  # the gate ended, or has a runner already
            if isinstance(error, FormatError) and str(error) != told:
                told = str(error)
                print(told, file=sys.stderr, flush=True)
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


def _connected(path: Path) -> socket.socket | None:
    """A connection to the gate; None where it is not there."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with address(path) as name:
            connection.connect(name)
    except OSError:
        connection.close()
        return None
    return connection


def _loaded(folder: Path, settings: Settings) -> Worker:
    """What trains, with torch."""
    program = programs.installed(folder)  # of the files that are imported next
    from fedfsd.runner.worker import Worker

    data, members = settings.data(folder), settings.members()
    return Worker(
        folder,
        settings.name,
        data,
        members.devices[0],
        settings.test_only,
        backbones=settings.weights(folder),
        engine=settings.engine,
        program=program,
        members=members,
    )


def _accompany(folder: Path, members: Members) -> NoReturn:
    """On a machine without the first process: run its processes; the supervisor starts them again."""
    from fedfsd.runner import group

    members.demand()
    where, ranks = f"{members.host}:{members.port}", range(len(members.devices))
    others = [group.start(folder, members.first + rank, where) for rank in ranks]
    try:
        while all(process.poll() is None for process in others):
            time.sleep(_LONGEST_WAIT)
    finally:
        for process in others:
            process.kill()
    raise NotReadyError(
        "train.toml: devices", got="a process that ended", expected="all", hint=f"see region.log in {folder}"
    )


def _look(folder: Path, settings: Settings) -> None:
    """Tell the region's people, before any plan comes, if its vehicles have nothing to train on.

    Of what forecasting needs: data of another task are counted once a plan names it.
    """
    from fedfsd.runner import self_check
    from fedfsd.runner.region import remark

    for line in self_check.remarks(settings.name, settings.data(folder)):
        remark(folder, f"data: {line}")


def main(arguments: list[str] | None = None) -> int:
    """What ``python -m fedfsd.runner`` does; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fedfsd.runner", description="A region's runner.")
    parser.add_argument("--train", type=Path, required=True, metavar="FOLDER", help="holds train.toml")
    parser.add_argument("--test-only", action="store_true", help="as test_only = true in train.toml")
    parser.add_argument(
        "--facts", action="store_true", help="print what this process can do, as JSON, and end"
    )
    parser.add_argument(
        "--survey", metavar="JSON", help="print what the data give for tasks and rosters, as JSON, and end"
    )
    parser.add_argument(
        "--replay",
        action="store_true",
        help="replay the plans on standard input, print faults as JSON, and end",
    )
    parser.add_argument("--address", default="", metavar="HOST:PORT", help="with --facts: try to connect")
    parser.add_argument("--gate-folder", default="", metavar="FOLDER", help="with --facts: try to list it")
    parser.add_argument(
        "--adapt", action="store_true", help="make the region's own model of what standard input has, and end"
    )
    parser.add_argument("--coins", metavar="PLAN", help="print the coins of that plan's canaries, and end")
    asked = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        said = ["test_only=true"] if asked.test_only else []
        settings = load(Settings, asked.train / SETTINGS, overrides=said)
        if asked.survey is not None:
            print(json.dumps(_surveys(asked, settings)))
            return 0
        if asked.replay:
            print(json.dumps(_replays(settings)))
            return 0
        if asked.adapt:
            print(json.dumps(_adapted(asked.train, settings)))
            return 0
        if asked.coins is not None:
            print(_coins(asked.train, asked.coins))
            return 0
        if not asked.facts:
            run(asked.train, settings)
        print(json.dumps(_facts(asked, settings)))
    except FedfsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _facts(asked: argparse.Namespace, settings: Settings) -> dict[str, object]:
    from fedfsd.runner import self_check

    try:
        host, port = addresses.split(asked.address) if asked.address else ("", 0)
    except ValueError:
        raise NotReadyError("--address", got=asked.address, expected="HOST:PORT") from None
    return self_check.local(
        settings.name,
        settings.data(asked.train),
        settings.members().devices[0],
        host=host,
        port=port,
        folder=asked.gate_folder,
    )


def _surveys(asked: argparse.Namespace, settings: Settings) -> list[dict[str, Any]]:
    from fedfsd.runner import self_check

    try:
        return self_check.surveys(
            settings.name,
            settings.data(asked.train),
            json.loads(asked.survey),
            backbones=settings.weights(asked.train),
        )
    except (ValueError, TypeError, KeyError):
        raise NotReadyError(
            "--survey", got="something else", expected="a list of task, pin and roster as JSON"
        ) from None


def _replays(settings: Settings) -> list[list[str]]:
    from fedfsd.runner import self_check

    try:
        return self_check.replays(settings.name, settings.device, json.load(sys.stdin))
    except (ValueError, TypeError, KeyError):
        raise NotReadyError(
            "--replay", got="something else", expected="a list of plan, pin and task_pin as JSON"
        ) from None


def _adapted(folder: Path, settings: Settings) -> dict[str, object]:
    os.nice(_GENTLE)  # a round that runs beside it goes first
    from fedfsd.runner.adapt import adapt
    from fedfsd.runner.region import RegionConfig

    data, weights = settings.data(folder), settings.weights(folder)
    device = settings.members().devices[0]
    config = RegionConfig(settings.name, data, str(folder), device, backbones=weights)
    return adapt(folder, config, sys.stdin.buffer)


def _coins(folder: Path, plan_hash: str) -> str:
    from fedfsd.runner import coins

    try:
        return coins.document(folder, plan_hash).read_text(encoding="utf-8")
    except OSError:
        raise NotReadyError(
            f"coins of plan {plan_hash[:8]}", got="none", expected="those of a plan that was trained here"
        ) from None


def _end(*_: object) -> NoReturn:
    raise SystemExit(0)


def at_once() -> NoReturn:
    """Run and end without the interpreter's last collection: of a model's objects it takes seconds."""
    try:
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
