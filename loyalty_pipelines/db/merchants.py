"""The shop's merchants."""

from sqlalchemy import Connection

from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.db.statements import load

MERCHANT_IDS = load("merchants/merchant_ids")


def merchant_ids(conn: Connection) -> list[str]:
    """Return the ids of all merchants that the shop lists, sorted; raise `NoMappingError` when there is no shop yet."""
    require_shop(conn)
    return list(conn.execute(MERCHANT_IDS).scalars())
