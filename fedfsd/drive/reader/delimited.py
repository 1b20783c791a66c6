"""Tables of text, as tools and offices write them: any usual separator, line end, encoding, compression.

What does not fit is named by line and column. Cells are trimmed; every column is text until a reader asks
for numbers, so that a cell that is no number is ours to name. ``Layout.batches`` streams a table of any size,
``read`` takes a small one.
"""

from __future__ import annotations

import codecs
import csv as plain_csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

from fedfsd.drive.reader.drive import COMPRESSED, MAX_BYTES, damaged, too_large
from fedfsd.drive.reader.recognise import HEAD_BYTES, recognise
from fedfsd.drive.reader.spool import opened, unpacked
from fedfsd.drive.table import LeftOut
from fedfsd.errors import DataError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_OTHER_SEPARATORS = {" ": "spaces", ":": "colons"}  # of which a header alone is no proof
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(nan|NaN|inf)$"
# How tools write that a value is missing: the only cells that an error may repeat.
_NO_KEY = ("", "na", "nan", "n/a", "null", "none")
_MISSING = {"na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "?", "."}
# The column with the number of each row among those of the right width.
ROW = "\0row"
# Bytes that are parsed at once, rows of Parquet, bytes among which the header is.
BLOCK, ROWS, HEAD = 2**23, 2**17, 2**20
# A Parquet file of more rows has fewer cells a byte: no recording stands still.
MANY_ROWS, CELLS_A_BYTE = 2**22, 100
# Lines among which the header is.
TITLES = 50
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_REPLACED = "\ufffd"


@dataclass(frozen=True)
class Layout:
    """A table's file, and where its wanted columns are."""

    path: Path
    wanted: dict[str, str]  # name -> name in the file; in text the number of the column
    scratch: Path | None
    separator: str = ""  # empty for Parquet, which has none
    skipped: int = 0  # lines before and with the header
    width: int = 0  # columns in the file
    empty: bool = False  # nothing follows the header
    numbers: frozenset[str] = frozenset()  # names whose cells are parsed as numbers at once; others are text
    ragged: list[int] = field(default_factory=list)  # rows of another width; filled by ``batches``

    def batches(self) -> Iterator[pa.Table]:
        """The wanted columns, text, or of their own types in Parquet, and ``ROW``; batch by batch.

        Raises:
            DataError: not readable to its end, wanted cells that are not UTF-8.
            NoNumberError: a cell of ``numbers`` is none: read them as text to say which.
        """
        self.ragged.clear()
        first = 0
        for batch in self._parquet() if not self.separator else () if self.empty else self._text():
            rows = pa.Table.from_batches([batch]).select(list(self.wanted.values()))
            rows = rows.rename_columns(list(self.wanted))
            yield rows.append_column(ROW, pa.array(np.arange(first, first + rows.num_rows)))
            first += rows.num_rows

    def _parquet(self) -> Iterator[pa.RecordBatch]:
        with _parquet(self.path, self.scratch) as file:
            try:
                yield from file.iter_batches(ROWS, columns=list(self.wanted.values()))
            except (pa.ArrowInvalid, OSError):
                raise damaged(self.path, "not a readable Parquet file", "a table") from None

    def _text(self) -> Iterator[pa.RecordBatch]:
        def another_width(row: csv.InvalidRow) -> str:
            self.ragged.append(row.actual_columns)
            return "skip"

        included = list(self.wanted.values())
        types = {
            place: pa.float64() if name in self.numbers else pa.dictionary(pa.int32(), pa.string())
            for name, place in self.wanted.items()
        }
        with opened(self.path) as take:
            text = _Utf8(take)
            try:
                yield from self._sound(
                    text,
                    csv.open_csv(
                        pa.PythonFile(text, "r"),
                        read_options=csv.ReadOptions(
                            skip_rows=self.skipped,
                            column_names=[f"{index}" for index in range(self.width)],
                            block_size=BLOCK,
                        ),
                        parse_options=csv.ParseOptions(
                            delimiter=self.separator,
                            newlines_in_values=True,
                            invalid_row_handler=another_width,
                        ),
                        convert_options=csv.ConvertOptions(
                            column_types=types,
                            include_columns=included,
                            strings_can_be_null=False,
                            null_values=[""],
                        ),
                    ),
                )
            except pa.ArrowInvalid:
                if self.numbers:
                    raise NoNumberError from None
                raise _not_text(self.path) or damaged(
                    self.path, "not a readable CSV file", "a header line, then rows of as many cells"
                ) from None

    def _sound(self, text: _Utf8, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batches, as long as all of their cells are text."""
        for batch in batches:
            if text.replaced and any(
                pc.any(pc.match_substring(batch[name].dictionary, _REPLACED)).as_py()
                for name in self.wanted.values()
                if pa.types.is_dictionary(batch[name].type)
            ):
                raise pa.ArrowInvalid("text that is not UTF-8")
            yield batch


class NoNumberError(Exception):
    """A cell that was to be parsed as a number is none, or the file cannot be parsed at all."""


class _Utf8(io.RawIOBase):
    """The bytes of a text in UTF-8, or UTF-16 with a mark; what is neither is replaced, and noted."""

    def __init__(self, take: Callable[[int], bytes]) -> None:
        super().__init__()
        self._take = take
        self._waiting = memoryview(b"")
        self._decoder: codecs.IncrementalDecoder | None = None
        self.replaced = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """The next bytes; none at the end."""
        while not self._waiting:
            data = self._take(max(len(buffer), HEAD))
            self._waiting = memoryview(self._utf8(data))
            if not data:
                break
        size = min(len(buffer), len(self._waiting))
        buffer[:size], self._waiting = self._waiting[:size], self._waiting[size:]
        return size

    def _utf8(self, data: bytes) -> bytes:
        is_16 = self._decoder is None and data.startswith(_UTF_16)
        if self._decoder is None:
            self._decoder = codecs.getincrementaldecoder("utf-16" if is_16 else "utf-8-sig")("replace")
            self._is_8 = not is_16
        elif data and self._is_8 and not self._decoder.getstate()[0] and data.isascii():
            return data  # most of most files
        text = self._decoder.decode(data, not data)
        self.replaced |= _REPLACED in text
        return text.encode(errors="replace")


@dataclass
class Cells:
    """Some rows of one file; ``errors`` and ``unfit`` grow as columns are asked for."""

    layout: Layout
    rows: pa.Table  # the wanted columns under the wanted names, and ``ROW``
    errors: list[DataError] = field(default_factory=list)
    unfit: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """(R,) bool, rows with a cell that cannot be read."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """What the file calls a column that has another name here."""

    def __post_init__(self) -> None:
        self.unfit = np.zeros(self.rows.num_rows, bool)

    @property
    def path(self) -> Path:
        """The file."""
        return self.layout.path

    def text(self, column: str) -> pa.Array:
        """A column of trimmed text."""
        names, codes = self.coded(column)
        return names.take(pa.array(codes))

    def coded(self, column: str) -> tuple[pa.Array, np.ndarray]:
        """The distinct trimmed texts of a column, and the number of each row's, (R,) int."""
        cells = self.rows[column]
        cells = (
            cells.unify_dictionaries() if pa.types.is_dictionary(cells.type) else cells.dictionary_encode()
        )
        cells = cells.combine_chunks()
        cells = cells.chunk(0) if isinstance(cells, pa.ChunkedArray) else cells
        written = cells.dictionary.cast(pa.string()).fill_null("")
        names = pc.utf8_trim_whitespace(pa.concat_arrays([written, pa.array([""])])).dictionary_encode()
        codes = cells.indices.fill_null(len(written))
        return names.dictionary, np.asarray(names.indices)[np.asarray(codes)]

    def key(self, column: str) -> tuple[list[str], np.ndarray]:
        """``coded`` for a column of text that has to stand in each row."""
        names, codes = self.coded(column)
        none = np.asarray(pc.is_in(pc.utf8_lower(names), pa.array(_NO_KEY)))
        self._note(column, none[codes], "an empty cell or NA", "a value in each row")
        return names.to_pylist(), codes

    def number(self, column: str) -> np.ndarray:
        """A column as float64, (R,); NaN for an empty cell, and for no number, whose row is unfit."""
        cells = self.rows[column]
        if pa.types.is_dictionary(cells.type):
            cells = cells.cast(cells.type.value_type)
        if pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type):
            typed: np.ndarray = cells.cast(pa.float64(), safe=False).to_numpy()
            return typed
        cells = pc.utf8_trim_whitespace(cells.cast(pa.string()).fill_null(""))
        # A decimal comma, unless points say that the comma is something else.
        if self.layout.separator != "," and not pc.any(pc.match_substring(cells, ".")).as_py():
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
        if rows.all():
            return
        self.rows, self.unfit = self.rows.filter(pa.array(rows)), self.unfit[rows]

    def _place(self, row: int) -> str:
        """The line of a row in the file, counted only where an error needs it; in Parquet the row."""
        number = self.rows[ROW][row].as_py()
        return f"line {_line(self.layout, number)}" if self.layout.separator else f"row {number + 1}"

    def _note(self, column: str, bad: np.ndarray, got: str, expected: str) -> None:
        if not bad.any():
            return
        self.unfit |= bad
        more = int(bad.sum()) - 1
        self.errors.append(
            DataError(
                f"{self.path}: {self._place(int(bad.argmax()))}, column {self.titles.get(column, column)}",
                got=got + (f", and {more} more cells of this column" if more else ""),
                expected=expected,
                hint="mend the cell, or import the other rows with --skip-unfit",
            )
        )


def read(path: Path, required: Sequence[str], optional: Sequence[str] = ()) -> Cells:
    """The wanted columns of one small file, whole; names may differ in case and in spaces around them.

    Raises:
        DataError: not a table of text, no header, a column missing, text that is not UTF-8, too large.
    """
    found = layout(path, required, optional)
    batches, size = [], 0
    for batch in found.batches():
        batches.append(batch)
        size += batch.nbytes
        if size > MAX_BYTES:
            raise too_large(path, f"more than {MAX_BYTES} bytes", MAX_BYTES)
    names = [*found.wanted, ROW]
    rows = (
        pa.concat_tables(batches)
        if batches
        else pa.table({name: pa.array([], pa.string()) for name in names})
    )
    cells = Cells(found, rows)
    cells.errors += ragged(found)
    return cells


def layout(
    path: Path,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    scratch: Path | None = None,
    names: Sequence[str] = (),
) -> Layout:
    """Where the wanted columns of a file are.

    Args:
        names: of all columns of a file without a header, separated by spaces.

    Raises:
        DataError: not a table of text, no header, a column missing.
    """
    if _is_parquet(path):
        with _parquet(path, scratch) as file:
            given = {name.lower(): name for name in file.schema_arrow.names}
        _demand(path, required, given)
        wanted = [name for name in (*required, *optional) if name.lower() in given]
        return Layout(path, {name: given[name.lower()] for name in wanted}, scratch, width=len(given))
    if names:
        with opened(path) as take:
            if not take(HEAD).strip():
                raise damaged(path, "no line", f"lines of {len(names)} values")
        places = {name: f"{names.index(name)}" for name in (*required, *optional)}
        return Layout(path, places, scratch, " ", 0, len(names))
    skipped, separator, found, empty = _head(path, required)
    lower = [name.lower() for name in found]
    wanted = [name for name in (*required, *optional) if name.lower() in lower]
    if not wanted:
        raise damaged(path, f"no column {', '.join(optional)}", ", ".join(optional))
    if twice := [name for name in wanted if lower.count(name.lower()) > 1]:
        raise damaged(path, f"column {', '.join(twice)} twice", "each column once")
    places = {name: f"{lower.index(name.lower())}" for name in wanted}
    return Layout(path, places, scratch, separator, skipped, len(found), empty)


def header(path: Path, required: Sequence[str] = ()) -> list[str]:
    """The names of the columns, as they are in the file; DataError where a required one is missing."""
    if _is_parquet(path):
        with _parquet(path, None) as file:
            found = list(file.schema_arrow.names)
        _demand(path, required, {name.lower(): name for name in found})
        return found
    return _head(path, required)[2]


def _is_parquet(path: Path) -> bool:
    with opened(path) as take:
        return take(4) == b"PAR1"


@contextmanager
def _parquet(path: Path, scratch: Path | None) -> Iterator[pq.ParquetFile]:
    with unpacked(path, scratch) as plain:
        try:
            file = pq.ParquetFile(plain)
        except (pa.ArrowInvalid, OSError):
            raise damaged(path, "not a readable Parquet file", "a table") from None
        with file:
            rows, cells, size = file.metadata.num_rows, file.metadata.num_columns, plain.stat().st_size
            if rows > MANY_ROWS and rows * cells > CELLS_A_BYTE * size:
                raise damaged(path, f"{rows} rows in {size} bytes", "a recording")
            yield file


def _demand(path: Path, required: Sequence[str], names: dict[str, str]) -> None:
    if missing := [name for name in required if name.lower() not in names]:
        raise damaged(path, f"no column {', '.join(missing)}", ", ".join(required))


def left_out(cells: Cells, owner: np.ndarray) -> list[LeftOut]:
    """The rows that cannot be read; ``owner`` (R,) is the track of each row of the right width."""
    if not cells.unfit.any():
        return []
    return [LeftOut("unfit row", int(cells.unfit.sum()), len(np.unique(owner[cells.unfit])))]


def ragged_left_out(found: Layout) -> list[LeftOut]:
    """The rows of another width, once all batches were read."""
    return [LeftOut("row of another width", len(found.ragged), 0)] if found.ragged else []


def ragged(found: Layout) -> list[DataError]:
    """Where the first row of another width is, if there is one, once all batches were read."""
    if not found.ragged:
        return []
    wrong = (
        (line, len(row))
        for line, row in _records(found)
        if line > found.skipped and len(row) not in (0, found.width)
    )
    line, cells = next(wrong, (found.skipped + 1, 0))
    more = f", and {len(found.ragged) - 1} more such lines" if len(found.ragged) > 1 else ""
    return [
        DataError(
            f"{found.path}: line {line}",
            got=f"{cells} cells{more}",
            expected=f"{found.width} separated by {(SEPARATORS | _OTHER_SEPARATORS)[found.separator]}, as in "
            + ("the header" if found.skipped else "this format"),
            hint="mend the line (the last one of a file that was cut), or leave it out with --skip-unfit",
        )
    ]


def _line(found: Layout, row: int) -> int:
    """The line of the file in which a row of the right width is."""
    count = -1
    for line, cells in _records(found):
        count += line > found.skipped and len(cells) == found.width
        if count == row:
            return line
    return found.skipped


def _not_text(path: Path) -> DataError | None:
    """The first line that is not UTF-8, if there is one."""
    utf8 = codecs.getincrementaldecoder("utf-8-sig")()
    ends = [0, 0]
    with opened(path) as take:
        while True:
            data = take(HEAD)
            if data.startswith(_UTF_16) and not any(ends):
                return None
            try:
                utf8.decode(data, not data)
            except UnicodeDecodeError as error:
                before = data[: error.start]
                line = max(ends[0] + before.count(b"\n"), ends[1] + before.count(b"\r")) + 1
                return DataError(
                    f"{path}: line {line}",
                    got="bytes that are not UTF-8 text",
                    expected="UTF-8, or UTF-16 with a byte order mark",
                    hint="convert it, for example: iconv -f LATIN1 -t UTF-8; or check the format",
                )
            if not data:
                return None
            ends = [ends[0] + data.count(b"\n"), ends[1] + data.count(b"\r")]


def _records(found: Layout) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each record, up to the first that Python cannot take apart."""
    with opened(found.path) as take, suppress(plain_csv.Error):
        lines = io.TextIOWrapper(io.BufferedReader(_Utf8(take)), encoding="utf-8", newline="")
        reader = plain_csv.reader(lines, delimiter=found.separator)
        for cells in reader:
            yield reader.line_num, cells


def _names(line: str, separator: str) -> list[str]:
    with suppress(plain_csv.Error):
        return [name.strip() for name in next(plain_csv.reader([line], delimiter=separator), [])]
    return []


def _head(path: Path, required: Sequence[str]) -> tuple[int, str, list[str], bool]:
    """Lines to the header's end (comments, Excel's sep=), separator, names, whether that is all."""
    with opened(path) as take:
        text = _Utf8(take)
        data = text.read(HEAD) or b""
        all_of_it = not text.read(1)
        no_text = text.replaced and _is_no_text(path)
    if not data:
        raise DataError(str(path), got="an empty file", expected="a recording", hint="leave the file out")
    if no_text or 8 * data[:HEAD_BYTES].count(b"\0") > len(data[:HEAD_BYTES]):
        raise damaged(path, _no_text(path), "text in UTF-8, or in UTF-16 with a byte order mark")
    lines = re.split("\r\n|\n|\r", data.decode(errors="replace"))
    filled = [n for n, line in enumerate(lines) if line.strip() and not line.startswith(("#", "sep="))]
    if not filled:
        raise damaged(path, "no line", "a header line, then rows of as many cells")
    needed = {name.lower() for name in required}

    def hits(found: list[str]) -> tuple[int, int]:
        return len(needed & {name.lower() for name in found}), len(found)

    def split(number: int) -> tuple[str, list[str]]:
        names = {one: _names(lines[number], one) for one in SEPARATORS}
        separator = max(SEPARATORS, key=lambda one: hits(names[one]))
        return separator, names[separator]

    # A title may be above the header: it is the first line that has all that is needed.
    number = next((n for n in filled[:TITLES] if hits(split(n)[1])[0] == len(needed)), filled[0])
    separator, names = split(number)
    missing = [name for name in required if name.lower() not in {n.lower() for n in names}]
    if missing:
        raise (None if recognise(path) else _not_text(path)) or damaged(
            path, _why(lines[number], names, separator, missing), ", ".join(required)
        )
    empty = all_of_it and not any(line.strip() for line in lines[number + 1 :])
    return number + 1, separator, names, empty


def _is_no_text(path: Path) -> bool:
    """Whether what is neither UTF-8 nor UTF-16 is no other text either."""
    with opened(path) as take:
        head = take(HEAD_BYTES)
    return head.startswith((*_UTF_16, *COMPRESSED)) or b"\0" in head


def _no_text(path: Path) -> str:
    """What a file is that is no text, as far as its first bytes say."""
    with opened(path) as take:
        head = take(HEAD_BYTES)
    packed = next((codec for magic, codec in COMPRESSED.items() if head.startswith(magic)), None)
    if packed:
        return f"a {packed} file in a compressed file"
    if len(head) > 1 and 0 in (head[0], head[1]) and any(head):
        return "UTF-16 or UTF-32 text without a byte order mark"
    return "bytes that are no text"


def _why(line: str, names: list[str], separator: str, missing: list[str]) -> str:
    """Which columns are missing, or that no header is there at all, or which separator it has."""
    numbers = sum(name.lstrip("+-").replace(".", "", 1).isdigit() for name in names)
    if len(names) > 1 and 2 * numbers >= len(names):
        return f"values in the first line, {len(names)} separated by {SEPARATORS[separator]}: no header"
    for other, name in _OTHER_SEPARATORS.items():
        if len(names) == 1 and len(found := line.split(None if other == " " else other)) > 1:
            return f"{len(found)} cells separated by {name} in the first line"
    written = (
        f" in a header of {len(names)} names separated by {SEPARATORS[separator]}" if len(names) > 1 else ""
    )
    return f"no column {', '.join(missing)}{written}"
