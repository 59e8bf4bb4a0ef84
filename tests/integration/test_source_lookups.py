"""How many payments, subscriptions and orders are found at once by the shop's own keys."""

import pytest
from sqlalchemy import Connection, Engine, text

from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.db.sources_lookups import SET_FUNCTIONS
from loyalty_pipelines.db.sources_views import view_columns
from loyalty_pipelines.domain.source_mapping import SOURCE_RELATIONS, parse_mapping
from tests.shops import create_django_shop, create_flask_razorpay_shop, create_supabase_shop, mapping_of

MAPPING = """\
version: 1
capture: poll
timezone: Europe/Paris
merchants: {rows: [{merchant_id: main, name: My shop, timezone: UTC, currency: EUR}]}
orders:
  relation: bought
  columns: {order_id: id, customer_id: who, total_amount: total, status: state, paid_at: at, updated_at: at}
  status: {paid: [paid]}
  defaults: {merchant_id: main, currency: EUR}
subscriptions:
  relation: bought
  columns: {subscription_id: id, customer_id: who, plan_id: what, order_id: id, status: state, created_at: at}
  status: {active: [paid]}
  defaults: {merchant_id: main}
"""


def call(conn: Connection, function: str, *keys: tuple[str, str]) -> list[dict]:
    query = text(f"SELECT * FROM loyalty_source.{function}(:merchants, :ids)")
    values = {"merchants": [merchant for merchant, _ in keys], "ids": [key for _, key in keys]}
    return [dict(row._mapping) for row in conn.execute(query, values)]


def ids(conn: Connection, function: str, *keys: tuple[str, str]) -> list[str]:
    key = SOURCE_RELATIONS[function.partition("_")[0]].key[1]
    return sorted(row[key] for row in call(conn, function, *keys))


def explain(conn: Connection, query: str) -> str:
    return "\n".join(conn.exec_driver_sql(f"EXPLAIN {query}").scalars())


def add_payments(conn: Connection, count: int) -> None:
    """Payments p1 to p<count> of merchant m; each has its order, its subscription, its customer."""
    conn.exec_driver_sql(
        "INSERT INTO sample_shop.payments (merchant_id, id, order_id, subscription_id, customer_id, amount)"
        f" SELECT 'm', 'p' || i, 'o' || i, 's' || i, 'c' || i, i FROM generate_series(1, {count}) AS i"
    )
    conn.exec_driver_sql(
        "INSERT INTO sample_shop.subscriptions (merchant_id, id, order_id, customer_id)"
        f" SELECT 'm', 's' || i, 'o' || i, 'c' || i FROM generate_series(1, {count}) AS i"
    )
    conn.exec_driver_sql(
        "INSERT INTO sample_shop.orders (merchant_id, id, customer_id, plan_id)"
        f" SELECT 'm', 'o' || i, 'c' || i, 'plan' FROM generate_series(1, {count}) AS i"
    )
    conn.exec_driver_sql("ANALYZE sample_shop.payments, sample_shop.subscriptions, sample_shop.orders")


FUNCTIONS = [name for functions in SET_FUNCTIONS.values() for name in functions]
INDEXES = {
    "orders_by_ids": "orders_pkey",
    "orders_of_customers": "orders_by_customer",
    "payments_by_ids": "payments_pkey",
    "payments_of_orders": "payments_by_order",
    "payments_of_subscriptions": "payments_by_subscription",
    "payments_of_customers": "payments_by_customer",
    "subscriptions_by_ids": "subscriptions_pkey",
    "subscriptions_of_orders": "subscriptions_by_order",
    "subscriptions_of_customers": "subscriptions_by_customer",
}


