"""``python -m experiments.camera_fleet.backbone MODEL...``: publicly pre-trained weights, and their hash.

Of each model two files: ``MODEL-backbone.safetensors``, what a plan that trains the head alone names by its
hash and a region puts into its folder of backbones, and ``MODEL.safetensors``, all of the model's weights,
for ``model.backbone`` of an experiment. The same command makes the same bytes on the same machine.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from experiments.camera_fleet import fleets, train
from fedfsd import canonical
from fedfsd.config.experiment import Experiment
from fedfsd.engine import backbone
from fedfsd.simulation.prepare import public_of, start_of, task_of


def make(model: str, output: Path, *, public: str, steps: int, trainable: str = "head") -> str:
    """Write both files of ``model`` into ``output``; the hash that a plan names."""
    experiment = Experiment.resolved(
        {
            "format": 3,
            "name": "backbone",
            "task": {"name": "camera"},
            "model": {"name": model, "trainable": trainable},
            "pretraining": {"path": public, "steps": steps, "batch_size": 64, "learning_rate": 3e-3},
        }
    )
    task = task_of(experiment)
    tables = public_of(experiment, task)
    initial, frozen, _ = start_of(experiment, task, tables, {})
    net = task.model(model, {}, seed=experiment.seed)
    backbone.put(net, backbone.whole(initial, frozen))
    train.whitened(net, fleets.first(task.examples(tables, test=True), 200))
    content = backbone.packed(net, backbone.trained(net, trainable))
    output.mkdir(parents=True, exist_ok=True)
    (output / f"{model}-backbone{backbone.SUFFIX}").write_bytes(content)
    (output / f"{model}{backbone.SUFFIX}").write_bytes(backbone.packed(net, ()))
    return canonical.sha256(content)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.camera_fleet.backbone", description=__doc__)
    parser.add_argument("models", nargs="+", choices=["conv", "pilotnet", "resnet18"], metavar="MODEL")
    parser.add_argument(
        "--public", choices=["public", "generic"], default="public", help="randomised or plain"
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("-o", "--output", type=Path, default=Path("backbones"))
    given = parser.parse_args(arguments)
    for model in given.models:
        sha256 = make(model, given.output, public=given.public, steps=given.steps)
        print(f"{given.output / model}-backbone{backbone.SUFFIX}: SHA-256 {sha256}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
