"""Where reports are written: a folder, or a bucket by its URL. No Dagster: the command line writes, too."""

import contextlib
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from loyalty_pipelines.domain.errors import ConfigurationError, LoyaltyError

if TYPE_CHECKING:
    from upath import UPath

    from loyalty_pipelines.report_files.tables import ReportFile

VARIABLE = "LOYALTY_REPORTS_URL"
EXPECTED = "expected a folder such as /var/lib/loyalty/reports, or a URL such as s3://BUCKET/reports"
LATEST = "latest.html"
# Their folders have to be made; in a bucket there are none, and making one may make a bucket.
BUCKETS = ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory")
# Before the @ is a container, and no user.
WITH_CONTAINERS = ("abfs", "abfss", "wasb", "wasbs")
# They can be read, not written.
READ_ONLY = ("http", "https", "data", "github", "tar", "zip", "simplecache")


class ReportsUrlError(ConfigurationError):
    """Reports can't be written where it was said; the text never shows a user or a password."""


class ReportNotWrittenError(LoyaltyError):
    """A report could not be written; what this attempt has added was removed again."""

    def __init__(self, *, place: str, reason: str) -> None:
        self.place = place
        super().__init__(
            f"The report could not be written to {place}: {reason}. Nothing new was left there. See that the place "
            f"exists and may be written to ({VARIABLE}, --to), then run the report again."
        )


class ReportStore:
    """A folder or bucket that reports go to, each run into a folder of its own."""

    def __init__(self, base: "UPath", secrets: Sequence[str] = ()) -> None:
        self._base = base
        self._secrets = tuple(secrets)

    @property
    def place(self) -> str:
        """Return where reports go, for people; without user and password."""
        return self._without_secrets(str(self._base))

    def write(
        self, report: str, files: Sequence["ReportFile"], *, on: date, run_id: str, is_latest: bool = False
    ) -> dict[str, str]:
        """Write all files of a run to `<base>/<report>/<date>/<run_id>/`; return where each is, by name.

        `is_latest`: `<base>/<report>/latest.html` then leads there. Writing the same run again replaces its files.
        Raises `ReportNotWrittenError`: nothing that was not there before is left then, and latest.html leads where it
        led before, which may be to an earlier attempt of the same run.
        """
        folder = self._base / _safe(report) / on.isoformat() / _safe(run_id)
        written: list[UPath] = []
        new: list[UPath] = []
        try:
            self._make(folder)
            for file in files:
                path = folder / file.name
                if not self._is_there(path):
                    new.append(path)
                self._put(path, file.content)
                written.append(path)
            if is_latest:
                names = [f"{on.isoformat()}/{_safe(run_id)}/{file.name}" for file in files]
                self._put(self._base / _safe(report) / LATEST, _signpost(names))
        # Drivers raise what their servers' libraries raise; what ends the process is not caught.
        except Exception as error:  # noqa: BLE001
            self._remove(new)
            reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}".splitlines()[0]
            raise ReportNotWrittenError(
                place=self._without_secrets(str(folder)), reason=self._without_secrets(reason).removesuffix(".")
            ) from None
        return {path.name: self._without_secrets(str(path)) for path in written}

    def _make(self, folder: "UPath") -> None:
        if folder.protocol not in BUCKETS:
            folder.mkdir(parents=True, exist_ok=True)

    def _is_there(self, path: "UPath") -> bool:
        # Who may write may not be allowed to look.
        with contextlib.suppress(Exception):
            return path.fs.exists(path.path)
        return False

    def _put(self, path: "UPath", content: bytes) -> None:
        if not _is_local(path.protocol):
            # One request: the object is there whole or not at all.
            path.fs.pipe_file(path.path, content)
            return
        target = Path(path.path)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
        try:
            part.write_bytes(content)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)

    def _remove(self, paths: Sequence["UPath"]) -> None:
        for path in paths:
            # What can't be removed was most likely not written; the error that is raised is the one that counts.
            with contextlib.suppress(Exception):
                path.unlink(missing_ok=True)
        if paths and _is_local(paths[0].protocol):
            with contextlib.suppress(OSError):
                paths[0].parent.rmdir()

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def report_store(environment: Mapping[str, str], *, home: Path, url: str | None = None) -> ReportStore:
    """Return where reports go: `url`, else LOYALTY_REPORTS_URL, else `reports` in `home`; nothing is written yet.

    Raises `ReportsUrlError` for a URL that can't be used, and where the driver for its kind of storage is missing.
    """
    text = (url if url is not None else environment.get(VARIABLE, "")).strip()
    name = VARIABLE if url is None else "--to"
    if not text:
        text = str(home / "reports")
    if "\0" in text:
        raise ReportsUrlError(f"{name} has a NUL character in it: {EXPECTED}.")
    try:
        parts = urlsplit(text) if "://" in text else None
    except ValueError:
        # Its text shows a part of the URL, which may be the password.
        raise ReportsUrlError(f"{name} can't be read: {EXPECTED}.") from None
    if parts is None:
        return _opened(name, str(Path(text).expanduser().absolute()), "", ())
    if parts.scheme in READ_ONLY or "::" in text:
        raise ReportsUrlError(f"{name} begins with {parts.scheme}://, where nothing can be written: {EXPECTED}.")
    if not parts.netloc and not _is_local(parts.scheme) and parts.scheme != "memory":
        raise ReportsUrlError(f"{name} names no bucket or server after {parts.scheme}://: {EXPECTED}.")
    return _opened(name, text, parts.scheme, secrets_of(parts))


