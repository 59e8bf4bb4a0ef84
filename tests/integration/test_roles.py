"""The group roles, with real connections: what each may do, and what nobody may."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import award_checks, capture, sweep
from loyalty_pipelines.db.drain import drain
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.sweep_run import late_orders
from tests.shop import Shop


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
    with engine.connect() as conn:
        assert award_checks.orders_awarded_twice(conn)[0] == 0
    assert late_orders(engine, untouched_for=timedelta(0)) == ([], {})


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


def test_the_app_role_cannot_touch_a_table(shop: Shop, login) -> None:
    engine = login("loyalty_app")
    for statement in (
        "SELECT * FROM loyalty.accounts",
        "INSERT INTO loyalty.order_inbox (merchant_id, order_id, source) VALUES ('m1', '1', 'x')",
        "SELECT email FROM loyalty_source.customers",
    ):
        assert "permission denied" in refused(engine, statement)
