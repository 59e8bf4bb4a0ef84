"""The small shop that the demo and imported order files live in."""

from importlib.resources import files

from sqlalchemy import Connection

from loyalty_pipelines.db import sources
from loyalty_pipelines.db.statements import load, read
from loyalty_pipelines.domain.source_mapping import NoMappingError, SourceMapping, parse_mapping

CREATE = read("sample_shop/create")
EXISTS = load("sample_shop/exists")
LOCK = load("sample_shop/lock")


def mapping() -> SourceMapping:
    """Return the mapping of the sample shop."""
    return parse_mapping(files("loyalty_pipelines").joinpath("presets/sample_shop.yaml").read_text(encoding="utf-8"))


def create(conn: Connection) -> None:
    """Create the sample shop's tables where they are missing and map them; the caller commits."""
    if conn.execute(EXISTS).scalar_one() is False:
        # CREATE ... IF NOT EXISTS fails when two do it at once; the second waits here for the first one's commit.
        conn.execute(LOCK)
        conn.exec_driver_sql(CREATE)
    try:
        sources.require_mapping(conn)
    except NoMappingError:
        sources.apply(conn, mapping())
