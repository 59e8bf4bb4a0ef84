"""How changes of the shop's tables get into the inbox, and how orders are found by the shop's own keys."""

from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from loyalty_pipelines.db import sources
from loyalty_pipelines.domain.source_mapping import parse_mapping
from tests.shops import (
    create_django_shop,
    create_flask_razorpay_shop,
    create_supabase_shop,
    in_poll_mode,
    mapping_of,
)

MAPPING = """\
version: 1
capture: {capture}
merchants: {{rows: [{{merchant_id: main, name: My shop, timezone: UTC, currency: EUR}}]}}
orders:
  relation: {relation}
  columns:
    {{order_id: id, customer_id: customer, total_amount: total, status: state, paid_at: at, updated_at: upd}}
  status: {{paid: [paid]}}
  defaults: {{merchant_id: main, currency: EUR}}
"""
COLUMNS = "customer text, total numeric, state text, at timestamptz, upd timestamptz, note text"


def apply_small(conn: Connection, *, relation: str = "small", capture: str = "trigger", extra: str = "") -> None:
    sources.apply(conn, parse_mapping(MAPPING.format(relation=relation, capture=capture) + extra))


def problems_of_small(conn: Connection, relation: str) -> list[str]:
    mapping = parse_mapping(MAPPING.format(relation=relation, capture="trigger"))
    return [str(problem) for problem in sources.check(conn, mapping)]


def create_small(conn: Connection, key: str = "bigint PRIMARY KEY") -> None:
    conn.exec_driver_sql(f"CREATE TABLE public.small (id {key}, {COLUMNS})")


def drain(conn: Connection) -> list[tuple[str, str, str]]:
    """Empty the inbox and return merchant, customer and order of its rows, sorted."""
    taken = conn.execute(text("DELETE FROM loyalty.order_inbox RETURNING merchant_id, customer_id, order_id, source"))
    found = [tuple(row) for row in taken]
    assert all(source == "trigger" for *_, source in found)
    return sorted((merchant, customer, order) for merchant, customer, order, _ in found)


def triggers(conn: Connection) -> list[str]:
    query = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'loyalty_capture%' AND tgparentid = 0 ORDER BY 1"
    return list(conn.execute(text(query)).scalars())


# --- capture --------------------------------------------------------------------------------------------


