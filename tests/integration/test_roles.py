"""The group roles, with real connections: what each may do, and what nobody may."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import alerts, capture, expiry, notifications, queue, sweep
from loyalty_pipelines.db.alerts_run import watch
from loyalty_pipelines.db.drain import drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_checks import expired_unwarned, late_merchants, past_runs, stopped_merchants
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.db.expiry_undo_run import undo_run
from loyalty_pipelines.db.holds_run import release_stale_holds
from loyalty_pipelines.db.integrity_run import prove
from loyalty_pipelines.db.notifications_run import deliver
from loyalty_pipelines.db.queue_run import drain_queue, is_something_due
from loyalty_pipelines.db.sweep_run import late_orders
from loyalty_pipelines.domain.expiry import ExpiryOptions, Limits, MerchantExpiry
from loyalty_pipelines.domain.expiry_undo import Undo
from loyalty_pipelines.domain.mail_settings import mail_settings
from loyalty_pipelines.resources.mail_transports import transport_for
from tests.alerting import Alerting
from tests.checkout import Checkout
from tests.outbox import Outbox
from tests.queued import Queue
from tests.shop import Shop
from tests.webhook import webhook


@pytest.fixture
def login(shop: Shop, database_url: str) -> Iterator[Callable[[str], Engine]]:
    """Opens the database as a login that is a member of one group role."""
    made: list[tuple[str, Engine]] = []

    def open_as(group: str) -> Engine:
        name = f"login_{make_url(database_url).database}_{group}"
        shop.run(f'CREATE ROLE "{name}" LOGIN IN ROLE {group}')
        engine = connect(make_url(database_url).set(username=name).render_as_string())
        made.append((name, engine))
        return engine

    yield open_as
    for name, engine in made:
        engine.dispose()
        shop.run(f'DROP OWNED BY "{name}"')
        shop.run(f'DROP ROLE "{name}"')


def refused(engine: Engine, statement: str) -> str:
    """Return the text of PostgreSQL's refusal; fail the test when it obeys."""
    with pytest.raises(DBAPIError) as caught, engine.begin() as conn:
        conn.execute(text(statement))
    return str(caught.value.orig)


def test_the_pipeline_role_is_enough_for_all_that_the_pipelines_do(shop: Shop, login) -> None:
    engine = login("loyalty_pipeline")
    shop.order("1", "10.00")
    shop.order("2", "NaN")
    shop.order("3", "5.00", status="pending")
    with engine.begin() as conn:
        assert capture.is_pending(conn)
    report = drain(engine, actor="test")
    assert (report.failures, report.total("points_changed")) == ({}, 10)
    shop.refund("1", "4.00")
    with engine.begin() as conn:
        capture.poll(conn, overlap=timedelta(minutes=10))
        sweep.enqueue_differences(conn, "m1")
    assert drain(engine, actor="test").failures == {}
    assert shop.balance() == 6
    for is_full in (False, False, True):
        assert [(one.failure, one.findings) for one in prove(engine, is_full=is_full)] == [(None, ())]
    assert late_orders(engine, untouched_for=timedelta(0)) == ([], {})


def test_the_pipeline_role_is_enough_for_alerts_and_dashboards_only_read_them(shop: Shop, login) -> None:
    alerting = Alerting(login("loyalty_pipeline"))
    with webhook() as hook:
        alerting.use(hook)
        alerting.tick("b")
        with alerting.engine.begin() as conn:
            alerts.silence(conn, "b", time=timedelta(hours=1), reason="r", actor="a")
            assert alerts.unsilence(conn, "b", actor="a") == 1
        alerting.tick()
        watch(alerting.engine, longest_age=timedelta(minutes=10))
        assert hook.events == [("started", "b")]
    reader = login("loyalty_reader")
    with reader.connect() as conn:
        assert [one.name for one in alerts.find_problems(conn, is_all=True, limit=10)] == ["b"]
    for table in ("alert_problems", "alert_deliveries", "alert_channels", "alert_silences", "alert_observers"):
        assert "permission denied" in refused(reader, f"DELETE FROM loyalty.{table}")


