"""A coordinator's status: its processes, every region, the plans on offer, and the updates received.

Read from files, whether anything is running or not, without asking or importing Flower.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography import x509

from fedfsd.border import authority, enrolment, identity
from fedfsd.coordinator import declaration, receipt_book
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.standing import STATUS
from fedfsd.service.supervise import standing

WARN_DAYS = 30
AWAY_SECONDS = 60.0
"""A region speaks every ten seconds, or more often."""

Document = dict[str, Any]


def status(coordinator: Coordinator) -> Document:
    """Everything ``fedfsd coordinator status --json`` prints."""
    folder = coordinator.folder
    supervised, gate = standing(folder), _gate(folder)
    processes = supervised["processes"] if supervised else []
    found = {
        "federation": coordinator.name,
        "address": coordinator.settings.address,
        "ready": _alive(gate) and bool(processes) and all(one["ready"] for one in processes),
        "up": supervised,
        "certificate_days": _days(coordinator.tls_certificate),
        "root_days": _days(coordinator.root),
        "regions": [_region(coordinator, path, gate) for path in sorted((folder / "regions").iterdir())],
        "plans": _plans(coordinator),
        "received": [_received(path) for path in sorted(coordinator.receipts.glob("*.jsonl"))],
    }
    return found | {"warnings": [*_warnings(found), *_away(found, gate)]}


def _gate(folder: Path) -> Document:
    """What the gate last wrote, whether it still runs or not."""
    with suppress(OSError, ValueError, TypeError):
        return dict(json.loads((folder / STATUS).read_bytes()))
    return {}


def _alive(gate: Document) -> bool:
    with suppress(OSError, KeyError, TypeError):
        os.kill(gate["pid"], 0)
        return True
    return False


def _region(coordinator: Coordinator, folder: Path, gate: Document) -> Document:
    said = gate.get("regions", {}).get(folder.name, {})
    declared = declaration.read(coordinator, folder.name)
    return {
        "name": folder.name,
        "state": _state(folder),
        "certificate_days": _days(folder / "region.crt"),
        "seen": _time(said.get("seen")),
        "doubled": _time(said.get("doubled")),
        "task": said.get("task"),
        "last": said.get("last"),
        "refusals": said.get("refusals", {}),
        "objection": said.get("objection"),
        "declared": None if declared is None else {"roster": declared.roster, "identity": declared.identity},
    }


def _away(found: Document, gate: Document) -> list[str]:
    """Regions in a run that have not called; none if no gate is running."""
    wanted = {name for one in found["plans"] for name, said in one["answers"].items() if said == "approved"}
    heard = {name: said.get("seen") or 0 for name, said in gate.get("regions", {}).items()}
    since = {one["name"]: one["seen"] for one in found["regions"]}
    return [
        f"region {name} takes part in a run and was last heard of at {since.get(name)}: ask its operators"
        for name in sorted(wanted)
        if _alive(gate) and time.time() - heard.get(name, 0) > AWAY_SECONDS
    ]


def _time(seconds: int | None) -> str | None:
    if seconds is None:
        return None
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _state(folder: Path) -> str:
    """``waiting`` for confirmation (again, maybe), ``enrolled``, ``invited`` or ``revoked``."""
    certificate, request = _certificate(folder / "region.crt"), folder / "request.json"
    if request.exists():
        asked = authority.requested_key(bytes.fromhex(enrolment.read(request).request))
        if certificate is None or certificate.public_key() != asked:
            return "waiting"
    if certificate is not None:
        return "enrolled"
    return "invited" if (folder / "invitation.json").exists() else "revoked"


def _certificate(path: Path) -> x509.Certificate | None:
    try:
        return identity.read(path.read_bytes())
    except OSError:
        return None


def _days(path: Path) -> int | None:
    certificate = _certificate(path)
    return None if certificate is None else identity.days_left(certificate)


def _plans(coordinator: Coordinator) -> list[Document]:
    """What is on offer, with each region's answer: approved, a code, or None for none yet."""
    found = []
    for path in sorted(coordinator.offers.glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError):
            document = json.loads(path.read_bytes())
            answers = {name: _answer(path.with_suffix("") / f"{name}.json") for name in document["regions"]}
            found.append(
                {
                    "plan": path.stem,
                    "name": document["name"],
                    "rounds": document["num_rounds"],
                    "answers": answers,
                }
            )
    return found


def _answer(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads(path.read_bytes())
        return "approved" if said["approved"] else str(said["code"])
    return None


def _received(path: Path) -> Document:
    """What arrived of one plan, by region: releases and the newest round."""
    regions: dict[str, Document] = {}
    for line in receipt_book.read(path):
        mine = regions.setdefault(line.region, {"releases": 0, "last_round": 0})
        mine["releases"] += 1
        mine["last_round"] = max(mine["last_round"], line.round)
    return {"plan": path.stem, "regions": dict(sorted(regions.items()))}


def _warnings(found: Document) -> list[str]:
    """What a person should do something about."""
    told = [
        f"the certificate of {what} ends in {days} days: {how}"
        for what, days, how in [
            ("this coordinator", found["certificate_days"], "restart fedfsd coordinator up"),
            *(
                (f"region {one['name']}", one["certificate_days"], f"fedfsd coordinator invite {one['name']}")
                for one in found["regions"]
                if one["state"] == "enrolled"
            ),
        ]
        if days is not None and days < WARN_DAYS
    ]
    told += [f"region {one['name']}: {one['objection']}" for one in found["regions"] if one["objection"]]
    told += [
        f"two nodes used the key of region {one['name']} at {one['doubled']}: ask its operators"
        for one in found["regions"]
        if one["doubled"]
    ]
    told += [
        f"region {one['name']} asks for its certificate: compare fingerprints, then "
        f"fedfsd coordinator invite {one['name']} --confirm FINGERPRINT"
        for one in found["regions"]
        if one["state"] == "waiting"
    ]
    return told
