"""Brings the schema to the version that this code knows."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

from loyalty_pipelines.db.statements import load
from loyalty_pipelines.domain.errors import LoyaltyError

VERSION_SCHEMA = "loyalty"
VERSION_TABLE = "schema_version"

LOCK = load("migrate/lock")
UNLOCK = load("migrate/unlock")
ENSURE_SCHEMA = load("migrate/ensure_schema")


class SchemaVersionError(LoyaltyError):
    """The database has another schema version than this code."""

    def __init__(self, *, found: str | None, expected: str, advice: str) -> None:
        self.found = found
        self.expected = expected
        super().__init__(f"The schema 'loyalty' is at version {found or 'none'}, this code needs {expected}: {advice}")


@dataclass(frozen=True, kw_only=True)
class Upgrade:
    """What `upgrade` did: the versions before and after, equal when there was nothing to do."""

    before: str | None
    after: str

    @property
    def changed(self) -> bool:
        """Whether a revision was applied."""
        return self.before != self.after


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
        command.upgrade(_config(conn), "head")
        conn.commit()
    return Upgrade(before=before, after=head)


def version(conn: Connection) -> str | None:
    """The schema version of the database; None when nothing is installed."""
    context = MigrationContext.configure(
        conn, opts={"version_table": VERSION_TABLE, "version_table_schema": VERSION_SCHEMA}
    )
    return context.get_current_revision()


def require_current(conn: Connection) -> None:
    """Raise `SchemaVersionError` unless the database is exactly at the version that this code knows."""
    found = version(conn)
    expected = _check_known(found)
    if found != expected:
        raise SchemaVersionError(found=found, expected=expected, advice="run 'loyalty init' to upgrade it.")


def _check_known(found: str | None) -> str:
    """Return the newest version this code knows; raise when the database is at one it doesn't know."""
    script = ScriptDirectory.from_config(_config(None))
    head = script.get_current_head()
    assert head is not None, "the package has no revisions: it is installed without db/migrations/versions"
    if found is not None and found not in {revision.revision for revision in script.walk_revisions()}:
        raise SchemaVersionError(
            found=found,
            expected=head,
            advice="a newer release has upgraded this database. Install that release here too; nothing was changed.",
        )
    return head


def _config(conn: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = conn
    return config
