"""Errors in an operator's words: one line that says what to do."""

import re
from collections.abc import Iterator

from loyalty_pipelines.domain.errors import LoyaltyError

LOCK_NOT_AVAILABLE = "55P03"
INSUFFICIENT_PRIVILEGE = "42501"
# What a server says before a session exists, of a user, a password or a database that it does not know or let in; not
# that it is starting, stopping or full.
FATAL = re.compile(r"FATAL: +((?:role|database|user|password|no pg_hba|pg_hba|permission)[^\n]*)", re.IGNORECASE)
# Undefined table, schema, function, column.
SOMETHING_IS_MISSING = ("42P01", "3F000", "42883", "42703")


def expected_errors() -> tuple[type[BaseException], ...]:
    """Return what becomes a line for the operator; everything else is a bug and keeps its traceback.

    Called when something was raised, so that SQLAlchemy is not imported before it is needed.
    """
    from psycopg import Error
    from sqlalchemy.exc import SQLAlchemyError

    return (LoyaltyError, SQLAlchemyError, Error)


def lines_about(error: BaseException, database: str | None) -> Iterator[str]:
    """Yield the line about `error`, after one line for each problem of a file that has several."""
    from loyalty_pipelines.domain.csv_files import FileRefusedError

    if isinstance(error, FileRefusedError):
        yield from (f"  {problem}" for problem in error.problems)
        if error.count > len(error.problems):
            yield f"  ... and {error.count - len(error.problems)} more"
    text = str(error) if isinstance(error, LoyaltyError) else _database_text(error, database)
    yield f"Error: {text}"


def _database_text(error: BaseException, database: str | None) -> str:
    from loyalty_pipelines.db.engine import is_connection_loss

    original = getattr(error, "orig", None) or error
    text = first_line(original)
    code = getattr(original, "sqlstate", None)
    if is_connection_loss(error):
        refusal = FATAL.search(str(original))
        if refusal and code is None:
            return (
                f"The database {database or ''} lets nobody in: {refusal[1]}. Correct user, password and database in "
                "LOYALTY_DATABASE_URL."
            )
        return (
            f"Cannot reach the database {database or ''}: {text}. Start the server, or set LOYALTY_DATABASE_URL to one "
            "that runs."
        )
    if code in SOMETHING_IS_MISSING:
        return (
            f"Something is missing in the database: {text}. Run 'loyalty init', then 'loyalty status', which says what "
            "comes next."
        )
    if code == INSUFFICIENT_PRIVILEGE:
        diagnostics = getattr(original, "diag", None)
        hint = diagnostics and diagnostics.message_hint
        advice = hint or "Connect as the owner, or as a member of loyalty_pipeline"
        return f"The database user may not do this: {text}. {advice}."
    if code == LOCK_NOT_AVAILABLE:
        return f"Another transaction is in the way: {text}. Nothing was changed; try again when it has ended."
    return (
        f"The database refused: {text} (SQLSTATE {code}). Nothing was changed by the refused step; --debug shows more."
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, without its final dot."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].removesuffix(".")
