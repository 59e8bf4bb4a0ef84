"""What all commands share: the session, the database, and the one place where errors become an exit status."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from loyalty_pipelines.cli.errors import expected_errors, lines_about
from loyalty_pipelines.cli.output import note, printable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

INTERRUPTED = 130


@dataclass
class Session:
    """What the global options say, and the database once it is chosen (for messages; without its password)."""

    debug: bool = False
    quiet: bool = False
    database: str | None = None


class LoyaltyGroup(click.Group):
    """The one place where an error becomes a line on stderr and an exit status."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run the command line; bad usage is one line, too, instead of click's three."""
        for stream in (sys.stdout, sys.stderr):
            # An id that the terminal's encoding lacks is shown escaped; it is no reason to fail.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            status = super().main(*args, standalone_mode=False, **extra)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            hint = (
                f" See '{error.ctx.command_path} --help'." if isinstance(error, click.UsageError) and error.ctx else ""
            )
            click.echo(printable(f"Error: {error.format_message()}{hint}").replace("\n", " "), err=True)
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an expected error is a line on stderr and exit status 1."""
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


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")


@contextmanager
def database(*, as_json: bool = False) -> Iterator["Engine"]:
    """An engine on the database that the environment names; says on stderr which, starts the private one if none."""
    from loyalty_pipelines.db.engine import connect

    session = click.get_current_context().find_object(Session) or Session()
    engine = connect(_database_url(session, as_json=as_json), pool_size=4)
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
    if is_mapping_needed:
        sources.require_mapping(conn)
