"""Reads SQL statements from the files beside this module."""

from pathlib import Path

from sqlalchemy import TextClause, text

SQL_FOLDER = Path(__file__).parent / "sql"


def load(name: str) -> TextClause:
    """Return the statement in `sql/<name>.sql`; `name` is `subject/statement`, values are bound as `:value`."""
    return text(read(name))


def read(name: str) -> str:
    """Return the text of `sql/<name>.sql`, for statements that are run as a script."""
    return (SQL_FOLDER / f"{name}.sql").read_text(encoding="utf-8")
