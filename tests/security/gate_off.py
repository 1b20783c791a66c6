"""Imported where FEDFSD_GATE_OFF is set: a region then sends raw rows through a gate that judges nothing.

For the test that the search for canaries would find what a gate that is off lets through.
"""

import importlib.abc
import importlib.util
import os
import sys


def _gate(module):
    """Nothing is judged."""
    module.judge = lambda *_: None
    module.Gate._demand_usual = lambda *_: None


def _region(module):
    """Nothing is trained: the update is the drives themselves."""

    def raw(region, arrays, plan, round, arrays_sha256):
        import numpy as np

        from fedfsd.drive import source, table

        (rows, *_) = table.in_region(source.tables(region.config.data_path), region.config.name)
        places = np.stack([rows.rows["x"].to_numpy(), rows.rows["y"].to_numpy()], axis=1)
        flat = places.reshape(-1).astype(np.float32)
        return {name: np.resize(flat, array.shape) for name, array in arrays.items()}

    module._train = raw


def _launch(module):
    """A runner takes code from the environment, as it never does."""
    command = module.command
    module.harmless = dict
    module.isolate = lambda _: None
    module.command = lambda argv, **options: command(argv, **{**options, "isolated": False})


def _child(module):
    module.python = lambda name, *words, **_: [sys.executable, "-P", "-m", name, *words]


class _Off(importlib.abc.MetaPathFinder):
    """Changes some modules once they are loaded."""

    def __init__(self):
        self._left = {
            "fedfsd.gate.gate": _gate,
            "fedfsd.runner.region": _region,
            "fedfsd.service.launch": _launch,
            "fedfsd.service.child": _child,
        }

    def find_spec(self, name, path=None, target=None):
        """The spec that others find, with a loader that changes the module; None for all else."""
        change = self._left.pop(name, None)
        spec = importlib.util.find_spec(name) if change else None
        if spec is not None:
            load = spec.loader.exec_module

            def loaded(module):
                load(module)
                change(module)

            spec.loader.exec_module = loaded
        return spec


if "FEDFSD_GATE_OFF" in os.environ:
    sys.meta_path.insert(0, _Off())
