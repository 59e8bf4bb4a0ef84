"""Brings the schema to the version that this code knows."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Engine

from loyalty_pipelines.db.statements import load, read
from loyalty_pipelines.domain.errors import LoyaltyError

VERSION_SCHEMA = "loyalty"
VERSION_TABLE = "schema_version"

LOCK = load("migrate/lock")
UNLOCK = load("migrate/unlock")
ENSURE_SCHEMA = load("migrate/ensure_schema")
VERSION_TABLE_EXISTS = load("migrate/version_table_exists")
VERSION = load("migrate/version")
SOURCE_SCHEMA_EXISTS = load("migrate/source_schema_exists")
MAKE_SOURCE_SCHEMA = read("migrate/make_source_schema")
REVISIONS = Path(__file__).parent / "migrations" / "versions"


class SchemaVersionError(LoyaltyError):
    """The database has another schema version than this code."""

    def __init__(self, *, found: str | None, expected: str, advice: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"The schema 'loyalty' is at version {found or 'none'}, this code needs {expected}: {advice}")


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What `upgrade` did: the versions before and after, and whether it made the schema of the views."""

    before: str | None
    after: str
    is_source_schema_made: bool

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return self.before != self.after or self.is_source_schema_made


def upgrade(engine: Engine) -> Upgrade:
    """Apply all missing revisions, each caller waiting for the other; safe to repeat and to run twice at once.

    Raises `SchemaVersionError` when the database is newer than this code.
    """
    with engine.connect() as conn:
        conn.execute(LOCK)
        conn.commit()
        try:
            return _upgrade(conn)
        finally:
            conn.rollback()
            conn.execute(UNLOCK)
            conn.commit()


def _upgrade(conn: Connection) -> Upgrade:
    before = version(conn)
    head = _check_known(before)
    if before != head:
        conn.execute(ENSURE_SCHEMA)
        _apply_revisions(conn)
    is_source_schema_made = not conn.execute(SOURCE_SCHEMA_EXISTS).scalar_one()
    if is_source_schema_made:
        conn.exec_driver_sql(MAKE_SOURCE_SCHEMA)
    conn.commit()
    return Upgrade(before=before, after=head, is_source_schema_made=is_source_schema_made)


def version(conn: Connection) -> str | None:
    """The schema version of the database; None when nothing is installed."""
    if not conn.execute(VERSION_TABLE_EXISTS).scalar_one():
        return None
    return conn.execute(VERSION).scalar_one_or_none()


def require_current(conn: Connection) -> None:
    """Raise `SchemaVersionError` unless the database is exactly at the version that this code knows."""
    found = version(conn)
    expected = _check_known(found)
    if found != expected:
        raise SchemaVersionError(found=found, expected=expected, advice="run 'loyalty init' to upgrade it.")


def _check_known(found: str | None) -> str:
    """Return the newest version this code knows; raise when the database is at one it doesn't know."""
    # From the names of the revisions: importing Alembic takes longer than most commands.
    known = sorted(path.stem.split("_", maxsplit=1)[0] for path in REVISIONS.glob("[0-9]*.py"))
    if found is not None and found not in known:
        raise SchemaVersionError(
            found=found,
            expected=known[-1],
            advice="a newer release has upgraded this database. Install that release here too; nothing was changed.",
        )
    return known[-1]


def _apply_revisions(conn: Connection, target: str = "head") -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(REVISIONS.parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    command.upgrade(config, target)
