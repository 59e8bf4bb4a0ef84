"""The loop around stale holds: pages, a second try of what was locked, a refused hold kept to itself."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import holds
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_caused_by_a_row, reading, with_retries
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.domain.holds import MerchantReleases, ReleaseReport, StaleHold

HOLDS_PER_PAGE = 500
# The name of the pass in loyalty.merchant_jobs.
HOLDS_JOB = "released_holds"


def is_any_hold_stale(engine: Engine) -> bool:
    """Return whether there is anything to release."""
    with reading(engine) as conn:
        return holds.stale_as_of(conn) is not None


def release_stale_holds(engine: Engine, *, page_size: int = HOLDS_PER_PAGE, run_id: str | None = None) -> ReleaseReport:
    """Release every open hold that is past its time now, `page_size` in a transaction; running it twice is harmless.

    An account that a checkout has locked is not waited for: its holds are tried once more at the end, and reported if
    it is still locked. A hold that PostgreSQL refuses to release is reported as its merchant's failure and stops no
    other; a lost database is raised (and is transient), with all finished pages committed.
    """
    with reading(engine) as conn:
        as_of = holds.stale_as_of(conn)
    if as_of is None:
        return ReleaseReport()
    one_pass = _Pass(engine, as_of)
    skipped: list[StaleHold] = []
    last: StaleHold | None = None
    while page := one_pass.page(after=last, page_size=page_size):
        skipped += one_pass.release(page)
        last = page[-1]
    still_locked: list[StaleHold] = []
    for start in range(0, len(skipped), page_size):
        still_locked += one_pass.release(skipped[start : start + page_size])
    note_merchants(engine, job=HOLDS_JOB, served=one_pass.released, failures=one_pass.failures, run_id=run_id)
    return ReleaseReport(merchants=one_pass.released, skipped=still_locked, failures=one_pass.failures)


class _Pass:
    """One pass over the holds that are stale as of its beginning."""

    def __init__(self, engine: Engine, as_of: datetime) -> None:
        self.released: dict[str, MerchantReleases] = {}
        self.failures: dict[str, str] = {}
        self._engine = engine
        self._as_of = as_of

    def page(self, *, after: StaleHold | None, page_size: int) -> list[StaleHold]:
        with reading(self._engine) as conn:
            return holds.stale_holds(conn, after=after, as_of=self._as_of, page_size=page_size)

    def release(self, page: Sequence[StaleHold]) -> list[StaleHold]:
        """Release holds in one transaction, or one by one if one of them is refused; return those that are locked."""
        try:
            released, skipped = with_retries(partial(self._release_once, page))
        except DBAPIError as error:
            if not is_caused_by_a_row(error):
                raise
            if len(page) > 1:
                return [locked for one in page for locked in self.release([one])]
            self.failures[page[0].merchant_id] = f"order {page[0].order_id}: {short_text(error)}"
            return []
        for one in released:
            before = self.released.get(one.merchant_id, MerchantReleases(merchant_id=one.merchant_id))
            self.released[one.merchant_id] = MerchantReleases(
                merchant_id=one.merchant_id, holds=before.holds + one.holds, points=before.points + one.points
            )
        return skipped

    def _release_once(self, page: Sequence[StaleHold]) -> tuple[list[MerchantReleases], list[StaleHold]]:
        with self._engine.begin() as conn:
            return holds.release(conn, page, as_of=self._as_of)
