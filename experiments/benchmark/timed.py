"""The simulated regions' app, which also notes how long local training took.

Worker processes of the overhead measurement load ``client``; nothing more crosses than without it. Each
region's folder gets a ``seconds.jsonl`` with a line a round: worker, when the message was taken up, and
the seconds inside ``fedfsd.engine.local.train``, where gradients, clipping and noise are.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from flwr.app import Context, Message

from fedfsd.engine import local
from fedfsd.runner.client import simulated

FILE = "seconds.jsonl"
_spent: list[float] = []
_train = local.train


def _timed(*arguments: Any) -> Any:
    started = time.monotonic()
    try:
        return _train(*arguments)
    finally:
        _spent.append(time.monotonic() - started)


local.train = _timed


def client(message: Message, context: Context) -> Message:
    """What the real client answers."""
    started = time.monotonic()
    _spent.clear()
    reply = simulated(message, context)
    if _spent:
        line = {
            "round": int(message.content.config_records["config"]["round"]),
            "worker": os.getpid(),
            "started": started,
            "training": sum(_spent),
        }
        with (Path(str(context.node_config["folder"])) / FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return reply