def secrets_of(parts: SplitResult) -> list[str]:
    """Return what of a URL is nobody's to see, the longest first, so that no part of one is left."""
    found = {parts.query}
    user_and_password = parts.netloc.rpartition("@")[0]
    _, colon, password = user_and_password.partition(":")
    if colon:
        found |= {password, unquote(password)}
        if parts.scheme not in WITH_CONTAINERS:
            found.add(user_and_password)
    return sorted(found - {""}, key=len, reverse=True)


def _opened(name: str, text: str, scheme: str, secrets: Sequence[str]) -> ReportStore:
    from fsspec.registry import known_implementations
    from upath import UPath

    if scheme and not _is_local(scheme) and scheme not in known_implementations:
        raise ReportsUrlError(f"{name} begins with {scheme}://, a kind of storage that nobody here knows: {EXPECTED}.")
    try:
        path = UPath(text)
        if not _is_local(path.protocol):
            # Needs the driver; few open a connection.
            _ = path.fs
    except ImportError:
        driver = known_implementations.get(scheme, {}).get("err", "install its driver")
        raise ReportsUrlError(
            f"{name} begins with {scheme}://, and the driver for it is not installed ({driver}). Install it beside "
            "loyalty-pipelines with pip, or write reports to a folder."
        ) from None
    except Exception as error:  # noqa: BLE001 - its text may show the URL with a password
        raise ReportsUrlError(f"{name} can't be used ({type(error).__name__}): {EXPECTED}.") from None
    return ReportStore(path, secrets)


def _signpost(names: Sequence[str]) -> bytes:
    """Return a page that leads to the one among `names`, and links to all; one file, so that it is never half new."""
    page = next((name for name in names if name.endswith(".html")), names[0])
    links = "".join(f'<li><a href="{name}">{name}</a></li>' for name in names)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Newest report</title>'
        f'<meta http-equiv="refresh" content="0; url={page}"></head><body><ul>{links}</ul></body></html>\n'
    ).encode()


def _is_local(protocol: str) -> bool:
    return protocol in ("", "file", "local")


def _safe(part: str) -> str:
    """Return a name as a single part of a path."""
    return "".join(one if one.isalnum() or one in "-_." else "_" for one in part).strip(".") or "_"
