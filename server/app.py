"""The ServerApp: what a coordinator edits is the experiment, not this file."""

from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedfsd.simulation.apps import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that the run configuration names."""
    serve(grid, context, root=Path(__file__).parents[1])
