"""A new coordinator: its folder, its key, the federation's root; and its certificate whenever one is due."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from fedfsd.border import authority, identity
from fedfsd.border.authority import Authority
from fedfsd.border.identity import RENEW_DAYS
from fedfsd.config.experiment import REGION_PATTERN
from fedfsd.config.load import load
from fedfsd.coordinator.folder import SETTINGS, Coordinator, CoordinatorSettings, open_coordinator
from fedfsd.errors import NotReadyError, UsageError
from fedfsd.ledger.key import SigningKey
from fedfsd.service import address
from fedfsd.service.owner import private

TEXT = """\
# The coordinator of the federation {name}.

name = {name_text}

# The name or address under which regions reach this machine; it is written into their invitations.
host = {host}

# Listen on this address: where regions are elsewhere "0.0.0.0", or "::" for IPv6 and IPv4. Two ports are
# open to them:
listen = {listen}
port = {port}                     # regions with a certificate
join_port = {join_port}                # a new region asks for its certificate
{public}
# On loopback only.
metrics_port = {metrics_port}                # Prometheus; 0: none
flower_port = {flower_port}              # the first of the engine's ports
"""


def make(settings: CoordinatorSettings, folder: Path) -> Coordinator:
    """Make ``folder``, whole or not at all.

    Raises:
        NotReadyError: there is something in ``folder`` already, or nobody could call or listen at these
            addresses.
    """
    named = folder.name not in ("", "..")
    if not named or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise NotReadyError(
            str(folder), got="an existing file or folder", expected="a new folder", hint="choose another -o"
        )
    _demand_usable(settings)
    part = folder.with_name(folder.name + ".part")
    with private():
        shutil.rmtree(part, ignore_errors=True)
        for inner in ("ca", "tls", "regions", "flower", "store", "offers", "receipts", "log"):
            (part / inner).mkdir(parents=True)
        (part / SETTINGS).write_text(text(settings), encoding="utf-8")
        SigningKey.generate(f"fedfsd/coordinator/{settings.name}").write(part / "coordinator.key")
        Authority.new(settings.name).write(part / "ca")
        (part / "ca" / "revoked").touch()
        renew(Coordinator(part, settings))
        part.replace(folder)
    return open_coordinator(folder)


def _demand_usable(settings: CoordinatorSettings) -> None:
    """What ``up`` would stumble over, or a region that was invited."""
    if address.from_here(settings.host) != settings.host:
        raise NotReadyError(
            "--host",
            got=f"{settings.host}, which is every address of a machine",
            expected="the name or address by which regions reach this machine",
            hint=f"--host NAME --listen {settings.host}",
        )
    if not address.may_listen(settings.listen, 0):
        everywhere = "::" if ":" in settings.listen else "0.0.0.0"
        raise NotReadyError(
            "--listen",
            got=f"{settings.listen}, which is no address of this machine",
            expected="one to listen on",
            hint=f"--listen {everywhere} listens on all of them",
        )


def settings(name: str, **chosen: str | int | None) -> CoordinatorSettings:
    """Settings with what was chosen; None leaves the default. UsageError for another name or value."""
    if not re.fullmatch(REGION_PATTERN, name):
        raise UsageError(
            "NAME",
            got=name,
            expected="up to 32 letters, digits, - and _, a letter first",
            hint="such as roads",
        )
    return load(
        CoordinatorSettings, {"name": name, **{key: one for key, one in chosen.items() if one is not None}}
    )


def text(settings: CoordinatorSettings) -> str:
    """The text of coordinator.toml."""
    quoted = {key: json.dumps(getattr(settings, key)) for key in ("host", "listen")}
    numbers = settings.model_dump(include={"port", "join_port", "metrics_port", "flower_port"})
    public = "".join(
        f"{key} = {getattr(settings, key)}\n"
        for key in ("public_port", "public_join_port")
        if getattr(settings, key)
    )
    if public:
        public = f"# By which regions reach them, where a router translates ports:\n{public}"
    return TEXT.format(
        name=settings.name, name_text=json.dumps(settings.name), public=public, **quoted, **numbers
    )


def renew(coordinator: Coordinator) -> bool:
    """Issue the server's certificate where there is none, or it ends within ``RENEW_DAYS``; whether it did.

    The gate calls it at each start, and then every hour. The key stays: regions know the coordinator by the
    root and its URI.
    """
    path = coordinator.tls_certificate
    if path.exists() and identity.days_left(identity.read(path.read_bytes())) > RENEW_DAYS:
        return False
    if not coordinator.tls_key.exists():
        authority.write_key(authority.new_key(), coordinator.tls_key)
    key = authority.read_key(coordinator.tls_key)
    made = Authority.read(coordinator.ca).issue(coordinator.identity, key.public_key())
    authority.write_certificate(made, path)
    return True
