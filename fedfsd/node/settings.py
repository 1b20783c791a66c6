"""``region.toml``: where a region's files are and who receives its updates."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fedfsd.config.experiment import RegionName
from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError
from fedfsd.service.address import Address, Port, Proxy


class Transfer(Frozen):
    """Who gets the updates, and what for: plans are approved for these two."""

    recipient: str = ""
    """The name of the coordinator's key, such as fedfsd/coordinator/hub."""
    purpose: str = ""


class Border(Frozen):
    """How the region's gate reaches the coordinator."""

    coordinator: Address = ""
    """Its address, host:port; empty: the address in the invitation."""
    proxy: Proxy = ""
    """An HTTP proxy that opens the connection there (CONNECT): http://host:port; empty: none."""
    socket: str = "run/gate.sock"
    """Where the runner meets the gate: a folder that both users may enter, where they are two."""
    metrics_port: Port = 0
    """Prometheus metrics on loopback; 0: none."""
    test_only: bool = False
    """Also accept rehearsal plans (their noise key is public), on public or synthetic data. For testing."""


class RegionSettings(Frozen):
    """A region's own file; paths are relative to its folder."""

    FORMAT: ClassVar[str] = "region.toml"

    format: Literal[1] = 1
    name: RegionName
    mirror: str
    """The ledger's second copy, a file on another disk."""
    policy: str = "policy.toml"
    on_event: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """A command and its arguments, run with one JSON document on its standard input where a person is needed:
    plan_waits, run_ended, budget_low, mirror_behind, certificate_ends."""
    transfer: Transfer = Transfer()
    border: Border = Border()

    def transfer_to(self) -> tuple[str, str]:
        """(recipient, purpose). ConfigError where one of them is not filled in."""
        for key, expected in (("recipient", "the name of the coordinator's key"), ("purpose", "what for")):
            if not getattr(self.transfer, key):
                raise ConfigError(
                    f"region.toml: transfer.{key}",
                    got="nothing",
                    expected=expected,
                    hint=f'set it there, or pass --set transfer.{key}="..."',
                )
        return self.transfer.recipient, self.transfer.purpose