def key_of(function: str, number: int) -> str:
    relation = function.partition("_")[0]
    return f"{SET_FUNCTIONS[relation][function][0]}{number}"


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_row_is_found_once_by_its_merchant_and_key(engine: Engine, function: str):
    with engine.begin() as conn:
        sample_shop.create(conn)
        add_payments(conn, 5)
        key = key_of(function, 3)
        found = call(conn, function, ("m", key), ("m", key), ("m", "nobody"), ("other", key), ("m", ""))
        relation = SOURCE_RELATIONS[function.partition("_")[0]]
        assert [row[relation.key[1]] for row in found] == [f"{relation.name[0]}3"]
        assert list(found[0]) == [name for name, _ in view_columns(relation)]
        assert call(conn, function) == []


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_few_keys_are_found_through_the_indexes_of_the_shop(engine: Engine, function: str):
    with engine.begin() as conn:
        sample_shop.create(conn)
        add_payments(conn, 20_000)
        conn.exec_driver_sql('CREATE TEMP TABLE wanted (merchant_id text, id text COLLATE "C")')
        conn.exec_driver_sql(
            f"INSERT INTO wanted SELECT 'm', '{key_of(function, 0)[0]}' || i FROM generate_series(1, 9) AS i"
        )
        few = f"SELECT x.* FROM loyalty_source.{function}(ARRAY['m', 'm'], ARRAY['{key_of(function, 1)}', 'x']) AS x"
        plan = explain(conn, few)
        assert INDEXES[function] in plan and "Function Scan on " + function not in plan, plan
        assert "Seq Scan" not in plan, plan
        # Arrays of two collations, which PostgreSQL doesn't know before it runs.
        gathered = (
            "SELECT x.* FROM (SELECT array_agg(merchant_id) AS m, array_agg(id) AS i FROM wanted) AS w"
            f" CROSS JOIN LATERAL loyalty_source.{function}(w.m, w.i) AS x"
        )
        plan = explain(conn, gathered)
        assert INDEXES[function] in plan and "Seq Scan on " + function.partition("_")[0] not in plan, plan
        assert len(conn.exec_driver_sql(gathered).all()) == 9


