"""A Flower grid on one machine: worker processes of one torch thread each, messages over pipes and shared
memory.

A task goes to a free worker that has served its node before, else to any free one. A worker that
dies or is still busy when its message is given up is replaced; only its own task is lost.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.message import make_message
from flwr.supercore.run import Run

from fedfsd.federation import shared
from fedfsd.federation.shared import Packed
from fedfsd.flower import private
from fedfsd.flower.polled import PolledGrid

RUN_ID = 1
_LOST = Error(1, "worker lost")
Config = Mapping[str, str | int | float | bool]


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    task: Message | None = None
    served: set[int] = field(default_factory=set)
    has: int = 0
    """The number of the content that it was sent last."""


def warm(app: str) -> None:
    """Begin to load what worker processes of ``app`` need, while this process does something else."""
    _context(app)
    forkserver.ensure_running()


def _context(app: str) -> multiprocessing.context.ForkServerContext:
    """A fork server imports torch once, before any thread runs; workers fork off it in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([app.partition(":")[0], __name__])
    return context


class ProcessGrid(PolledGrid):
    """Runs the ClientApp that ``app`` names ("package.module:attribute") for every node of ``nodes``."""

    def __init__(self, app: str, nodes: Mapping[int, Config], *, workers: int | None = None) -> None:
        private.become(RUN_ID)
        private.quiet()
        self._app, self._nodes = app, dict(nodes)
        self._run = private.empty_run(RUN_ID)
        self._queue: deque[Message] = deque()
        self._replies: dict[str, Message] = {}
        # What many messages share is packed once: the content, its number, and the content as it is sent.
        self._content: tuple[RecordDict | None, int, Packed] = (None, 0, Packed(None))
        self._context = _context(app)
        count = workers or min(len(self._nodes), os.cpu_count() or 1)
        self._workers = [self._spawn() for _ in range(count)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Queue messages and return their ids."""
        # Content that was changed since the last time must not be taken for the same.
        self._content[2].close()
        self._content = None, self._content[1], Packed(None)
        ids = []
        for message in messages:
            ids.append(private.number(message))
            self._queue.append(message)
        self._dispatch()
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies that have come for ``message_ids``; waits a moment where there are none."""
        ids = set(message_ids)
        self._collect(timeout=0 if ids & set(self._replies) else 0.05)
        return [self._replies.pop(one) for one in sorted(ids & set(self._replies))]

    def abandon(self) -> None:
        """Give up every message without a reply: queued ones are dropped, busy workers replaced."""
        self._queue.clear()
        for worker in self._workers:
            if worker.task is not None:
                self._replace(worker)

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.pipe.close()  # an idle worker ends when its pipe does
            if worker.task is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(timeout=5)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()
        self._content[2].close()

    def __enter__(self) -> ProcessGrid:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_run(self, run: Run) -> None:
        """Part of Flower's interface; a grid in one process has one run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The one run."""
        return self._run

    def get_node_ids(self) -> list[int]:
        """The nodes of this grid."""
        return list(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """As of every such grid; work on what is not answered in time is stopped."""
        sent = list(messages)
        replies = super().send_and_receive(sent, timeout=timeout)
        if len(replies) < len(sent):
            self.abandon()
        return replies

    def _dispatch(self) -> None:
        for worker in list(self._workers):
            if worker.task is None and self._queue:
                known = (message for message in self._queue if message.metadata.dst_node_id in worker.served)
                task = next(known, self._queue[0])
                self._queue.remove(task)
                try:
                    self._send(worker, task)
                except OSError:  # it died while idle: nothing is lost
                    worker = self._replace(worker)
                    self._send(worker, task)
                worker.task = task
                worker.served.add(task.metadata.dst_node_id)

    def _send(self, worker: _Worker, task: Message) -> None:
        content, number, packed = self._content
        if content is not task.content:
            packed.close()
            number, packed = number + 1, Packed(task.content)
            self._content = task.content, number, packed
        known = worker.has == number
        worker.pipe.send((task.metadata, known))
        if not known:
            packed.send(worker.pipe)
            worker.has = number

    def _collect(self, *, timeout: float) -> None:
        busy = [(worker, worker.task) for worker in self._workers if worker.task is not None]
        ready = wait([worker.pipe for worker, _ in busy], timeout=timeout)
        for worker, task in busy:
            if worker.pipe not in ready:
                continue
            try:
                reply: Message = shared.receive(worker.pipe)
                worker.task = None
            except (EOFError, OSError):
                self._replace(worker)
                reply = Message(_LOST, reply_to=task)
            self._replies[task.metadata.message_id] = reply
        self._dispatch()

    def _replace(self, worker: _Worker) -> _Worker:
        worker.process.kill()
        worker.process.join()
        worker.pipe.close()
        fresh = self._workers[self._workers.index(worker)] = self._spawn()
        return fresh

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._app, self._nodes), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)


def _work(pipe: Connection, app: str, nodes: Mapping[int, Config]) -> None:
    """A worker: serve messages until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    import torch

    torch.set_num_threads(1)
    private.quiet()
    module, _, attribute = app.partition(":")
    client = getattr(importlib.import_module(module), attribute)
    contexts = {
        node: Context(
            run_id=RUN_ID, node_id=node, node_config=dict(config), state=RecordDict(), run_config={}
        )
        for node, config in nodes.items()
    }
    content = RecordDict()
    while True:
        try:
            metadata, known = pipe.recv()
            if not known:
                content = shared.receive(pipe)
        except (EOFError, ConnectionResetError):
            return
        message = make_message(metadata, content=content)
        node = metadata.dst_node_id
        private.become(RUN_ID, node)
        reply = client(message, contexts[node])
        try:
            shared.send(pipe, reply)
        except BrokenPipeError:  # the run ended while this worker trained: nobody waits for its reply
            return
