"""``fedfsd coordinator``: the aggregating side of a real federation."""

from __future__ import annotations

from fedfsd.cli import doctor, up
from fedfsd.cli.coordinator_init import init
from fedfsd.cli.coordinator_invite import invite
from fedfsd.cli.coordinator_run import run
from fedfsd.cli.coordinator_status import status

COMMANDS = (
    ("init", init, "roads -o hub --host fed.example.org --listen 0.0.0.0"),
    ("invite", invite, "EU -C hub -o eu-invitation.json"),
    ("doctor", doctor.coordinator, "-C hub"),
    ("run", run, "experiments/federation/experiment.toml -C hub"),
    ("up", up.coordinator, "-C hub"),
    ("status", status, "-C hub"),
)
