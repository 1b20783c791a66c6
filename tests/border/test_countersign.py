"""A receipt that a region gets: one object, one signature, checkable without our code."""

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedfsd.audit.receipt import Receipt, Receipts, countersign, is_countersigned, sign
from fedfsd.border import wire
from fedfsd.ledger.key import SigningKey

HUB = SigningKey.from_seed("fedfsd/coordinator/hub", b"h" * 32)
RECEIPT = Receipt(region="EU", plan="ab" * 32, round=3, entry="cd" * 32, sha256="ef" * 32, bytes=904)
# Ed25519 signs the same bytes the same way each time, so another signature is another format.
VECTOR = (
    "3c93b305abb9e7f3b4f216070e81839b641e87f2eaf2338e1bd44c8c9af7cedf"
    "ceacf9f1df18f9a1a37e84c627504f1e33e02176902e3c6e0fdc2bf1c04e1d08"
)


def test_the_signature_is_over_the_prefix_and_canonical_json():
    document = {
        "region": "EU",
        "plan": "ab" * 32,
        "round": 3,
        "entry": "cd" * 32,
        "sha256": "ef" * 32,
        "bytes": 904,
    }
    message = b"fedfsd/receipt/v1\n" + rfc8785.dumps(document)
    Ed25519PublicKey.from_public_bytes(HUB.verification.public).verify(bytes.fromhex(VECTOR), message)
    assert countersign(RECEIPT, HUB).hex() == VECTOR


def test_every_field_is_signed():
    signature = countersign(RECEIPT, HUB)
    assert is_countersigned(RECEIPT, signature, HUB.verification)
    others = {
        "region": "US",
        "plan": "aa" * 32,
        "round": 4,
        "entry": "aa" * 32,
        "sha256": "aa" * 32,
        "bytes": 905,
    }
    assert set(others) == set(Receipt.model_fields)
    for field, value in others.items():
        other = RECEIPT.model_copy(update={field: value})
        assert not is_countersigned(other, signature, HUB.verification), field


def test_another_key_or_another_signature_is_refused():
    signature = countersign(RECEIPT, HUB)
    stranger = SigningKey.from_seed("fedfsd/coordinator/hub", b"x" * 32)
    assert not is_countersigned(RECEIPT, signature, stranger.verification)
    for bad in (b"", signature[:-1], signature + b"\0", bytes(64)):
        assert not is_countersigned(RECEIPT, bad, HUB.verification)


def test_the_signature_of_a_file_is_none_of_a_receipt():
    file = Receipts(run="r", coordinator=str(HUB.verification), plans=(RECEIPT.plan,), receipts=(RECEIPT,))
    signature = bytes.fromhex(sign(file, HUB).signature)
    assert not is_countersigned(RECEIPT, signature, HUB.verification)


def test_a_receipt_crosses_and_is_the_same():
    crossed = wire.receipt(RECEIPT, signature=countersign(RECEIPT, HUB), cosigned="note\n")
    wire.strict(crossed)
    assert wire.received(crossed, "EU") == RECEIPT
    assert is_countersigned(wire.received(crossed, "EU"), crossed.signature, HUB.verification)
    assert not is_countersigned(wire.received(crossed, "US"), crossed.signature, HUB.verification)
