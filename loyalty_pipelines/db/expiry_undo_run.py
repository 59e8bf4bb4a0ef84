"""The loop around undoing an expiry: pages, each merchant's failure kept to itself."""

from functools import partial

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import expiry_undo
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_connection_loss, reading, with_retries
from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.domain.expiry_undo import NothingTakenError, Undo, UndoneMerchant, UndoReport

PAGE_SIZE = 500


def undo_run(engine: Engine, undo: Undo, *, is_dry_run: bool = False, page_size: int = PAGE_SIZE) -> UndoReport:
    """Give back what an expiry run took and was not given back before; a dry run counts it.

    A merchant that fails is in the report's failures and stops no other; a lost database is raised (and is transient),
    with all finished pages committed: running it again goes on. Raises `RunNotFoundError`, `NothingTakenError`, and
    `NoMappingError` when there is no shop to read.
    """
    with reading(engine) as conn:
        # Behind a withdrawn mapping the merchant's time zone is gone, and with it the time when points expire.
        require_shop(conn)
        runs = expiry_undo.runs(conn, undo)
    done: list[UndoneMerchant] = []
    failures: dict[str, str] = {}
    for run in runs:
        one = _MerchantUndo(engine, run, undo, is_dry_run=is_dry_run)
        try:
            one.run(page_size)
        except DBAPIError as error:
            if is_connection_loss(error):
                raise
            failures[run.merchant_id] = short_text(error)
        if one.done.accounts or one.done.accounts_before:
            done.append(one.done)
    if not done and not failures:
        raise NothingTakenError(run_id=undo.run_id, customer_id=undo.customer_id)
    return UndoReport(merchants=done, failures=failures)


class _MerchantUndo:
    """One merchant's part."""

    def __init__(self, engine: Engine, run: expiry_undo.RunOfMerchant, undo: Undo, *, is_dry_run: bool) -> None:
        self.done = UndoneMerchant(merchant_id=run.merchant_id)
        self._engine = engine
        self._run = run
        self._undo = undo
        self._is_dry_run = is_dry_run

    def run(self, page_size: int) -> None:
        last: expiry_undo.Taken | None = None
        while page := self._page(last, page_size):
            open_ones = [one for one in page if not one.is_undone]
            self._add(UndoneMerchant(merchant_id=self._run.merchant_id, accounts_before=len(page) - len(open_ones)))
            if open_ones:
                self._add(self._give_back(open_ones))
            last = page[-1]

    def _page(self, last: expiry_undo.Taken | None, page_size: int) -> list[expiry_undo.Taken]:
        with reading(self._engine) as conn:
            return expiry_undo.taken_page(conn, self._run.merchant_id, self._undo, after=last, page_size=page_size)

    def _give_back(self, taken: list[expiry_undo.Taken]) -> UndoneMerchant:
        if self._is_dry_run:
            return UndoneMerchant(
                merchant_id=self._run.merchant_id, accounts=len(taken), points=sum(one.points for one in taken)
            )
        return with_retries(partial(self._give_back_once, taken))

    def _give_back_once(self, taken: list[expiry_undo.Taken]) -> UndoneMerchant:
        with self._engine.begin() as conn:
            return expiry_undo.undo_page(conn, self._run, self._undo, taken)

    def _add(self, more: UndoneMerchant) -> None:
        self.done = UndoneMerchant(
            merchant_id=self.done.merchant_id,
            accounts=self.done.accounts + more.accounts,
            points=self.done.points + more.points,
            accounts_before=self.done.accounts_before + more.accounts_before,
        )
