"""Expiry at once, interrupted, and beside everything else: locks, crashes, real processes, real kills."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date

import psycopg
import pytest
from sqlalchemy import text

from loyalty_pipelines.db import expiry_undo_run, merges, repairs
from loyalty_pipelines.db.drain import drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits, MerchantExpiry, Page, Step
from loyalty_pipelines.domain.expiry_undo import Undo
from loyalty_pipelines.domain.merges import AlreadyMergedError, Merge, NothingToMergeError
from loyalty_pipelines.domain.repairs import Adjustment, NotEnoughPointsError
from tests.expiry import EXPIRED, NO_LIMITS, WARNING, Nights, midnight, night
from tests.integration.test_awards_concurrency import holding, url_of, wait_until, waiting_for_a_lock
from tests.shop import Shop

ACTIVE_AT = "2025-01-01T12:00:00+01:00"
WARNED_ON = date(2025, 1, 18)
GONE_ON = date(2025, 2, 1)
DUE_AT = night(GONE_ON)
LOCK_RUNS = "SELECT FROM loyalty.expiry_runs FOR UPDATE"
LOCK_SOME = "SELECT FROM loyalty.accounts WHERE customer_id IN ('c2', 'c4') FOR UPDATE"

# Runs one night, and says each page that wrote something; with "wait" it asks for a line on stdin after each of them.
WORKER = """
import sys
from datetime import datetime
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits
url, name, as_of, run_id, mode = sys.argv[1:]
def on_page(merchant_id, page):
    if page.accounts:
        print(page.accounts, flush=True)
        if mode == "wait":
            sys.stdin.readline()
options = ExpiryOptions(
    as_of=datetime.fromisoformat(as_of), chunk_size=10, connections=1, limits=Limits(accepted_accounts=10**6)
)
engine = connect(url, application_name=name)
if mode == "start":
    sys.stdin.readline()
done = expire_merchants(engine, options=options, actor=name, run_id=run_id or None, on_page=on_page)
print([one.failure for one in done])
"""


@pytest.fixture
def nights(shop: Shop) -> Nights:
    """The shop's nights; points of m1 expire after 30 days."""
    shop.program(points_expiration_days=30)
    return Nights(shop)


def due(nights: Nights, count: int) -> None:
    """Give c1, c2, ... points that are due at DUE_AT, with their warnings delivered."""
    nights.crowd(count, active_at=ACTIVE_AT)
    nights.live(WARNED_ON, 1)


