"""Fixes that two make at once, or beside a shop that works: each is made once, and nobody's work is overwritten."""

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, text

from loyalty_pipelines.db import fix_batch
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.fix_plans_run import apply_fixes, plan_fixes
from loyalty_pipelines.domain.fix_plans import FixPlan, MerchantFixes
from tests.subscribers import BILLING, Subscribers, outcomes


@pytest.fixture
def shop(engine: Engine) -> Subscribers:
    """The sample shop with a plan to subscribe to."""
    made = Subscribers(engine)
    made.seller()
    return made


def at_once(*works: Callable[[], object]) -> None:
    """Run all in threads that start together; an error fails the test."""
    barrier = threading.Barrier(len(works))
    errors: list[BaseException] = []

    def run(work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.parametrize("is_planned_before", [True, False])
@pytest.mark.parametrize("fixes", ["written", "by function"])
def test_two_runs_at_once_make_one_subscription_each_time(
    shop: Subscribers, database_url: str, fixes: str, is_planned_before: bool
) -> None:
    if fixes == "by function":
        shop.remap(BILLING)
    other = connect(database_url, pool_size=4)
    done: list[MerchantFixes] = []

    def apply(engine: Engine) -> None:
        done.extend(apply_fixes(engine, is_dry_run=False, actor="robot"))

    for number in range(5):
        done.clear()
        shop.bought(str(number))
        shop.check(is_full=number == 0)
        if is_planned_before:
            plan_fixes(shop.engine, actor="kim")
        at_once(lambda: apply(shop.engine), lambda: apply(other))
        assert sum(one.applied for one in done) == 1, done
        assert len(shop.sold()) == number + 1
    other.dispose()
    assert shop.value("SELECT count(*) FROM loyalty.fix_plans WHERE status = 'applied'") == 5
    assert shop.check() == []


def test_many_plans_of_two_runs_are_each_applied_once(shop: Subscribers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loyalty_pipelines.db.fix_plans_run.BATCH", 7)
    for number in range(40):
        shop.bought(str(number))
    shop.check()
    done: list[MerchantFixes] = []
    at_once(*[lambda: done.extend(apply_fixes(shop.engine, is_dry_run=False, actor="robot"))] * 2)
    assert sum(one.applied for one in done) == 40
    assert len(shop.sold()) == 40
    assert len(set(shop.sold())) == 40


def test_a_run_and_a_webhook_at_once_leave_one_subscription(shop: Subscribers) -> None:
    webhook = """
        INSERT INTO sample_shop.subscriptions (merchant_id, id, customer_id, plan_id, order_id, price, currency,
            period_start, period_end, created_at)
        SELECT merchant_id, 'webhook-' || id, customer_id, plan_id, order_id, amount, currency, period_start,
            period_end, captured_at
        FROM sample_shop.payments AS p
        WHERE id = :id AND NOT EXISTS (SELECT 1 FROM sample_shop.subscriptions AS s WHERE s.order_id = p.order_id)
    """

    def receive(number: int) -> None:
        # As a shop that looks before it inserts, under the lock that every insert takes.
        with shop.engine.begin() as conn:
            conn.execute(text("LOCK TABLE sample_shop.subscriptions IN SHARE ROW EXCLUSIVE MODE"))
            conn.execute(text(webhook), {"id": str(number)})

    for number in range(10):
        shop.bought(str(number))
        shop.check(is_full=number == 0)
        at_once(shop.apply, lambda number=number: receive(number))
        assert len(shop.sold()) == number + 1
    assert shop.check() == []


def test_a_busy_table_leaves_the_batch_for_the_next_run(shop: Subscribers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loyalty_pipelines.db.shop_fixes.LOCK_TIMEOUT", "100ms")
    shop.bought("1")
    shop.check()
    with shop.engine.begin() as conn:
        conn.execute(text("INSERT INTO sample_shop.subscriptions (merchant_id, id) VALUES ('m9', '9')"))
        busy = shop.apply()
        tried = shop.apply(is_dry_run=True)
    assert (busy.stopped_by, outcomes(busy), shop.sold()) == ("locked", ["skipped"], [])
    assert tried.stopped_by == "locked"
    assert "others write the shop's subscriptions" in busy.sentence
    assert outcomes(shop.apply()) == ["applied"]


def test_what_changes_between_planning_and_the_lock_is_seen(shop: Subscribers, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.bought("1")
    shop.check()
    lock = fix_batch.shop_fixes.lock_subscriptions

    def late(conn: object) -> None:
        shop.subscription("late", customer="c1", order_id="1")
        lock(conn)  # type: ignore[arg-type]

    monkeypatch.setattr("loyalty_pipelines.db.fix_batch.shop_fixes.lock_subscriptions", late)
    assert outcomes(shop.apply()) == ["stale"]
    assert shop.sold() == [("1", "active")]


def test_two_who_plan_at_once_make_one_plan_for_each_finding(shop: Subscribers) -> None:
    for number in range(20):
        shop.bought(str(number))
    shop.check()
    found: list[object] = []
    at_once(*[lambda: found.extend(plan_fixes(shop.engine, actor="kim"))] * 3)
    assert all(isinstance(one, FixPlan) for one in found)
    assert shop.value("SELECT count(*) FROM loyalty.fix_plans") == 20


def test_two_who_undo_at_once_undo_once(shop: Subscribers) -> None:
    shop.bought("1")
    shop.check()
    plan = shop.one_plan()
    shop.apply()
    undone: list[str] = []

    def undo() -> None:
        try:
            undone.append(shop.undo(plan.plan_id).status)
        except Exception as error:  # noqa: BLE001 - what it says is the test's
            undone.append(str(error))

    at_once(undo, undo)
    assert sorted(undone) == [
        f"Plan {plan.plan_id} can't be undone: it is undone, and only what is applied can be.",
        "undone",
    ]


def test_two_plans_for_one_customer_at_once_make_one_subscription(shop: Subscribers) -> None:
    # The shop's function locks nothing itself, and is slow.
    shop.remap(BILLING)
    shop.run(
        "CREATE FUNCTION billing.slow() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END'"
    )
    shop.run(
        "CREATE TRIGGER slow BEFORE INSERT ON sample_shop.subscriptions FOR EACH ROW EXECUTE FUNCTION billing.slow()"
    )
    for number in ("1", "2"):
        shop.bought(number, customer="ann")
    shop.check()
    plans = [one.plan_id for one in shop.plan() if isinstance(one, FixPlan)]
    shop.approve(*plans)
    done: list[str] = []
    first, second = ([one] for one in plans)
    at_once(
        lambda: done.extend(outcomes(shop.apply(plan_ids=first))),
        lambda: done.extend(outcomes(shop.apply(plan_ids=second))),
    )
    assert sorted(done) == ["applied", "stale"]
    assert len(shop.sold()) == 1


def test_a_finding_that_is_accepted_before_the_lock_is_not_fixed(
    shop: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.bought("1")
    shop.check()
    lock = fix_batch.shop_fixes.lock_subscriptions

    def late(conn: object) -> None:
        shop.run("UPDATE loyalty.findings SET accepted_at = now(), accepted_by = 'kim', accepted_because = 'so'")
        lock(conn)  # type: ignore[arg-type]

    monkeypatch.setattr("loyalty_pipelines.db.fix_batch.shop_fixes.lock_subscriptions", late)
    assert outcomes(shop.apply()) == ["stale"]
    assert shop.sold() == []
