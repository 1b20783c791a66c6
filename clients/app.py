"""The ClientApp of a region; its walk through a round lives in fedfsd, its settings come from there."""

from fedfsd.federation.client import client_app
from fedfsd.simulation.apps import config_of

app = client_app(config_of)