def deadlocks(shop: Shop) -> int:
    return shop.value("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def assert_each_went_once(shop: Shop, nights: Nights, count: int) -> None:
    """Every one of c1, c2, ... lost its 100 points once, with one mail, and the runs have counted just that."""
    assert nights.expired() == {f"c{number}": [100] for number in range(1, count + 1)}
    assert Counter(customer for customer, _, _ in nights.mails(EXPIRED)) == Counter(list(nights.expired()))
    assert shop.value("SELECT sum(accounts_expired) FROM loyalty.expiry_runs") == count
    assert shop.value("SELECT sum(points_expired) FROM loyalty.expiry_runs") == 100 * count
    assert shop.problems() == []


@contextmanager
def worker(shop: Shop, name: str, *, run_id: str = "", mode: str = "") -> Iterator[subprocess.Popen[str]]:
    """A process that runs the night of DUE_AT; it is killed if it is still there at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, url_of(shop.engine), name, DUE_AT.isoformat(), run_id, mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def in_a_thread(shop: Shop, *, run_id: str | None = None, **options: object) -> Iterator[Future[list[MerchantExpiry]]]:
    """The night of DUE_AT in a thread, with an engine of its own whose sessions are called 'nightly'."""
    engine = connect(url_of(shop.engine), application_name="nightly")
    chosen = ExpiryOptions(**{"as_of": DUE_AT, "limits": NO_LIMITS, **options})  # type: ignore[arg-type]
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(lambda: list(expire_merchants(engine, options=chosen, actor="test", run_id=run_id)))
    engine.dispose()


# --- locked rows ----------------------------------------------------------------------------------------


def test_locked_accounts_are_not_waited_for_are_reported_and_go_in_the_next_run(shop: Shop, nights: Nights) -> None:
    due(nights, 5)
    with holding(shop, LOCK_SOME):
        done = nights.run(DUE_AT, chunk_size=2)
    assert (done.accounts_expired, done.accounts_locked) == (3, 2)
    assert sorted(nights.expired()) == ["c1", "c3", "c5"]
    later = nights.run(DUE_AT)
    assert (later.accounts_expired, later.accounts_locked) == (2, 0)
    assert_each_went_once(shop, nights, 5)


def test_accounts_that_are_free_again_when_the_others_are_done_go_in_the_same_run(shop: Shop, nights: Nights) -> None:
    due(nights, 5)
    with shop.engine.connect() as conn:
        conn.execute(text(LOCK_SOME))

        def release(_: str, page: Page) -> None:
            if page.accounts:
                conn.rollback()

        done = nights.run(DUE_AT, on_page=release)
    assert (done.accounts_expired, done.accounts_locked) == (5, 0)
    assert_each_went_once(shop, nights, 5)


def test_an_account_that_is_locked_while_others_are_warned_is_warned_when_it_is_free(
    shop: Shop, nights: Nights
) -> None:
    nights.crowd(5, active_at=ACTIVE_AT)
    nights.run("2025-01-10T02:00:00Z")
    with shop.engine.connect() as conn:
        conn.execute(text(LOCK_SOME))
        first = nights.run(night(WARNED_ON))
        assert first.accounts_warned == 3

        def release(_: str, page: Page) -> None:
            conn.rollback()

        # The second pass of the same night, or the next night.
        again = nights.run(night(WARNED_ON), on_page=release)
    assert again.accounts_warned == 2
    assert {(customer, instant) for customer, instant, _ in nights.warnings()} == {
        (f"c{number}", midnight(GONE_ON)) for number in range(1, 6)
    }


def test_a_warning_whose_account_or_mail_is_locked_is_renewed_by_the_next_night(shop: Shop, nights: Nights) -> None:
    nights.crowd(3, active_at=ACTIVE_AT)
    nights.run(night(WARNED_ON))
    with (
        holding(shop, "SELECT FROM loyalty.accounts WHERE customer_id = 'c1' FOR UPDATE"),
        holding(shop, "SELECT FROM loyalty.notifications WHERE customer_id = 'c2' FOR UPDATE"),
    ):
        assert nights.run(DUE_AT).accounts_moved == 1
    assert nights.run(DUE_AT).accounts_moved == 2
    assert {instant for _, instant, _ in nights.warnings()} == {midnight("2025-02-15")}
    assert nights.expired() == {}


# --- crashes --------------------------------------------------------------------------------------------


def test_a_run_that_ends_between_two_pages_keeps_the_first_and_goes_on_under_its_id(shop: Shop, nights: Nights) -> None:
    due(nights, 25)
    pages = []

    def crash(_: str, page: Page) -> None:
        pages.append(page.accounts)
        if pages.count(10) == 2:
            raise MemoryError

    with pytest.raises(MemoryError):
        nights.run(DUE_AT, run_id="first", chunk_size=10, on_page=crash)
    assert len(nights.expired()) == len(nights.mails(EXPIRED)) == 20
    done = nights.run(DUE_AT, run_id="second", chunk_size=10)
    assert (done.run_id, done.accounts_expired, done.points_expired) == ("first", 25, 2_500)
    assert done.plan is not None
    assert (done.plan.accounts_due, done.plan.points_due) == (25, 2_500)
    assert shop.rows(
        "SELECT run_id, finished_at IS NULL FROM loyalty.expiry_runs WHERE as_of = :as_of", as_of=DUE_AT
    ) == [("first", False)]
    assert {row.run_id for row in shop.rows("SELECT run_id FROM loyalty.ledger_entries WHERE kind = 'expired'")} == {
        "first"
    }
    assert_each_went_once(shop, nights, 25)


def test_a_run_that_ends_after_its_last_page_is_brought_to_its_end_under_its_id(shop: Shop, nights: Nights) -> None:
    due(nights, 3)

    def crash(_: str, page: Page) -> None:
        if page.accounts:
            raise MemoryError

    with pytest.raises(MemoryError):
        nights.run(DUE_AT, run_id="first", on_page=crash)
    done = nights.run(DUE_AT, run_id="second")
    assert (done.run_id, done.accounts_expired, done.points_expired) == ("first", 3, 300)
    assert shop.rows("SELECT run_id FROM loyalty.expiry_runs WHERE finished_at IS NULL") == []
    assert_each_went_once(shop, nights, 3)


def test_a_run_that_ends_while_it_warns_goes_on_and_tells_nobody_twice(shop: Shop, nights: Nights) -> None:
    nights.crowd(25, active_at=ACTIVE_AT)

    def crash(_: str, page: Page) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        nights.run(night(WARNED_ON), chunk_size=10, on_page=crash)
    assert len(nights.warnings()) == 10
    done = nights.run(night(WARNED_ON), chunk_size=10)
    assert (done.accounts_warned, done.points_warned, len(nights.warnings())) == (25, 2_500, 25)


def test_a_run_of_an_earlier_night_that_never_ended_is_not_gone_on_with(shop: Shop, nights: Nights) -> None:
    due(nights, 3)
    shop.run(
        "INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor, started_at, accounts_expired) "
        "VALUES ('m1', 'old', :as_of, 'x', now() - interval '21 hours', 7)",
        as_of=DUE_AT,
    )
    done = nights.run(DUE_AT, run_id="new")
    assert (done.run_id, done.accounts_expired) == ("new", 3)


@pytest.mark.parametrize("is_within_a_page", [False, True], ids=["between pages", "within a page"])
def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(
    shop: Shop, nights: Nights, is_within_a_page: bool
) -> None:
    due(nights, 45)
    with worker(shop, "victim", run_id="first", mode="wait") as victim:
        assert victim.stdout is not None
        assert victim.stdin is not None
        assert [victim.stdout.readline(), victim.stdin.write("\n"), victim.stdin.flush()][0] == "10\n"
        assert victim.stdout.readline() == "10\n"
        if is_within_a_page:
            with holding(shop, LOCK_RUNS):
                victim.stdin.write("\n")
                victim.stdin.flush()
                # The third page has written all it has to but its counters.
                wait_until(waiting_for_a_lock(shop, "victim"))
                os.kill(victim.pid, signal.SIGKILL)
                victim.wait()
        else:
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
        wait_until(lambda: not shop.rows("SELECT FROM pg_stat_activity WHERE application_name = 'victim'"))
    assert len(nights.expired()) == len(nights.mails(EXPIRED)) == 20
    done = nights.run(DUE_AT, run_id="second", chunk_size=10)
    assert (done.run_id, done.accounts_expired, done.points_expired) == ("first", 45, 4_500)
    assert_each_went_once(shop, nights, 45)


def test_a_run_whose_session_is_terminated_goes_on_by_itself(shop: Shop, nights: Nights) -> None:
    due(nights, 25)
    shop.run("INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor) VALUES ('m1', 'r', now(), 'test')")
    with (
        in_a_thread(shop, run_id="r", chunk_size=10, steps=frozenset({Step.EXPIRE})) as running,
        holding(shop, LOCK_RUNS),
    ):
        for _ in range(2):
            wait_until(waiting_for_a_lock(shop, "nightly"))
            assert shop.value(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE application_name = 'nightly' AND wait_event_type = 'Lock'"
            )
        wait_until(waiting_for_a_lock(shop, "nightly"))
    (done,) = running.result(60)
    assert (done.failure, done.accounts_expired, done.points_expired) == (None, 25, 2_500)
    assert_each_went_once(shop, nights, 25)


def test_the_limit_of_a_night_is_that_of_the_whole_night_however_often_it_is_begun(shop: Shop, nights: Nights) -> None:
    nights.crowd(60, active_at="2025-01-20T12:00:00+01:00", prefix="others ")
    due(nights, 40)
    limits = Limits(max_share_of_accounts=0.4, few_accounts=5)

    def crash(_: str, page: Page) -> None:
        if page.accounts:
            raise MemoryError

    with pytest.raises(MemoryError):
        nights.run(DUE_AT, chunk_size=10, limits=limits, on_page=crash)
    assert len(nights.expired()) == 10
    # 10 more would be fewer than 40 % of those who are left; together with the first 10 it is 41 %.
    nights.crowd(1, active_at=ACTIVE_AT, prefix="late ")
    shop.run("UPDATE loyalty.accounts SET warned_for = expires_at WHERE customer_id = 'late 1'")
    stopped = nights.run(DUE_AT, chunk_size=10, limits=limits)
    assert stopped.plan is not None
    assert (stopped.is_stopped, stopped.plan.accounts_due, stopped.plan.accounts_limit) == (True, 41, 40)
    shop.run("UPDATE loyalty.accounts SET is_active = false WHERE customer_id = 'late 1'")
    nights.crowd(1, active_at="2025-01-20T12:00:00+01:00", prefix="more ")
    done = nights.run(DUE_AT, chunk_size=10, limits=limits)
    assert done.is_stopped is False
    assert len(nights.expired()) == 40


# --- two at once ----------------------------------------------------------------------------------------


def at_once(actions: list[Callable[[], object]]) -> list[object]:
    """Begin all actions at the same moment, and return what they return."""
    start = threading.Barrier(len(actions))

    def one(action: Callable[[], object]) -> object:
        start.wait()
        return action()

    with ThreadPoolExecutor(max_workers=len(actions)) as pool:
        return list(pool.map(one, actions))


@pytest.mark.parametrize("run_ids", [("r", "r", "r"), ("r1", "r2", "r3")], ids=["one run id", "their own run ids"])
def test_runs_at_once_warn_and_expire_everybody_once(shop: Shop, nights: Nights, run_ids: tuple[str, ...]) -> None:
    nights.crowd(120, active_at=ACTIVE_AT)
    engine = connect(url_of(shop.engine), pool_size=20)
    shared = Nights(Shop(engine))
    warned = at_once([lambda run_id=one: shared.run(night(WARNED_ON), run_id=run_id, chunk_size=7) for one in run_ids])
    assert Counter(customer for customer, _, _ in nights.mails(WARNING)) == Counter(f"c{n}" for n in range(1, 121))
    assert shop.value("SELECT sum(accounts_warned) FROM loyalty.expiry_runs") == 120
    nights.deliver()
    # The nights' ids are other ones, of course.
    at_once([lambda run_id=f"{one} b": shared.run(DUE_AT, run_id=run_id, chunk_size=7) for one in run_ids])
    engine.dispose()
    assert len(warned) == 3
    assert_each_went_once(shop, nights, 120)
    assert deadlocks(shop) == 0


@pytest.mark.parametrize("run_id", ["r", ""], ids=["one run id", "their own run ids"])
def test_processes_at_once_expire_everybody_once(shop: Shop, nights: Nights, run_id: str) -> None:
    due(nights, 200)
    with (
        worker(shop, "w1", run_id=run_id, mode="start") as one,
        worker(shop, "w2", run_id=run_id, mode="start") as two,
    ):
        said = []
        wait_until(lambda: True)
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in (one, two):
            output, errors = process.communicate(timeout=120)
            assert (output.splitlines()[-1], errors) == ("[None]", "")
            said += [int(line) for line in output.splitlines()[:-1]]
    assert sum(said) == 200
    assert_each_went_once(shop, nights, 200)
    assert deadlocks(shop) == 0


def test_two_undos_at_once_give_everything_back_once(shop: Shop, nights: Nights) -> None:
    due(nights, 60)
    nights.run(DUE_AT, run_id="wrong")
    engine = connect(url_of(shop.engine), pool_size=10)
    undo = Undo(run_id="wrong", reason="a mistake", actor="eve")
    reports = at_once([lambda: expiry_undo_run.undo_run(engine, undo, page_size=7)] * 3)
    engine.dispose()
    assert sum(one.total("accounts") for one in reports) == 60  # type: ignore[attr-defined]
    assert sum(one.total("points") for one in reports) == 6_000  # type: ignore[attr-defined]
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts") == 6_000
    assert shop.rows("SELECT accounts_undone, points_undone FROM loyalty.expiry_runs WHERE run_id = 'wrong'") == [
        (60, 6_000)
    ]
    assert (shop.problems(), deadlocks(shop)) == ([], 0)


def test_a_poison_account_that_two_runs_meet_at_once_is_the_only_one_that_stays(shop: Shop, nights: Nights) -> None:
    due(nights, 40)
    shop.run("UPDATE loyalty.accounts SET next_seq = 1 WHERE customer_id = 'c17'")
    engine = connect(url_of(shop.engine), pool_size=20)
    shared = Nights(Shop(engine))
    done = at_once([lambda: shared.run(DUE_AT, chunk_size=4)] * 3)
    engine.dispose()
    assert {customer for one in done for customer in one.refused} == {"c17"}  # type: ignore[attr-defined]
    assert sorted(nights.expired()) == sorted({f"c{n}" for n in range(1, 41)} - {"c17"})


# --- beside everything else -----------------------------------------------------------------------------

# Some accounts were active 40 days earlier, and were told of the date that they have by that.
AGE = """
WITH aged AS (
    UPDATE loyalty.accounts AS a
    SET last_activity_at = a.last_activity_at - interval '40 days', expires_at = older.expires_at,
        warned_for = older.expires_at
    FROM (
        SELECT account_id, loyalty.local_midnight(expires_at, -40, 'Europe/Luxembourg') AS expires_at
        FROM loyalty.accounts WHERE is_active AND expires_at > now() - interval '20 days' ORDER BY random() LIMIT :count
        FOR UPDATE SKIP LOCKED
    ) AS older
    WHERE a.account_id = older.account_id
    RETURNING a.merchant_id, a.account_id, a.customer_id, a.expires_at, a.balance
)
INSERT INTO loyalty.notifications (merchant_id, dedupe_key, template, customer_id, payload, status, settled_at)
SELECT merchant_id, loyalty.warning_key(account_id, expires_at, 'Europe/Luxembourg'), 'loyalty_points_expiring',
    customer_id, jsonb_build_object('points', balance, 'expires_at', expires_at), 'sent', now()
FROM aged ON CONFLICT (merchant_id, dedupe_key) DO UPDATE SET status = 'sent', settled_at = now()
"""


CHECKOUT_CALLS = (
    "SELECT loyalty.reserve_points('m1', %(customer)s, %(order)s, %(points)s)",
    "SELECT loyalty.capture_points('m1', %(order)s)",
    "SELECT loyalty.release_points('m1', %(order)s)",
    "SELECT loyalty.redeem_points('m1', %(customer)s, %(order)s, %(points)s)",
    "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, total, currency, status, paid_at) "
    "VALUES ('m1', %(order)s, %(customer)s, 9, 'EUR', 'paid', now() - interval '40 days') "
    "ON CONFLICT (merchant_id, id) DO UPDATE SET status = 'paid', total = 9 + random() * 20",
    "UPDATE sample_shop.orders SET status = 'cancelled' WHERE merchant_id = 'm1' AND id = %(order)s",
)


@dataclass
class Everybody:
    """Whoever acts on the accounts of m1 while its points are warned of and expire."""

    shop: Shop
    nights: Nights
    customers: list[str]

    def check_out(self, seed: int) -> Counter[str]:
        """Call the checkout functions and change orders, 250 times; return how often what was answered."""
        dice, answers = random.Random(seed), Counter[str]()
        url = self.shop.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as conn:
            for _ in range(250):
                values = {
                    "customer": dice.choice(self.customers),
                    "order": f"o{dice.randrange(150)}",
                    "points": dice.choice([1, 5, 30]),
                }
                try:
                    conn.execute(dice.choice(CHECKOUT_CALLS).encode(), values)
                    answers["done"] += 1
                except psycopg.Error as error:
                    answers[str(error.sqlstate)] += 1
        return answers

    def expire(self, dice: random.Random) -> None:
        for done in self.nights.run_all(chunk_size=dice.choice([1, 3, 50])):
            assert (done.failure, done.refused) == (None, {})

    def award(self, _: random.Random) -> None:
        assert drain(self.shop.engine, actor="test").failures == {}

    def adjust(self, dice: random.Random) -> None:
        with suppress(NotEnoughPointsError), self.shop.engine.begin() as conn:
            repairs.adjust(
                conn,
                Adjustment(
                    merchant_id="m1",
                    customer_id=dice.choice(self.customers),
                    points=dice.choice([-1, 3]),
                    reason="x",
                    actor="eve",
                    reference=str(dice.random()),
                ),
            )

    def merge(self, dice: random.Random) -> None:
        source, into = dice.sample(self.customers, 2)
        with suppress(NothingToMergeError, AlreadyMergedError), self.shop.engine.begin() as conn:
            merges.merge_accounts(
                conn, Merge(merchant_id="m1", customer_id=source, into_customer_id=into, reason="x", actor="eve")
            )

    def age(self, _: random.Random) -> None:
        self.shop.run(AGE, count=5)
        self.nights.deliver()

    def undo(self, dice: random.Random) -> None:
        runs = self.shop.rows("SELECT run_id FROM loyalty.expiry_runs WHERE accounts_expired > accounts_undone")
        if runs:
            undo = Undo(run_id=dice.choice(runs).run_id, reason="x", actor="eve")
            assert expiry_undo_run.undo_run(self.shop.engine, undo).failures == {}


def test_expiry_beside_everything_else_keeps_every_invariant_without_a_deadlock(shop: Shop) -> None:
    """60 customers whose points are due, to be warned of, or neither; two runs at once, and everybody acts on them."""
    shop.program(points_expiration_days=30)
    engine = connect(url_of(shop.engine), pool_size=20)
    busy = Shop(engine)
    everybody = Everybody(
        busy, Nights(busy), [f"{kind} {n}" for kind in ("due", "near", "fresh") for n in range(1, 21)]
    )
    everybody.nights.run()
    for kind, days in (("due", 45), ("near", 20), ("fresh", 1)):
        active_at = shop.value("SELECT now() - make_interval(days => :days)", days=days)
        everybody.nights.crowd(20, active_at=active_at, prefix=f"{kind} ")
    shop.run(AGE, count=20)
    stop = threading.Event()

    def until_stopped(action: Callable[[random.Random], None], seed: int) -> int:
        dice, rounds = random.Random(seed), 0
        while not stop.is_set():
            action(dice)
            # Merges are rare: else there is soon one customer left.
            stop.wait(0.3 if action == everybody.merge else 0)
            rounds += 1
        return rounds

    actions = (everybody.expire, everybody.expire, everybody.award, everybody.adjust, everybody.merge, everybody.age,
               everybody.undo)  # fmt: skip
    with ThreadPoolExecutor(max_workers=9) as pool:
        others = [pool.submit(until_stopped, action, seed) for seed, action in enumerate(actions)]
        try:
            answers = sum((one.result(120) for one in [pool.submit(everybody.check_out, n) for n in (1, 2)]), Counter())
        finally:
            stop.set()
        assert min(one.result(60) for one in others) > 0
    engine.dispose()
    assert answers["done"] > 100
    assert set(answers) <= {"done", "LP002", "LP003", "LP008", "LP009", "LP012"}
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE kind = 'expired'") > 20
    shop.award()
    assert (deadlocks(shop), shop.problems()) == (0, [])
