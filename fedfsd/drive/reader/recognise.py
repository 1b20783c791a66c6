"""What a file is, by its first bytes: for the error of a reader that cannot read it."""

from __future__ import annotations

from pathlib import Path

HEAD_BYTES = 4096
# What the file begins with -> what it is.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "Parquet (Argoverse 2: --format argoverse2; a table of fedfsd needs no import)"),
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or save it as CSV"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x89HDF", "HDF5"),
    (b"\x89MCAP", "MCAP"),
    (b"#ROSBAG", "a ROS bag"),
    (b"\x80", "a pickle (ScenarioNet: --format scenarionet)"),
)
# The columns of a header line -> whose they are; as they are in the file, in lower case.
_HEADERS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"track_id", "timestamp_ms", "agent_type"}), "INTERACTION CSV (--format interaction)"),
    (frozenset({"frame", "xvelocity", "yvelocity"}), "CSV of levelXdata (highD, inD, rounD, exiD, uniD)"),
    (frozenset({"vehicle_id", "frame_id", "local_x"}), "CSV of NGSIM"),
)


def recognise(path: Path) -> str | None:
    """What the file looks like, with the format's name if it has one here; None if it could be anything."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError:
        return None
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it"
    text = head.decode("utf-8", errors="replace").lstrip("\ufeff \r\n\t")
    if text.startswith("<"):
        return "CommonRoad XML (--format commonroad)" if "<commonRoad" in text else "XML"
    if text.startswith(("{", "[")):
        return "JSON"
    return _text(text)


def _text(text: str) -> str | None:
    lines = text.splitlines()
    if not lines:
        return None
    for separator in ",;\t|":
        names = {cell.strip().strip('"').lower() for cell in lines[0].split(separator)}
        for columns, name in _HEADERS:
            if columns <= names:
                return name
    fields = lines[0].split()
    if len(fields) == 10 and all(_is_number(field) for field in fields):
        return "ApolloScape text (--format apolloscape)"
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
