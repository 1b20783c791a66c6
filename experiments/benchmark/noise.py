"""A runner that trains nothing: ``python -m experiments.benchmark.noise SOCKET REGION FILE``.

It speaks the runner's side of the gate's socket and hands in noise of the planned scale, prepared beforehand
but for its scale and a shift; so that what is measured is the way of an update, not its training. FILE gets
a line a task: plan and round, and the seconds that it was busy itself.
"""

from __future__ import annotations

import hashlib
import secrets
import socket
import sys
import time
from pathlib import Path

import numpy as np

from fedfsd.errors import FedfsdError
from fedfsd.gate import message
from fedfsd.gate.frame import Frames, address
from fedfsd.gate.gate import witness_std
from fedfsd.plan import plan as plans

_WAIT_SECONDS, _FOR_EVER = 0.2, 86_400.0
_MAX_BODY = 2**30
_SHIFT = 1_234_567  # so that no chunk of two rounds is equal


def main(path: Path, region: str, file: Path) -> None:
    """Serve gates until a signal ends the process."""
    normals = np.empty(0, np.float32)
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                with address(path) as name:
                    connection.connect(name)
                frames = Frames(connection)
                message.send(frames, message.Hello(version=message.VERSION, region=region, keys=()))
                message.receive(frames, message.Welcome, seconds=_FOR_EVER)
                while True:
                    normals = _work(frames, region, file, normals)
        except (FedfsdError, OSError):
            time.sleep(_WAIT_SECONDS)


def _work(frames: Frames, region: str, file: Path, normals: np.ndarray) -> np.ndarray:
    """One question or task; the normals for the next one."""
    kinds = (message.Commit, message.SettleCall, message.RoundTask)
    asked, body = message.receive(
        frames, *kinds, seconds=_FOR_EVER, max_body=_MAX_BODY, body_of=message.RoundTask
    )
    if isinstance(asked, message.Commit):
        message.send(frames, message.Committed(plan=asked.plan, commitment=secrets.token_hex(32)))
    elif isinstance(asked, message.SettleCall):
        message.send(frames, message.Settled(plan=asked.plan))
    else:
        _task(frames, asked, memoryview(body), region, file, normals)
        size = (len(body) - asked.document) // 4
        if normals.size != size:
            normals = np.random.default_rng().standard_normal(size, np.float32)
    return normals


def _task(
    frames: Frames, task: message.RoundTask, body: memoryview, region: str, file: Path, normals: np.ndarray
) -> None:
    started = time.monotonic()
    plan = plans.read(str(body[: task.document], "utf-8"))
    arrays = hashlib.sha256(body[task.document :]).hexdigest()
    std = np.float32(witness_std(plan, region, task.round))
    if normals.size != plan.model.size:
        normals = np.random.default_rng().standard_normal(plan.model.size, np.float32)
    noise = np.roll(normals, _SHIFT * task.round) * std
    content = noise.astype("<f4", copy=False).tobytes()
    busy = time.monotonic() - started
    message.send(frames, message.ReserveCall(plan=task.plan, round=task.round, arrays=arrays))
    message.receive(frames, message.Reserved, seconds=_FOR_EVER)
    message.send(frames, message.ReleaseCall(plan=task.plan, round=task.round), content)
    let, _ = message.receive(frames, message.Let, seconds=_FOR_EVER)
    done = {"entry_hash": let.entry_hash, "sha256": let.sha256}
    message.send(frames, message.Done(plan=task.plan, round=task.round, **done))
    with file.open("a") as lines:
        lines.write(f"{task.plan}/{task.round} {busy}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
