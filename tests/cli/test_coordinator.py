"""``fedfsd coordinator`` and ``region init --join`` as typed: answers, refusals, exit codes."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from connect_proxy import ConnectProxy

from fedfsd.coordinator.enrolment_service import serve_enrolment
from fedfsd.coordinator.folder import open_coordinator
from fedfsd.ledger.key import SigningKey
from fedfsd.service.owner import private

pytest_plugins = ["typing_user"]
KEY = ["--officer-key", "officer.key"]
HUB = ["-C", "hub"]


@contextmanager
def listener():
    """The join listener of hub on a free port, which from now on stands in its settings."""
    server, port = serve_enrolment(open_coordinator(Path("hub"), overrides=["join_port=0"]))
    path = Path("hub/coordinator.toml")
    path.write_text(path.read_text().replace("join_port = 1 ", f"join_port = {port} "))
    try:
        with private():
            yield
    finally:
        server.stop(0).wait()


@pytest.fixture
def hub(fedfsd, folder):
    SigningKey.generate("fedfsd/EU/officer").write(folder / "officer.key")
    made = fedfsd("coordinator", "init", "roads", "-o", "hub", "--port", 1, "--join-port", 1, "--json")
    assert made.code == 0
    return made.document


def test_from_init_to_a_joined_region(fedfsd, folder, hub):
    assert [line.split()[0] for line in hub["trust_lines"]] == ["coordinator", "witness"]
    with listener():
        invited = fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json", "--json").document
        assert invited["root_fingerprint"] == hub["root_fingerprint"]
        assert (folder / "eu.json").stat().st_mode & 0o077 == 0
        told = ["--join", "eu.json", "--root-fingerprint", hub["root_fingerprint"]]
        (folder / "tables").mkdir()
        words = ["region", "init", "EU", "-o", "eu", *KEY, *told, "--data", "tables", "--train", "train"]
        asked = fedfsd(*words, "--json").document
        assert (asked["joined"], asked["join_warnings"]) == (False, [])
        assert Path(asked["folder"]) == Path("eu")
        assert 'recipient = "fedfsd/coordinator/roads"' in (folder / "eu" / "region.toml").read_text()
        assert f'data_path = "{folder}/tables"' in (folder / "train" / "train.toml").read_text()
        assert (folder / "train" / "train.toml").stat().st_mode & 0o077 == 0
        assert "EU: a request is waiting" in fedfsd("coordinator", "doctor", *HUB).out
        confirm = ["--confirm", asked["fingerprint"]]
        assert fedfsd("coordinator", "invite", "EU", *HUB, "--confirm", hub["root_fingerprint"]).code == 13
        done = fedfsd("coordinator", "invite", "EU", *HUB, *confirm, "--json").document
        assert done["officer_vkey"] == str(SigningKey.read(folder / "officer.key").verification)
        again = fedfsd(*words)
        assert (again.code, "joined; valid for" in again.out, again.err) == (0, True, "")
        assert "compare the root" not in again.out
        other = fedfsd(*words[:-3], "elsewhere", *words[-2:])
        assert (other.code, "data_path in train/train.toml" in other.err) == (4, True)
        untold = fedfsd("region", "init", "EU", "-o", "eu", "--join", "eu.json")
        assert (untold.code, "compare the root fingerprint" in untold.out) == (0, True)
    gone = fedfsd("coordinator", "invite", "EU", *HUB, "--revoke", "--json").document
    assert gone == {"region": "EU", "revoked": 1}
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).parts[0] in ("hub", "eu", "train"):
            assert path.stat().st_mode & 0o077 == 0, path


def test_a_coordinator_that_is_down_is_asked_later(fedfsd, folder, hub):
    fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json")
    said = fedfsd("region", "init", "EU", "-o", "eu", *KEY, "--join", "eu.json")
    assert (said.code, "not sent yet" in said.out, "run the same command again" in said.out) == (
        0,
        True,
        True,
    )
    first = (folder / "eu" / "tls.next" / "region.key").read_bytes()
    again = fedfsd("region", "init", "EU", "-o", "eu", "--join", "eu.json", "--data", "embedded")
    assert again.code == 0
    assert 'data_path = "embedded"' in (folder / "eu" / "train" / "train.toml").read_text()
    assert (folder / "eu" / "tls.next" / "region.key").read_bytes() == first


def test_an_invitation_that_expired_makes_nothing(fedfsd, folder, hub, monkeypatch):
    from fedfsd.coordinator import invite

    monkeypatch.setattr(invite, "VALID_DAYS", -1)
    fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json")
    words = ["region", "init", "EU", "-o", "eu", *KEY]
    said = fedfsd(*words, "--join", "eu.json")
    assert (said.code, "got one that expired on" in said.err) == (4, True)
    assert not (folder / "eu").exists()
    assert fedfsd(*words).code == 0
    assert fedfsd("region", "init", "EU", "-o", "eu", "--join", "eu.json").code == 4
    assert not (folder / "eu" / "tls.next").exists()


def test_another_root_than_was_told_stops_before_anything_is_made(fedfsd, folder, hub):
    fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json")
    words = ["region", "init", "EU", "-o", "eu", *KEY, "--join", "eu.json"]
    said = fedfsd(*words, "--root-fingerprint", "00" * 32)
    assert (said.code, "do not use it" in said.err) == (13, True)
    assert not (folder / "eu").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["coordinator", "init", "roads", "-o", "hub"], 4),
        (["coordinator", "init", "two words", "-o", "new"], 2),
        (["coordinator", "init", "roads", "-o", "new", "--port", 70_000], 3),
        (["coordinator", "invite", "coordinator", *HUB], 2),
        (["coordinator", "invite", "EU"], 4),
        (["coordinator", "invite", "EU", *HUB, "--confirm", "0", "--revoke"], 2),
        (["coordinator", "invite", "EU", *HUB, "--confirm", "0"], 4),
        (["coordinator", "invite", "EU", *HUB, "--revoke"], 4),
        (["coordinator", "doctor"], 4),
        (["region", "init", "EU", "-o", "eu", "--join", "none.json", *KEY], 4),
        (["region", "init", "EU", "-o", "eu", "--join", "officer.key", *KEY], 4),
        (["region", "doctor"], 4),
    ],
)
def test_refusals(fedfsd, folder, hub, words, code):
    said = fedfsd(*words)
    assert said.code == code, said.err
    assert said.err.count("\n") == 1
    assert not (folder / "new").exists()
    assert not (folder / "eu").exists()


def test_the_doctors_say_what_fails_and_end_with_4(fedfsd, folder, hub):
    (folder / "hub" / "ca" / "revoked").unlink()
    said = fedfsd("coordinator", "doctor", *HUB, "--json")
    assert said.code == 4
    assert not said.document["fit"]
    (told,) = [one for one in said.document["checks"] if one["check"] == "revoked"]
    assert told["outcome"] == "fail"
    said = fedfsd("coordinator", "doctor", *HUB)
    assert (said.code, "fix: " in said.out) == (4, True)


@pytest.mark.parametrize(
    ("host", "listen", "called"),
    [
        ("::1", "::1", "[::1]"),
        ("[::1]", "[::1]", "[::1]"),
        ("localhost", "[::]", "localhost"),
        ("localhost", "::", "localhost"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1"),
        ("localhost", "localhost", "localhost"),
    ],
)
def test_a_region_joins_at_an_address_in_any_spelling(fedfsd, folder, host, listen, called):
    SigningKey.generate("fedfsd/EU/officer").write(folder / "officer.key")
    ports = ("--port", 1, "--join-port", 1)
    words = ("--host", host, "--listen", listen, *ports)
    assert fedfsd("coordinator", "init", "roads", "-o", "hub", *words).code == 0
    with listener():
        assert fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json").code == 0
        assert json.loads(Path("eu.json").read_bytes())["address"] == f"{called}:1"
        asked = fedfsd("region", "init", "EU", "-o", "eu", *KEY, "--join", "eu.json", "--json").document
        assert asked["join_warnings"] == [
            "compare the root fingerprint out of band with the coordinator's operators"
        ]
        assert open_coordinator(Path("hub")).invited() == ("EU",)
        assert Path("hub/regions/EU/request.json").exists()


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--host", "0.0.0.0"), "--host"),
        (("--host", "::", "--listen", "::"), "--host"),
        (("--host", "fed.invalid"), "--listen"),
        (("--host", "fed.invalid", "--listen", "192.0.2.1"), "--listen"),
        (("--host", "fed.example.org:9443", "--listen", "0.0.0.0"), "host"),
        (("--host", "[10.0.0.1]"), "host"),
    ],
)
def test_init_refuses_what_up_cannot_use(fedfsd, folder, words, place):
    refused = fedfsd("coordinator", "init", "roads", "-o", "hub", *words, "--json")
    assert refused.code != 0
    assert refused.document["error"]["place"] == place
    assert not Path("hub").exists()


def test_behind_a_router_that_translates_ports(fedfsd, folder):
    ports = ("--port", 20003, "--join-port", 20103, "--public-port", 30302, "--public-join-port", 30303)
    words = ("--host", "fed.example.org", "--listen", "0.0.0.0", *ports)
    assert fedfsd("coordinator", "init", "roads", "-o", "hub", *words).code == 0
    assert fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json").code == 0
    invited = json.loads(Path("eu.json").read_bytes())
    assert (invited["address"], invited["join"]) == ("fed.example.org:30302", "fed.example.org:30303")
    settings = open_coordinator(Path("hub")).settings
    assert (settings.port, settings.join_port) == (20003, 20103)  # where it listens


def test_a_region_behind_a_proxy_joins_and_its_doctor_goes_the_same_way(fedfsd, folder):
    SigningKey.generate("fedfsd/EU/officer").write(folder / "officer.key")
    words = ("--host", "hub.invalid", "--listen", "127.0.0.1", "--port", 1, "--join-port", 1)
    assert fedfsd("coordinator", "init", "roads", "-o", "hub", *words).code == 0
    with listener():
        assert fedfsd("coordinator", "invite", "EU", *HUB, "-o", "eu.json").code == 0
        join = json.loads(Path("eu.json").read_bytes())["join"]
        port = int(join.rpartition(":")[2])
        proxy = ConnectProxy({join: ("127.0.0.1", port)})
        try:
            bad = ("--proxy", "https://u:secret@a:1")
            wrong = fedfsd("region", "init", "EU", "-o", "eu", *KEY, "--join", "eu.json", *bad)
            assert wrong.code == 3
            assert "secret" not in wrong.err
            assert not Path("eu").exists()
            first = ("region", "init", "EU", "-o", "eu", "--join", "eu.json", "--json")
            asked = fedfsd(*first, *KEY, "--proxy", proxy.url).document
            assert len(asked["join_warnings"]) == 1
            confirmed = ("--confirm", asked["fingerprint"])
            assert fedfsd("coordinator", "invite", "EU", *HUB, *confirmed).code == 0
            assert fedfsd(*first).document["joined"]
            assert proxy.asked == [join, join]
            assert asked["fingerprint"].encode() not in proxy.carried
            other = fedfsd(*first, "--proxy", "http://127.0.0.1:9")
            assert other.code == 2
            told = fedfsd("region", "doctor", "--region", "eu", "--json").document["checks"]
            found = next(one for one in told if one["check"] == "coordinator")
            assert (
                "through border.proxy" in found["found"]
            )  # the border's own port is not served in this test
            assert proxy.asked[-1] == "hub.invalid:1"
        finally:
            proxy.close()
