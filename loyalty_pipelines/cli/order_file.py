"""Opens an order file (plain or gzip) and gives its rows one by one."""

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from loyalty_pipelines.domain.order_files import OrderFileError, OrderFileProblem

DELIMITERS = (",", ";", "\t", "|")


class OrderFile:
    """The rows of a file as (line number, cells), after its header; lines without anything are left out.

    Every failure to read is an `OrderFileError`: not gzip, cut off, not UTF-8, a quote that never ends.
    """

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self._raw = raw
        is_packed = path.suffix.lower() == ".gz"
        unpacked = gzip.GzipFile(fileobj=raw) if is_packed else raw
        self._text = io.TextIOWrapper(unpacked, encoding="utf-8-sig", newline="")  # type: ignore[arg-type]
        self._line = 1
        self.delimiter = ","
        self.header = self._read_header()

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk was read."""
        return self._raw.tell()

    def _read_header(self) -> list[str]:
        try:
            first = self._text.readline()
        except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise self._unreadable(error) from error
        self.delimiter = max(DELIMITERS, key=first.count)
        try:
            return next(csv.reader([first], delimiter=self.delimiter, strict=True), [])
        except csv.Error as error:
            raise self._unreadable(error) from error

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number (of the last line, where a quoted field has several) and the cells of each row."""
        reader = csv.reader(self._text, delimiter=self.delimiter, strict=True)
        try:
            for cells in reader:
                self._line = reader.line_num + 1
                if any(cells):
                    yield self._line, cells
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            self._line = reader.line_num + 1
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> OrderFileError:
        if isinstance(error, UnicodeDecodeError):
            byte = error.object[error.start : error.start + 1].hex()
            found, expected = (
                f"the byte 0x{byte}, which is not UTF-8",
                "UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)",
            )
        elif isinstance(error, csv.Error):
            found, expected = (
                f"CSV that can't be read ({error})",
                "fields in which quotes are doubled and end",
            )
        else:
            found, expected = (
                f"a file that can't be unpacked ({error})",
                "a whole gzip file, or one not called .gz",
            )
        problem = OrderFileProblem(line=self._line, column="file", found=found, expected=expected)
        return OrderFileError(path=str(self.path), problems=[problem], count=1)
