"""The shop's database with the ledger in it, as a Dagster resource."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from sqlalchemy import Engine


class LedgerDatabase(dg.ConfigurableResource):
    """Opens the database that holds the shop's tables and the schema `loyalty`."""

    url: str = Field(description="LOYALTY_DATABASE_URL: postgresql+psycopg://user@host/database")
    connections: int = Field(
        default=2, ge=1, le=16, description="How many merchants are awarded at once, one connection each."
    )

    @contextmanager
    def engine(self) -> Iterator["Engine"]:
        """An engine for the duration of a step or tick; its connections are closed afterwards.

        Raises `SchemaVersionError` when the database is older or newer than this code: neither may write there.
        """
        from loyalty_pipelines.db.engine import connect, reading
        from loyalty_pipelines.db.migrate import require_current

        engine = connect(self.url, pool_size=self.connections, application_name="loyalty_pipelines")
        try:
            with reading(engine) as conn:
                require_current(conn)
            yield engine
        finally:
            engine.dispose()
