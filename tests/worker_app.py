"""A ClientApp for grid tests that does as it is asked."""

import os
import signal
import time

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    what = message.content.config_records["ask"]["what"]
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "stall":
        time.sleep(3600)
    import torch

    answer = {"label": context.node_config["label"], "pid": os.getpid(), "threads": torch.get_num_threads()}
    return Message(RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)