def test_the_pipeline_role_is_enough_for_the_queue_and_for_stale_holds(shop: Shop, login) -> None:
    engine = login("loyalty_pipeline")
    waiting = Queue(shop)
    shop.order("1", "10.00")
    shop.order("2", "NaN")
    shop.award()
    waiting.report("3", 20, 5)
    hopeless = waiting.report("4", 0, 1_000_000)
    waiting.wait()
    assert is_something_due(engine)
    report = drain_queue(engine, actor="test")
    assert (report.failures, report.total("applied"), report.total("orders"), report.total("failed")) == ({}, 1, 1, 1)
    with engine.begin() as conn:
        queue.resolve(conn, hopeless, reason="test", actor="test")
        assert queue.make_due(conn) == 1
        assert len(queue.queue_summary(conn)) == 1
    Checkout(shop.engine).reserve("5", 10)
    shop.run("UPDATE loyalty.holds SET expires_at = now() - interval '1 second' WHERE status = 'open'")
    assert release_stale_holds(engine).points == 10
    assert shop.problems() == []


def test_the_pipeline_role_is_enough_for_expiry_its_mails_its_checks_and_its_undo(
    shop: Shop, login, tmp_path: Path
) -> None:
    engine = login("loyalty_pipeline")
    shop.program(points_expiration_days=30)
    Outbox(shop).customer()
    days = [shop.value("SELECT now() - make_interval(days => :days)", days=days) for days in range(40)]
    shop.order("1", "10.00", paid_at=days[39])
    shop.award()

    def run(as_of: datetime, **options: Any) -> MerchantExpiry:
        (done,) = expire_merchants(engine, options=ExpiryOptions(as_of=as_of, **options), actor="test")
        assert done.failure is None
        return done

    assert [run(days[16], is_dry_run=is_dry_run).accounts_warned for is_dry_run in (True, False)] == [1, 1]
    # Its mail has not left yet, so that the next nights give it another date, page by page and account by account.
    assert [run(days[15]).accounts_moved, run(days[14], chunk_size=1).accounts_moved] == [1, 1]
    shop.run("UPDATE loyalty.notifications SET status = 'sent', settled_at = now()")
    done = run(days[0], limits=Limits(accepted_accounts=1))
    assert done.points_expired == 10
    with engine.connect() as conn:
        assert expired_unwarned(conn, days=7) == stopped_merchants(conn) == late_merchants(conn, hours=26) == []
        assert past_runs(conn, limit=1)[0].accounts_expired == 1
        assert expiry.forecast(conn, ["m1"], next_run_at=days[0], days=30) == []
    undone = undo_run(engine, Undo(run_id=str(done.run_id), is_mailed=True, reason="test", actor="test"))
    assert (undone.failures, undone.total("points")) == ({}, 10)
    settings = mail_settings({"LOYALTY_MAIL_URL": f"folder://{tmp_path}", "LOYALTY_MAIL_FROM": "shop@example.com"})
    assert deliver(engine, transport_for(settings), settings=settings).total("sent") == 1
    with engine.connect() as conn:
        assert {one.status for one in notifications.settled(conn, hours=24)} >= {"sent"}
        assert notifications.undelivered(conn) == []
    assert shop.problems() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE loyalty.ledger_entries SET points = 1000000",
        "DELETE FROM loyalty.ledger_entries",
        "TRUNCATE loyalty.ledger_entries",
        "DROP TABLE loyalty.ledger_entries CASCADE",
        "ALTER TABLE loyalty.ledger_entries DISABLE TRIGGER ALL",
        "UPDATE sample_shop.orders SET total = 0",
    ],
)
def test_the_pipeline_role_can_change_neither_history_nor_the_shop(shop: Shop, login, statement: str) -> None:
    shop.order("1", "10.00")
    shop.award()
    message = refused(login("loyalty_pipeline"), statement)
    assert "permission denied" in message or "must be owner" in message
    assert shop.entries() == [("earned", 10)]


@pytest.mark.parametrize("verb", ["UPDATE loyalty.ledger_entries SET points = 1", "DELETE FROM loyalty.ledger_entries"])
def test_not_even_the_superuser_changes_an_entry(shop: Shop, verb: str) -> None:
    shop.order("1", "10.00")
    shop.award()
    assert "ledger entries are never changed or removed" in refused(shop.engine, verb)
    assert "ledger entries are never changed or removed" in refused(shop.engine, "TRUNCATE loyalty.ledger_entries")


