"""What all commands share: the session, the database, output for people and for programs, errors, option types."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.errors import expected_errors, lines_about
from loyalty_pipelines.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy import Connection, Engine

INTERRUPTED = 130
# Wide enough that no id is folded where there is no terminal: a file, a pipe, a test.
WIDTH_OF_A_FILE = 200


@dataclass
class Session:
    """What the global options say, and the database once it is chosen (for messages; without its password)."""

    debug: bool = False
    quiet: bool = False
    database: str | None = None


class LoyaltyGroup(click.Group):
    """The one place where an error becomes a line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            click.echo("Interrupted; what was committed stays, running it again goes on.", err=True)
            ctx.exit(INTERRUPTED)
        except expected_errors() as error:
            session = ctx.obj or Session()
            if session.debug:
                raise
            for line in lines_about(error, session.database):
                click.echo(printable(line), err=True)
            ctx.exit(1)


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)


@contextmanager
def database(*, as_json: bool = False) -> Iterator["Engine"]:
    """An engine on the database that the environment names; says on stderr which, starts the private one if none."""
    from sqlalchemy.exc import ArgumentError

    from loyalty_pipelines.db.engine import connect

    session = click.get_current_context().find_object(Session) or Session()
    try:
        url = _database_url(session, as_json=as_json)
        engine = connect(url, pool_size=4)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            "LOYALTY_DATABASE_URL can't be read; expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        ) from error
    try:
        yield engine
    finally:
        engine.dispose()


def _database_url(session: Session, *, as_json: bool) -> str:
    from sqlalchemy import make_url

    from loyalty_pipelines import embedded

    is_embedded = not os.environ.get("LOYALTY_DATABASE_URL", "").strip()
    if is_embedded:
        session.database = f"private PostgreSQL in {embedded.home() / 'postgres'}"
        url = ""
    else:
        url = embedded.loyalty_url()
        named = make_url(url).set(drivername="postgresql", query={})
        session.database = f"{named.render_as_string(hide_password=True)} (LOYALTY_DATABASE_URL)"
    if not (session.quiet or as_json):
        note(f"database: {session.database}")
    # Starting a server takes a second: only after it was said which.
    return url or embedded.loyalty_url()


def database_name() -> str:
    """Return the name of the database that `database` opened, for people."""
    session = click.get_current_context().find_object(Session)
    return (session and session.database) or ""


def is_quiet() -> bool:
    """Whether the operator wants no progress."""
    session = click.get_current_context().find_object(Session)
    return bool(session and session.quiet)


def require_ready(conn: "Connection", *, is_mapping_needed: bool = True) -> None:
    """Raise unless the schema is this code's and, where it is needed, a source mapping is in force."""
    from loyalty_pipelines.db import migrate, sources

    migrate.require_current(conn)
    if is_mapping_needed and sources.current(conn) is None:
        raise ConfigurationError(
            "No source mapping is in force, so there is no shop to read: map yours with 'loyalty sources apply --file F' "
            "('loyalty sources presets' has some to start from), or try an export with 'loyalty orders import'."
        )


# --- Output ---


def print_json(value: object) -> None:
    """Print `value` as one JSON document."""
    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def plain(value: object) -> Any:
    """Return `value` as JSON has it: instants as ISO 8601, decimals as text, `x: timedelta` as `x_seconds`."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({one.name: getattr(value, one.name) for one in fields(value)})
    if isinstance(value, Mapping):
        named = (
            (f"{name}_seconds" if isinstance(one, timedelta) else name, one) for name, one in value.items()
        )
        return {str(name): plain(one) for name, one in named}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if isinstance(value, timedelta):
        return round(value.total_seconds(), 3)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if isinstance(value, Enum):
        return value.value
    return number_text(value) if isinstance(value, Decimal) else value


def number_text(value: Decimal) -> str:
    """Return a decimal without trailing zeros and without an exponent."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def printable(text: str) -> str:
    """Return `text` with control characters escaped: an id from a shop must not move the operator's cursor."""
    return "".join(
        one if one.isprintable() or one == "\n" else one.encode("unicode_escape", "surrogatepass").decode()
        for one in text
    )


def say(text: str = "") -> None:
    """Print a line for people on stdout."""
    click.echo(printable(text))


def note(text: str) -> None:
    """Print a dim line on stderr."""
    click.secho(printable(text), dim=True, err=True)


def console(*, stderr: bool = False) -> "Console":
    """Return a console for tables or progress; it has no markup, because cells hold the shop's text."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    return (
        found
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, markup=False, emoji=False, width=WIDTH_OF_A_FILE)
    )


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()
) -> None:
    """Print a table; columns named in `numbers` are aligned to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(shown(cell))) for cell in row))
    console().print(table)


def shown(value: object) -> str:
    """Return a value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Decimal):
        return number_text(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    if isinstance(value, timedelta):
        return str(timedelta(seconds=round(value.total_seconds())))
    return str(value)


def is_terminal() -> bool:
    """Whether somebody watches stderr, where progress goes."""
    return sys.stderr.isatty()


# --- Types of options and arguments ---


class PlainText(click.ParamType):
    """A text that PostgreSQL can hold: not empty, valid UTF-8, no NUL."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text or "\x00" in text or any("\ud800" <= one <= "\udfff" for one in text):
            self.fail(f"{printable(text)!r} is empty or not valid UTF-8.", param, ctx)
        return text


class Number(click.ParamType):
    """A finite decimal number; PostgreSQL says which range a rule takes."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            self.fail(f"{value!r} is no number such as 1 or 0.5.", param, ctx)
        if not number.is_finite() or abs(number.adjusted()) > 20:
            self.fail(f"{value!r} is no number such as 1 or 0.5.", param, ctx)
        return number


class Instant(click.ParamType):
    """An ISO 8601 instant with its zone: without one, nobody knows which version an order gets."""

    name = "instant"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no instant such as 2024-01-31T00:00:00+01:00.", param, ctx)
        if found.tzinfo is None:
            self.fail(f"{value!r} has no time zone; add one, for example {found.isoformat()}Z.", param, ctx)
        try:
            return found.astimezone(UTC)
        except OverflowError:
            self.fail(f"{value!r} is outside the years 1 to 9999 in UTC.", param, ctx)


class WholeOrWord(click.ParamType):
    """A whole number of at least 1, or a word that means none of it (then None)."""

    name = "whole number"

    def __init__(self, word: str) -> None:
        self.word = word

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text.lower() == self.word:
            return None
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:10]) <= 1_000_000_000):
            self.fail(f"{value!r} is no whole number of at least 1, and not {self.word!r}.", param, ctx)
        return int(text[:10])


class Zone(click.ParamType):
    """An IANA time zone name."""

    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

        try:
            return ZoneInfo(str(value)).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            self.fail(f"{value!r} is no time zone such as Europe/Luxembourg or UTC.", param, ctx)


class Currency(click.ParamType):
    """An ISO 4217 code."""

    name = "currency"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        code = str(value).strip().upper()
        if not (len(code) == 3 and code.isascii() and code.isalpha()):
            self.fail(f"{value!r} is no currency code of three letters such as EUR.", param, ctx)
        return code


TEXT = PlainText()
NUMBER = Number()
INSTANT = Instant()
