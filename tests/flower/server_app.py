"""ServerApps of the tests: they send, wait and write what came back, as the strategy would."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedfsd.flower import private
from fedfsd.flower.link_grid import LinkGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Ask who is there, then so many rounds of so many floats; times and sums go to a file."""
    config = context.run_config
    if config["flat"]:
        grid = LinkGrid(grid)
    private.hasten()
    nodes, size = int(config["nodes"]), int(config["size"])
    out = Path(str(config["out"]))
    while len(list(grid.get_node_ids())) < nodes:
        time.sleep(0.02)
    names = {
        message.metadata.src_node_id: message.content["region"]["name"]
        for message in exchange(grid, [Message(RecordDict(), n, "query.region") for n in grid.get_node_ids()])
        if message.has_content()
    }
    rounds = []
    for number in range(1, int(config["rounds"]) + 1):
        started = time.monotonic()
        weights = np.random.default_rng(number).normal(size=size).astype(np.float32)
        content = RecordDict(
            {
                "arrays": ArrayRecord({"w": Array(weights), "b": Array(np.float32([[1, 2], [3, 4]]))}),
                "config": ConfigRecord({"plan": "a plan", "round": number}),
            }
        )
        replies = exchange(grid, [Message(content, node, "train", group_id=str(number)) for node in names])
        took = time.monotonic() - started
        answers = {}
        for message in replies:
            name = names[message.metadata.src_node_id]
            if message.has_error():
                answers[name] = [message.error.code, message.error.reason]
                continue
            arrays = {key: array.numpy() for key, array in message.content["arrays"].items()}
            good = np.array_equal(arrays["w"], weights + 1) and list(arrays) == ["w", "b"]
            answers[name] = [good, dict(message.content["release"]), sorted(message.content)]
        rounds.append({"seconds": took, "answers": answers})
        out.write_text(json.dumps({"names": sorted(names.values()), "rounds": rounds}))


def exchange(grid: Grid, messages: list[Message]) -> list[Message]:
    """Send and wait for all."""
    waiting, replies = set(grid.push_messages(messages)), []
    while waiting:
        found = list(grid.pull_messages(sorted(waiting)))
        waiting -= {message.metadata.reply_to_message_id for message in found}
        replies += found
        if not found:
            time.sleep(0.02)
    return replies


failing = ServerApp()


@failing.main()
def fail(grid: Grid, context: Context) -> None:
    """Go wrong at once."""
    raise RuntimeError("on purpose")
