"""The coordinator's gate process: ``python -m fedfsd.coordinator.coordinator_gate --coordinator DIR``.

It serves the border to the regions, runs a node of Flower's fleet for each of them, and alone writes
receipts. It may be killed at any moment and resumes where it was.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from fedfsd.border import channel, rpc
from fedfsd.coordinator.bridge import Bridge, Fleet
from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import Coordinator, open_coordinator
from fedfsd.coordinator.hall import Hall
from fedfsd.coordinator.new_coordinator import renew
from fedfsd.coordinator.servicer import Servicer
from fedfsd.coordinator.standing import Standing
from fedfsd.errors import FedfsdError, RefusedError
from fedfsd.flower.engine import Engine
from fedfsd.flower.fleet import FleetNode
from fedfsd.ledger.disk import write_whole
from fedfsd.service.gauge import Metrics
from fedfsd.service.journal import journal
from fedfsd.service.memory import give_back

Connect = Callable[[str], Fleet]
WORKERS = 64
LOOK_SECONDS = 0.05
STATUS_SECONDS = 1.0
RENEW_SECONDS = 3600.0
# A call in progress is ended after this: whatever it was doing is done again.
_GRACE_SECONDS = 0.5


class CoordinatorGate:
    """All of the process but its signals: ``run`` until ``stop``."""

    def __init__(self, coordinator: Coordinator, *, connect: Connect | None = None) -> None:
        """Take up what is outstanding; ``connect`` gives a region's node in Flower's fleet.

        Raises:
            NotReadyError: a port is taken, or a file is missing or damaged.
        """
        self._coordinator = coordinator
        self._log = journal("gate", coordinator.folder)
        renew(coordinator)
        self._metrics = Metrics(coordinator.settings.metrics_port)
        self.hall = Hall(coordinator, metrics=self._metrics, log=self._log)
        self._engine = Engine(coordinator.flower, coordinator.settings.flower_port)
        self._engine.reopen()
        self._connect = connect or self._node
        self._bridges: dict[str, Bridge] = {}
        self._standing = Standing(coordinator, self.hall)
        self._servers: list[grpc.Server] = []
        self.port = self.join_port = 0

    def run(self) -> None:
        """Serve until ``stop``; then end everything."""
        try:
            self._serve()
            _collect_often()
            self._log.info("ready", extra={"port": self.port})
            looked, renewed = 0.0, time.monotonic()
            while not self.hall.stopping.wait(LOOK_SECONDS):
                self.hall.look()
                if time.monotonic() - renewed >= RENEW_SECONDS:
                    renewed = time.monotonic()
                    renew(self._coordinator)
                if time.monotonic() - looked >= STATUS_SECONDS:
                    looked = time.monotonic()
                    self._join()
                    self.hall.gauge()
                    self._standing.write()
        finally:
            self.stop()
            ends = [server.stop(_GRACE_SECONDS) for server in self._servers]
            for end in ends:
                end.wait(2 * _GRACE_SECONDS)
            for bridge in self._bridges.values():
                bridge.join(_GRACE_SECONDS)
            self._metrics.close()
            self._log.info("stopped")

    def stop(self) -> None:
        """Let ``run`` end."""
        self.hall.stopping.set()
        self.hall.ring()

    def _serve(self) -> None:
        settings = self._coordinator.settings
        servicer = Servicer(self.hall)
        server, self.port = channel.serve(
            lambda server: rpc.add(server, servicer),
            host=settings.listen,
            port=settings.port,
            root=self._coordinator.root,
            key=self._coordinator.tls_key,
            certificate=self._coordinator.tls_certificate,
            revoked=self._coordinator.revoked,
            max_workers=WORKERS,
        )
        self._servers.append(server)
        server, self.join_port = serve_enrolment(self._coordinator)
        self._servers.append(server)

    def _join(self) -> None:
        """A bridge for every region that has a certificate by now."""
        for region in self._coordinator.regions():
            if region not in self._bridges:
                bridge = Bridge(self.hall, self.hall.station(region), self._connect)
                self._bridges[region] = bridge
                bridge.start()

    def _node(self, region: str) -> Fleet:
        """The region's node in Flower's fleet, online."""
        folder = self._coordinator.region(region)
        node = FleetNode(
            self._engine.address,
            root_certificates=self._engine.root_certificates,
            key=folder / "fleet.key",
            database=self._engine.database,
        )
        path = folder / "node_id"
        known = int(path.read_text()) if path.exists() else None
        try:
            try:
                found = node.activate(known)
            except RefusedError:  # not registered yet, or registered and its id lost with our file
                found = node.activate(self._engine.register(node.public_key))
            if found != known:
                write_whole(path, str(found).encode())
        except BaseException:
            node.close()
            raise
        return node


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gate until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        prog="python -m fedfsd.coordinator.coordinator_gate", description=__doc__
    )
    parser.add_argument("--coordinator", type=Path, required=True, metavar="DIR")
    parser.add_argument("--test-only", action="store_true", help="accepted for symmetry; regions decide")
    options = parser.parse_args(arguments)
    os.umask(0o077)
    give_back()
    try:
        gate = CoordinatorGate(open_coordinator(options.coordinator))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: gate.stop())
        gate.run()
    except FedfsdError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _collect_often() -> None:
    """Flower's and httpx's objects form cycles that keep megabytes alive between collections."""
    gc.freeze()  # what is there now stays, so that looking costs little
    gc.collect()
    gc.set_threshold(50, 2, 2)


if __name__ == "__main__":
    sys.exit(main())
