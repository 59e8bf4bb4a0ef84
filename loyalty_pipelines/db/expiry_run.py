"""The loop around expiry: merchants side by side, pages, a second pass over what was locked, failures kept apart."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import expiry
from loyalty_pipelines.db.capture_run import look_for_orders
from loyalty_pipelines.db.drain import short_text
from loyalty_pipelines.db.engine import is_caused_by_a_row, is_connection_loss, reading, with_retries
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.db.merchants import merchant_ids
from loyalty_pipelines.db.sources import require_shop
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.expiry import (
    ExpiryOptions,
    FutureRunError,
    MerchantExpiry,
    MerchantTerms,
    Page,
    Position,
    Step,
)

Result = TypeVar("Result")

# Rescheduling writes less per account than expiring, and happens when a programme changes.
RESCHEDULE_PAGE_SIZE = 5_000
# More accounts of one merchant than this that PostgreSQL refuses are not about single accounts.
REFUSED_LIMIT = 100
# The name of a run in loyalty.merchant_jobs.
EXPIRY_JOB = "expired_points"


# An account that PostgreSQL may refuse: its place and its customer.
Suspect = tuple[Position, str] | None


class _PageWork(Protocol):
    def __call__(self, conn: Connection, *, after: Position, page_size: int) -> Page: ...


def expire_merchants(
    engine: Engine,
    merchants: Sequence[str] | None = None,
    *,
    options: ExpiryOptions | None = None,
    actor: str,
    run_id: str | None = None,
    on_page: Callable[[str, Page], None] | None = None,
) -> Iterator[MerchantExpiry]:
    """Warn, plan and expire for merchants (None: all of the shop), and yield each as it is done.

    Merchants without a programme are left out. A merchant that fails is yielded with its reason and stops no other; a
    lost database is raised (and is transient), with all finished pages committed: running it again goes on. `run_id`
    None: a new one. Raises `FutureRunError`, and `NoMappingError` when there is no shop to read.
    """
    options = options or ExpiryOptions()
    run_id = run_id or str(uuid.uuid4())
    with reading(engine) as conn:
        require_shop(conn)
        now = expiry.now(conn)
        as_of = options.as_of or now
        if as_of > now and not options.is_dry_run:
            raise FutureRunError(as_of=as_of, now=now)
        wanted = merchant_ids(conn) if merchants is None else merchants
    if Step.EXPIRE in options.steps and not options.is_dry_run:
        # An order that the shop has and the inbox has not may be the activity that saves its customer's points.
        with_retries(partial(look_for_orders, engine))
    with reading(engine) as conn:
        found = expiry.survey(conn, wanted, as_of=as_of)
    busy = [terms for terms in found if not terms.is_idle]
    idle = [terms for terms in found if terms.is_idle]
    if idle and not options.is_dry_run and Step.EXPIRE in options.steps:
        yield from _in_transaction(
            engine,
            lambda conn: expiry.add_idle_runs(conn, idle, run_id=run_id, as_of=as_of, actor=actor),
        )
    else:
        yield from (MerchantExpiry(merchant_id=terms.merchant_id) for terms in idle)
    workers = max(1, min(options.connections, len(busy)))
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="expiry") as pool:
        runs = [
            _MerchantRun(engine, terms, options=options, as_of=as_of, actor=actor, run_id=run_id, on_page=on_page)
            for terms in busy
        ]
        futures = [pool.submit(_kept_apart, one) for one in runs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            # Whoever stops reading, or a lost database, stops the merchants that have not begun.
            pool.shutdown(wait=False, cancel_futures=True)


def _kept_apart(run: "_MerchantRun") -> MerchantExpiry:
    try:
        return run.run()
    except (LoyaltyError, DBAPIError) as error:
        if is_connection_loss(error):
            raise
        failure = short_text(error)
        run.note_failure(failure)
        return replace(run.so_far(), failure=failure)


def _in_transaction(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """Run `work` in a transaction of its own, again after transient failures."""

    def once() -> Result:
        with engine.begin() as conn:
            return work(conn)

    return with_retries(once)


class _MerchantRun:
    """One merchant's run: each step page by page, each page a transaction."""

    def __init__(
        self,
        engine: Engine,
        terms: MerchantTerms,
        *,
        options: ExpiryOptions,
        as_of: datetime,
        actor: str,
        run_id: str,
        on_page: Callable[[str, Page], None] | None,
    ) -> None:
        self._engine = engine
        self._terms = terms
        self._options = options
        self._as_of = as_of
        self._actor = actor
        self._run_id = run_id
        self._on_page = on_page
        self._begun: expiry.Begun | None = None
        self._refused: dict[str, str] = {}
        self._untold = 0
        self._is_stopped = False

    @property
    def _warnings(self) -> tuple[str, ...]:
        found: list[str] = []
        if not self._terms.is_timezone_usable:
            found.append("its time zone is unknown, so expiry dates are computed in UTC")
        if self._untold:
            found.append(f"{self._untold} accounts were locked and not warned: the next run warns them")
        return tuple(found)

    def run(self) -> MerchantExpiry:
        merchant_id = self._terms.merchant_id
        with reading(self._engine) as conn:
            # Others had their turn before: a programme that was switched off meanwhile takes nothing any more.
            (self._terms,) = expiry.survey(conn, [merchant_id], as_of=self._as_of)
        if self._options.is_dry_run:
            return self._dry_run()
        self._begun = _in_transaction(
            self._engine,
            lambda conn: expiry.begin_run(conn, merchant_id, run_id=self._run_id, as_of=self._as_of, actor=self._actor),
        )
        self._run_id = self._begun.run_id
        if not self._terms.is_scheduled:
            self._reschedule()
        if Step.WARN in self._options.steps and self._terms.has_open_warnings and not self._terms.is_expiring:
            _in_transaction(self._engine, lambda conn: expiry.void_warnings(conn, self._terms))
        locked = 0
        if self._terms.is_expiring:
            locked = self._steps()
        if Step.EXPIRE not in self._options.steps:
            return self.so_far()
        return self._as_shown(
            _in_transaction(
                self._engine,
                lambda conn: expiry.finish_run(
                    conn,
                    merchant_id,
                    run_id=self._run_id,
                    as_of=self._as_of,
                    accounts_locked=locked,
                    # Another run beside it, of the same night, may have let everything through.
                    is_stopped=self._is_stopped and self._plan_now(conn).accounts_due > 0,
                    is_expiring=self._terms.is_expiring,
                ),
            )
        )

    def note_failure(self, failure: str) -> None:
        """Remember that the run failed; when one succeeded is in its own record."""
        if Step.EXPIRE in self._options.steps and not self._options.is_dry_run:
            failures = {self._terms.merchant_id: failure}
            note_merchants(self._engine, job=EXPIRY_JOB, served=(), failures=failures, run_id=self._run_id)

    def _steps(self) -> int:
        """Run the steps that are wanted, in their order; return how many due accounts were locked to the end."""
        steps = self._options.steps
        if Step.WARN in steps:
            self._warn()
        if not steps & {Step.PLAN, Step.EXPIRE}:
            return 0
        planned = _in_transaction(self._engine, self._plan)
        self._is_stopped = planned.is_stopped
        if Step.EXPIRE not in steps or planned.is_stopped:
            return 0
        assert self._begun is not None
        return self._expire(planned.accounts_due - self._begun.accounts_expired)

    def so_far(self) -> MerchantExpiry:
        """What the run has committed until now."""
        merchant_id = self._terms.merchant_id
        if self._begun is None:
            return MerchantExpiry(merchant_id=merchant_id, warnings=self._warnings)
        with reading(self._engine) as conn:
            return self._as_shown(expiry.run(conn, merchant_id, self._run_id))

    def _as_shown(self, done: MerchantExpiry) -> MerchantExpiry:
        return replace(done, refused=dict(self._refused), warnings=self._warnings)

    def _dry_run(self) -> MerchantExpiry:
        merchant_id = self._terms.merchant_id
        if not self._terms.is_expiring:
            return MerchantExpiry(merchant_id=merchant_id, warnings=self._warnings)
        with reading(self._engine, is_one_snapshot=True) as conn:
            warned, points, moved = (0, 0, 0)
            if Step.WARN in self._options.steps:
                warned, points, moved = expiry.count_warnings(
                    conn, self._terms, as_of=self._as_of, is_warning_required=self._options.is_warning_required
                )
            planned = self._plan_now(conn)
        is_taken = Step.EXPIRE in self._options.steps and not planned.is_stopped
        return MerchantExpiry(
            merchant_id=merchant_id,
            plan=planned,
            accounts_warned=warned,
            points_warned=points,
            accounts_moved=moved,
            accounts_expired=planned.accounts_due if is_taken else 0,
            points_expired=planned.points_due if is_taken else 0,
            is_stopped=planned.is_stopped,
            warnings=(
                *self._warnings,
                *(
                    ()
                    if self._terms.is_scheduled
                    else ("its terms changed: a run computes all expiry dates anew first",)
                ),
            ),
        )

    def _reschedule(self) -> None:
        def work(conn: Connection, *, after: Position, page_size: int) -> Page:
            return expiry.reschedule_page(
                conn, self._terms, run_id=self._run_id, as_of=self._as_of, after=after, page_size=page_size
            )

        def find(conn: Connection, after: Position) -> Suspect:
            return expiry.next_account(conn, self._terms.merchant_id, after=after)

        # Behind a programme that is off nothing expires; once it is on again, everything is computed anew.
        if self._terms.is_program_active:
            self._pass(work, find, page_size=RESCHEDULE_PAGE_SIZE, first=Position())
        is_complete = not self._refused
        _in_transaction(self._engine, lambda conn: expiry.record_terms(conn, self._terms, is_complete=is_complete))

    def _warn(self) -> None:
        if self._options.is_warning_required and self._terms.has_open_warnings:
            self._renew()
        self._warn_once()
        if self._count_untold():
            # What was locked the first time may be free by then.
            self._warn_once()
            self._untold = self._count_untold()

    def _warn_once(self) -> None:
        def work(conn: Connection, *, after: Position, page_size: int) -> Page:
            return expiry.warn_page(
                conn,
                self._terms,
                run_id=self._run_id,
                as_of=self._as_of,
                is_warning_required=self._options.is_warning_required,
                after=after,
                page_size=page_size,
            )

        assert self._terms.warn_until is not None
        self._pass_due(
            work,
            is_warning=True,
            until=self._terms.warn_until,
            # Whoever need not be warned expires on time: only those who are not due yet are told.
            first=Position() if self._options.is_warning_required else Position.behind(self._as_of),
        )

    def _count_untold(self) -> int:
        """How many accounts others had locked; who was refused is named apart."""
        with reading(self._engine) as conn:
            untold = expiry.count_untold(
                conn, self._terms, as_of=self._as_of, is_warning_required=self._options.is_warning_required
            )
        return max(0, untold - len(self._refused))

    def _renew(self) -> None:
        _in_transaction(self._engine, lambda conn: expiry.void_warnings(conn, self._terms))
        last: str | None = ""
        while last is not None:
            after = last

            def work(conn: Connection, after: str = after) -> str | None:
                return expiry.renew_page(
                    conn,
                    self._terms,
                    run_id=self._run_id,
                    after_customer_id=after,
                    page_size=self._options.chunk_size,
                )

            last = _in_transaction(self._engine, work)

    def _plan(self, conn: Connection) -> expiry.ExpiryPlan:
        planned = self._plan_now(conn, begun=self._begun)
        is_accepted = self._options.limits.accepted_accounts is not None
        expiry.save_plan(conn, self._terms.merchant_id, self._run_id, planned, is_accepted=is_accepted)
        return planned

    def _plan_now(self, conn: Connection, *, begun: expiry.Begun | None = None) -> expiry.ExpiryPlan:
        return expiry.plan(
            conn,
            self._terms.merchant_id,
            as_of=self._as_of,
            is_warning_required=self._options.is_warning_required,
            limits=self._options.limits,
            begun=begun,
        )

    def _expire(self, wanted: int) -> int:
        """Take what is due, `wanted` accounts; return how many of them were locked in both passes."""

        def work(conn: Connection, *, after: Position, page_size: int) -> Page:
            return expiry.expire_page(
                conn,
                self._terms.merchant_id,
                run_id=self._run_id,
                as_of=self._as_of,
                is_warning_required=self._options.is_warning_required,
                actor=self._actor,
                after=after,
                page_size=page_size,
            )

        refused_before = len(self._refused)
        # What was locked the first time may be free by then.
        taken = self._pass_due(work, is_warning=False, until=self._as_of, first=Position())
        if taken + len(self._refused) - refused_before >= wanted:
            return 0
        self._pass_due(work, is_warning=False, until=self._as_of, first=Position())
        with reading(self._engine) as conn:
            left = self._plan_now(conn)
        return max(0, left.accounts_due - (len(self._refused) - refused_before))

    def _pass_due(self, work: _PageWork, *, is_warning: bool, until: datetime, first: Position) -> int:
        """Page through what is to be warned or to expire; return how many accounts were written."""

        def find(conn: Connection, after: Position) -> Suspect:
            return expiry.next_due(
                conn,
                self._terms.merchant_id,
                is_warning=is_warning,
                until=until,
                is_warning_required=self._options.is_warning_required,
                after=after,
            )

        return self._pass(work, find, page_size=self._options.chunk_size, first=first, on_page=self._on_page)

    def _pass(
        self,
        work: _PageWork,
        find: Callable[[Connection, Position], Suspect],
        *,
        page_size: int,
        first: Position,
        on_page: Callable[[str, Page], None] | None = None,
    ) -> int:
        """Page through accounts in their order, and return how many were written; `find` names the next after a place.

        An account that PostgreSQL refuses to change is found by smaller and smaller pages, noted and stepped over.
        """
        position: Position | None = first
        suspect: Suspect = None
        size, accounts = page_size, 0

        def once(conn: Connection) -> Page:
            nonlocal suspect
            assert position is not None
            if size > 1:
                return work(conn, after=position, page_size=size)
            # Looked up first, so that it is known whose account is refused, whatever others lock and free meanwhile.
            suspect = find(conn, position)
            if suspect is None:
                return Page(accounts=0, points=0, accounts_moved=0, last=None)
            just_before = replace(suspect[0], account_id=suspect[0].account_id - 1)
            return work(conn, after=just_before, page_size=1)

        while position is not None:
            try:
                page = _in_transaction(self._engine, once)
            except (DBAPIError, expiry.PageDoesNotAddUpError) as error:
                if isinstance(error, DBAPIError) and not is_caused_by_a_row(error):
                    raise
                if size > 1:
                    size = max(1, size // 8)
                    continue
                if suspect is None or len(self._refused) >= REFUSED_LIMIT:
                    raise
                position, customer_id = suspect
                self._refused[customer_id] = short_text(error)
                continue
            if on_page:
                on_page(self._terms.merchant_id, page)
            position = page.last
            accounts += page.accounts
            size = min(page_size, size * 2)
        return accounts