def test_the_reader_sees_the_ledger_and_no_addresses_and_writes_nothing(shop: Shop, login) -> None:
    shop.order("1", "10.00")
    shop.award()
    engine = login("loyalty_reader")
    with engine.connect() as conn:
        assert conn.execute(text("SELECT sum(points) FROM loyalty.ledger_entries")).scalar_one() == 10
        assert conn.execute(text("SELECT count(*) FROM loyalty_source.orders")).scalar_one() == 1
    for statement in (
        "SELECT email FROM loyalty_source.customers",
        "SELECT email FROM sample_shop.customers",
        "INSERT INTO loyalty.order_inbox (merchant_id, order_id, source) VALUES ('m1', '1', 'x')",
        "UPDATE loyalty.accounts SET balance = 0",
        "DELETE FROM loyalty.programs",
    ):
        assert "permission denied" in refused(engine, statement)


def test_the_reader_is_given_no_function_that_it_could_not_run(shop: Shop, login) -> None:
    as_reader = login("loyalty_reader")
    with as_reader.connect() as conn:
        may_run = (
            conn.exec_driver_sql(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace "
                "AND has_function_privilege(oid, 'EXECUTE') ORDER BY 1"
            )
            .scalars()
            .all()
        )
    assert "points_for" in may_run
    assert not {"order_differences", "changed_orders"} & set(may_run)


def test_the_capture_role_may_fill_the_inbox_and_nothing_else(shop: Shop, login) -> None:
    engine = login("loyalty_capture")
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO loyalty.order_inbox (merchant_id, order_id, source) VALUES ('m1', '1', 'x')"))
    for statement in (
        "SELECT * FROM loyalty.order_inbox",
        "DELETE FROM loyalty.order_inbox",
        "SELECT * FROM loyalty.accounts",
        "SELECT * FROM loyalty_source.orders",
    ):
        assert "permission denied" in refused(engine, statement)


def test_the_app_role_is_enough_for_a_checkout(shop: Shop, login) -> None:
    shop.order("1", "100.00")
    shop.award()
    app = Checkout(login("loyalty_app"))
    assert app.points_to_earn("19.99", currency="EUR") == 19
    assert (app.spendable(), app.redeemable(50)) == (100, 50)
    assert app.reserve("o", 50).status == "open"
    assert app.capture("o").balance_after == 50
    app.reserve("o2", 10)
    assert app.release("o2").status == "released"
    assert app.redeem("o3", 10).balance_after == 40
    assert app.update("o4", 5, 10).balance_after == 35
    app.refused("LP002", "redeem", "o5", 36)
    item = app.call(
        "report_failed_update", customer_id="ann", points_earned=1, points_redeemed=0, order_id="o6", error="timeout"
    )
    assert item[0] > 0
    with app.engine.connect() as conn:
        assert conn.execute(text("SELECT spendable FROM loyalty.customer_points")).scalar_one() == 35
        kinds = conn.execute(text("SELECT kind FROM loyalty.customer_entries ORDER BY seq")).scalars().all()
    assert kinds == ["earned", "redeemed", "redeemed", "redeemed", "earned"]
    assert app.enroll("bob") == ("bob", True, 0, 0)
    assert shop.problems() == []


