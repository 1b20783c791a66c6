"""A script: the memory that a gate takes for a round of a 40 MB model, above its idle size (JSON)."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from books import keep_books
from plan.sample import REGION, WITNESS_SIZE, noise_alone, planned

from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import message
from fedfsd.gate.frame import Frames
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import Policy, declared
from fedfsd.ledger import program as programs
from fedfsd.node.runner_link import Runner
from fedfsd.plan.plan import WITNESS

SIZE = 10_000_000
SHAPES = {"body": (SIZE - WITNESS_SIZE,), WITNESS: (WITNESS_SIZE,)}


def train(path: Path, plan) -> None:
    """A runner that sends noise."""
    noise = noise_alone(plan, REGION, 1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        frames = Frames(connection)
        program = programs.installed()
        hello = message.Hello(version=message.VERSION, region=REGION, keys=(), program=program)
        message.send(frames, hello)
        message.receive(frames, message.Welcome, seconds=60)
        task, body = message.receive(
            frames, message.RoundTask, seconds=60, max_body=2**30, body_of=message.RoundTask
        )
        arrays = gate_arrays.view(body[task.document :], plan.model.arrays)
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        asked = {"plan": plan.hash, "round": 1, "arrays": sha256, "program": program.hash}
        message.send(frames, message.ReserveCall(**asked))
        message.receive(frames, message.Reserved, seconds=60)
        message.send(frames, message.ReleaseCall(plan=plan.hash, round=1), noise)
        let, _ = message.receive(frames, message.Let, seconds=60)
        done = {"entry_hash": let.entry_hash, "sha256": let.sha256}
        message.send(frames, message.Done(plan=plan.hash, round=1, **done))


def memory(which: str) -> int:
    """Bytes of this program: ``VmRSS`` now, ``VmHWM`` at most; getrusage counts its parent's too."""
    return 1024 * int(re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def main(folder: Path) -> None:
    logging.disable()
    plan = planned(SHAPES, mode="rehearsal", max_grad_norm=0.1)
    keep_books(folder, REGION, plan)
    policy = declared(Policy(roster=30, identity="physical"), "", test_only=True)
    gate = Gate(REGION, policy, folder)
    runner = Runner(folder / "s", gate)
    runner.start()
    gate.policy.demand(plan, REGION)  # the accountant's memory is not the round's
    child = os.fork()
    if child == 0:
        train(folder / "s", plan)
        os._exit(0)
    idle = memory("VmRSS")
    arrays = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    released = runner.round(plan, 1, arrays)
    print(json.dumps({"update": len(released.content), "above_idle": memory("VmHWM") - idle}))
    os.waitpid(child, 0)
    runner.close()
    gate.ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
