"""A federation in this process whose regions can be told to misbehave: the one fake of the tests.

Regions run the real client; a misbehaviour changes what comes back in one round, as a broken or hostile
region would.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid

from fedfsd import canonical
from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.federation.strategy import PlannedStrategy, Round
from fedfsd.flower import private
from fedfsd.flower import strategy as strategies
from fedfsd.gate.watch import Watcher
from fedfsd.report.run_folder import Folder
from fedfsd.runner.client import client_app
from fedfsd.runner.region import RegionConfig
from fedfsd.simulation.books import Evidence
from fedfsd.simulation.prepare import prepare
from fedfsd.simulation.run import node_config

Tamper = Callable[[Message], Message | None]


class Region:
    """One region of the fake; each method says what happens in ``round``."""

    def __init__(self) -> None:
        self.tampers: dict[int, Tamper] = {}
        self.delays: dict[int, int] = {}

    def stall(self, *, round: int) -> None:
        """Never answer."""
        self.tampers[round] = lambda _: None

    def delay(self, *, round: int, by: int = 1) -> None:
        """Answer only when the round that comes ``by`` later has been sent."""
        self.delays[round] = by

    def fail(self, *, round: int) -> None:
        """Answer with a Flower error as a crashed ClientApp does, its text full of private things."""
        self.tampers[round] = lambda reply: _like(reply, Error(2, "KeyError: 'vehicle 17 of the minister'"))

    def update(self, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], *, round: int) -> None:
        """Send ``change(update)`` instead of the update, under a fitting hash."""
        self.tampers[round] = lambda reply: _with_update(reply, change)

    def skip_noise(self, *, round: int) -> None:
        """Forget the noise: the witness block shows it."""
        self.update(
            lambda arrays: {name: np.zeros_like(array) for name, array in arrays.items()}, round=round
        )

    def claim(self, *, round: int, **release: str | int) -> None:
        """Say something else about the release than is true."""
        self.tampers[round] = lambda reply: _with_release(reply, release)

    def weigh(self, examples: float, *, round: int) -> None:
        """Report a weight, as Flower's own strategies would believe it."""

        def tamper(reply: Message) -> Message:
            reply.content.metric_records["metrics"]["num-examples"] = examples
            return reply

        self.tampers[round] = tamper


class Federation(Grid):
    """Runs an experiment over regions in this process; ``federation["EU"]`` is told what to do wrong."""

    def __init__(self, folder: Path, experiment: dict) -> None:
        private.become(1)
        private.quiet()
        self.experiment = load(Experiment, experiment)
        self.prepared = prepare(self.experiment)
        self.plan = self.prepared.plan
        folders = {
            name: Path(node_config(self.experiment, folder, name)["folder"]) for name in self.plan.regions
        }
        Evidence(self.prepared, Folder(folder), folders).begin()
        Folder(folder).keep_backbone(self.prepared.backbone)
        self.configs = {
            number: RegionConfig(**node_config(self.experiment, folder, name), simulated=True)
            for number, name in enumerate(self.plan.regions, start=2)
        }
        self.regions = {name: Region() for name in self.plan.regions}
        self.client = client_app(lambda context: self.configs[context.node_id])
        self.received: list[RecordDict] = []
        self._replies: dict[str, Message] = {}
        self._late: list[tuple[int, str, Message]] = []

    def __getitem__(self, region: str) -> Region:
        return self.regions[region]

    def strategy(self, watcher: Watcher | None = None) -> PlannedStrategy:
        """A fresh strategy of the experiment."""
        server = self.experiment.server
        inner = strategies.resolve(server.strategy, server.options)
        return PlannedStrategy(inner, self.plan, round_timeout_seconds=0.3, watcher=watcher)

    def rounds(
        self, strategy: PlannedStrategy | None = None, *, first_round: int = 1, arrays=None, on_round=None
    ) -> list[Round]:
        """All rounds from ``first_round`` on; ``on_round`` may raise to stop the run there."""
        finished: list[Round] = []

        def remember(done: Round) -> None:
            finished.append(done)
            if on_round:
                on_round(done)

        start = self.prepared.initial if arrays is None else arrays
        (strategy or self.strategy()).start(self, start, first_round=first_round, on_round=remember)
        return finished

    def push_messages(self, messages):
        ids = []
        for message in messages:
            ids.append(private.number(message))
            node = message.metadata.dst_node_id
            context = Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            reply = self.client(message, context)
            if message.has_content() and "config" in message.content:
                self.received.append(message.content)
                round = int(message.content.config_records["config"]["round"])
                region = self.regions[self.configs[node].name]
                tamper = region.tampers.get(round)
                reply = tamper(reply) if tamper else reply
                self._replies |= {one: kept for due, one, kept in self._late if due <= round}
                self._late = [held for held in self._late if held[0] > round]
                if reply is not None and round in region.delays:
                    self._late.append((round + region.delays[round], ids[-1], reply))
                    continue
            if reply is not None:
                self._replies[ids[-1]] = reply
        return ids

    def pull_messages(self, message_ids):
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def get_node_ids(self):
        return list(self.configs)

    def set_run(self, run):
        raise AssertionError("not used")

    @property
    def run(self):
        return private.empty_run(1)

    def create_message(self, *args, **kwargs):
        raise AssertionError("not used")

    def send_and_receive(self, *args, **kwargs):
        raise AssertionError("the strategy polls by itself")


def _like(reply: Message, error) -> Message:
    return Message(error=error, metadata=reply.metadata)


def _with_update(reply: Message, change) -> Message:
    arrays = change({name: array.numpy() for name, array in reply.content.array_records["arrays"].items()})
    content = b"".join(np.ascontiguousarray(array, dtype="<f4").tobytes() for array in arrays.values())
    reply.content["arrays"] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    return _with_release(reply, {"sha256": canonical.sha256(content)})


def _with_release(reply: Message, release) -> Message:
    reply.content["release"] = ConfigRecord({**reply.content.config_records["release"], **release})
    return reply
