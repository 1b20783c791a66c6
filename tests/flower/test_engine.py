"""A run on a real SuperLink, with everything that may go wrong between it and the nodes."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import numpy as np
import pytest
from engine_kit import Region, RunningEngine, free_port, patiently, plus_one, wait_for

from fedfsd.errors import NotReadyError, RefusedError, UsageError
from fedfsd.flower.engine import Engine
from fedfsd.flower.fleet import FleetNode, Instruction, StaleReplyError

# Large enough to travel in chunks.
SIZE = 1_500_000
_FEW = np.zeros(3, np.float32)


class Trouble:
    """What happens to region eu, a round each."""

    def __init__(self, engine: RunningEngine) -> None:
        self.engine, self.region = engine, None
        self.seen: list[tuple[str, int]] = []
        self.last = b""
        self.is_killed = False

    def __call__(self, node: FleetNode, instruction: Instruction) -> None:
        """The round decides."""
        assert instruction.kind == "train"
        assert instruction.plan == "a plan"
        self.seen.append((instruction.kind, instruction.round))
        self.last = instruction.envelope
        getattr(self, f"round_{instruction.round}")(node, instruction)

    def round_1(self, node: FleetNode, instruction: Instruction) -> None:
        """Answered twice."""
        plus_one(node, instruction)
        plus_one(node, instruction)
        node.fail(instruction.envelope, 1000, "region_unavailable")  # too late to change it

    def round_2(self, node: FleetNode, instruction: Instruction) -> None:
        """Refused."""
        node.fail(instruction.envelope, 1002, "budget")

    def round_3(self, node: FleetNode, instruction: Instruction) -> None:
        """Whoever holds the node dies with the instruction in hand; another takes over at once."""
        node.close()
        other = self.region.connect()
        assert other.activate(self.region.node_id) == self.region.node_id
        assert self.engine.reopen() >= 1
        again = other.pull()
        assert again is not None
        assert again.envelope == instruction.envelope
        self.region.node = other
        plus_one(other, again)

    def round_4(self, node: FleetNode, instruction: Instruction) -> None:
        """The SuperLink dies before the answer, and again while it is handed on."""
        if self.is_killed:  # what that lost is asked again
            return plus_one(node, instruction)
        self.is_killed = True
        self.engine.kill("superlink")
        assert not self.engine.ready()
        with pytest.raises(NotReadyError):
            plus_one(node, instruction)
        self.engine.start("superlink")
        patiently(plus_one, node, instruction)
        self.engine.kill("superlink")
        self.engine.start("superlink")
        return patiently(plus_one, node, instruction)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    """One engine for all tests here."""
    with RunningEngine(tmp_path_factory.mktemp("engine") / "flower") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize(("flat", "rounds"), [(True, 4), (False, 1)])  # Flower's own grid survives no kill
def test_a_run_survives(engine: RunningEngine, tmp_path: Path, flat: bool, rounds: int) -> None:
    out = tmp_path / "out.json"
    trouble = Trouble(engine)
    regions = [Region(engine, "cn", plus_one), Region(engine, "eu", trouble)]
    trouble.region = regions[1]
    try:
        config = {"nodes": 2, "size": SIZE, "rounds": rounds, "flat": flat, "out": str(out)}
        run = engine.submit("server_app:app", config)

        def ended() -> bool:
            try:
                return engine.state(run).startswith("finished")
            except NotReadyError:
                return False

        wait_for(ended, 120)
        assert engine.state(run) == "finished:completed", engine.logs()
    finally:
        for region in regions:
            region.close()
    story = json.loads(out.read_text())
    good = [True, {"entry": "e" * 64, "sha256": "f" * 64}, ["arrays", "metrics", "release"]]
    assert story["names"] == ["cn", "eu"]
    assert [each["answers"]["cn"] for each in story["rounds"]] == [good] * rounds
    assert [each["answers"]["eu"] for each in story["rounds"]] == [good, [1002, "budget"], good, good][
        :rounds
    ]
    late = regions[1].connect()
    late.activate(regions[1].node_id)
    with pytest.raises(StaleReplyError):
        plus_one(
            late,
            Instruction(trouble.last, "train", arrays={"w": _FEW, "b": _FEW}),
        )
    late.close()


@pytest.mark.slow
def test_what_the_engine_says_of_runs(engine: RunningEngine) -> None:
    failing = engine.submit("server_app:failing", {})
    out = str(engine.folder / "never.json")
    endless = engine.submit("server_app:app", {"nodes": 99, "size": 1, "rounds": 1, "flat": True, "out": out})
    wait_for(lambda: engine.state(endless) == "running")
    engine.stop(endless)
    assert engine.state(endless) == "finished:stopped"
    wait_for(lambda: engine.state(failing).startswith("finished"))
    assert engine.state(failing) == "finished:failed"
    engine.stop(failing)
    with pytest.raises(UsageError):
        engine.state(12345)


@pytest.mark.slow
def test_strangers_are_refused(engine: RunningEngine, tmp_path: Path) -> None:
    node = FleetNode(engine.address, root_certificates=engine.root_certificates, key=tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    for known in (None, 7):
        with pytest.raises(RefusedError):
            node.activate(known)
    number = engine.register(node.public_key)
    assert engine.register(node.public_key) == number
    assert node.activate(None) == number
    assert node.activate(number) == number
    assert node.pull() is None
    node.close()
    # The Control API starts code; without the secret it does nothing.
    (stranger := Engine(tmp_path / "stranger", engine.port)).prepare()
    stranger.root_certificates.write_bytes(engine.root_certificates.read_bytes())
    assert not stranger.ready()
    with pytest.raises(NotReadyError, match="HTTP 401"):
        stranger.submit("server_app:app", {})
    with pytest.raises(NotReadyError, match="HTTP 401"):
        stranger.register(node.public_key)


def test_a_superlink_that_is_not_there(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "flower", free_port())
    engine.prepare()
    before = {path.name: path.read_bytes() for path in engine.folder.iterdir() if path.is_file()}
    engine.prepare()
    assert before == {path.name: path.read_bytes() for path in engine.folder.iterdir() if path.is_file()}
    assert all((engine.folder / name).stat().st_mode & 0o077 == 0 for name in before)
    node = FleetNode(engine.address, root_certificates=engine.root_certificates, key=tmp_path / "key")
    assert not engine.ready()
    assert engine.reopen() == 0
    for call in (
        node.pull,
        node.beat,
        lambda: node.activate(None),
        lambda: engine.register(b""),
        engine.submit,
    ):
        with pytest.raises(NotReadyError, match="ConnectError"):
            call()
    node.close()


def test_a_client_of_another_root_is_not_answered(tmp_path: Path) -> None:
    """The engine's certificate is its own: another engine's root does not vouch for it."""
    import ssl
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    (mine := Engine(tmp_path / "mine", 0)).prepare()
    (other := Engine(tmp_path / "other", 0)).prepare()
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(mine.folder / "server.crt", mine.folder / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        for engine, outcome in ((mine, 501), (other, None)):
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust.load_verify_locations(engine.root_certificates)
            url = f"https://127.0.0.1:{server.server_port}/"
            if outcome:
                assert httpx.get(url, verify=trust).status_code == outcome
            else:
                with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                    httpx.get(url, verify=trust)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
