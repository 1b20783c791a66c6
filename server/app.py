"""The ServerApp: what a coordinator edits is the experiment, not this file."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedfsd.simulation.apps import serve

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the experiment that ``run_config`` names on this grid."""
    serve(grid, context)
