"""The ClientApp of a region; its walk through a round lives in fedfsd, its settings come from there."""

from pathlib import Path

from fedfsd.runner.client import client_app
from fedfsd.simulation.apps import numbered_region

app = client_app(lambda context: numbered_region(context, root=Path(__file__).parents[1]))
