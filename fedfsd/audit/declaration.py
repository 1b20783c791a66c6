"""What a ledger cannot know and only its region can declare: parties, legal grounds, what else was done.

A TOML file a region; ``declaration.toml`` beside this module is the form, with every key explained. Nothing
here is checked by anybody, and every page says so beside each value that it takes from here.
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
    identity_evidence: Said = None
    identity_checked_on: Said = None
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
    notice: Said = None
    separate_consent: Said = None
    transfer_mechanism: Said = None
    transfer_mechanism_reference: Said = None
    security_assessment_number: Said = None
    standard_contract_filing_number: Said = None
    certification_number: Said = None
    exemption: Said = None
    approval_scope: Said = None
    assessments: Said = None
    surveying_approval: Said = None
    justice_department_reference: Said = None
    export_control_reference: Said = None
    agreements: Said = None


class Workflow(Frozen):
    """How the transfer was approved inside the exporter, before anything left."""

    requested_by: Said = None
    reviewed_by: Said = None
    approved_by: Said = None
    decided_on: Said = None
    conditions: Said = None


class Access(Frozen):
    """Who may use what was transferred, and how that changed."""

    who: Said = None
    changes_of_rights: Said = None
    reviewed_on: Said = None


class Redeclaration(Frozen):
    """When the transfer has to be assessed or filed anew. Numbers of people in bands, never exact ones."""

    triggers: Said = None
    checked_on: Said = None
    changes_since: Said = None
    assessment_valid_until: Said = None
    persons_since_1_january: Said = None
    sensitive_persons_since_1_january: Said = None


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
    workflow: Workflow = Workflow()
    access: Access = Access()
    redeclaration: Redeclaration = Redeclaration()
    transport: Transport = Transport()
    after: After = After()
    practice: Practice = Practice()


def template(region: str) -> str:
    """The form to fill in for ``region``, as TOML."""
    text = (Path(__file__).parent / "declaration.toml").read_text(encoding="utf-8")
    return text.replace('region = "EU"', f'region = "{region}"')


def declarations(paths: Sequence[Path]) -> dict[str, Declaration]:
    """Declarations by region. ConfigError for a file that is none, or two of one region."""
    found: dict[str, Declaration] = {}
    for path in paths:
        _demand_no_settings(path)
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


def _demand_no_settings(path: Path) -> None:
    """Refuse the node's own settings by name: they lie where this file is looked for."""
    if path.name == "region.toml":
        raise ConfigError(
            str(path),
            got="the settings of a node",
            expected="what its region declares about transfers",
            hint="fedfsd audit transfers --template -o declaration.toml writes the form",
        )
