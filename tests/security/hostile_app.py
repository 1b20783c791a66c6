"""A ServerApp that asks regions for everything but what is allowed, and writes down what came back."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Every question to the first node; kind of question -> [code, word], or the answer's records."""
    config = context.run_config
    document = Path(str(config["plan"])).read_text(encoding="utf-8")
    nodes: list[int] = []
    while not nodes:
        time.sleep(0.1)
        nodes = sorted(grid.get_node_ids())
    asked = {}
    for what, (kind, content) in questions(document).items():
        (name,) = grid.push_messages([Message(content, nodes[0], kind)])
        asked[name] = what
    found = {}
    while asked:
        for message in grid.pull_messages(sorted(asked)):
            what = asked.pop(message.metadata.reply_to_message_id)
            error = message.error if message.has_error() else None
            found[what] = sorted(message.content) if error is None else [error.code, error.reason]
        time.sleep(0.1)
    out = Path(str(config["out"]))
    out.with_suffix(".part").write_text(json.dumps(found), encoding="utf-8")
    os.replace(out.with_suffix(".part"), out)


def questions(document: str) -> dict[str, tuple[str, RecordDict]]:
    """What no region answers, by name; ``document`` is a plan that is on offer and not approved."""
    schema = json.loads(document)["model"]["arrays"]
    arrays = {one["name"]: np.zeros(one["shape"], np.float32) for one in schema}

    def content(*, plan: str = document, **more: object) -> RecordDict:
        return RecordDict(
            {
                "arrays": ArrayRecord({name: Array(array) for name, array in arrays.items()}),
                "config": ConfigRecord({"plan": plan, "round": 1, **more}),
            }
        )

    rehearsal = json.dumps(json.loads(document) | {"mode": "rehearsal"}, sort_keys=True)
    return {
        "a round of a plan without approval": ("train", content()),
        "a rehearsal": ("train", content(plan=rehearsal)),
        "no plan": ("train", content(plan="import os")),
        "a noise seed": ("train", content(noise_seed=7)),
        "evaluation with metrics": ("evaluate", content()),
        "a round under another name": ("train.raw", content()),
        "a query for metrics": ("query.metrics", content()),
        "a query for the region with more in it": ("query.region", content()),
        "nothing at all": ("train", RecordDict()),
    }
