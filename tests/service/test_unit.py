"""systemd units: each promise of the READMEs is a directive, and systemd itself takes the files."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedfsd.config.load import load
from fedfsd.coordinator import folder
from fedfsd.node import settings
from fedfsd.runner import process

ROOT = Path(__file__).parents[2]
CLIENTS, SERVER = ROOT / "clients" / "deploy", ROOT / "server" / "deploy"
GATE, TRAIN = CLIENTS / "systemd" / "fedfsd-gate@.service", CLIENTS / "systemd" / "fedfsd-train@.service"
COORDINATOR = SERVER / "fedfsd-coordinator.service"
UNITS = {path.name: path for path in (GATE, TRAIN, COORDINATOR)}
REGIONS = ("cn", "eu", "sg", "us")
analyze = shutil.which("systemd-analyze")


def directives(unit: Path) -> dict[str, list[str]]:
    """Every value of every key, continued lines joined."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(" ".join(value.split()))
    return found


@pytest.mark.parametrize("name", UNITS)
def test_no_rights_and_bounds(name):
    unit = directives(UNITS[name])
    for key, value in {
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "AmbientCapabilities": "",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "RestrictNamespaces": "yes",
        "SystemCallFilter": "@system-service",
        "LimitCORE": "0",
        "UMask": "0077",
        "Restart": "always",
    }.items():
        assert unit[key] == [value], key
    assert unit["MemoryMax"]
    assert unit["TasksMax"]
    assert "root" not in unit["User"]


def test_the_gate_cannot_look_at_the_data():
    unit = directives(GATE)
    assert unit["User"] == ["fedfsd-gate"]
    assert unit["RestrictAddressFamilies"] == ["AF_INET AF_INET6 AF_UNIX"]
    assert unit["InaccessiblePaths"] == ["-/srv/fedfsd/data", "-/var/lib/fedfsd/train"]
    assert unit["ReadWritePaths"] == ["/var/lib/fedfsd/gate/%i", "-/run/fedfsd/%i", "-/mnt/fedfsd-mirror/%i"]


def test_the_runner_has_no_network_and_nothing_of_the_gate():
    unit = directives(TRAIN)
    assert unit["User"] == ["fedfsd-train"]
    assert unit["PrivateNetwork"] == ["yes"]
    assert unit["RestrictAddressFamilies"] == ["AF_UNIX"]
    assert unit["IPAddressDeny"] == ["any"]
    assert "IPAddressAllow" not in unit
    assert unit["ReadOnlyPaths"] == ["/srv/fedfsd/data/%i"]
    assert unit["ReadWritePaths"] == ["/var/lib/fedfsd/train/%i"]
    assert unit["InaccessiblePaths"] == ["-/var/lib/fedfsd/gate", "-/mnt/fedfsd-mirror"]
    # systemd would open an output file as root, in a folder that the runner can put links into
    assert not {"StandardOutput", "StandardError"} & set(unit)


@pytest.mark.parametrize("name", UNITS)
def test_they_start_what_there_is(name):
    (command,) = directives(UNITS[name])["ExecStart"]
    program, *words = command.rpartition(" -- ")[2].split()
    options = [word for word in words if word.startswith("--")]
    inner = words[: words.index(options[0])]
    if program.endswith("/fedfsd"):
        inner = ["-c", "from fedfsd.cli.main import run; run()", *inner]
    told = subprocess.run([sys.executable, *inner, "--help"], capture_output=True, text=True, check=True)
    assert all(option in told.stdout for option in options)


@pytest.mark.skipif(analyze is None, reason="no systemd here")
def test_systemd_takes_them(tmp_path):
    for name, path in UNITS.items():
        text = re.sub(r"/opt/fedfsd/bin/\w+", "/bin/true", path.read_text(encoding="utf-8"))
        (tmp_path / name).write_text(text, encoding="utf-8")
    found = subprocess.run(
        [analyze, "verify", "--man=no", *(str(tmp_path / name) for name in UNITS)],
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("systemd-sysusers") is None, reason="no systemd here")
def test_users_and_folders_are_made(tmp_path):
    """In a folder that stands for the whole system."""
    (tmp_path / "etc").mkdir()
    systemd = CLIENTS / "systemd"
    for command, *files in (
        ["systemd-sysusers", systemd / "fedfsd.sysusers.conf", SERVER / "fedfsd-coordinator.sysusers.conf"],
        [
            *("systemd-tmpfiles", "--create"),
            systemd / "fedfsd.tmpfiles.conf",
            SERVER / "fedfsd-coordinator.tmpfiles.conf",
        ],
    ):
        done = subprocess.run(
            [command, f"--root={tmp_path}", *map(str, files)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    users = {
        line.split(":")[0]: int(line.split(":")[2])
        for line in (tmp_path / "etc" / "passwd").read_text(encoding="utf-8").splitlines()
    }
    groups = {
        line.split(":")[0]: (int(line.split(":")[2]), set(line.split(":")[3].split(",")))
        for line in (tmp_path / "etc" / "group").read_text(encoding="utf-8").splitlines()
    }
    assert set(users) == {"fedfsd-gate", "fedfsd-train", "fedfsd-coordinator"}
    assert groups["fedfsd"][1] == {"fedfsd-gate", "fedfsd-train"}
    for region in REGIONS:
        meeting, data = tmp_path / "run" / "fedfsd" / region, tmp_path / "srv" / "fedfsd" / "data" / region
        assert (meeting.stat().st_uid, meeting.stat().st_gid) == (users["fedfsd-gate"], groups["fedfsd"][0])
        assert meeting.stat().st_mode & 0o7777 == 0o2710
        assert (data.stat().st_uid, data.stat().st_gid) == (0, groups["fedfsd-train"][0])
        assert data.stat().st_mode & 0o007 == data.parent.stat().st_mode & 0o007 == 0
    for kind in ("gate", "train", "coordinator"):
        made = (tmp_path / "var" / "lib" / "fedfsd" / kind).stat()
        assert (made.st_uid, made.st_mode & 0o777) == (users[f"fedfsd-{kind}"], 0o700)


@pytest.mark.parametrize("region", REGIONS)
def test_the_examples_are_read_and_agree(region):
    mine = load(settings.RegionSettings, CLIENTS / "region" / f"{region}.toml")
    train = load(process.Settings, CLIENTS / "train" / f"{region}.toml")
    assert mine.name == train.name == region.upper()
    assert mine.border.socket == train.socket == f"/run/fedfsd/{region}/gate.sock"
    assert Path(train.data_path) == Path("/srv/fedfsd/data") / region
    assert (train.test_only, mine.border.test_only) == (False, False)
    hub = load(folder.CoordinatorSettings, SERVER / "coordinator.toml")
    assert mine.transfer_to()[0] == f"fedfsd/coordinator/{hub.name}"


def test_what_a_person_edits_is_said_at_the_top():
    files = [
        *CLIENTS.glob("systemd/*"),
        *CLIENTS.glob("region/*"),
        *CLIENTS.glob("train/*"),
        *SERVER.glob("*"),
    ]
    assert len(files) == 4 + 4 + 4 + 4
    for path in files:
        head = path.read_text(encoding="utf-8").split("\n\n")[0]
        assert "o edit" in head, path.name
