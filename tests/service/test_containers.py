"""The containers: what the compose file and the Dockerfile enforce, and that tools which know them agree.

Nothing is built here unless a builder and a base image are: the images come from the offline kit.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "clients" / "deploy" / "containers"
DOCKERFILE, COMPOSE = FOLDER / "Dockerfile", FOLDER / "compose.yml"
USERS = {"gate": "64101:64101", "runner": "64102:64102", "coordinator": "64103:64103"}


def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M))
    found: dict[str, list[tuple[str, str]]] = {"": []}
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found[rest.rpartition(" AS ")[2]] = []
        found[list(found)[-1]].append((word, rest))
    return found


def mounts(name: str) -> dict[str, str]:
    """Where each volume is mounted, and how."""
    split = [re.sub(r"\$\{[^}]*\}", "DATA", one).split(":") for one in services()[name]["volumes"]]
    return {target: mode[0] if mode else "rw" for _, target, *mode in split}


@pytest.mark.parametrize("name", USERS)
def test_every_container_is_shut(name):
    one = services()[name]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert [mount.split(":")[0] for mount in one["tmpfs"]] == ["/tmp"]
    assert one["user"] == USERS[name] == dict(stages()[name])["USER"]
    assert not {"privileged", "pid", "ipc", "devices", "cap_add"} & set(one)
    assert one["build"]["target"] == name
    assert not [mount for mount in one["volumes"] if "docker.sock" in mount]


def test_the_one_with_the_data_has_no_network_and_the_other_no_data():
    runner, gate = services()["runner"], services()["gate"]
    assert runner["network_mode"] == "none"
    assert not {"networks", "ports"} & set(runner)
    assert mounts("runner")["/srv/fedfsd/data"] == "ro"
    assert not [place for place in mounts("gate") if "data" in place or "train" in place]
    assert not [place for place in mounts("runner") if "gate" in place or "mirror" in place]
    assert "ports" not in gate
    assert set(mounts("gate")) & set(mounts("runner")) == {"/run/fedfsd"}
    assert gate["group_add"] == runner["group_add"]


def test_the_processes_are_those_of_region_up_and_the_coordinators():
    from fedfsd.service.child import python

    def started(name: str) -> list[str]:
        found = dict(stages()[name])
        return [*json.loads(found["ENTRYPOINT"]), *json.loads(found["CMD"])]

    gate = python("fedfsd.node.region_gate", "--region", "/var/lib/fedfsd/gate/region")
    runner = python("fedfsd.runner", "--train", "/var/lib/fedfsd/train/region", isolated=True)
    assert started("gate")[1:] == gate[1:]
    assert started("runner")[1:] == runner[1:]
    assert started("coordinator")[:3] == ["fedfsd", "coordinator", "up"]
    ports = {int(one) for one in dict(stages()["coordinator"])["EXPOSE"].split()}
    assert {int(one.split(":")[1]) for one in services()["coordinator"]["ports"]} == ports


def test_nothing_is_installed_but_hashed_wheels():
    runs = [rest for stage in stages().values() for word, rest in stage if word == "RUN"]
    (install,) = [rest for rest in runs if "pip" in rest]
    assert {"--no-index", "--require-hashes"} <= set(install.split())
    assert not [rest for rest in runs if re.search(r"curl|wget|apt|https?:", rest)]
    assert not [rest for stage in stages().values() for word, rest in stage if word == "ADD"]


def test_the_socket_is_the_two_users_alone():
    (made,) = [rest for word, rest in stages()["base"] if word == "RUN"]
    group = services()["gate"]["group_add"][0]
    assert f"-g {group} -m 2770 /run/fedfsd" in made
    assert f"groupadd --gid {group}" in made
    words = [word for word, _ in stages()["base"]]
    assert words.index("RUN") < words.index("ENV")  # the path that ENV sets has no groupadd


def _tool(name: str) -> str:
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    return found or pytest.skip(f"no {name} here")


def test_a_linter_finds_nothing():
    done = subprocess.run([_tool("hadolint"), str(DOCKERFILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("command", [["docker", "compose"], ["docker-compose"], ["podman-compose"]])
def test_compose_reads_it(command, tmp_path):
    tool = [_tool(command[0]), *command[1:]]
    if subprocess.run([*tool, "version"], capture_output=True).returncode != 0:
        pytest.skip(f"no {' '.join(command)} here")
    environment = {**os.environ, "REGION": "eu", "DATA": str(tmp_path), "KIT": str(tmp_path)}
    environment["COMPOSE_PROFILES"] = "region,coordinator"
    done = subprocess.run(
        [*tool, "-f", str(COMPOSE), "config"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = yaml.safe_load(done.stdout)["services"]
    assert set(found) == set(USERS)
    assert found["runner"]["network_mode"] == "none"
    assert found["runner"]["command"] == ["/var/lib/fedfsd/train/eu"]