def test_a_new_order_and_every_mapped_change_are_noted_and_nothing_else(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        apply_small(conn)
        conn.exec_driver_sql("INSERT INTO small (id, customer, state) VALUES (1, 'a', 'new'), (2, NULL, 'new')")
        assert drain(conn) == [("main", "", "2"), ("main", "a", "1")]
        conn.exec_driver_sql("UPDATE small SET note = 'x', upd = now()")
        assert drain(conn) == []
        conn.exec_driver_sql("UPDATE small SET state = 'paid' WHERE id = 1")
        assert drain(conn) == [("main", "a", "1")]
        conn.exec_driver_sql("UPDATE small SET state = 'paid'")
        assert drain(conn) == [("main", "", "2")]
        conn.exec_driver_sql("UPDATE small SET total = 5 WHERE id = 2")
        assert drain(conn) == [("main", "", "2")]
        conn.exec_driver_sql("UPDATE small SET total = 5.00 WHERE id = 2")
        assert drain(conn) == []


def test_a_change_of_customer_or_key_notes_both_sides(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        apply_small(conn)
        conn.exec_driver_sql("INSERT INTO small (id, customer) VALUES (1, 'a')")
        drain(conn)
        conn.exec_driver_sql("UPDATE small SET customer = 'b'")
        assert drain(conn) == [("main", "a", "1"), ("main", "b", "1")]
        conn.exec_driver_sql("UPDATE small SET id = 9")
        assert drain(conn) == [("main", "b", "1"), ("main", "b", "9")]


def test_a_deleted_order_is_not_noted(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        conn.exec_driver_sql("INSERT INTO small (id) VALUES (1)")
        apply_small(conn)
        conn.exec_driver_sql("DELETE FROM small")
        assert drain(conn) == []


def test_rows_without_a_key_are_not_noted(engine: Engine):
    with engine.begin() as conn:
        create_small(conn, key="text")
        apply_small(conn)
        conn.exec_driver_sql("INSERT INTO small (id) VALUES (NULL), ('1')")
        assert drain(conn) == [("main", "", "1")]


def test_a_row_that_enters_or_leaves_the_filter_is_noted_and_others_are_not(engine: Engine):
    with engine.begin() as conn:
        create_small(conn, key="text")
        mapping = MAPPING.format(relation="small", capture="trigger")
        mapping = mapping.replace("  status:", "  where: {note: [shop, web]}\n  status:")
        sources.apply(conn, parse_mapping(mapping))
        conn.exec_driver_sql("INSERT INTO small (id, note) VALUES ('draft', 'd'), ('order', 'shop')")
        assert drain(conn) == [("main", "", "order")]
        conn.exec_driver_sql("UPDATE small SET state = 'paid' WHERE id = 'draft'")
        assert drain(conn) == []
        conn.exec_driver_sql("UPDATE small SET note = 'web'")
        assert drain(conn) == [("main", "", "draft")]
        conn.exec_driver_sql("UPDATE small SET note = 'd' WHERE id = 'order'")
        assert drain(conn) == [("main", "", "order")]
        assert conn.exec_driver_sql("SELECT order_id FROM loyalty_source.orders").scalars().all() == ["draft"]


def test_columns_without_equality_are_compared_as_text(engine: Engine):
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE TABLE small (id int PRIMARY KEY, j json, x xml, p point, {COLUMNS})")
        mapping = MAPPING.format(relation="small", capture="trigger")
        mapping = mapping.replace("customer_id: customer,", "customer_id: j, order_number: p, store_id: x,")
        problems = sources.check(conn, parse_mapping(mapping))
        assert [problem.path for problem in problems] == [
            "orders.columns.customer_id",
            "orders.columns.store_id",
        ]
        sources.apply(
            conn,
            parse_mapping(mapping.replace("customer_id: j", "customer_id: customer").replace(", store_id: x", "")),
        )
        conn.exec_driver_sql("INSERT INTO small (id, p) VALUES (1, '(1,2)')")
        drain(conn)
        conn.exec_driver_sql("UPDATE small SET p = '(1,2)'")
        assert drain(conn) == []
        conn.exec_driver_sql("UPDATE small SET p = '(1,3)'")
        assert drain(conn) == [("main", "", "1")]


def test_copy_upsert_and_merge_are_noted(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        apply_small(conn)
        with conn.connection.cursor().copy("COPY small (id, customer) FROM STDIN") as copy:
            copy.write("1\tcopied\n2\tcopied\n")
        assert drain(conn) == [("main", "copied", "1"), ("main", "copied", "2")]
        conn.exec_driver_sql(
            "INSERT INTO small (id, total) VALUES (2, 7), (3, 7) ON CONFLICT (id) DO UPDATE SET total = excluded.total"
        )
        assert drain(conn) == [("main", "", "3"), ("main", "copied", "2")]


def test_a_partitioned_table_is_captured_through_its_parent(engine: Engine):
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE TABLE small (id bigint PRIMARY KEY, {COLUMNS}) PARTITION BY RANGE (id)")
        conn.exec_driver_sql("CREATE TABLE small_1 PARTITION OF small FOR VALUES FROM (0) TO (100)")
        conn.exec_driver_sql("CREATE TABLE small_2 PARTITION OF small FOR VALUES FROM (100) TO (200)")
        apply_small(conn)
        conn.exec_driver_sql("INSERT INTO small (id) VALUES (1), (101)")
        assert drain(conn) == [("main", "", "1"), ("main", "", "101")]
        conn.exec_driver_sql("UPDATE small SET id = 102 WHERE id = 1")
        assert drain(conn) == [("main", "", "1"), ("main", "", "102")]
        (problem,) = problems_of_small(conn, "small_1")
        assert "partition" in problem and "capture: poll" in problem


def test_refunds_note_their_order_when_added_changed_or_removed(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        applied = sources.apply(conn, mapping_of("django_shop"))
        assert len(applied.triggers) == 5
        first, second = sorted((str(uuid4()), str(uuid4())))
        refund = "INSERT INTO payments_refund (merchant_id, order_id, amount, status) VALUES (7, :o, 1, :s)"
        conn.execute(text(refund), {"o": first, "s": "pending"})
        assert drain(conn) == []
        conn.exec_driver_sql("UPDATE payments_refund SET status = 'succeeded'")
        assert drain(conn) == [("7", "", first)]
        conn.execute(text("UPDATE payments_refund SET order_id = :o"), {"o": second})
        assert drain(conn) == [("7", "", first), ("7", "", second)]
        conn.exec_driver_sql("DELETE FROM payments_refund")
        assert drain(conn) == [("7", "", second)]


def test_the_shop_goes_on_when_the_schema_loyalty_is_gone(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        conn.exec_driver_sql("INSERT INTO merchants_merchant (id, name) VALUES (7, 'Seven')")
        sources.apply(conn, mapping_of("django_shop"))
    warnings: list[str] = []
    with engine.begin() as conn:
        conn.exec_driver_sql("DROP SCHEMA loyalty CASCADE")
    with engine.begin() as conn:
        driver = conn.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.add_notice_handler(lambda note: warnings.append(f"{note.severity}: {note.message_primary}"))
        conn.exec_driver_sql("INSERT INTO orders_order (merchant_id, total) VALUES (7, 5)")
        conn.exec_driver_sql("UPDATE orders_order SET payment_status = 'paid'")
        conn.exec_driver_sql(
            "INSERT INTO payments_refund (merchant_id, order_id, amount) SELECT 7, id, 1 FROM orders_order"
        )
        conn.exec_driver_sql("DELETE FROM payments_refund")
    with engine.begin() as conn:
        assert conn.exec_driver_sql("SELECT payment_status FROM orders_order").scalar_one() == "paid"
    assert len(warnings) == 4
    assert all(warning.startswith("WARNING: loyalty could not note changed orders (42P01") for warning in warnings)


def test_the_shop_does_not_wait_for_a_locked_inbox(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        apply_small(conn)
    with engine.begin() as holder, engine.begin() as shop:
        holder.exec_driver_sql("LOCK TABLE loyalty.order_inbox IN ACCESS EXCLUSIVE MODE")
        shop.exec_driver_sql("SET LOCAL lock_timeout = '0'")
        shop.exec_driver_sql("SET LOCAL statement_timeout = '10s'")
        shop.exec_driver_sql("INSERT INTO small (id) VALUES (1)")
        assert shop.exec_driver_sql("SHOW lock_timeout").scalar_one() == "0"
        assert shop.exec_driver_sql("SELECT count(*) FROM small").scalar_one() == 1


def test_a_shop_user_without_any_right_in_loyalty_is_captured(engine: Engine, shop_user: str):
    with engine.begin() as conn:
        create_small(conn)
        apply_small(conn)
        conn.exec_driver_sql(f"GRANT ALL ON small TO {shop_user}")
        conn.exec_driver_sql(f"SET LOCAL ROLE {shop_user}")
        # Names that a shop's user could use to make the function do something else.
        conn.exec_driver_sql("CREATE TEMP TABLE order_inbox (merchant_id int)")
        conn.exec_driver_sql("INSERT INTO small (id) VALUES (1)")
        conn.exec_driver_sql("RESET ROLE")
        assert drain(conn) == [("main", "", "1")]


def test_switching_to_poll_or_to_another_table_removes_the_old_triggers(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        create_supabase_shop(conn)
        sources.apply(conn, mapping_of("supabase_shop"))
        assert len(triggers(conn)) == 13
        apply_small(conn)
        assert triggers(conn) == ["loyalty_capture_orders_insert", "loyalty_capture_orders_update"]
        apply_small(conn)
        assert len(triggers(conn)) == 2
        conn.exec_driver_sql("INSERT INTO orders (total_amount) VALUES (1)")
        conn.exec_driver_sql("INSERT INTO small (id) VALUES (1)")
        assert drain(conn) == [("main", "", "1")]
        apply_small(conn, capture="poll")
        assert triggers(conn) == []


def test_views_and_foreign_tables_are_told_to_poll(engine: Engine):
    with engine.begin() as conn:
        create_small(conn)
        conn.exec_driver_sql("CREATE VIEW public.small_view AS SELECT * FROM small")
        conn.exec_driver_sql("CREATE FOREIGN DATA WRAPPER nowhere")
        conn.exec_driver_sql("CREATE SERVER far FOREIGN DATA WRAPPER nowhere")
        conn.exec_driver_sql(f"CREATE FOREIGN TABLE public.small_far (id bigint, {COLUMNS}) SERVER far")
        for relation, kind in (("small_view", "a view"), ("small_far", "a foreign table")):
            (problem,) = problems_of_small(conn, relation)
            assert kind in problem and "set capture: poll" in problem
            apply_small(conn, relation=relation, capture="poll")
        conn.exec_driver_sql("DROP SERVER far CASCADE")
        conn.exec_driver_sql("DROP FOREIGN DATA WRAPPER nowhere")


# --- rights ---------------------------------------------------------------------------------------------


@pytest.fixture
def shop_user(engine: Engine) -> Iterator[str]:
    """A role that may log in and owns nothing; roles belong to the whole server, so it is removed again."""
    name = f"shop_{uuid4().hex[:12]}"
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE ROLE {name} LOGIN")
        conn.exec_driver_sql(f"GRANT CREATE, USAGE ON SCHEMA public TO {name}")
    yield name
    with engine.begin() as conn:
        conn.exec_driver_sql(f"DROP OWNED BY {name} CASCADE")
        conn.exec_driver_sql(f"DROP ROLE {name}")


def test_the_pipeline_reads_everything_without_a_right_on_the_shops_tables(engine: Engine):
    with engine.begin() as conn:
        create_supabase_shop(conn)
        sources.apply(conn, mapping_of("supabase_shop"))
        vendor = conn.exec_driver_sql("INSERT INTO vendors (store_name) VALUES ('V') RETURNING id").scalar_one()
        insert = text("INSERT INTO orders (vendor_id, total_amount) VALUES (:v, 1) RETURNING id")
        order = conn.execute(insert, {"v": vendor}).scalar_one()
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        # The table's row security shows nothing to anybody but its owner; the views read as their owner.
        look_up = text("SELECT count(*) FROM loyalty_source.order_by_id(:m, :o)")
        assert conn.execute(look_up, {"m": str(vendor), "o": str(order)}).scalar_one() == 1
        for view in ("merchants", "customers", "orders", "refunds", "payments", "subscriptions", "plans"):
            conn.exec_driver_sql(f"SELECT count(*) FROM loyalty_source.{view}")


def test_dashboards_see_orders_and_merchants_but_no_addresses(engine: Engine):
    query = "SELECT has_table_privilege('loyalty_reader', 'loyalty_source.' || :view, 'SELECT')"
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        seen = {
            view: conn.execute(text(query), {"view": view}).scalar_one()
            for view in ("orders", "merchants", "customers")
        }
        assert seen == {"orders": True, "merchants": True, "customers": False}


def test_the_capture_functions_belong_to_a_role_that_may_only_fill_the_inbox(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        functions = conn.exec_driver_sql(
            "SELECT proowner::regrole::text, prosecdef, proconfig,"
            " has_function_privilege('loyalty_reader', oid, 'EXECUTE')"
            " FROM pg_proc WHERE proname LIKE 'capture%%' AND pronamespace = 'loyalty_source'::regnamespace"
        ).all()
        settings = ["search_path=pg_catalog, pg_temp", "lock_timeout=200ms"]
        assert [tuple(row) for row in functions] == [("loyalty_capture", True, settings, False)] * 5
        may_create = "SELECT has_schema_privilege('loyalty_capture', 'loyalty_source', 'CREATE')"
        assert conn.exec_driver_sql(may_create).scalar_one() is False


def test_a_user_without_rights_reads_which_grants_are_missing(engine: Engine, shop_user: str):
    with engine.begin() as conn:
        create_small(conn)
        conn.exec_driver_sql(f"SET LOCAL ROLE {shop_user}")
        problems = " ".join(problems_of_small(conn, "small"))
        conn.exec_driver_sql("RESET ROLE")
    assert f"GRANT CREATE, USAGE ON SCHEMA loyalty_source TO {shop_user}" in problems
    assert f"GRANT loyalty_capture TO {shop_user}" in problems
    assert "GRANT SELECT on it" in problems
    assert "GRANT TRIGGER on it" in problems and "or set capture: poll" in problems


def test_an_ordinary_owner_of_the_shops_tables_can_apply_the_mapping(engine: Engine, shop_user: str):
    with engine.begin() as conn:
        conn.exec_driver_sql(f"GRANT CREATE, USAGE ON SCHEMA loyalty_source TO {shop_user} WITH GRANT OPTION")
        conn.exec_driver_sql(f"GRANT USAGE ON SCHEMA loyalty TO {shop_user}")
        conn.exec_driver_sql(f"GRANT SELECT, INSERT ON loyalty.source_mapping TO {shop_user}")
        # The right to hand the role on is enough: the script takes it, uses it and gives it back.
        conn.exec_driver_sql(f"GRANT loyalty_capture TO {shop_user} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE")
    owner = create_engine(engine.url.set(username=shop_user, password=None))
    try:
        for _ in range(2):
            with owner.begin() as conn:
                if _ == 0:
                    create_small(conn)
                apply_small(conn)
        with owner.begin() as conn:
            conn.exec_driver_sql("INSERT INTO small (id) VALUES (1)")
    finally:
        owner.dispose()
    with engine.begin() as conn:
        assert drain(conn) == [("main", "", "1")]
        assert (
            conn.execute(text("SELECT pg_has_role(:u, 'loyalty_capture', 'USAGE')"), {"u": shop_user}).scalar_one()
            is False
        )
        conn.exec_driver_sql("DROP FUNCTION loyalty_source.capture_orders_insert CASCADE")
        conn.exec_driver_sql("DROP FUNCTION loyalty_source.capture_orders_update CASCADE")


# --- looking orders up ----------------------------------------------------------------------------------


def fill(conn: Connection, key: str, value: str) -> None:
    """20,000 orders whose key has the type `key` and is made by the expression `value` from the number i."""
    create_small(conn, key=key)
    conn.exec_driver_sql(
        "INSERT INTO small (id, customer, total, state)"
        f" SELECT {value}, 'c', i, 'paid' FROM generate_series(1, 20000) AS i"
    )
    conn.exec_driver_sql("ANALYZE small")


LOOK_UP = """
SELECT t.order_id, x.order_id AS found_id, x.total_amount, x.status
FROM wanted AS t
LEFT JOIN LATERAL loyalty_source.order_by_id(t.merchant_id, t.order_id) AS x
    ON x.order_id COLLATE "C" = t.order_id
ORDER BY t.order_id
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("smallint", "i - 10000"),
        ("integer", "i"),
        ("bigint", "i + 9223372036854755807"),
        ("uuid", "md5(i::text)::uuid"),
        ("text", "'Order ' || i"),
        ('text COLLATE "C"', "'o' || i"),
        ("varchar(20)", "'o' || i"),
        ("char(20)", "'o' || i"),
        ("numeric", "i"),
    ],
)
def test_a_batch_is_looked_up_through_the_primary_key_of_the_shop(engine: Engine, key: str, value: str):
    with engine.begin() as conn:
        fill(conn, f"{key} PRIMARY KEY", value)
        apply_small(conn)
        conn.exec_driver_sql('CREATE TEMP TABLE wanted (merchant_id text COLLATE "C", order_id text COLLATE "C")')
        conn.exec_driver_sql("INSERT INTO wanted SELECT 'main', id::text FROM small LIMIT 50")
        conn.exec_driver_sql(
            "INSERT INTO wanted VALUES ('main', 'no such order'), ('other', (SELECT min(id::text) FROM small))"
        )
        conn.exec_driver_sql("ANALYZE wanted")
        plan = "\n".join(conn.exec_driver_sql(f"EXPLAIN {LOOK_UP}").scalars())
        assert "Function Scan" not in plan and "Seq Scan on small" not in plan, plan
        assert "small_pkey" in plan, plan
        found = conn.exec_driver_sql(LOOK_UP).all()
        assert len(found) == 52
        assert sum(row.found_id is not None for row in found) == 50
        assert all(row.found_id in (None, row.order_id) for row in found)


def test_refunds_of_a_batch_are_found_through_the_index_of_the_shop(engine: Engine):
    query = (
        "SELECT t.order_id, r.amount FROM wanted AS t LEFT JOIN LATERAL (SELECT sum(f.amount) AS amount"
        " FROM loyalty_source.refunds_of_order(t.merchant_id, t.order_id) AS f) AS r ON true"
    )
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql(
            "INSERT INTO payments_refund (merchant_id, order_id, amount)"
            " SELECT 7, md5(i::text)::uuid, i FROM generate_series(1, 20000) AS i"
        )
        conn.exec_driver_sql('CREATE TEMP TABLE wanted (merchant_id text COLLATE "C", order_id text COLLATE "C")')
        conn.exec_driver_sql("INSERT INTO wanted SELECT '7', order_id::text FROM payments_refund WHERE amount <= 50")
        conn.exec_driver_sql("ANALYZE payments_refund, wanted")
        plan = "\n".join(conn.exec_driver_sql(f"EXPLAIN {query}").scalars())
        assert "Function Scan" not in plan and "payments_refund_order_id" in plan, plan
        assert sum(row.amount for row in conn.exec_driver_sql(query)) == 50 * 51 / 2


@pytest.mark.parametrize(
    ("function", "index"),
    [
        ("orders_of_merchant('7')", "orders_order_merchant_id"),
        ("orders_changed_since('2024-05-01')", "order_updated"),
        ("refunds_changed_since('2024-05-01')", "refund_created"),
    ],
)
def test_the_other_functions_use_the_indexes_of_the_shop_too(engine: Engine, function: str, index: str):
    with engine.begin() as conn:
        create_django_shop(conn)
        conn.exec_driver_sql("CREATE INDEX order_updated ON orders_order (updated_at)")
        conn.exec_driver_sql("CREATE INDEX refund_created ON payments_refund (created_at)")
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
        plan = "\n".join(conn.exec_driver_sql(f"EXPLAIN SELECT * FROM loyalty_source.{function}").scalars())
        assert "Function Scan" not in plan and index in plan, plan


def test_changes_in_local_time_are_found_by_index_and_exactly(engine: Engine):
    changed = "SELECT order_id FROM loyalty_source.orders_changed_since('2024-10-27 00:30+00') ORDER BY order_id"
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        poll = in_poll_mode("flask_razorpay_shop").yaml_text.replace("timezone: UTC  ", "timezone: Europe/Paris  ")
        sources.apply(conn, parse_mapping(poll))
        # In Paris the hour from 02:00 to 03:00 comes twice that night.
        conn.exec_driver_sql(
            """INSERT INTO "order" (id, amount, updated_at) VALUES (1, 1, '2024-10-27 01:50'),"""
            " (2, 1, '2024-10-27 02:10'), (3, 1, '2024-10-27 03:10'), (4, 1, NULL)"
        )
        assert conn.exec_driver_sql(changed).scalars().all() == ["2", "3"]
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
        assert "order_updated_at" in "\n".join(conn.exec_driver_sql(f"EXPLAIN {changed}").scalars())


@pytest.mark.parametrize(
    ("key", "value", "strangers"),
    [
        (
            "bigint",
            "7",
            ["007", "+7", " 7", "7 ", "7.0", "-0", "", "9" * 19, "9" * 200_000, "1e1", "x", "\U0001f4a5"],
        ),
        (
            "uuid",
            "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
            [
                "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
                "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
                "a0eebc999c0b4ef8bb6d6bb9bd380a11",
                "a-eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
                "a0eebc9-9c0b-4ef8-bb6d-6bb9bd380a11",
                "-" * 36,
                "a" * 36,
                "",
            ],
        ),
        ("numeric", "7", ["7.0", "07", "NaN", "Infinity", "9" * 200_000, ""]),
        ("char(5)", "'ab'", ["ab   ", "AB", ""]),
    ],
)
def test_only_the_exact_text_of_a_key_finds_the_order_and_no_text_raises(
    engine: Engine, key: str, value: str, strangers: list[str]
):
    look_up = text("SELECT count(*) FROM loyalty_source.order_by_id('main', :id)")
    with engine.begin() as conn:
        create_small(conn, key=f"{key} PRIMARY KEY")
        apply_small(conn)
        conn.exec_driver_sql(f"INSERT INTO small (id) VALUES ({value})")
        exact = conn.exec_driver_sql("SELECT order_id FROM loyalty_source.orders").scalar_one()
        assert conn.execute(look_up, {"id": exact}).scalar_one() == 1
        for stranger in strangers:
            assert conn.execute(look_up, {"id": stranger}).scalar_one() == 0


def test_the_default_merchant_has_the_orders_without_one(engine: Engine):
    mapping = MAPPING.format(relation="small", capture="trigger").replace(
        "{order_id: id", "{merchant_id: m, order_id: id"
    )
    mapping = mapping.replace("rows: [", "rows: [{merchant_id: '5', name: F, timezone: UTC, currency: EUR}, ")
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE TABLE small (id int PRIMARY KEY, m int, {COLUMNS})")
        sources.apply(conn, parse_mapping(mapping))
        conn.exec_driver_sql("INSERT INTO small (id, m) VALUES (1, 5), (2, NULL)")
        assert drain(conn) == [("5", "", "1"), ("main", "", "2")]
        look_up = text("SELECT count(*) FROM loyalty_source.order_by_id(:m, :o)")
        found = [(m, o) for m in ("5", "main") for o in "12" if conn.execute(look_up, {"m": m, "o": o}).scalar_one()]
        assert found == [("5", "1"), ("main", "2")]
        assert conn.exec_driver_sql(
            "SELECT order_id FROM loyalty_source.orders_of_merchant('main')"
        ).scalars().all() == ["2"]


@pytest.mark.parametrize(
    ("key", "notes"),
    [
        ("int PRIMARY KEY", 0),
        ("int UNIQUE", 0),
        ("int", 1),
        ("int, part int, UNIQUE (id, part)", 1),
        ("int, part int, EXCLUDE (id WITH =)", 1),
        ("int, part int, UNIQUE (part) INCLUDE (id)", 1),
        ("int, part int, UNIQUE (id) INCLUDE (part)", 0),
    ],
)
def test_a_relation_that_may_show_an_order_twice_is_pointed_out(engine: Engine, key: str, notes: int):
    with engine.begin() as conn:
        create_small(conn, key=key)
        applied = sources.apply(conn, parse_mapping(MAPPING.format(relation="small", capture="trigger")))
        assert len(applied.notes) == notes
        assert all("orders: no unique index on public.small" in note for note in applied.notes)
        conn.exec_driver_sql("CREATE UNIQUE INDEX ON small (id) WHERE id > 5")
        assert len(sources.apply(conn, applied.mapping).notes) == notes
        conn.exec_driver_sql("CREATE UNIQUE INDEX ON small (id)")
        assert sources.apply(conn, applied.mapping).notes == ()


def test_a_key_of_a_type_without_an_index_works_and_is_pointed_out(engine: Engine):
    with engine.begin() as conn:
        create_small(conn, key="bytea PRIMARY KEY")
        applied = sources.apply(conn, parse_mapping(MAPPING.format(relation="small", capture="trigger")))
        assert len(applied.notes) == 1 and "orders.columns.order_id" in applied.notes[0]
        conn.exec_driver_sql("INSERT INTO small (id) VALUES ('\\x0a')")
        (noted,) = drain(conn)
        look_up = text("SELECT count(*) FROM loyalty_source.order_by_id('main', :id)")
        assert conn.execute(look_up, {"id": noted[2]}).scalar_one() == 1
