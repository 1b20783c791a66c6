"""The columns of a transfer record: what each holds, which rule asks for it, and where it comes from.

The reading of the rules is engineering input, not legal advice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedfsd.language import mark, say


@dataclass(frozen=True)
class Rule:
    """A rule that asks for records of transfers."""

    name: str
    asks: str
    read: str
    """How well it is known here."""


_QUOTED = mark("from quotations of the text")
_SECOND = mark("from summaries; the full text was not read")
_KNOWN = mark("common knowledge; the text was not read again for this page")

RULES: tuple[Rule, ...] = (
    Rule(
        "PIPL 38",
        mark(
            "China, Personal Information Protection Law: one of the routes abroad (security assessment, "
            "certification, standard contract or another condition), each with a number of its own"
        ),
        _KNOWN,
    ),
    Rule(
        "PIPL 39",
        mark(
            "China: notice of the recipient's name and contact, purpose, method, kinds of data and how to "
            "use one's rights against the recipient, and separate consent"
        ),
        _QUOTED,
    ),
    Rule(
        "PIPL 55",
        mark(
            "China, articles 55 and 56: an impact assessment before the transfer (necessity, risk, whether "
            "the protection is effective and proportionate); report and record of processing kept for at "
            "least three years"
        ),
        _QUOTED,
    ),
    Rule(
        "CAC 2024",
        mark(
            "China, provisions on cross-border data flows of March 2024: which route applies depends on the "
            "number of persons since 1 January of the year and on important data; an assessment is valid "
            "for three years"
        ),
        _SECOND,
    ),
    Rule(
        "Auto 2026",
        mark(
            "China, guide on the export of automotive data (MIIT 2026 No. 27): logs of transfers, approval "
            "inside the exporter, proof of the recipient's identity, changes of access rights, integrity "
            "checks, declaring anew when the transfer changes"
        ),
        _SECOND,
    ),
    Rule(
        "GDPR 30",
        mark(
            "EU, record of processing: controller and contacts, purposes, categories of persons and data, "
            "recipients, transfers to third countries, time limits for erasure, security measures"
        ),
        _KNOWN,
    ),
    Rule(
        "GDPR 46",
        mark(
            "EU, appropriate safeguards for a transfer to a third country, such as standard contractual "
            "clauses, and the assessment whether they are effective there"
        ),
        _KNOWN,
    ),
    Rule(
        "28 CFR 202",
        mark(
            "US, section 202.1101: kinds and volumes of data, identity and ownership of the parties, end "
            "use, method of transfer, dates on which it began and ended, agreements, licences and reference "
            "numbers; kept for at least ten years"
        ),
        _QUOTED,
    ),
)

SAME, SUM, LAST, FIRST, ALL = "same", "sum", "last", "first", "all"
_OVER = {
    SAME: mark("the same in all of them"),
    SUM: mark("added up"),
    FIRST: mark("of the first one"),
    LAST: mark("of the last one"),
    ALL: mark("of all of them together"),
}


@dataclass(frozen=True)
class Column:
    """One column: its name, its heading for people, the rules that ask for it."""

    name: str
    title: str
    rules: tuple[str, ...]
    over: str = SAME
    """What a row about several releases has in it."""


def _columns(text: str) -> Iterator[Column]:
    short = {one.name.replace(" ", ""): one.name for one in RULES}
    for line in text.strip().splitlines():
        name, title, rules, *over = (part.strip() for part in line.split("|"))
        yield Column(name, title, tuple(short[one] for one in rules.split()), over[0] if over else SAME)


# In the order of a record: whose, what was sent, by which permission, at which privacy loss, did it arrive?
KNOWN: tuple[Column, ...] = tuple(
    _columns("""
