"""Every reader asks for the number first: what a newer release wrote is refused by name."""

from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import operator_kit
import pytest

from fedfsd import formats
from fedfsd.border import enrolment, invitation
from fedfsd.config.load import Frozen, load
from fedfsd.coordinator import folder as coordinator
from fedfsd.coordinator import invite, new_coordinator
from fedfsd.errors import ConfigError, FedfsdError, FormatError
from fedfsd.gate.policy import Policy
from fedfsd.node import settings as node
from fedfsd.report.run_folder import Folder
from fedfsd.runner import process

NEWER = 9
SETTINGS = {
    "policy": (Policy, ""),
    "region.toml": (node.RegionSettings, 'name = "EU"\nmirror = "m"\n'),
    "train.toml": (process.Settings, 'name = "EU"\ndata_path = "embedded"\n'),
    "coordinator.toml": (coordinator.CoordinatorSettings, 'name = "hub"\n'),
}


@pytest.mark.parametrize("name", sorted(formats.READ.keys() - {"runner socket"}))  # that one is negotiated
def test_a_number_above_all_is_refused_and_named(name):
    assert formats.demand(name, None) == formats.demand(name, 1) == 1
    with pytest.raises(FormatError, match=f"{name}: got format {NEWER}, expected .*1.*; fix: upgrade fedfsd"):
        formats.demand(name, NEWER)
    for nothing in (True, 0, -1, 1.0, "1", [], "x"):
        with pytest.raises((ConfigError, FormatError)):
            formats.demand(name, nothing)
        formats.demand_known(name, {"format": nothing})  # damaged: for the reader that follows


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 5000], ids=len)
def test_what_is_no_json_has_no_number(content):
    assert formats.peek(content) is None
    formats.demand_known("bundle", formats.peek(content))


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_say_their_format(tmp_path, name):
    kind, text = SETTINGS[name]
    path = tmp_path / name
    path.write_text(text)
    absent = load(kind, path)
    path.write_text("format = 1\n" + text)
    assert load(kind, path) == absent
    path.write_text(f"format = {NEWER}\n[what.nobody]\nknows = true\n")
    with pytest.raises(FormatError, match=f"{name}: format: got format {NEWER}"):
        load(kind, path)
    path.write_text('format = "one"\n' + text)
    with pytest.raises(ConfigError):
        load(kind, path)


def test_a_file_without_a_kind_has_no_format(tmp_path):
    class Options(Frozen):
        width: int = 1

    with pytest.raises(ConfigError, match="unknown key"):
        load(Options, {"format": NEWER})


def test_what_enrolment_exchanges(tmp_path):
    made = new_coordinator.make(new_coordinator.settings("hub", port=0, join_port=0), tmp_path / "hub")
    today = datetime.datetime.now(datetime.UTC).date()
    path = tmp_path / "invitation.json"
    path.write_text(invite.invite(made, "EU", today=today).model_dump_json())
    assert invitation.read(path).region == "EU"
    request = enrolment.Request(request="00", node="node", officer="officer")
    request.write(tmp_path / "request.json")
    kept = made.region("EU") / "invitation.json"
    for file, read in (
        (path, lambda: invitation.read(path)),
        (tmp_path / "request.json", lambda: enrolment.read(tmp_path / "request.json")),
        (kept, lambda: invite.kept(made, "EU")),
    ):
        assert read() is not None
        newer(file)
        with pytest.raises(FormatError, match=f"got format {NEWER}, expected format 1; fix: upgrade"):
            read()


def newer(path: Path) -> None:
    """The same file as a newer release might write it."""
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": NEWER, "more": [1]}))


def test_a_run_folder(tmp_path):
    folder = Folder(tmp_path)
    folder.write("metrics.json", {"a": 1})
    folder.append_round({"round": 0})
    assert (folder.read("metrics.json"), folder.rounds()) == ({"a": 1}, [{"round": 0}])
    folder.write("format.json", {"format": NEWER})
    for read in (lambda: folder.read("metrics.json"), folder.rounds):
        with pytest.raises(FormatError, match=f"format.json: got format {NEWER}"):
            read()


def test_a_region_with_a_newer_file_does_not_start(tmp_path):
    """The gate's process ends with one line, before it opens anything."""
    from fedfsd.node import region_gate

    eu = operator_kit.region(tmp_path)
    for name in ("region.toml", "policy.toml"):
        kept = (eu / name).read_text()
        shutil.copy(eu / name, tmp_path / name)
        (eu / name).write_text(f"format = {NEWER}\n{kept}")
        with pytest.raises(FedfsdError) as refused:
            region_gate.serve(region_gate.open_node(eu), stop=None)
        assert (refused.value.code, refused.value.exit_code) == ("format", 4)
        shutil.copy(tmp_path / name, eu / name)
