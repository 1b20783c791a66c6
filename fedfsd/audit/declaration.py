"""What a ledger cannot know and only its region can declare: parties, legal grounds, what else was done.

A TOML file a region; ``clients/deploy/transfer/example.toml`` explains every key. Nothing here is
checked by anybody, and every page says so beside each value that it takes from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fedfsd.config.load import Frozen, load
from fedfsd.errors import ConfigError
from fedfsd.ledger.entry import Region

Said = Annotated[str, Field(min_length=1, max_length=2000)] | None


class Exporter(Frozen):
    """The legal entity that the region's data belong to."""

    legal_entity: Said = None
    contact: Said = None
    data_protection_contact: Said = None
    role: Said = None
    operator: Said = None
    """Who worked the node, and who agreed as the second person."""


class Recipient(Frozen):
    """Who stands behind the coordinator's name."""

    legal_entity: Said = None
    country: Said = None
    contact: Said = None
    ownership: Said = None
    covered_person: Said = None
    certificate_fingerprint: Said = None
    onward_recipients: Said = None


class Origin(Frozen):
    """Where the data come from. Numbers of people in bands, never exact ones."""

    jurisdiction: Said = None
    data_centre: Said = None
    collection_period: Said = None
    number_of_persons: Said = None
    categories_of_persons: Said = None
    categories_of_data: Said = None
    sensitive_data: Said = None
    important_data: Said = None
    important_data_basis: Said = None
    surveying_data: Said = None


class Ground(Frozen):
    """Why the transfer may happen."""

    necessity: Said = None
    processing_method: Said = None
    legal_basis: Said = None
    transfer_mechanism: Said = None
    transfer_mechanism_reference: Said = None
    approval_scope: Said = None
    assessments: Said = None
    surveying_approval: Said = None
    justice_department_reference: Said = None
    export_control_reference: Said = None
    agreements: Said = None


class Transport(Frozen):
    """How the bytes travelled; the ledger keeps no times and no addresses."""

    endpoints: Said = None
    protocol: Said = None
    encryption: Said = None
    start_end: Said = None
    bytes_on_wire: Said = None


class After(Frozen):
    """What becomes of it abroad."""

    retention_place: Said = None
    retention_period: Said = None
    deletion: Said = None
    onward_transfer: Said = None
    models_that_contain_it: Said = None
    incidents: Said = None
    requests_of_persons: Said = None


class Practice(Frozen):
    """What the report's fields ask for beyond the ledger."""

    vehicles_in_other_regions: Said = None
    vehicles_per_person: Said = None
    retention_of_windows: Said = None
    preprocessing: Said = None
    evaluation: Said = None
    debugging: Said = None
    initial_model: Said = None
    tuning: Said = None
    side_channels: Said = None
    deviations: Said = None
    container_sha256: Said = None
    empirical_audit: Said = None
    utility: Said = None
    residual_risks: Said = None


class Declaration(Frozen):
    """One region's declaration."""

    region: Region
    exporter: Exporter = Exporter()
    recipient: Recipient = Recipient()
    origin: Origin = Origin()
    ground: Ground = Ground()
    transport: Transport = Transport()
    after: After = After()
    practice: Practice = Practice()


def declarations(paths: Sequence[Path]) -> dict[str, Declaration]:
    """Declarations by region. ConfigError for a file that is none, or two of one region."""
    found: dict[str, Declaration] = {}
    for path in paths:
        one = load(Declaration, path)
        if one.region in found:
            raise ConfigError(
                f"{path}: region",
                got=f"{one.region} again",
                expected="one file a region",
                hint="leave one out",
            )
        found[one.region] = one
    return found