def test_a_key_without_an_index_is_found_by_one_scan(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("DROP INDEX sample_shop.payments_by_order")
        add_payments(conn, 20_000)
        keys = ", ".join(f"'o{number}'" for number in range(1, 200))
        merchants = ", ".join("'m'" for _ in range(1, 200))
        query = f"SELECT payment_id FROM loyalty_source.payments_of_orders(ARRAY[{merchants}], ARRAY[{keys}])"
        plan = explain(conn, query)
        assert plan.count("Seq Scan on payments") == 1 and "Hash Join" in plan, plan
        assert len(conn.exec_driver_sql(query).all()) == 199


@pytest.mark.parametrize(
    ("key", "value", "wrong"),
    [
        ("integer", "7", "07"),
        ("bigint", "9223372036854775807", "9223372036854775808"),
        ("numeric", "7", "7.0"),
        ("uuid", "0b8c2f0e-4a0d-4b1a-9d0c-0123456789ab", "0B8C2F0E-4A0D-4B1A-9D0C-0123456789AB"),
        ("varchar(40)", "o7", "O7"),
        ("char(40)", "o7", "o7 "),
        ("text", "o'7\\", "o'7"),
    ],
)
def test_keys_of_every_type_are_found_by_their_exact_text(engine: Engine, key: str, value: str, wrong: str):
    with engine.begin() as conn:
        conn.exec_driver_sql(
            f"CREATE TABLE bought (id {key} PRIMARY KEY, who {key}, what {key}, total int, state text, at timestamptz)"
        )
        sources.apply(conn, parse_mapping(MAPPING))
        insert = "INSERT INTO bought VALUES (CAST(:v AS {0}), CAST(:v AS {0}), CAST(:v AS {0}), 1, 'paid', now())"
        conn.execute(text(insert.format(key)), {"v": value})
        for function in ("orders_by_ids", "orders_of_customers", *SET_FUNCTIONS["subscriptions"]):
            keys = [("main", value), ("main", wrong), ("other", value), ("main", "no key at all"), ("main", "")]
            assert ids(conn, function, *keys) == [value], function


def test_a_key_or_a_relation_that_is_not_mapped_finds_nothing(engine: Engine):
    with engine.begin() as conn:
        create_supabase_shop(conn)
        sources.apply(conn, mapping_of("supabase_shop"))
        vendor = conn.exec_driver_sql("INSERT INTO vendors (store_name) VALUES ('V') RETURNING id::text").scalar_one()
        insert = (
            "INSERT INTO payment_transactions"
            " (vendor_id, reference_type, reference_id, transaction_type, amount, status)"
            " VALUES (CAST(:v AS uuid), :type, 'o1', 'payment', 40, 'completed')"
        )
        conn.execute(text(insert), [{"v": vendor, "type": "order"}, {"v": vendor, "type": "gift_card"}])
        (payment,) = call(conn, "payments_of_orders", (vendor, "o1"))
        assert (payment["amount"], payment["plan_id"]) == (40, None)
        assert ids(conn, "payments_by_ids", (vendor, payment["payment_id"])) == [payment["payment_id"]]
        assert ids(conn, "payments_of_subscriptions", (vendor, "o1")) == []
        assert ids(conn, "subscriptions_by_ids", (vendor, "o1")) == []
        for changed in ("payments", "subscriptions"):
            query = f"SELECT * FROM loyalty_source.{changed}_changed_since('-infinity')"
            assert conn.exec_driver_sql(query).all() == []


def test_one_table_of_orders_and_payments_of_a_single_merchant_is_found_by_integers(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql("INSERT INTO \"user\" (email) VALUES ('a@example.com')")
        conn.exec_driver_sql("INSERT INTO meal_plan (name, price_weekly) VALUES ('Lunch', 49900)")
        conn.exec_driver_sql(
            "INSERT INTO \"order\" (user_id, payment_id, amount) VALUES (1, 'pay_1', 49900), (1, NULL, 1)"
        )
        conn.exec_driver_sql("INSERT INTO subscription (user_id, meal_plan_id, order_id) VALUES (1, 1, 2)")
        assert ids(conn, "orders_of_customers", ("main", "1")) == ["1", "2"]
        assert ids(conn, "payments_of_customers", ("main", "1"), ("elsewhere", "1")) == ["pay_1"]
        assert ids(conn, "payments_by_ids", ("main", "pay_1")) == ["pay_1"]
        assert ids(conn, "subscriptions_of_orders", ("main", "2"), ("main", "1")) == ["1"]


def test_orders_with_uuids_of_a_numbered_merchant_are_found(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql("INSERT INTO merchants_merchant (id, name) VALUES (7, 'Seven')")
        order = conn.exec_driver_sql("INSERT INTO orders_order (merchant_id, total) VALUES (7, 1) RETURNING id::text")
        key = order.scalar_one()
        assert ids(conn, "orders_by_ids", ("7", key), ("07", key), ("8", key)) == [key]


def test_an_empty_id_of_the_shop_is_nobodys(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.payments (merchant_id, id, order_id, amount) VALUES ('m', 'p', '', 1)"
        )
        assert ids(conn, "payments_of_orders", ("m", "")) == []


@pytest.mark.parametrize("relation", ["payments", "subscriptions"])
def test_what_changed_since_is_found_by_the_index_on_updated_at(engine: Engine, relation: str):
    with engine.begin() as conn:
        sample_shop.create(conn)
        add_payments(conn, 3)
        conn.exec_driver_sql(f"CREATE INDEX changed ON sample_shop.{relation} (updated_at)")
        conn.exec_driver_sql(
            f"UPDATE sample_shop.{relation} SET updated_at = CAST('2024-05-0' || right(id, 1) AS date)"
        )
        query = f"SELECT * FROM loyalty_source.{relation}_changed_since('2024-05-02')"
        key = relation[0]
        assert sorted(conn.exec_driver_sql(query).all()) == [("m", f"{key}2"), ("m", f"{key}3")]
        conn.exec_driver_sql("SET LOCAL enable_seqscan = off")
        assert "changed" in explain(conn, query)


def test_the_pipeline_may_call_them_and_everybody_else_may_not(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        for function in FUNCTIONS:
            assert call(conn, function, ("m", "1")) == []
        conn.exec_driver_sql("RESET ROLE")
        query = "SELECT has_function_privilege('loyalty_reader', p.oid, 'EXECUTE') FROM pg_proc AS p"
        where = "pronamespace = 'loyalty_source'::regnamespace AND proname = ANY(:names)"
        assert set(conn.execute(text(f"{query} WHERE {where}"), {"names": FUNCTIONS}).scalars()) == {False}
