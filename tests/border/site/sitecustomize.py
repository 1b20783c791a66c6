"""Python imports this at its start where this folder leads PYTHONPATH: gRPC then records what crosses.

gRPC itself is not imported before the program does: a runner without it stays without it.
"""

import importlib.abc
import importlib.util
import os
import sys
from pathlib import Path


class _Finder(importlib.abc.MetaPathFinder):
    """Finds grpc as others do, and wraps it once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        """The spec of grpc with a loader that wraps; None for all else."""
        if name != "grpc" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def loaded(module):
                load(module)
                from border import recorder

                recorder.wrap(recorder.Recorder(Path(os.environ[recorder.FOLDER])))

            spec.loader.exec_module = loaded
        return spec


if "FEDFSD_BORDER_RECORD" in os.environ:
    sys.meta_path.insert(0, _Finder())