record                     | record number                          | Auto2026 28CFR202 | first
region                     | region                                 | GDPR30 28CFR202
ledger                     | ledger                                 | Auto2026
releases                   | number of releases in this row         | CAC2024 28CFR202 | sum
first_entry                | first entry in the ledger              | Auto2026 | first
last_entry                 | last entry in the ledger               | Auto2026 | last
last_entry_hash            | hash of the last entry                 | Auto2026 | last
ledger_size                | entries in the ledger                  | Auto2026
ledger_root                | root hash of the ledger                | Auto2026
verification               | result of the verification             | Auto2026 28CFR202
heading                    | warning                                |
direction                  | direction                              | 28CFR202
date_first                 | first day (UTC, the region's clock)    | Auto2026 28CFR202 | first
date_last                  | last day (UTC, the region's clock)     | Auto2026 28CFR202 | last
witnessed_after            | not before (UTC, a witness's clock)    | Auto2026 28CFR202 | first
witnessed_before           | not after (UTC, a witness's clock)     | Auto2026 28CFR202 | last
plan                       | plan                                   | Auto2026
rounds                     | rounds                                 | Auto2026 | all
mode                       | mode                                   | PIPL55
recipient                  | recipient (name of its key)            | PIPL39 PIPL55 Auto2026 GDPR30 28CFR202
purpose                    | purpose                                | PIPL39 PIPL55 GDPR30 28CFR202
data_set                   | data set                               | PIPL55 GDPR30
data_commitment            | salted commitment to the data set      | Auto2026
vehicles                   | vehicles on the roster                 | CAC2024 28CFR202
identity                   | what a vehicle key stands for          | PIPL55
object                     | kind of object                         | PIPL39 GDPR30 28CFR202
task                       | task                                   | PIPL39 GDPR30
model                      | model                                  | PIPL39 GDPR30
inbound_arrays             | hash of the arrays trained on          | Auto2026 | all
arrays                     | arrays                                 | 28CFR202
parameters                 | numbers sent                           | 28CFR202 | sum
dtype                      | type of number                         | 28CFR202
bytes                      | bytes                                  | CAC2024 28CFR202 | sum
sha256                     | SHA-256 of what was sent               | Auto2026 | all
schema                     | SHA-256 of the arrays' schema          | Auto2026
masked                     | masked by secure aggregation           | GDPR30
program                    | hash of the program                    | Auto2026
decision                   | decision                               | Auto2026
decision_rule              | rule of the decision                   | Auto2026 PIPL55
approval                   | entry of the permission                | Auto2026
approval_authority         | authority                              | PIPL38 Auto2026 28CFR202
approval_number            | number of the permission               | PIPL38 CAC2024 Auto2026 28CFR202
approval_recipient         | permitted recipient                    | Auto2026
approval_purpose           | permitted purpose                      | Auto2026
approval_tasks             | permitted tasks                        | Auto2026
approval_models            | permitted models                       | Auto2026
approval_valid_from        | permitted from                         | CAC2024 28CFR202
approval_valid_until       | permitted until                        | CAC2024 28CFR202
approval_releases_in_year  | releases under the permission this year, cumulative | CAC2024 | last
approval_max_releases      | permitted releases in a year           | CAC2024
approval_bytes_in_year     | bytes under the permission this year, cumulative | CAC2024 | last
approval_max_bytes         | permitted bytes in a year              | CAC2024
recipient_releases_in_year | releases to the recipient this year, cumulative | CAC2024 28CFR202 | last
recipient_bytes_in_year    | bytes to the recipient this year, cumulative | CAC2024 28CFR202 | last
unit                       | privacy unit                           | PIPL55 GDPR30 GDPR46
adjacency                  | adjacency                              | PIPL55 GDPR30 GDPR46
mechanism                  | mechanism                              | PIPL55 GDPR30 GDPR46
max_grad_norm              | clipping norm C                        | PIPL55 GDPR30
noise_multiplier           | noise multiplier, the least            | PIPL55 GDPR30
sample_rate                | sample rate q                          | PIPL55 GDPR30
steps                      | steps                                  | PIPL55 GDPR30 | sum
delta                      | delta                                  | PIPL55 GDPR30 GDPR46
epsilon_row                | epsilon of the releases in this row    | PIPL55 GDPR30 GDPR46 | all
epsilon_plan               | epsilon of the whole plan              | PIPL55 GDPR30 GDPR46
epsilon_cumulative         | epsilon of everything so far, cumulative | PIPL55 GDPR30 GDPR46 | last
epsilon_granted            | epsilon granted                        | PIPL55 GDPR46
delta_granted              | delta of the grant                     | PIPL55 GDPR46
rho_nats                   | Renyi loss of this row, nats           | PIPL55 | sum
rho_spent_nats             | Renyi loss so far, nats, cumulative    | PIPL55 | last
rho_granted_nats           | Renyi loss granted, nats               | PIPL55
accountant                 | accountants                            | PIPL55
random_generator           | random number generator                | PIPL55
delivery                   | delivery by the coordinator's receipts | Auto2026 28CFR202 | all
receipts_of_run            | run of the receipts                    | Auto2026
""")
)
DECLARED: tuple[Column, ...] = tuple(
    _columns("""
exporter.legal_entity                 | exporter                           | PIPL39 GDPR30 28CFR202 Auto2026
exporter.contact                      | exporter's contact                 | PIPL39 GDPR30
exporter.data_protection_contact      | data protection contact            | GDPR30 PIPL55
exporter.role                         | exporter's role                    | GDPR30
exporter.operator                     | operators of the node              | Auto2026
recipient.legal_entity                | recipient's legal entity           | PIPL39 GDPR30 28CFR202 Auto2026
recipient.country                     | recipient's country                | PIPL39 GDPR30 28CFR202
recipient.contact                     | recipient's contact                | PIPL39
recipient.ownership                   | recipient's ownership              | 28CFR202
recipient.covered_person              | covered person in the sense of 28 CFR 202 | 28CFR202
recipient.identity_evidence           | evidence of the recipient's identity | Auto2026 28CFR202
recipient.identity_checked_on         | recipient's identity checked on    | Auto2026
recipient.certificate_fingerprint     | recipient's certificate            | Auto2026
recipient.onward_recipients           | onward recipients                  | PIPL55 GDPR30 28CFR202
origin.jurisdiction                   | jurisdiction of origin             | PIPL38 GDPR30
origin.data_centre                    | data centre of origin              | Auto2026
origin.collection_period              | period of collection               | PIPL55
origin.number_of_persons              | number of persons, in a band       | CAC2024 28CFR202
origin.categories_of_persons          | categories of persons              | GDPR30 PIPL55
origin.categories_of_data             | categories of data                 | PIPL39 GDPR30 28CFR202
origin.sensitive_data                 | sensitive data                     | CAC2024 PIPL55
origin.important_data                 | important data                     | CAC2024 Auto2026
origin.important_data_basis           | basis of that determination        | CAC2024 Auto2026
origin.surveying_data                 | surveying data                     | Auto2026
ground.necessity                      | necessity                          | PIPL55
ground.processing_method              | method of processing               | PIPL39 PIPL55
ground.legal_basis                    | legal basis                        | PIPL55 GDPR30
ground.notice                         | notice to the persons              | PIPL39
ground.separate_consent               | separate consent                   | PIPL39
ground.transfer_mechanism             | transfer mechanism                 | PIPL38 GDPR30 GDPR46
ground.transfer_mechanism_reference   | reference of the transfer mechanism | GDPR46
ground.security_assessment_number     | number of the security assessment  | PIPL38 CAC2024
ground.standard_contract_filing_number | filing number of the standard contract | PIPL38 CAC2024
ground.certification_number           | number of the certification        | PIPL38 CAC2024
ground.exemption                      | exemption relied on                | CAC2024 Auto2026
ground.approval_scope                 | scope of the approval              | PIPL38 Auto2026
ground.assessments                    | assessments                        | PIPL55 GDPR46
ground.surveying_approval             | surveying approval                 | Auto2026
ground.justice_department_reference   | reference of the Department of Justice | 28CFR202
ground.export_control_reference       | reference of export control        | 28CFR202
ground.agreements                     | agreements                         | GDPR46 28CFR202
workflow.requested_by                 | requested by                       | Auto2026
workflow.reviewed_by                  | reviewed by                        | Auto2026 PIPL55
workflow.approved_by                  | approved by                        | Auto2026
workflow.decided_on                   | decided on                         | Auto2026
workflow.conditions                   | conditions of the approval         | Auto2026
access.who                            | who has access                     | Auto2026 GDPR30
access.changes_of_rights              | changes of access rights           | Auto2026
access.reviewed_on                    | access reviewed on                 | Auto2026
redeclaration.triggers                | what makes a new declaration necessary | Auto2026 CAC2024
redeclaration.checked_on              | checked for that on                | Auto2026
redeclaration.changes_since           | changes since the last declaration | Auto2026 CAC2024
redeclaration.assessment_valid_until  | assessment valid until             | CAC2024
redeclaration.persons_since_1_january | persons since 1 January, in a band | CAC2024
redeclaration.sensitive_persons_since_1_january | sensitive data: persons since 1 January | CAC2024
transport.endpoints                   | endpoints                          | 28CFR202 Auto2026
transport.protocol                    | protocol                           | GDPR30 28CFR202
transport.encryption                  | encryption                         | GDPR30 GDPR46
transport.start_end                   | start and end                      | 28CFR202 Auto2026
transport.bytes_on_wire               | bytes on the wire                  | 28CFR202
after.retention_place                 | place of retention                 | PIPL55 GDPR30
after.retention_period                | period of retention                | PIPL55 GDPR30
after.deletion                        | deletion                           | GDPR30
after.onward_transfer                 | onward transfer                    | PIPL55 GDPR46
after.models_that_contain_it          | models that contain it             | 28CFR202
after.incidents                       | incidents                          | PIPL55 Auto2026
after.requests_of_persons             | requests of persons                | PIPL39 GDPR30
""")
)


def page() -> str:
    """Every column with the rules that ask for it, as Markdown, in the language in force."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield f"# {say('The transfer record, column by column')}"
    yield ""
    yield say("Engineering input, not legal advice. Which rules apply to a transfer is for a lawyer to say.")
    yield ""
    yield say(
        "A row is about one plan's releases under one permission, or about one release (--rows release). "
        "The third column says what a row about several releases has in it. Figures called cumulative "
        "include everything before them and must not be added up."
    )
    yield ""
    yield f"## {say('The rules')}"
    yield ""
    yield _row(say("rule"), say("asks for"), say("how well it is known here"))
    yield _row("-", "-", "-")
    for rule in RULES:
        yield _row(rule.name, say(rule.asks), say(rule.read))
    for title, columns in (
        (say("Recomputed from the ledger"), KNOWN),
        (say("Declared by the region; nobody checks it"), DECLARED),
    ):
        yield ""
        yield f"## {title}"
        yield ""
        yield _row(say("column"), say("what it holds"), say("several releases"), say("asked for by"))
        yield _row("-", "-", "-", "-")
        for one in columns:
            yield _row(f"`{one.name}`", say(one.title), say(_OVER[one.over]), _named(one.rules))


def _named(rules: Sequence[str]) -> str:
    return ", ".join(rules) or say("none; needed to check the others")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
