"""The region's gate process: ``python -m fedfsd.node.region_gate --region FOLDER``.

It has the keys, the ledger, the outbox and the region's only connection; only the runner has the data. It
connects out and listens on two Unix sockets in its own folder: for the runner and for the operator.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import grpc

from fedfsd.border.channel import open_channel
from fedfsd.errors import AccountingError, FedfsdError, FormatError
from fedfsd.gate.gate import Gate
from fedfsd.gate.policy import declared
from fedfsd.mechanism import accountant
from fedfsd.node import join
from fedfsd.node.control import Control
from fedfsd.node.courier import Courier
from fedfsd.node.hook import Hook
from fedfsd.node.node import Node, open_node
from fedfsd.node.operation import operations
from fedfsd.node.receipt_store import ReceiptStore
from fedfsd.node.runner_link import Runner
from fedfsd.node.station import FOLDERS, GateStation, StoppedError
from fedfsd.node.tally import Tally
from fedfsd.service import lock
from fedfsd.service.gauge import Metrics
from fedfsd.service.journal import journal
from fedfsd.service.memory import give_back

LOCK = "gate.pid"
LOOK_SECONDS = 5.0
END_SECONDS = 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fedfsd.node.region_gate", description="A region's gate.")
    parser.add_argument("--region", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--test-only", action="store_true", help="also accept rehearsal plans (their noise key is public)"
    )
    options = parser.parse_args(arguments)
    os.umask(0o077)
    give_back(2**16)  # updates pass through here in pieces of up to a MiB
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve(open_node(options.region), test_only=options.test_only, stop=stop)
    except FedfsdError as error:
        print(error, file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def serve(node: Node, *, test_only: bool = False, stop: threading.Event) -> None:
    """Be the gate of ``node`` until ``stop``.

    Raises:
        NotReadyError: another gate runs on this folder, no certificate, or a ledger that is not the newest.
        ForkError: the coordinator knows more of this ledger, or another history of it.
        ConfigError: a setting or the policy lacks something.
        FormatError: a newer release wrote in the ledger, or one of the files.
    """
    for name in FOLDERS:
        (node.folder / name).mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(lock.hold(node.folder / "run" / LOCK, what="a gate"))
        station = stack.enter_context(_station(node, test_only=test_only, stop=stop))
        courier = Courier(station, lambda: _dial(node))
        control = stack.enter_context(closing(Control(node.folder / "run", operations(station, courier))))
        control.start()
        _work(station, courier)


@contextmanager
def _station(node: Node, *, test_only: bool, stop: threading.Event) -> Iterator[GateStation]:
    """Everything opened, and closed again."""
    policy = declared(
        node.policy(),
        str(node.folder / node.settings.policy),
        test_only=test_only or node.settings.border.test_only,
    )
    peer = _joined(node)
    log = journal("gate", node.folder)
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(node.open_ledger()))
        gate = Gate(node.settings.name, policy, node.folder)
        gate.ledger = ledger
        metrics = stack.enter_context(Metrics(node.settings.border.metrics_port))
        runner = Runner(node.folder / node.settings.border.socket, gate)
        stack.callback(runner.close)
        receipts = ReceiptStore(node.folder, peer.invitation.coordinator_key)
        yield GateStation(node, ledger, gate, runner, receipts, Tally(metrics), log, stop)


def _joined(node: Node) -> join.Peer:
    """The coordinator; its operators may have confirmed the request since it was sent."""
    if not (node.folder / "tls" / "region.crt").exists():
        join.fetch_certificate(node)
    found = join.peer(node)
    found.demand_pair()
    return found


def _dial(node: Node) -> grpc.Channel:
    """A channel to the coordinator. NotReadyError where no handshake can succeed by this machine's clock."""
    peer = join.peer(node)
    peer.demand_valid()
    return open_channel(
        peer.address,
        root=peer.root,
        key=peer.key,
        certificate=peer.certificate,
        expected_uri=peer.expected_uri,
        proxy=peer.proxy,
    )


def _work(station: GateStation, courier: Courier) -> None:
    """Start the threads, look after the gauges, and end everything in time."""
    ended: list[BaseException] = []

    def run() -> None:
        try:
            courier.run()
        except StoppedError:
            pass
        except BaseException as error:
            ended.append(error)
        finally:
            station.stop.set()

    station.runner.start()
    threads = [
        threading.Thread(target=target, name=name, daemon=True)
        for name, target in (("courier", run), ("beat", courier.beat))
    ]
    station.log.info("started", extra={"region": station.region, "pid": os.getpid()})
    for thread in threads:
        thread.start()
    _warm()
    hook = Hook(station.node.settings.on_event, station.node, station.log)
    while not station.stop.is_set():
        try:
            _gauge(station, courier, hook)
        except FormatError as error:  # somebody wrote in the ledger with a newer release
            ended.append(error)
            station.stop.set()
        station.stop.wait(LOOK_SECONDS)
    station.look.set()
    courier.close()
    for thread in threads:
        thread.join(END_SECONDS)
    if ended:
        station.log.error("stopped", extra={"line": str(ended[0])})
        raise ended[0]
    station.log.info("stopped")


def _warm() -> None:
    """Load what computes an epsilon now: the first plan or round should not wait seconds for that."""
    with suppress(AccountingError):
        accountant.warm_up()


def _gauge(station: GateStation, courier: Courier, hook: Hook) -> None:
    try:
        days = join.peer(station.node).days_left
        station.tally.stands(
            station.ledger.state,
            outbox=len(station.waiting()),
            days=days,
            plans=len(courier.pending),
            paused=station.paused,
            behind=station.ledger.mirror_behind,
        )
        hook.look(station.ledger, pending=courier.pending, days=days)
    except FormatError:
        raise
    except FedfsdError as error:
        station.log.error("not_ready", extra={"line": str(error)})


if __name__ == "__main__":
    sys.exit(main())
