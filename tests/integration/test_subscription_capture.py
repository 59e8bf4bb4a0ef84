"""How changes of payments, subscriptions and their orders get into the inbox of the subscriptions' checks."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text

from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.domain.source_mapping import parse_mapping
from tests.shops import create_django_shop, create_flask_razorpay_shop, in_poll_mode, mapping_of

TRIGGERS = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'loyalty_capture%' AND tgparentid = 0 ORDER BY 1"


def triggers(conn: Connection) -> list[str]:
    return list(conn.execute(text(TRIGGERS)).scalars())


def drain(conn: Connection) -> list[tuple[str, str, str]]:
    """Empty the inbox and return relation, merchant and key of its rows, sorted."""
    taken = conn.execute(text("DELETE FROM loyalty.subscription_inbox RETURNING relation, merchant_id, object_id"))
    return sorted(tuple(row) for row in taken)


def noted_orders(conn: Connection) -> list[str]:
    return list(conn.execute(text("SELECT order_id FROM loyalty.order_inbox ORDER BY 1")).scalars())


@pytest.mark.parametrize(
    ("table", "values"),
    [("payments", "amount) VALUES ('m', '1', 5)"), ("subscriptions", "price) VALUES ('m', '1', 5)")],
)
def test_a_row_is_noted_when_it_comes_changes_or_goes(engine: Engine, table: str, values: str):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(f"INSERT INTO sample_shop.{table} (merchant_id, id, {values}")
        assert drain(conn) == [(table, "m", "1")]
        conn.exec_driver_sql(f"UPDATE sample_shop.{table} SET updated_at = now() + interval '1 hour'")
        assert drain(conn) == []
        conn.exec_driver_sql(f"UPDATE sample_shop.{table} SET status = 'failed'")
        assert drain(conn) == [(table, "m", "1")]
        conn.exec_driver_sql(f"UPDATE sample_shop.{table} SET id = '2'")
        assert drain(conn) == [(table, "m", "1"), (table, "m", "2")]
        conn.exec_driver_sql(f"DELETE FROM sample_shop.{table}")
        assert drain(conn) == [(table, "m", "2")]
        assert noted_orders(conn) == []


def test_an_order_is_noted_for_its_points_and_for_its_subscription_and_never_when_it_goes(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("INSERT INTO sample_shop.orders (merchant_id, id) VALUES ('m', '1')")
        conn.exec_driver_sql("UPDATE sample_shop.orders SET plan_id = 'p'")
        assert drain(conn) == [("orders", "m", "1"), ("orders", "m", "1")]
        assert noted_orders(conn) == ["1", "1"]
        conn.exec_driver_sql("DELETE FROM sample_shop.orders")
        assert drain(conn) == []


def test_one_table_of_orders_and_payments_notes_both(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql('INSERT INTO "order" (amount) VALUES (100)')
        assert drain(conn) == [("orders", "main", "1")]
        conn.exec_driver_sql("UPDATE \"order\" SET payment_id = 'pay_1'")
        assert drain(conn) == [("payments", "main", "pay_1")]
        conn.exec_driver_sql("UPDATE \"order\" SET payment_status = 'captured'")
        assert drain(conn) == [("orders", "main", "1"), ("payments", "main", "pay_1")]
        conn.exec_driver_sql('DELETE FROM "order"')
        assert drain(conn) == [("orders", "main", "1"), ("payments", "main", "pay_1")]


def test_what_a_row_no_longer_belongs_to_is_noted(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.payments (merchant_id, id, amount, order_id, subscription_id, customer_id) "
            "VALUES ('m', '1', 5, 'o', 's', 'c')"
        )
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.subscriptions (merchant_id, id, order_id, customer_id) VALUES ('m', 's', 'o', 'c')"
        )
        drain(conn)
        conn.exec_driver_sql("UPDATE sample_shop.payments SET status = 'failed'")
        assert drain(conn) == [("payments", "m", "1")]
        conn.exec_driver_sql("UPDATE sample_shop.payments SET order_id = 'o2'")
        assert drain(conn) == [("orders", "m", "o"), ("payments", "m", "1")]
        conn.exec_driver_sql("DELETE FROM sample_shop.subscriptions")
        assert drain(conn) == [("customers", "m", "c"), ("orders", "m", "o"), ("subscriptions", "m", "s")]


def test_what_is_no_longer_mapped_has_no_triggers(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        assert not any("subscription" in name for name in triggers(conn))
        mapping = mapping_of("flask_razorpay_shop")
        sources.apply(conn, mapping)
        assert triggers(conn) == [
            "loyalty_capture_orders_insert",
            "loyalty_capture_orders_update",
            "loyalty_capture_payments_delete",
            "loyalty_capture_payments_insert",
            "loyalty_capture_payments_update",
            "loyalty_capture_subscription_orders_insert",
            "loyalty_capture_subscription_orders_update",
            "loyalty_capture_subscriptions_delete",
            "loyalty_capture_subscriptions_insert",
            "loyalty_capture_subscriptions_update",
        ]
        start, end = mapping.yaml_text.index("subscriptions:\n"), mapping.yaml_text.index("plans:\n")
        sources.apply(conn, parse_mapping(mapping.yaml_text[:start] + mapping.yaml_text[end:]))
        assert [name for name in triggers(conn) if "subscription" in name] == [
            "loyalty_capture_subscription_orders_insert",
            "loyalty_capture_subscription_orders_update",
        ]
        sources.apply(conn, mapping_of("django_shop"))
        assert len(triggers(conn)) == 5


def test_without_payments_and_subscriptions_orders_are_noted_for_their_points_only(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql("INSERT INTO merchants_merchant (id, name) VALUES (7, 'Seven')")
        conn.exec_driver_sql("INSERT INTO orders_order (merchant_id, total) VALUES (7, 1)")
        assert drain(conn) == [] and len(noted_orders(conn)) == 1


def test_the_shop_goes_on_when_the_inbox_of_subscriptions_is_gone_or_locked(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
    with engine.connect() as blocker, engine.connect() as shop:
        blocker.exec_driver_sql("LOCK TABLE loyalty.subscription_inbox IN ACCESS EXCLUSIVE MODE")
        shop.exec_driver_sql("INSERT INTO sample_shop.orders (merchant_id, id) VALUES ('m', '1')")
        shop.commit()
        assert noted_orders(shop) == ["1"]
        shop.rollback()
        blocker.rollback()
    with engine.begin() as conn:
        conn.exec_driver_sql("DROP TABLE loyalty.subscription_inbox")
    notices: list[str] = []
    with engine.begin() as conn:
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        conn.exec_driver_sql("INSERT INTO sample_shop.payments (merchant_id, id, amount) VALUES ('m', '1', 5)")
        assert conn.exec_driver_sql("SELECT count(*) FROM sample_shop.payments").scalar_one() == 1
    assert any("could not note changed payments" in notice for notice in notices), notices


@pytest.fixture
def shop_user(engine: Engine) -> Iterator[str]:
    """A role without rights; roles belong to the whole server, so it is removed again."""
    name = f"shop_{uuid4().hex[:12]}"
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
    yield name
    with engine.begin() as conn:
        conn.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
        conn.exec_driver_sql(f"DROP ROLE {name}")


def test_a_shop_user_without_rights_in_loyalty_is_captured(engine: Engine, shop_user: str):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(f"GRANT USAGE ON SCHEMA sample_shop TO {shop_user}")
        conn.exec_driver_sql(f"GRANT ALL ON sample_shop.payments TO {shop_user}")
        conn.exec_driver_sql(f"SET LOCAL ROLE {shop_user}")
        conn.exec_driver_sql("INSERT INTO sample_shop.payments (merchant_id, id, amount) VALUES ('m', '1', 5)")
        conn.exec_driver_sql("RESET ROLE")
        assert drain(conn) == [("payments", "m", "1")]


def test_views_partitions_and_missing_rights_are_told_to_poll(engine: Engine, shop_user: str):
    text_of = sample_shop.mapping().yaml_text
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("CREATE VIEW sample_shop.paid AS SELECT * FROM sample_shop.payments")
        mapping = parse_mapping(text_of.replace("relation: sample_shop.payments", "relation: sample_shop.paid"))
        (problem,) = sources.check(conn, mapping)
        assert (problem.path, problem.advice) == ("payments.relation", "set capture: poll")
        conn.exec_driver_sql("CREATE TABLE sample_shop.part () INHERITS (sample_shop.subscriptions)")
        mapping = parse_mapping(text_of.replace("relation: sample_shop.subscriptions", "relation: sample_shop.part"))
        problems = {problem.path: str(problem) for problem in sources.check(conn, mapping)}
        assert "child table" in problems["subscriptions.relation"]
        conn.exec_driver_sql(f"GRANT USAGE ON SCHEMA sample_shop TO {shop_user}")
        conn.exec_driver_sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA sample_shop TO {shop_user}")
        conn.exec_driver_sql(f"SET LOCAL ROLE {shop_user}")
        problems = {problem.path: str(problem) for problem in sources.check(conn, sample_shop.mapping())}
        conn.exec_driver_sql("RESET ROLE")
        for path in ("payments.relation", "subscriptions.relation"):
            assert "GRANT TRIGGER on it" in problems[path] and "set capture: poll" in problems[path]


def test_polling_says_whose_changes_it_cannot_see(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        notes = sources.apply(conn, in_poll_mode("flask_razorpay_shop")).notes
        assert [note for note in notes if note.startswith("subscriptions.columns.updated_at")], notes
        assert triggers(conn) == []
        sample_shop.create(conn)
        poll = parse_mapping(sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll"))
        assert not [note for note in sources.apply(conn, poll).notes if "updated_at" in note]
