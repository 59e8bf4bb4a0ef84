"""The shop's merchants."""

from sqlalchemy import Connection

from loyalty_pipelines.db.statements import load

MERCHANT_IDS = load("merchants/merchant_ids")


def merchant_ids(conn: Connection) -> list[str]:
    """Return the ids of all merchants that the shop lists, sorted."""
    return list(conn.execute(MERCHANT_IDS).scalars())
