"""Notes against published vectors; then what strangers may send."""

import base64
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.errors import NotReadyError
from fedfsd.ledger import key, note
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import COSIGNER, SigningKey, VerificationKey
from fedfsd.ledger.note import Checkpoint, Note

# From the C2SP signed-note specification, golang.org/x/mod/sumdb/note, and transparency-dev/formats.
SPEC_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Z"
    "tg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
PETER_SEED = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6Ry"
    "yBwJnAM=\n"
)
ENOCH_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
ENOCH_LINE = (
    "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc"
    "+QQ=\n"
)
COSIGNER_KEYS = (
    "TEST+7997405c+AQcC+FTVKf0jlTdHDY3rbevmnKxxPjigCXlVtGe6RIr6",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
)
CHECKPOINT = (  # tlog-checkpoint's and tlog-cosignature's example, with a cosignature
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9"
    "nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZ"
    "qhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)
NODE = SigningKey.from_seed("fedfsd/EU/00", bytes(32))
WITNESS = SigningKey.from_seed("witness/one", bytes(range(32)))


def test_published_notes_verify():
    assert Note.parse(SPEC_NOTE).signed_by(key.parse(SPEC_KEY))
    both = Note.parse(PETER_TEXT + "\n" + PETER_LINE + ENOCH_LINE)
    assert both.signed_by(key.parse(PETER_KEY))
    assert both.signed_by(key.parse(ENOCH_KEY))
    assert not both.signed_by(key.parse(SPEC_KEY))


def test_published_note_is_signed_byte_for_byte():
    peter = SigningKey.from_seed("PeterNeumann", base64.b64decode(PETER_SEED)[1:])
    assert str(peter.verification) == PETER_KEY
    assert note.sign(PETER_TEXT, [peter]) == PETER_TEXT + "\n" + PETER_LINE


@pytest.mark.parametrize("text", [SPEC_KEY, PETER_KEY, ENOCH_KEY, *COSIGNER_KEYS])
def test_published_keys_are_read_and_written(text):
    assert str(key.parse(text)) == text


def test_published_checkpoint_is_read():
    parsed = Note.parse(CHECKPOINT)
    assert str(parsed) == CHECKPOINT
    head = Checkpoint.parse(parsed.text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert head.text == parsed.text
    # The cosignature's time, in the specification's text.
    assert int.from_bytes(parsed.signatures[1].content[:8], "big") == 1679315147


def test_cosignature_signs_what_the_specification_says():
    head = Checkpoint("fedfsd/EU/00", 5, bytes(32))
    signed = note.cosign(note.sign(head.text, [NODE]), WITNESS, seconds=1679315147)
    assert note.open_checkpoint(signed, NODE.verification)[0] == head
    parsed = Note.parse(signed)
    assert note.cosigners(parsed, [WITNESS.cosigner, key.parse(COSIGNER_KEYS[1])]) == (WITNESS.cosigner,)
    content = parsed.signatures[1].content
    message = b"cosignature/v1\ntime 1679315147\nfedfsd/EU/00\n5\n" + base64.b64encode(bytes(32)) + b"\n"
    assert content[:8] == (1679315147).to_bytes(8, "big")
    assert VerificationKey("any", WITNESS.verification.public).verify(content[8:], message)
    # A witness key's plain signature is no cosignature, nor the other way round.
    assert not parsed.signed_by(WITNESS.verification)
    assert not Note.parse(note.sign(head.text, [WITNESS])).signed_by(WITNESS.cosigner)


def test_a_bad_line_under_a_known_key_spoils_the_note():
    spoiled = PETER_TEXT + "\n" + PETER_LINE.replace("yBwJnAM=", "yBwJnAI=") + ENOCH_LINE
    with pytest.raises(EvidenceError, match="PeterNeumann"):
        Note.parse(spoiled).signed_by(key.parse(PETER_KEY))
    assert Note.parse(spoiled).signed_by(key.parse(ENOCH_KEY))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "text\n",
        "text\n\n",
        "\n\n" + PETER_LINE,
        PETER_TEXT + "\n" + PETER_LINE.rstrip("\n"),
        PETER_TEXT + "\n" + PETER_LINE + "\n",
        PETER_TEXT + "\n" + PETER_LINE.replace("— ", "- "),
        PETER_TEXT + "\n" + PETER_LINE.replace("=", ""),
        PETER_TEXT + "\n" + PETER_LINE.replace("PeterNeumann", "Peter+Neumann"),
        PETER_TEXT + "\n" + PETER_LINE.replace("PeterNeumann ", ""),
        PETER_TEXT + "\n— a AAAA\n",
        "a\x00b\n\n" + PETER_LINE,
        "\ud800\n\n" + PETER_LINE,
        PETER_TEXT + "\n" + PETER_LINE * 65,
        "x" * 70_000 + "\n\n" + PETER_LINE,
        b"\xff\n\n" + PETER_LINE.encode(),
        b"x" * 10_000_000,
    ],
)
def test_malformed_notes_are_refused(text):
    with pytest.raises(EvidenceError):
        Note.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "o\n07\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n-7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n٧\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n9999999999999999999999\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n" + "9" * 5000 + "\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
        "o\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB=\n",
        "o\n7\nAAAA\n",
        "o\n7\n",
        "o\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        "o\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nmore\n",
        "\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n",
    ],
)
def test_malformed_checkpoints_are_refused(text):
    with pytest.raises(EvidenceError):
        Checkpoint.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a+b",
        "a+c74f20a3+",
        PETER_KEY.replace("c74f20a3", "c74f20a4"),
        PETER_KEY.replace("Peter", "Pet r"),
        PETER_KEY + "A",
        "x" * 10_000,
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_malformed_keys_are_refused(text):
    with pytest.raises(EvidenceError):
        key.parse(text)


def test_a_key_of_another_kind_is_refused():
    with pytest.raises(EvidenceError):
        key.parse(PETER_KEY, kind=COSIGNER)


@given(st.data())
def test_mutated_checkpoints_are_refused_or_unsigned(data):
    head = Checkpoint("fedfsd/EU/00", 12, bytes(32))
    content = bytearray(note.sign(head.text, [NODE]).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["set", "cut", "add"]))
        if how == "set":
            content[where] = data.draw(st.integers(0, 255))
        elif how == "cut":
            del content[where]
        else:
            content.insert(where, data.draw(st.integers(0, 255)))
    try:
        opened, _ = note.open_checkpoint(bytes(content), NODE.verification)
    except EvidenceError:
        return
    assert opened == head  # only where the mutation changed nothing


def test_key_files_are_private_and_come_back(tmp_path):
    path = tmp_path / "node.key"
    NODE.write(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.read(path).verification == NODE.verification
    assert "private" not in repr(NODE)
    with pytest.raises(NotReadyError):
        NODE.write(path)
    path.chmod(0o644)
    with pytest.raises(NotReadyError, match="0600"):
        SigningKey.read(path)


@pytest.mark.parametrize("content", [b"", b"fedfsd key a\nno key", b"\xff\xfe", b"x" * 100_000])
def test_damaged_key_files_are_refused(tmp_path, content):
    path = tmp_path / "node.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(NotReadyError):
        SigningKey.read(path)
    with pytest.raises(NotReadyError):
        SigningKey.read(tmp_path / "absent.key")
