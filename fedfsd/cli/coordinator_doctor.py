"""``fedfsd coordinator doctor``: is this coordinator fit to serve, and what mends it?"""

from __future__ import annotations

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.coordinator_folder import HERE, Folder
from fedfsd.cli.extra import extra


def doctor(coordinator: Folder = HERE, _json: Json = False) -> Answer:
    """Check everything a run needs, with a fix for each failure.

    Disk, keys, root, certificates, revoked list, regions, engine and ports. Exit code 4 where one failed.
    """
    from fedfsd.cli import doctor as findings

    with extra("node"):
        from fedfsd.coordinator import doctor
        from fedfsd.coordinator.folder import open_coordinator

    hub = open_coordinator(coordinator)
    return findings.answer(hub.name, doctor.examine(hub))
