"""What stock Flower runs beside us: FedAvg, and clients that answer with other numbers of the same size.

Other ones in each round and client, because Flower sends equal chunks once. Nothing but Flower and NumPy is
imported: each message starts a process.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from experiments.benchmark.turn import KEY, Turn

server = ServerApp()
client = ClientApp()


@server.main()
def conduct(grid: Grid, context: Context) -> None:
    """Rounds with every node, as Flower's own strategy and grid run them; each but the first in its turn."""
    turn = Turn(Path(str(context.run_config[KEY])))
    size, nodes = int(context.run_config["size"]), int(context.run_config["nodes"])

    def after(round: int, _: ArrayRecord) -> None:
        if round:
            turn.arrive()

    FedAvg(fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes).start(
        grid,
        ArrayRecord({"w": Array(noise(size))}),
        num_rounds=int(context.run_config["rounds"]),
        evaluate_fn=after,
    )


@client.train()
def echo(message: Message, _: Context) -> Message:
    """As many numbers as came."""
    size = message.content["arrays"]["w"].shape[0]
    content = {"arrays": ArrayRecord({"w": Array(noise(size))}), "metrics": MetricRecord({"num-examples": 1})}
    return Message(RecordDict(content), reply_to=message)


def noise(size: int) -> np.ndarray:
    """float32 (size,), never the same twice."""
    return np.random.default_rng(int.from_bytes(os.urandom(16))).random(size, dtype=np.float32)
