"""Tables of text, as tools and offices write them: any usual separator, line end, encoding, compression.

What does not fit is named by line and column. Cells are trimmed; every column is text until a reader asks
for numbers, so that a cell that is no number is ours to name.
"""

from __future__ import annotations

import csv as plain_csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from fedfsd.drive.reader.drive import content, damaged
from fedfsd.drive.reader.recognise import recognise
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(nan|NaN|inf)$"
# How tools write that a value is missing: the only cells that an error may repeat.
_NO_KEY = ("", "na", "nan", "n/a", "null", "none")
_MISSING = {"na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "?", "."}


@dataclass
class Cells:
    """The rows of one file; ``errors`` and ``unfit`` grow as columns are asked for."""

    path: Path
    rows: pa.Table  # the wanted columns under the wanted names, text
    data: bytes = field(repr=False)
    separator: str  # empty for Parquet, which has none
    skipped: int  # lines before and with the header
    width: int  # columns in the file
    ragged: int  # rows left out because they have another number of cells
    errors: list[DataError]
    index: np.ndarray  # (R,) int, number of each row among those of the right width
    unfit: np.ndarray  # (R,) bool, rows with a cell that cannot be read

    def text(self, column: str) -> pa.Array:
        """A column of trimmed text."""
        return self._trimmed(column).combine_chunks()

    def _trimmed(self, column: str) -> pa.ChunkedArray:
        cells = self.rows[column]
        if pa.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if not pa.types.is_string(cells.type):
            cells = cells.cast(pa.string())
        return pc.utf8_trim_whitespace(cells.fill_null("") if cells.null_count else cells)

    def key(self, column: str) -> pa.Array:
        """A column of trimmed text that has to stand in each row."""
        cells = self.text(column)
        none = pc.is_in(pc.utf8_lower(cells), pa.array(_NO_KEY))
        self._note(column, np.asarray(none), "an empty cell or NA", "a value in each row")
        return cells

    def number(self, column: str) -> np.ndarray:
        """A column as float64, (R,); NaN for an empty cell, and for no number, whose row is unfit."""
        given = self.rows[column].type
        if pa.types.is_integer(given) or pa.types.is_floating(given):
            typed: np.ndarray = self.rows[column].cast(pa.float64(), safe=False).to_numpy()
            return typed
        cells = self._trimmed(column)
        # A decimal comma, unless points say that the comma is something else.
        if self.separator != "," and not pc.any(pc.match_substring(cells, ".")).as_py():
            cells = pc.replace_substring(cells, ",", ".")
        cells = pc.if_else(pc.equal(cells, ""), "nan", cells)
        try:
            numbers: np.ndarray = cells.cast(pa.float64()).to_numpy()
        except pa.ArrowInvalid:
            bad = ~np.asarray(pc.match_substring_regex(cells, _NUMBER))
            first = str(cells[int(bad.argmax())].as_py())
            got = f"{first!r}" if first.lower() in _MISSING else "text that is no number"
            self._note(column, bad, got, "a number, or an empty cell where the value is unknown")
            numbers = pc.if_else(pa.array(bad), "nan", cells).cast(pa.float64()).to_numpy()
        return numbers

    def keep(self, rows: np.ndarray) -> None:
        """Go on with the chosen rows, (R,) bool."""
        self.rows, self.index, self.unfit = (
            self.rows.filter(pa.array(rows)),
            self.index[rows],
            self.unfit[rows],
        )

    def place(self, row: int) -> str:
        """The line of a row in the file, counted only where an error needs it; in Parquet the row."""
        if not self.separator:
            return f"row {self.index[row] + 1}"
        return f"line {self._line(row)}"

    def _line(self, row: int) -> int:
        found = -1
        for line, cells in _records(self.data, self.separator):
            found += line > self.skipped and len(cells) == self.width
            if found == self.index[row]:
                return line
        return self.skipped

    def _note(self, column: str, bad: np.ndarray, got: str, expected: str) -> None:
        if not bad.any():
            return
        self.unfit |= bad
        more = int(bad.sum()) - 1
        self.errors.append(
            DataError(
                f"{self.path}: {self.place(int(bad.argmax()))}, column {column}",
                got=got + (f", and {more} more cells of this column" if more else ""),
                expected=expected,
                hint="mend the cell, or import the other rows with --skip-unfit",
            )
        )


def read(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Cells:
    """Read the wanted columns of one file; names of columns may differ in case and in spaces around them.

    Raises:
        DataError: not a table of text, no header, a column missing, text that is not UTF-8.
    """
    data = content(path)
    if data.startswith(b"PAR1"):
        return _parquet(path, data, required, optional)
    data = _utf8(path, data)
    skipped, separator, header = _head(path, data, required)
    lower = [name.lower() for name in header]
    wanted = [name for name in (*required, *optional) if name.lower() in lower]
    if not wanted:
        raise damaged(path, f"no column {', '.join(optional)}", ", ".join(optional))
    twice = [name for name in wanted if lower.count(name.lower()) > 1]
    if twice:
        raise damaged(path, f"column {', '.join(twice)} twice", "each column once")
    included = [f"{lower.index(name.lower())}" for name in wanted]
    ragged: list[int] = []
    try:
        rows = _parsed(data, skipped, separator, len(header), included)
    except pa.ArrowInvalid:
        # Rows of another width; the callback that skips them needs text that is UTF-8.
        if error := _not_text(path, data):
            raise error from None
        try:
            rows = _parsed(data, skipped, separator, len(header), included, ragged)
        except pa.ArrowInvalid:
            raise damaged(
                path, "not a readable CSV file", "a header line, then rows of as many cells"
            ) from None
    rows = rows.rename_columns(wanted)
    count = rows.num_rows
    cells = Cells(
        path,
        rows,
        data,
        separator,
        skipped,
        len(header),
        len(ragged),
        [],
        np.arange(count),
        np.zeros(count, bool),
    )
    if ragged:
        cells.errors.append(_ragged(cells, len(header)))
    return cells


def _parsed(
    data: bytes,
    skipped: int,
    separator: str,
    width: int,
    included: list[str],
    ragged: list[int] | None = None,
) -> pa.Table:
    """The included columns as text; with ``ragged``, rows of another width are put there and left out."""

    def another_width(row: csv.InvalidRow) -> str:
        if ragged is None:
            return "error"
        ragged.append(row.actual_columns)
        return "skip"

    return csv.read_csv(
        io.BytesIO(data),
        read_options=csv.ReadOptions(skip_rows=skipped, column_names=[f"{index}" for index in range(width)]),
        parse_options=csv.ParseOptions(
            delimiter=separator,
            newlines_in_values=b'"' in data,
            invalid_row_handler=None if ragged is None else another_width,
        ),
        convert_options=csv.ConvertOptions(
            column_types={name: pa.string() for name in included},
            include_columns=included,
            strings_can_be_null=False,
        ),
    )


def header(path: Path) -> list[str]:
    """The names of the columns, as they are in the file."""
    data = content(path)
    if data.startswith(b"PAR1"):
        return list(_open(path, data).schema_arrow.names)
    return _head(path, _utf8(path, data), ())[2]


def _open(path: Path, data: bytes) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError):
        raise damaged(path, "not a readable Parquet file", "a table") from None


def _parquet(path: Path, data: bytes, required: Sequence[str], optional: Sequence[str]) -> Cells:
    """The wanted columns with their own types."""
    file = _open(path, data)
    names = {name.lower(): name for name in file.schema_arrow.names}
    missing = [name for name in required if name.lower() not in names]
    if missing:
        raise damaged(path, f"no column {', '.join(missing)}", ", ".join(required))
    wanted = [name for name in (*required, *optional) if name.lower() in names]
    rows = file.read([names[name.lower()] for name in wanted])
    rows = rows.select([names[name.lower()] for name in wanted]).rename_columns(wanted)
    count = rows.num_rows
    return Cells(path, rows, b"", "", 0, len(names), 0, [], np.arange(count), np.zeros(count, bool))


def left_out(cells: Cells, owner: np.ndarray) -> list[LeftOut]:
    """The rows that cannot be read; ``owner`` (R,) is the track of each row of the right width."""
    found = []
    if cells.unfit.any():
        found.append(LeftOut("unfit row", int(cells.unfit.sum()), len(np.unique(owner[cells.unfit]))))
    if cells.ragged:
        found.append(LeftOut("row of another width", cells.ragged, 0))
    return found


def _ragged(cells: Cells, width: int) -> DataError:
    """Where the first row with another number of cells stands."""
    wrong = (
        (line, len(row))
        for line, row in _records(cells.data, cells.separator)
        if line > cells.skipped and len(row) not in (0, width)
    )
    line, found = next(wrong, (cells.skipped + 1, 0))
    more = f", and {cells.ragged - 1} more such lines" if cells.ragged > 1 else ""
    return DataError(
        f"{cells.path}: line {line}",
        got=f"{found} cells{more}",
        expected=f"{width}, as in the header (separated by {SEPARATORS[cells.separator]})",
        hint="mend the line (the last one of a file that was cut short), or leave it out with --skip-unfit",
    )


def _utf8(path: Path, data: bytes) -> bytes:
    """The text as UTF-8 without a mark of its byte order."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16").encode()
        except UnicodeDecodeError:
            raise damaged(path, "text that is neither UTF-8 nor UTF-16", "UTF-8") from None
    return data.removeprefix(b"\xef\xbb\xbf")


def _not_text(path: Path, data: bytes) -> DataError | None:
    """The first line that is not UTF-8, if there is one."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line = max(before.count(b"\n"), before.count(b"\r")) + 1
        return DataError(
            f"{path}: line {line}",
            got="bytes that are not UTF-8 text",
            expected="UTF-8, or UTF-16 with a byte order mark",
            hint="convert it, for example: iconv -f LATIN1 -t UTF-8; or check the format",
        )
    return None


def _records(data: bytes, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each record, up to the first that Python cannot take apart."""
    reader = plain_csv.reader(io.StringIO(data.decode(errors="replace"), newline=""), delimiter=separator)
    with suppress(plain_csv.Error):
        for cells in reader:
            yield reader.line_num, cells


def _names(line: str, separator: str) -> list[str]:
    cells = next(_records(line.encode(), separator), (0, []))[1]
    return [name.strip() for name in cells]


def _head(path: Path, data: bytes, required: Sequence[str]) -> tuple[int, str, list[str]]:
    """Lines to the header's end (comments and Excel's sep= before it), the separator, the names."""
    lines = re.split("\r\n|\n|\r", data[: 2**20].decode(errors="replace"))
    number = next(
        (n for n, line in enumerate(lines) if line.strip() and not line.startswith(("#", "sep="))), None
    )
    if number is None:
        raise damaged(path, "no line", "a header line, then rows of as many cells")
    names = {one: _names(lines[number], one) for one in SEPARATORS}
    needed = {name.lower() for name in required}

    def hits(one: str) -> tuple[int, int]:
        return len(needed & {name.lower() for name in names[one]}), len(names[one])

    separator = max(SEPARATORS, key=hits)
    missing = [name for name in required if name.lower() not in {n.lower() for n in names[separator]}]
    if missing:
        raise (None if recognise(path) else _not_text(path, data)) or damaged(
            path, _why(names[separator], separator, missing), ", ".join(required)
        )
    return number + 1, separator, names[separator]


def _why(names: list[str], separator: str, missing: list[str]) -> str:
    """Which columns are missing, or that no header is there at all."""
    numbers = sum(name.lstrip("+-").replace(".", "", 1).isdigit() for name in names)
    if len(names) > 1 and 2 * numbers >= len(names):
        return f"values in the first line, {len(names)} separated by {SEPARATORS[separator]}: no header"
    written = (
        f" in a header of {len(names)} names separated by {SEPARATORS[separator]}" if len(names) > 1 else ""
    )
    return f"no column {', '.join(missing)}{written}"
