"""``fedfsd keys``: files for their owner alone, and nothing but the public part on any output."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedfsd.ledger import key
from fedfsd.ledger.key import SigningKey

pytest_plugins = ["typing_user"]
OFFICER = "fedfsd/EU/officer"


def private_lines(path) -> list[str]:
    """The lines of a key file that nobody may see."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if len(line) > 30 and "-----" not in line]


def test_a_new_key_is_for_its_owner_alone(fedfsd, folder):
    said = fedfsd("keys", "new", OFFICER, "-o", "officer.key")
    assert said.code == 0
    path = folder / "officer.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert str(SigningKey.read(path).verification) in said.out
    assert private_lines(path)
    shown = fedfsd("keys", "show", "officer.key")
    for text in (said.out, said.err, shown.out, shown.err, fedfsd("keys", "show", path, "--json").out):
        assert not any(line in text for line in private_lines(path))
        assert "PRIVATE" not in text


@pytest.mark.parametrize(
    ("name", "role"),
    [
        (OFFICER, "officer"),
        ("fedfsd/coordinator/hub", "coordinator"),
        (f"fedfsd/EU/{'0' * 32}", "node"),
        ("witness.example/eu", "witness"),
    ],
)
def test_show_prints_a_line_for_a_trust_file(fedfsd, folder, name, role):
    from fedfsd.audit import trust

    assert fedfsd("keys", "new", name, "-o", "a.key").code == 0
    said = fedfsd("keys", "show", "a.key")
    assert said.code == 0
    (folder / "trust.keys").write_text(said.out, encoding="utf-8")
    ((kind, found),) = trust.read(folder / "trust.keys").keys
    assert (kind, found.name) == (role, name)
    mine = SigningKey.read(folder / "a.key")
    assert found == (mine.cosigner if role == "witness" else mine.verification)


def test_a_coordinator_may_be_a_witness_too(fedfsd):
    fedfsd("keys", "new", "fedfsd/coordinator/hub", "-o", "a.key")
    found = fedfsd("keys", "show", "a.key", "--role", "witness", "--json").document
    assert found["role"] == "witness"
    assert key.parse(found["vkey"]).kind == key.COSIGNER


def test_json_is_one_document(fedfsd):
    made = fedfsd("keys", "new", OFFICER, "-o", "a.key", "--json").document
    public = Path(made.pop("public_file"))
    assert public.read_text(encoding="utf-8") == f"{made['trust_line']}\n"
    assert made == fedfsd("keys", "show", "a.key", "--json").document
    assert list(made) == ["name", "role", "vkey", "trust_line", "file"]
    assert made["trust_line"] == f"officer {made['vkey']}"


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["new", "two words", "-o", "b.key"], "usage", 2),
        (["new", "a+b", "-o", "b.key"], "usage", 2),
        (["new", "\x1b[2J", "-o", "b.key"], "usage", 2),
        (["new", OFFICER], "usage", 2),
        (["new", OFFICER, "-o", "there.key"], "not_ready", 4),
        (["new", OFFICER, "-o", "none/b.key"], "not_ready", 4),
        (["show", "none.key"], "not_ready", 4),
        (["show", "open.key"], "not_ready", 4),
        (["show", "text.key"], "not_ready", 4),
        (["show", "there.key", "--role", "king"], "usage", 2),
    ],
)
def test_refusals(fedfsd, folder, words, code, exit_code):
    for name in ("there.key", "open.key"):
        SigningKey.generate(OFFICER).write(folder / name)
    (folder / "open.key").chmod(0o644)
    (folder / "text.key").write_text("no key", encoding="utf-8")
    (folder / "text.key").chmod(0o600)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    said = fedfsd("keys", *words)
    assert said.code == exit_code
    assert not said.out
    assert said.err.startswith(f"{code}: ")
    assert "\x1b" not in said.err
    as_json = fedfsd("keys", *words, "--json")
    assert (as_json.code, as_json.error["code"]) == (exit_code, code)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
