"""The demo's training without the product: ``python -m experiments.benchmark.bare FILE``.

The same data, model, public pre-training, rounds, steps and evaluations by plain torch in one process; no
sampling of vehicles, no clipping, no noise, no books, no processes, no report.
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from fedfsd.config.experiment import Experiment
from fedfsd.config.load import load
from fedfsd.drive import table
from fedfsd.engine.pretraining import pretrain
from fedfsd.simulation.prepare import public_of, regions_of, task_of
from fedfsd.task import score
from fedfsd.task.gather import gather
from fedfsd.task.task import headline


def train(experiment: Experiment) -> float:
    """The mean headline after the last round."""
    torch.set_num_threads(1)
    task, training = task_of(experiment), experiment.training
    tables = task.tables(experiment.data.path)
    names = regions_of(experiment, tables)
    model = task.model(experiment.model.name, experiment.model.options, seed=experiment.seed)
    pretrain(model, task, public_of(experiment, task), experiment.pretraining, seed=experiment.seed)
    data, test = {}, {}
    for name in names:
        examples, _ = gather(task, tables, name)
        rank = np.arange(len(examples)) - np.searchsorted(examples.owner, examples.owner)
        some = np.flatnonzero(rank < experiment.privacy.windows_per_vehicle)
        data[name] = [
            {key: torch.from_numpy(array[some]) for key, array in part.items()}
            for part in (examples.inputs, examples.targets)
        ]
        test[name] = task.examples(table.in_region(tables, name), test=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate, momentum=0.9)
    found = 0.0
    for _ in range(training.num_rounds):
        optimizer.zero_grad()
        for inputs, targets in data.values():
            for _ in range(training.local_steps):
                (task.loss(model(*inputs.values()), targets).mean() / len(names)).backward()
        optimizer.step()
        scores = [task.scores(model, examples) for examples in test.values()]
        found = float(np.mean([score.mean(one, headline(task)) for one in scores]))
    return found


if __name__ == "__main__":
    print(train(load(Experiment, sys.argv[1], overrides=sys.argv[2:])))
