"""What an auditor has to understand: one paragraph for each check, and the words that the pages use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedfsd.language import mark, say

CHECKS: Mapping[str, str] = {
    "archive": mark(
        "A bundle is a ZIP file whose every byte the format prescribes. The check reads it to the last "
        "byte, so that nothing can be hidden between its members and two programs cannot read two different "
        "ledgers out of it. A failure means that the file was damaged or edited after it was made; ask the "
        "region for another one."
    ),
    "entries": mark(
        "The ledger is a list of entries, one canonical JSON text each, numbered from 0, and the first one "
        "says whose ledger it is. Canonical means that a content has one spelling only, so that its hash "
        "names it. A failure means that a line was changed, left out or written by something else than a "
        "ledger."
    ),
    "history": mark(
        "Every checkpoint names how many entries there were and the root hash of a Merkle tree over them. "
        "The check computes each root again and shows that every later checkpoint only adds entries to the "
        "earlier ones. A failure means that the past was rewritten."
    ),
    "signatures": mark(
        "Grants, approvals and keys are signed by the data officer's key, checkpoints by the node's, each "
        "by the key in force at its place. The signatures are checked, not whose keys they are: that is the "
        "check identity. A failure means that somebody without the key wrote the entry."
    ),
    "identity": mark(
        "A signature shows who signed only if you know the key from elsewhere. The check compares the first "
        "keys of node and officer with the trust file that you made from keys obtained out of band. Without "
        "a trust file nothing shows whose ledger this is, and the answer is: cannot decide."
    ),
    "witnesses": mark(
        "A region could keep two ledgers and show one of them to everybody else. Witnesses (the "
        "coordinator, other regions) cosign checkpoints that they have seen. The check compares each of "
        "those, and every checkpoint that somebody else kept, with this ledger. Two signed heads that "
        "exclude each other prove a fork, and are printed in full so that anybody can check them."
    ),
    "succession": mark(
        "A region that begins a new ledger could forget what the old one has spent. The check asks whether "
        "the ledgers handed in for one region follow each other and carry the spent loss on."
    ),
    "plans": mark(
        "An entry says what an approved plan costs; the plan's document is in it. The check reads sample "
        "rate, noise, clipping norm, steps and bytes out of the document again, and computes hash and loss "
        "again by a formula of its own. A failure means that the entry promises something else than the "
        "plan does."
    ),
    "rounds": mark(
        "Each booked round and each release is compared with its plan: the same mechanism, number of steps, "
        "loss, size, schema and recipient. A failure means that something left which no plan describes."
    ),
    "reservations": mark(
        "A round is booked before any data are read, and released only while its plan is open. The check "
        "walks through the entries in order. A failure means that something was sent that nobody had paid "
        "for."
    ),
    "once": mark(
        "The same noise key used twice, or a round released twice with other noise, would let an attacker "
        "average the noise away. The check shows that no plan was approved twice, no round booked or "
        "released twice, and no commitment to a noise key used again."
    ),
    "filter": mark(
        "A grant is a budget of Renyi loss. The check adds up what every entry spends and holds, in integer "
        "nano-nats, and shows that the sum never exceeded the grant after any entry, not only at the end. A "
        "failure means that more was lost than the data officer allowed."
    ),
    "approvals": mark(
        "Where a grant demands it, every transfer relies on a permission signed by the data officer. The "
        "check compares recipient, purpose, task, model, dates, number and bytes of each release with the "
        "permission it names. It does not know whether the authority named there really gave it: that is on "
        "paper."
    ),
    "rehearsal": mark(
        "A rehearsal uses noise under a known key: whoever has the key can subtract the noise. Such a plan "
        "promises nothing, and no epsilon is stated for anything that it touched."
    ),
    "epsilon": mark(
        "The epsilon that a plan states is computed again from its constants by two programs written by "
        "different people (PLD by dp-accounting, PRV by prv-accountant), which must agree, and bounded by a "
        "third method (RDP). A failure means that the plan promised more privacy than its noise gives."
    ),
    "lifetime": mark(
        "All plans on one data set together cost what their Renyi losses add up to. The check converts the "
        "sum into an epsilon and compares it with a second program's. This figure, not the epsilon of one "
        "plan, is what a vehicle is exposed to over the life of the grant."
    ),
    "receipts": mark(
        "The coordinator signs a receipt for each release that reaches it. The check compares both lists in "
        "both directions: a receipt without a release means that something left past the ledger, a release "
        "without a receipt that it never arrived (it counts as spent all the same)."
    ),
    "incidents": mark(
        "Both gates look at every update before it leaves or is taken in. Where one is not what its plan "
        "releases, an incident is written down and the region's part in the plan ends. The check reports "
        "each of them. A failure means that another mechanism than the planned one may have run: everything "
        "that the plan had released until then has to be questioned."
    ),
    "releases": mark(
        "The noise that a plan adds is known up to its values: its scale, its shape and that it is used "
        "once. The check works it out from the plan and compares it with the bytes of every update that you "
        "were given; a correct region is accused in at most one of a thousand plans. It sees noise that is "
        "missing, too small or used again, not noise that somebody else knows."
    ),
    "code": mark(
        "The ledger names the hash of the program that trained: fedfsd's own files and the packages that "
        "compute. The check compares it with hashes that you or somebody you trust reviewed. No record can "
        "show that the program named is the program that ran."
    ),
    "rules": mark(
        "The region's own program is put through the same entries and has to accept each of them. It is the "
        "only check that uses the region's rules; a disagreement between it and the others points at a "
        "mistake in one of the two programs."
    ),
    "coordinator": mark(
        "Receipts count only if they are signed by a coordinator whose key is in your trust file."
    ),
    "regions": mark(
        "If the coordinator received something from a region whose bundle you were not given, the picture is "
        "incomplete. The check names such regions."
    ),
    "heads": mark(
        "A checkpoint that somebody kept belongs to one of the ledgers handed in. One that does not points "
        "at a ledger that you were not given."
    ),
}
"""By name, what each check is for, how it works and what its failure means."""

GLOSSARY: tuple[tuple[str, str], ...] = (
    (
        mark("epsilon"),
        mark(
            "How much one vehicle's data can change the probability of anything an attacker sees: by a "
            "factor of at most e to the power of epsilon. 0 means not at all. The smaller, the better "
            "protected."
        ),
    ),
    (
        mark("delta"),
        mark(
            "The probability with which the factor of epsilon need not hold. It has to be well below one "
            "over the number of vehicles, else publishing one vehicle in full would be allowed."
        ),
    ),
    (
        mark("zero-out"),
        mark(
            "Which two data sets are compared: the data as they are, and the same data in which everything "
            "that one vehicle contributes is replaced by nothing. The number of vehicles is public and the "
            "same in both."
        ),
    ),
    (
        mark("vehicle"),
        mark(
            "The unit that is protected: everything recorded under one vehicle key, in however many "
            "examples. A car under two keys is protected per key."
        ),
    ),
    (
        mark("PLD"),
        mark(
            "Privacy loss distribution: the whole distribution of what each step can give away, composed "
            "exactly over all steps of a plan fixed in advance. It gives the smallest correct epsilon of "
            "one plan."
        ),
    ),
    (
        mark("PRV"),
        mark("The same quantity by other people's program (privacy random variables), as a second opinion."),
    ),
    (
        mark("Renyi order"),
        mark(
            "Renyi divergence measures the distance of two distributions by one number for each order alpha. "
            "Losses of one order simply add up, also where later plans are chosen after looking at earlier "
            "results. A grant fixes one order for its whole life."
        ),
    ),
    (
        mark("RDP"),
        mark("An epsilon derived from Renyi divergences: correct, but larger than by PLD."),
    ),
    (
        mark("nats"),
        mark(
            "The unit of Renyi loss, a natural logarithm of a ratio of probabilities. The ledger counts "
            "whole nano-nats (billionths), each rounded up, so that sums are exact."
        ),
    ),
    (
        mark("grant"),
        mark("The budget that a region's data officer signs for one data set: how much may ever be lost."),
    ),
    (
        mark("spent, held, left"),
        mark(
            "Spent: booked by rounds, whether or not they were released. Held: kept back for the remaining "
            "rounds of approved plans. Left: what further plans can still use."
        ),
    ),
    (
        mark("noise multiplier"),
        mark("Sigma: the standard deviation of the noise divided by the clipping norm C."),
    ),
    (
        mark("clipping norm"),
        mark(
            "C: the longest that one vehicle's contribution to a step can be; longer ones are shortened to "
            "it."
        ),
    ),
    (
        mark("sample rate"),
        mark("q: the probability with which each vehicle takes part in a step, by a secret draw of its own."),
    ),
    (
        mark("witness block"),
        mark(
            "Extra parameters of every model that no data ever move. What is released of them is noise "
            "alone, so that anybody can measure the scale of the noise in the released bytes. A program "
            "that noises only this block would pass; hence the program is hashed and reviewed."
        ),
    ),
    (
        mark("witness"),
        mark(
            "Somebody outside the region who cosigns checkpoints and so shows that nobody saw another "
            "history."
        ),
    ),
    (
        mark("checkpoint"),
        mark("A signed statement of how many entries a ledger has and of the root hash over all of them."),
    ),
    (
        mark("hash, signature"),
        mark(
            "64 hexadecimal digits are a SHA-256 hash, a fingerprint of some bytes: other bytes have another "
            "one. 128 hexadecimal digits are an Ed25519 signature: only the holder of the key can make it, "
            "anybody can check it. A shortened hash (8 digits) only helps to find the long one."
        ),
    ),
    (
        mark("cumulative"),
        mark(
            "A cumulative figure includes everything before it, so that figures of one column must not be "
            "added up: the last row holds the total. Counters of a year begin anew on 1 January."
        ),
    ),
    (
        mark("rehearsal"),
        mark("A run whose noise key is known: it shows that everything works and protects nobody."),
    ),
)
"""The words of the field, each in a sentence or two."""


def document(claims: Mapping[str, str], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Checks and glossary as plain values, in the language in force; all checks, or those of ``names``."""
    return {
        "format": 1,
        "kind": "fedfsd-checks",
        "checks": [
            {"name": name, "claim": say(claim), "meaning": say(CHECKS[name])}
            for name, claim in claims.items()
            if not names or name in names
        ],
        "glossary": glossary(),
    }


def glossary() -> list[dict[str, str]]:
    """Terms with their meaning, in the language in force."""
    return [{"term": say(term), "meaning": say(meaning)} for term, meaning in GLOSSARY]
