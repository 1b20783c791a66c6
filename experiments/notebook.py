"""Run ``quickstart.ipynb`` from its first cell to its last and keep what it shows.

python -m experiments.notebook
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")
_KEPT = ("kernelspec",)


def execute(folder: Path, *, instead: Mapping[str, str] | None = None) -> Any:
    """The notebook, executed in ``folder`` with the experiment file beside it.

    Args:
        instead: text of the code to be replaced, for a shorter run.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient

    shutil.copy(NOTEBOOK.with_name("quickstart.toml"), folder)
    found = nbformat.read(NOTEBOOK, as_version=4)
    for cell in found.cells:
        for old, new in (instead or {}).items():
            cell.source = cell.source.replace(old, new)
    client = NotebookClient(
        found, timeout=None, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute()
    for cell in found.cells:
        cell.metadata.pop("execution", None)  # times of this machine
    found.metadata = {key: found.metadata[key] for key in _KEPT}
    return found


def main() -> None:
    """Execute it and write it back."""
    import nbformat

    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(execute(Path(folder)), NOTEBOOK)


if __name__ == "__main__":
    main()
