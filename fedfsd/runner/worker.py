"""What a runner does for its gate: it makes and destroys run keys, and has the region's app train rounds."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from fedfsd import formats
from fedfsd.config.experiment import GradientEngine
from fedfsd.config.load import Frozen
from fedfsd.engine import randomness
from fedfsd.errors import PlanError
from fedfsd.flower import held, private
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import message, outcome
from fedfsd.gate.frame import Frames
from fedfsd.gate.message import (
    MAX_KEYS,
    AskFacts,
    Commit,
    Committed,
    Done,
    Failed,
    Hello,
    RoundTask,
    SettleCall,
    Settled,
    Unwelcome,
    Welcome,
)
from fedfsd.gate.remote import RemoteGate
from fedfsd.ledger import program as programs
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.entry import Program
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.runner import adapt, client, self_check
from fedfsd.runner.client import client_app
from fedfsd.runner.evaluation import Figures
from fedfsd.runner.group import Group, Members
from fedfsd.runner.region import Region, RegionConfig

RUN_ID, NODE_ID = 1, 2  # a Flower message wants some
MAX_ARRAYS = 2**32  # bytes; the gate is believed, and its policy bounds a model
_GREETING_SECONDS = 10.0


class Worker:
    """One region's runner; data and model stay loaded from task to task, whatever becomes of the gate."""

    def __init__(
        self,
        folder: Path,
        name: str,
        data_path: str,
        device: str,
        test_only: bool,
        *,
        backbones: str = "",
        engine: GradientEngine = "auto",
        program: Program | None = None,
        members: Members | None = None,
    ) -> None:
        """``program``: what this process trains with, by default as it is installed now.

        ``members``: the processes that train with this one; None: it trains alone.
        """
        private.become(RUN_ID, NODE_ID)
        private.quiet()
        self._folder = folder
        self._config = RegionConfig(name, data_path, str(folder), device, backbones=backbones, engine=engine)
        self._gate = RemoteGate(name, program or programs.installed(folder), test_only=test_only)
        group = None
        if members is not None and members.world > 1:
            group = Group(folder, members, self._gate.program.hash)
        self._region = Region(self._config, self._gate, group)
        self._app = client_app(lambda _: self._config, opened=lambda _: self._region)
        self._figures: Figures | None = None
        self._frames: Frames

    def greet(self, connection: socket.socket) -> None:
        """The first words on a new connection; keys of plans that are over are destroyed.

        Raises:
            FormatError: the gate is of a release that cannot work with this one.
            FedfsdError: it ended, or said something else.
        """
        self._frames = Frames(connection)
        found = (path.stem for path in sorted(self._region.keys.glob("*.key")))
        keys = tuple(name for name in found if re.fullmatch("[0-9a-f]{64}", name))[:MAX_KEYS]
        hello = Hello(
            version=message.VERSION, region=self._config.name, keys=keys, program=self._gate.program
        )
        message.send(self._frames, hello)
        answer, _ = message.receive(self._frames, Welcome, Unwelcome, seconds=_GREETING_SECONDS)
        told = cast(Welcome | Unwelcome, answer)
        if isinstance(told, Unwelcome):
            raise formats.disagreement("runner socket", told.version, peer="the gate", here="the runner")
        for plan in told.over:
            randomness.destroy_run_key(self._region.keys, plan)

    def work(self, *, seconds: float) -> None:
        """Answer the gate's next question or task.

        Raises:
            FedfsdError: the gate is gone, or asked nothing for ``seconds``.
        """
        heard, body = message.receive(
            self._frames,
            Commit,
            SettleCall,
            AskFacts,
            RoundTask,
            seconds=seconds,
            max_body=message.MAX_DOCUMENT + MAX_ARRAYS,
            body_of=RoundTask,
        )
        asked = cast(Commit | SettleCall | AskFacts | RoundTask, heard)
        answer: Frozen
        plan = None if isinstance(asked, AskFacts) else asked.plan
        try:
            answer = self._task(asked, body) if isinstance(asked, RoundTask) else self._answer(asked)
        except Exception as error:  # what failed is for this region's people; the gate learns one word
            client.note(self._folder, error)
            answer = Failed(plan=plan, code=outcome.of(error))
        try:
            message.send(self._frames, answer)
            if isinstance(asked, RoundTask) and isinstance(answer, Done):
                self._measure(asked, body)
        finally:
            self._gate.end()

    def _answer(self, asked: Commit | SettleCall | AskFacts) -> Frozen:
        if isinstance(asked, Commit):
            key = randomness.run_key(self._region.keys, asked.plan)
            return Committed(plan=asked.plan, commitment=key_commitment(key))
        if isinstance(asked, SettleCall):
            randomness.destroy_run_key(self._region.keys, asked.plan)
            return Settled(plan=asked.plan)
        config = self._config
        return self_check.facts(
            config.name,
            config.data_path,
            config.device,
            host=asked.host,
            port=asked.port,
            folder=asked.folder,
        )

    def _task(self, task: RoundTask, body: bytes) -> Done | Failed:
        """Have the app train the round."""
        plan, arrays = _read(task, body)
        self._gate.begin(self._frames, task)
        content = RecordDict(
            {
                "arrays": held.record(arrays),
                "config": ConfigRecord({"plan": plan.document(), "round": task.round}),
            }
        )
        sent = Message(content, NODE_ID, MessageType.TRAIN)
        private.number(sent)
        context = Context(run_id=RUN_ID, node_id=NODE_ID, node_config={}, state=RecordDict(), run_config={})
        reply = self._app(sent, context)
        if reply.has_error():
            return Failed(plan=task.plan, code=outcome.from_flower(reply.error.code) or "region_unavailable")
        release = reply.content.config_records["release"]
        entry, sha256 = str(release["entry"]), str(release["sha256"])
        return Done(plan=task.plan, round=task.round, entry_hash=entry, sha256=sha256)

    def _measure(self, task: RoundTask, body: bytes) -> None:
        """After the answer: the model that was sent put aside, and the region's own figures of it."""
        try:
            plan, arrays = _read(task, body)
            adapt.keep(self._folder, plan, arrays, task.round)
            if self._figures is None or self._figures.plan_hash != plan.hash:
                self._figures = Figures.of(self._region, plan)
            self._figures.append(self._folder, arrays, task.round)
        except Exception as error:  # figures are no reason to stop
            client.note(self._folder, error)


def _read(task: RoundTask, body: bytes) -> tuple[Plan, Arrays]:
    """The plan and the arrays in the body of a task. PlanError where it is not the plan that is named."""
    content = memoryview(body)
    try:
        plan = plans.read(str(content[: task.document], "utf-8"))
    except UnicodeDecodeError:
        raise PlanError("plan", got="no UTF-8 text", expected="a plan") from None
    if plan.hash != task.plan:
        raise PlanError("plan", got="another plan than is named", expected="the named one")
    arrays: dict[str, np.ndarray] = gate_arrays.view(content[task.document :], plan.model.arrays)
    return plan, arrays
