"""A coordinator's folder: its settings, its keys, and the paths of its files.

| in the folder | what |
|---|---|
| coordinator.toml | what a person edits |
| coordinator.key | signs receipts, cosigns regions' checkpoints |
| ca/ | the federation's root with its key, and the list of revoked certificates |
| tls/ | the certificate it serves with |
| regions/NAME/ | a region's invitation, request, certificate, ledger keys, its node in Flower |
| witness.json | the newest head of every region's ledger |
| flower/ | the engine's own state |
| store/NAME/ | what is outstanding with a region |
| offers/, receipts/ | plans on offer with the regions' answers; what arrived |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedfsd.border.identity import Identity
from fedfsd.config.experiment import RegionName
from fedfsd.config.load import Frozen, load
from fedfsd.errors import NotReadyError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.key import parse as parse_key
from fedfsd.service import address
from fedfsd.service.address import Host, Port

SETTINGS = "coordinator.toml"
PORT, JOIN_PORT, FLOWER_PORT = 9443, 9444, 9091


class CoordinatorSettings(Frozen):
    """``coordinator.toml``."""

    FORMAT: ClassVar[str] = "coordinator.toml"

    format: Literal[1] = 1
    name: RegionName
    """Of the federation; the coordinator's key is fedfsd/coordinator/NAME."""
    host: Host = "127.0.0.1"
    """The name or address by which regions reach this machine."""
    listen: Host = "127.0.0.1"
    """The address to listen on, where regions are elsewhere 0.0.0.0, or :: for IPv6 and IPv4."""
    port: Port = PORT
    """Where regions call, with their certificates."""
    join_port: Port = JOIN_PORT
    """Where a new region asks for its certificate."""
    public_port: Port = 0
    """The port by which regions reach ``port``, where a router translates it; 0: the same."""
    public_join_port: Port = 0
    """The same for ``join_port``."""
    metrics_port: Port = 0
    """Prometheus metrics on loopback; 0: none."""
    flower_port: Annotated[int, Field(ge=0, le=65000)] = FLOWER_PORT
    """The first of the engine's ports, all on loopback."""

    @property
    def address(self) -> str:
        """Where regions call, host:port."""
        return address.join(self.host, self.public_port or self.port)

    @property
    def join_address(self) -> str:
        """Where new regions ask, host:port."""
        return address.join(self.host, self.public_join_port or self.join_port)


@dataclass(frozen=True)
class Coordinator:
    """One coordinator's folder and what its settings say."""

    folder: Path
    settings: CoordinatorSettings

    @property
    def name(self) -> str:
        """Of the federation."""
        return self.settings.name

    @property
    def identity(self) -> Identity:
        """The party named in its certificate."""
        return Identity(self.settings.name)

    @cached_property
    def key(self) -> SigningKey:
        """What signs receipts and cosigns checkpoints. NotReadyError where it cannot be read."""
        return SigningKey.read(self.folder / "coordinator.key")

    @property
    def ca(self) -> Path:
        """The folder of the root."""
        return self.folder / "ca"

    @property
    def root(self) -> Path:
        """The root certificate, PEM."""
        return self.ca / "root.crt"

    @property
    def revoked(self) -> Path:
        """The list of revoked certificates: a serial number in hex at the start of each line."""
        return self.ca / "revoked"

    @property
    def tls_key(self) -> Path:
        """The key it serves with."""
        return self.folder / "tls" / "server.key"

    @property
    def tls_certificate(self) -> Path:
        """The certificate it serves with."""
        return self.folder / "tls" / "server.crt"

    @property
    def witness(self) -> Path:
        """What it remembers of the regions' ledgers."""
        return self.folder / "witness.json"

    @property
    def flower(self) -> Path:
        """The engine's folder."""
        return self.folder / "flower"

    @property
    def offers(self) -> Path:
        """Plans on offer."""
        return self.folder / "offers"

    @property
    def receipts(self) -> Path:
        """What arrived, a file a plan."""
        return self.folder / "receipts"

    @property
    def log(self) -> Path:
        """The folder of structured logs."""
        return self.folder / "log"

    def region(self, name: str) -> Path:
        """The folder of what is known of one region."""
        return self.folder / "regions" / name

    def store(self, name: str) -> Path:
        """The folder of what is outstanding with one region."""
        return self.folder / "store" / name

    def regions(self) -> tuple[str, ...]:
        """Every region that has a certificate, in the order of their names."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("regions/*/region.crt")))

    def invited(self) -> tuple[str, ...]:
        """Every region that was ever invited."""
        return tuple(sorted(path.parent.name for path in self.folder.glob("regions/*/invitation.json")))

    def node_key(self, name: str) -> VerificationKey:
        """The key of the region's ledger as it was confirmed. NotReadyError where the region never joined."""
        return self._vkey(name, "node")

    def officer_key(self, name: str) -> VerificationKey:
        """The key of the region's data officer as it was confirmed. NotReadyError as above."""
        return self._vkey(name, "officer")

    def _vkey(self, name: str, role: str) -> VerificationKey:
        path = self.region(name) / f"{role}.vkey"
        try:
            return parse_key(path.read_text(encoding="utf-8").strip())
        except OSError:
            raise NotReadyError(
                f"region {name}",
                got="never confirmed",
                expected=path.name,
                hint=f"fedfsd coordinator invite {name}",
            ) from None


def open_coordinator(folder: Path, *, overrides: Iterable[str] = ()) -> Coordinator:
    """The coordinator in ``folder``. NotReadyError without one, ConfigError where its file is wrong."""
    path = folder / SETTINGS
    if not path.exists():
        raise NotReadyError(
            str(path),
            got="no such file",
            expected="a coordinator's folder",
            hint="fedfsd coordinator init makes one; --coordinator names it",
        )
    return Coordinator(folder, load(CoordinatorSettings, path, overrides=overrides))
