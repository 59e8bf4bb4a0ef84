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


def is_older(mapping: SourceMapping) -> bool:
    """True for the sample shop's mapping as earlier versions applied it: it sold no subscriptions then."""
    return str(mapping.orders.relation) == "sample_shop.orders" and mapping.subscriptions is None


def create(conn: Connection) -> None:
    """Create the sample shop's tables where they are missing and map them; the caller commits.

    A sample shop of an earlier version gets what is new; its rows stay.
    """
    if conn.execute(EXISTS).scalar_one() is False:
        # CREATE ... IF NOT EXISTS fails when two do it at once; the second waits here for the first one's commit.
        conn.execute(LOCK)
        conn.exec_driver_sql(CREATE)
    try:
        is_up_to_date = not is_older(sources.require_mapping(conn))
    except NoMappingError:
        is_up_to_date = False
    if not is_up_to_date:
        sources.apply(conn, mapping())