def test_the_app_role_cannot_touch_a_table_nor_read_an_address(shop: Shop, login) -> None:
    engine = login("loyalty_app")
    tables = [
        row.relname
        for row in shop.rows(
            "SELECT relname FROM pg_class WHERE relnamespace = 'loyalty'::regnamespace AND relkind IN ('r', 'p')"
        )
    ]
    assert len(tables) > 12
    for table in tables:
        for statement in (
            f"SELECT FROM loyalty.{table}",
            f"INSERT INTO loyalty.{table} DEFAULT VALUES",
            f"DELETE FROM loyalty.{table}",
            f"TRUNCATE loyalty.{table}",
        ):
            assert "permission denied" in refused(engine, statement), statement
    for statement in (
        "UPDATE loyalty.accounts SET balance = 1000",
        "UPDATE loyalty.ledger_entries SET points = 1000",
        "SELECT email FROM loyalty_source.customers",
        "SELECT email FROM sample_shop.customers",
        "SELECT * FROM loyalty_source.orders",
        "SELECT * FROM loyalty_source.order_by_id('m1', '1')",
        "SELECT loyalty.post_entry('m1', 1, 'adjusted', 1000, 0, 0, 'x', 'x', 1, NULL, 'me', NULL)",
        "SELECT loyalty.give_back_hold('m1', 'o', 'x', 'x', NULL)",
        "SELECT loyalty.capture_hold('m1', 'o', false, 'x', NULL)",
        "SELECT loyalty.apply_update('m1', 'ann', 1000, 0, 'o', NULL, 'x', NULL)",
        "SELECT loyalty.try_queue_item('m1', 1, 'x', NULL, 1, '1 s', '1 s')",
        "SELECT loyalty.enroll_accounts('m1', ARRAY[1], ARRAY[now()], 'me', NULL)",
        "SELECT loyalty.open_account('m1', 'ann', 'me', NULL)",
        "SELECT loyalty.announce_rewards('m1', 1, ARRAY[1], ARRAY[1], ARRAY[now()])",
        "SET ROLE loyalty_owner",
        "SET ROLE loyalty_pipeline",
    ):
        assert "permission denied" in refused(engine, statement), statement


def test_the_app_role_is_given_the_documented_functions_and_no_other_that_writes(shop: Shop, login) -> None:
    with login("loyalty_app").connect() as conn:
        may_run = set(
            conn.exec_driver_sql(
                "SELECT proname FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace "
                "AND has_function_privilege(oid, 'EXECUTE')"
            ).scalars()
        )
    assert may_run == {
        "calculate_points_to_earn", "spendable_points", "redeemable_points", "reserve_points", "capture_points",
        "release_points", "redeem_points", "update_customer_loyalty_points_atomic", "report_failed_update", "spendable",
        "enroll_customer",
    }  # fmt: skip


def test_functions_that_run_as_their_owner_have_a_pinned_search_path_and_run_no_text(shop: Shop) -> None:
    """A caller's temporary table or operator must not be found before ours."""
    definers = shop.rows(
        "SELECT proname, proconfig, pg_get_userbyid(proowner) AS owner FROM pg_proc "
        "WHERE pronamespace = 'loyalty'::regnamespace AND prosecdef"
    )
    assert len(definers) == 10
    for function in definers:
        assert function.proconfig == ["search_path=pg_catalog, pg_temp"], function.proname
        assert function.owner == "loyalty_owner"
    bodies = shop.rows("SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'loyalty'::regnamespace")
    assert [row.proname for row in bodies if "EXECUTE" in row.prosrc.upper().replace("EXECUTE FUNCTION", "")] == []


def test_a_temporary_table_of_the_caller_is_not_taken_for_ours(shop: Shop, login) -> None:
    shop.order("1", "100.00")
    shop.award()
    with login("loyalty_app").begin() as conn:
        conn.execute(text("CREATE TEMPORARY TABLE accounts (balance bigint)"))
        conn.execute(
            text("CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'")
        )
        conn.execute(text("SET LOCAL search_path = pg_temp, pg_catalog"))
        assert conn.execute(text("SELECT points FROM loyalty.redeem_points('m1', 'ann', 'o', 60)")).scalar_one() == 60
    assert shop.balance() == 40


def test_the_reader_can_ask_but_neither_reserve_nor_redeem(shop: Shop, login) -> None:
    shop.order("1", "100.00")
    shop.award()
    reader = Checkout(login("loyalty_reader"))
    assert (reader.spendable(), reader.redeemable(7), reader.points_to_earn("3.99")) == (100, 7, 3)
    for statement in (
        "SELECT loyalty.redeem_points('m1', 'ann', 'o', 1)",
        "SELECT loyalty.reserve_points('m1', 'ann', 'o', 1)",
        "SELECT loyalty.update_customer_loyalty_points_atomic('ann', 1, 0, 'o')",
        "SELECT loyalty.report_failed_update('ann', 1, 0, 'o')",
        "SELECT loyalty.enroll_customer('m1', 'bob')",
        "UPDATE loyalty.holds SET points = 1",
        "INSERT INTO loyalty.merged_customers VALUES ('m1', 'a', 'b', 'x', 'x')",
    ):
        assert "permission denied" in refused(reader.engine, statement), statement
