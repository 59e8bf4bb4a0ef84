"""Opens a CSV file (plain or gzip), gives its rows one by one, and shows how far it is."""

import csv
import gzip
import itertools
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from loyalty_pipelines.cli.base import is_quiet
from loyalty_pipelines.cli.output import console, is_terminal
from loyalty_pipelines.domain.csv_files import FileRefusedError, problem

DELIMITERS = (",", ";", "\t", "|")
Item = TypeVar("Item")
# A packed file can unfold to a line without end; memory stays flat.
MAX_LINE_BYTES = 1_000_000
LINES_BETWEEN_UPDATES = 2000


class CsvFile:
    """The rows of a file as (line number, cells), after its header; lines without anything are left out.

    Every failure to read is a `FileRefusedError`: not gzip, cut off, not UTF-8, a quote that never ends.
    """

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        self.path = path
        self._raw = raw
        self._unpacked = gzip.GzipFile(fileobj=raw) if path.suffix.lower() == ".gz" else raw
        self._line = 0
        self.delimiter = ","
        self.header = self._read_header()

    @property
    def bytes_read(self) -> int:
        """How much of the file on disk was read."""
        return self._raw.tell()

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield the line number (of the last line, where a quoted field has several) and the cells of each row."""
        for cells in self._guarded(csv.reader(self._lines(), delimiter=self.delimiter, strict=True)):
            if any(cells):
                yield self._line, cells

    def _read_header(self) -> list[str]:
        first = next(self._guarded(self._lines()), "").removeprefix("\ufeff")
        self.delimiter = max(DELIMITERS, key=first.count)
        return next(self._guarded(csv.reader([first], delimiter=self.delimiter, strict=True)), [])

    def _lines(self) -> Iterator[str]:
        """Yield the lines decoded one by one, so that a byte that isn't UTF-8 is reported with its line."""
        while raw := self._unpacked.readline(MAX_LINE_BYTES):
            self._line += 1
            if len(raw) == MAX_LINE_BYTES and not raw.endswith(b"\n"):
                raise csv.Error(f"a line of {MAX_LINE_BYTES:,} bytes or more")
            yield raw.decode("utf-8")

    def _guarded(self, source: Iterator[Item]) -> Iterator[Item]:
        try:
            yield from source
        except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> FileRefusedError:
        if isinstance(error, UnicodeDecodeError):
            byte = error.object[error.start : error.start + 1].hex()
            found, expected = f"the byte 0x{byte}, which is not UTF-8", "UTF-8 (iconv -f WINDOWS-1252 -t UTF-8)"
        elif isinstance(error, csv.Error):
            found, expected = f"CSV that can't be read ({error})", "fields in which quotes are doubled and end"
        else:
            found, expected = f"a file that can't be unpacked ({error})", "a whole gzip file, or one not called .gz"
        found_here = problem(max(self._line, 1), "file", found, expected)
        return FileRefusedError(path=str(self.path), problems=[found_here], count=1)


@contextmanager
def reading_progress(file: CsvFile, *, as_json: bool) -> Iterator[Callable[[], None] | None]:
    """Show how much of the file was read; gives what is to be called for each line, None where nobody watches."""
    if as_json or is_quiet() or not is_terminal():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    shown_columns = (TextColumn("reading"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*shown_columns, console=console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=file.path.stat().st_size)
        lines = itertools.count(1)

        def on_line() -> None:
            if next(lines) % LINES_BETWEEN_UPDATES == 0:
                progress.update(task, completed=file.bytes_read)

        yield on_line
