"""What fixes write into the tables of shops, and that undoing them leaves no trace."""

import json
from datetime import UTC, datetime
from hashlib import md5
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.db import sample_shop, shop_fixes, sources
from loyalty_pipelines.domain.source_mapping import FunctionName, SourceMapping, parse_mapping
from tests.shops import create_flask_razorpay_shop, mapping_of

WRITE = "\nfixes: {create_subscription: write, update_subscription: write}\n"
UUID_TABLE = """
CREATE TYPE public.state AS ENUM ('on', 'running', 'off');
CREATE TABLE public.member (
    id uuid PRIMARY KEY, shop_id bigint, who uuid NOT NULL, plan varchar(20) NOT NULL, state public.state NOT NULL,
    price numeric(12, 4), money varchar(3), starts timestamptz, ends timestamptz, stopped timestamptz,
    free integer NOT NULL DEFAULT 0, made timestamptz NOT NULL, kind text NOT NULL DEFAULT 'other', note text
);
"""
UUID_MAPPING = """\
version: 1
capture: poll
timezone: UTC
merchants: {rows: [{merchant_id: "7", name: Seven, timezone: UTC, currency: EUR}]}
orders:
  relation: member
  columns: {order_id: id, customer_id: who, total_amount: price, status: state, paid_at: made, updated_at: made}
  status: {paid: ["on"]}
  defaults: {merchant_id: "7", currency: EUR}
subscriptions:
  relation: member
  columns: {merchant_id: shop_id, subscription_id: id, customer_id: who, plan_id: plan, status: state, amount: price,
    currency: money, current_period_start: starts, current_period_end: ends, cancelled_at: stopped,
    is_complimentary: free, created_at: made}
  status: {active: ["running", "on"], cancelled: ["off"]}
  where: {kind: [membership, club]}
"""
WHO = "0b8c2f0e-4a0d-4b1a-9d0c-0123456789ab"


def create_subscription(conn: Connection, values: dict) -> str:
    """Add a subscription with the view's function, as a batch of fixes does; amounts and times are texts."""
    statement = text("SELECT loyalty_source.create_subscription(CAST(:given AS jsonb))")
    return conn.execute(statement, {"given": json.dumps(values, default=str)}).scalar_one()


def update_subscription(conn: Connection, merchant_id: str, subscription_id: str, changes: dict) -> bool:
    """Change a subscription with the view's function."""
    statement = text("SELECT loyalty_source.update_subscription(:merchant, :id, CAST(:changes AS jsonb))")
    values = {"merchant": merchant_id, "id": subscription_id, "changes": json.dumps(changes, default=str)}
    return conn.execute(statement, values).scalar_one()


def sample_mapping(**replacements: str) -> SourceMapping:
    found = sample_shop.mapping().yaml_text
    for old, new in replacements.items():
        assert old in found
        found = found.replace(old, new)
    return parse_mapping(found)


def create_sample(conn: Connection) -> tuple[str, dict]:
    sample_shop.create(conn)
    conn.exec_driver_sql(
        "INSERT INTO sample_shop.subscriptions (merchant_id, id, customer_id, plan_id, status, price, currency,"
        " period_start, period_end, updated_at) VALUES ('m', 's1', 'c1', 'p1', 'active', 19.900, 'EUR',"
        " '2024-05-01 10:00:00.123456+02', '2024-06-01', '2024-05-01 10:00:00.000001'), ('m', 's2', 'c1', 'p1',"
        " 'active', 1, 'EUR', NULL, NULL, 'infinity')"
    )
    return "sample_shop.subscriptions", {"merchant_id": "m", "customer_id": "c1", "plan_id": "p1"}


def create_flask(conn: Connection) -> tuple[str, dict]:
    create_flask_razorpay_shop(conn)
    sources.apply(conn, parse_mapping(mapping_of("flask_razorpay_shop").yaml_text + WRITE))
    conn.exec_driver_sql("INSERT INTO \"user\" (email) VALUES ('a@example.com')")
    conn.exec_driver_sql("INSERT INTO meal_plan (name, price_weekly) VALUES ('Lunch', 49900)")
    conn.exec_driver_sql(
        "INSERT INTO subscription (user_id, meal_plan_id, status, price, start_date, end_date, created_at) VALUES"
        " (1, 1, 'active', 49900, '2024-05-01', '2024-05-08', '2024-05-01 10:00:00.123456'),"
        " (1, 1, NULL, 1, NULL, NULL, NULL)"
    )
    return "subscription", {"merchant_id": "main", "customer_id": "1", "plan_id": "1"}


def create_uuids(conn: Connection) -> tuple[str, dict]:
    for statement in UUID_TABLE.split(";\n"):
        conn.exec_driver_sql(statement)
    sources.apply(conn, parse_mapping(UUID_MAPPING + WRITE))
    conn.exec_driver_sql(
        "INSERT INTO member (id, shop_id, who, plan, state, price, starts, made, kind, note) SELECT"
        f" md5(i::text)::uuid, 7, '{WHO}', 'gold', 'on', 19.9, '2024-05-01 10:00:00.5', '2024-05-01', 'club', 'n'"
        " FROM generate_series(1, 2) AS i"
    )
    return "member", {"merchant_id": "7", "customer_id": WHO, "plan_id": "gold", "created_at": "2024-05-01T00:00:00Z"}


SHOPS = {"sample": create_sample, "flask": create_flask, "uuids": create_uuids}


def contents(conn: Connection, table: str) -> list[str]:
    return list(conn.exec_driver_sql(f"SELECT t::text FROM {table} AS t ORDER BY 1").scalars())


def subscription(conn: Connection, subscription_id: str) -> dict:
    query = text("SELECT * FROM loyalty_source.subscriptions WHERE subscription_id = :id")
    return dict(conn.execute(query, {"id": subscription_id}).one()._mapping)


def fails(conn: Connection, message: str, call, *values: object) -> None:
    with pytest.raises(DBAPIError, match=message), conn.begin_nested():
        call(conn, *values)


@pytest.mark.parametrize("shop", SHOPS)
def test_an_update_is_in_our_words_and_undoing_it_leaves_no_trace(engine: Engine, shop: str):
    with engine.begin() as conn:
        table, given = SHOPS[shop](conn)
        merchant = given["merchant_id"]
        key = conn.exec_driver_sql("SELECT min(subscription_id) FROM loyalty_source.subscriptions").scalar_one()
        before = contents(conn, table)
        # Whatever the session's settings, the values are the same.
        conn.exec_driver_sql("SET LOCAL TimeZone = 'Asia/Kolkata'")
        conn.exec_driver_sql("SET LOCAL DateStyle = 'German, DMY'")
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        row = shop_fixes.lock_subscription(conn, merchant, key)
        assert row is not None and row == shop_fixes.subscription_row(conn, merchant, key)
        ends = datetime(2024, 7, 1, tzinfo=UTC)
        changes = {
            "status": "cancelled",
            "current_period_end": ends,
            "cancelled_at": "2024-06-02T12:30:00.000001+02:00",
        }
        assert update_subscription(conn, merchant, key, {**changes, "current_period_start": None}) is True
        conn.exec_driver_sql("RESET ROLE")
        conn.exec_driver_sql("SET LOCAL DateStyle TO DEFAULT")
        conn.exec_driver_sql("SET LOCAL TimeZone TO DEFAULT")
        changed = subscription(conn, key)
        assert (changed["status"], changed["current_period_end"], changed["current_period_start"]) == (
            "cancelled",
            ends,
            None,
        )
        assert changed["cancelled_at"] == datetime(2024, 6, 2, 10, 30, 0, 1, tzinfo=UTC)
        assert contents(conn, table) != before
        assert sum(line in before for line in contents(conn, table)) == 1
        conn.exec_driver_sql("SET LOCAL TimeZone = 'America/New_York'")
        conn.exec_driver_sql("SET LOCAL DateStyle = 'SQL, MDY'")
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        assert shop_fixes.restore_subscription(conn, merchant, key, row) is True
        assert shop_fixes.subscription_row(conn, merchant, key) == row
    with engine.begin() as conn:
        assert contents(conn, table) == before


@pytest.mark.parametrize("shop", SHOPS)
def test_a_new_subscription_is_shown_as_it_was_asked_for_and_can_be_removed(engine: Engine, shop: str):
    with engine.begin() as conn:
        table, given = SHOPS[shop](conn)
        before = contents(conn, table)
        start, end = datetime(2024, 5, 1, tzinfo=UTC), datetime(2024, 6, 1, tzinfo=UTC)
        values = {**given, "status": "active", "amount": "499.00", "currency": "INR" if shop == "flask" else "USD"}
        values |= {"current_period_start": start, "current_period_end": end, "is_complimentary": True}
        values |= {"subscription_id": "fix 1", "order_id": None}
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        key = create_subscription(conn, values)
        conn.exec_driver_sql("RESET ROLE")
        assert key == {"sample": "fix 1", "flask": "3", "uuids": str(UUID(md5(b"fix 1").hexdigest()))}[shop]
        made = subscription(conn, key)
        for name in ("merchant_id", "customer_id", "plan_id", "status", "currency", "is_complimentary"):
            assert made[name] == values[name], name
        assert (made["amount"], made["current_period_start"], made["current_period_end"]) == (499, start, end)
        assert made["created_at"] is not None
        assert made["source_status"] == ("running" if shop == "uuids" else "active")
        assert shop_fixes.remove_subscription(conn, given["merchant_id"], key) is True
        assert shop_fixes.remove_subscription(conn, given["merchant_id"], key) is False
        assert contents(conn, table) == before


def test_what_cannot_be_written_says_why_and_writes_nothing(engine: Engine):
    with engine.begin() as conn:
        table, given = create_flask(conn)
        before = contents(conn, table)
        for changes, message in (
            ({"status": "active", "plan_id": "2"}, "subscriptions.columns.plan_id is not mapped or can't be changed"),
            ({"status": "unrecognized"}, "no word for the status unrecognized: list one in subscriptions.status.unrec"),
            ({"status": None}, "no word for the status <NULL>"),
            ({"current_period_end": "soon"}, "invalid input syntax"),
        ):
            fails(conn, message, update_subscription, "main", "1", changes)
        for values, message in (
            (
                {"merchant_id": "other"},
                "subscriptions.defaults.merchant_id is main, so a subscription can't have other",
            ),
            ({"currency": "EUR"}, "subscriptions.defaults.currency is INR"),
            ({"colour": "red"}, "subscriptions have no field colour"),
            ({"status": "gone"}, "list one in subscriptions.status.gone"),
            ({"amount": "1.005"}, "invalid input syntax for type integer"),
            ({"customer_id": "nobody"}, "invalid input syntax for type integer"),
        ):
            fails(conn, message, create_subscription, {**given, "status": "active", **values})
        assert update_subscription(conn, "main", "9", {"status": "paused"}) is False
        assert update_subscription(conn, "other", "1", {"status": "paused"}) is False
        assert shop_fixes.restore_subscription(conn, "main", "01", "{}") is False
        assert shop_fixes.lock_subscription(conn, "main", "9") is None
        assert contents(conn, table) == before


def test_a_new_id_is_given_where_the_shop_makes_none(engine: Engine):
    with engine.begin() as conn:
        _, given = create_uuids(conn)
        values = {**given, "status": "active"}
        fails(conn, "needs subscription_id", create_subscription, values)
        fails(conn, "needs merchant_id", create_subscription, {"subscription_id": "x"})
        assert create_subscription(conn, {**values, "subscription_id": WHO.upper()}) == WHO
        row = conn.exec_driver_sql(f"SELECT kind, free FROM member WHERE id = '{WHO}'").one()
        assert tuple(row) == ("membership", 0)
        fails(conn, "duplicate key", create_subscription, {**values, "subscription_id": WHO})


def test_only_what_is_set_is_an_update_of_and_updated_at_says_when(engine: Engine):
    with engine.begin() as conn:
        create_sample(conn)
        conn.exec_driver_sql("CREATE TABLE seen (what text)")
        conn.exec_driver_sql(
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN INSERT INTO seen VALUES (TG_ARGV[0]); RETURN NEW; END'"
        )
        for column in ("status", "period_end"):
            conn.exec_driver_sql(
                f"CREATE TRIGGER see_{column} AFTER UPDATE OF {column} ON sample_shop.subscriptions"
                f" FOR EACH ROW EXECUTE FUNCTION see('{column}')"
            )
        assert update_subscription(conn, "m", "s1", {"status": "paused"})
        assert list(conn.exec_driver_sql("SELECT what FROM seen").scalars()) == ["status"]
        query = "SELECT id FROM sample_shop.subscriptions WHERE updated_at = now()"
        assert list(conn.exec_driver_sql(query).scalars()) == ["s1"]


def test_rows_are_found_by_the_index_of_the_shop(engine: Engine):
    with engine.begin() as conn:
        create_sample(conn)
        conn.exec_driver_sql("DELETE FROM sample_shop.subscriptions")
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.subscriptions (merchant_id, id, status) SELECT 'm', 's' || i, 'active'"
            " FROM generate_series(1, 20000) AS i"
        )
        conn.exec_driver_sql("ANALYZE sample_shop.subscriptions")

    def rows_scanned(conn: Connection) -> int:
        query = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'subscriptions'"
        return conn.exec_driver_sql(query).scalar_one()

    with engine.connect() as conn:
        before = rows_scanned(conn)
        row = shop_fixes.lock_subscription(conn, "m", "s7")
        assert row is not None
        assert update_subscription(conn, "m", "s7", {"status": "paused"})
        assert shop_fixes.restore_subscription(conn, "m", "s7", row)
        assert shop_fixes.remove_subscription(conn, "m", "s7")
        assert rows_scanned(conn) == before


def test_the_raw_row_of_a_payment_is_read_and_nothing_else(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql(
            "INSERT INTO \"order\" (payment_id, amount, paid_at) VALUES ('pay_1', 49900, '2024-05-01')"
        )
        conn.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        row = json.loads(shop_fixes.payment_row(conn, "main", "pay_1") or "")
        assert (row["payment_id"], row["amount"], row["order_id"]) == ("pay_1", 49900, 1)
        assert row["captured_at"] == "2024-05-01T00:00:00"
        assert shop_fixes.payment_row(conn, "other", "pay_1") is None
        assert shop_fixes.subscription_row(conn, "main", "1") is None


def test_only_what_the_mapping_allows_exists(engine: Engine):
    def functions(conn: Connection) -> set[str]:
        query = (
            "SELECT proname FROM pg_proc WHERE pronamespace = 'loyalty_source'::regnamespace"
            " AND (proname LIKE '%subscription' OR proname LIKE '%_row')"
            " UNION SELECT relname FROM pg_class WHERE relname = 'writable_subscriptions'"
        )
        return set(conn.execute(text(query)).scalars())

    rows = {"payment_row", "subscription_row"}
    create = {"create_subscription", "remove_subscription"}
    update = {"update_subscription", "restore_subscription"}
    both = {"lock_subscription", "writable_subscriptions"}
    with engine.begin() as conn:
        sample_shop.create(conn)
        assert functions(conn) == rows | create | update | both
        sources.apply(conn, sample_mapping(**{"  create_subscription: write\n": ""}))
        assert functions(conn) == rows | update | both
        sources.apply(conn, sample_mapping(**{"  update_subscription: write\n": ""}))
        assert functions(conn) == rows | create | both
        sources.withdraw(conn)
        assert functions(conn) == rows
        assert shop_fixes.subscription_row(conn, "m", "1") is None
        sources.apply(
            conn, sample_mapping(**{"fixes:\n  create_subscription: write\n  update_subscription: write": ""})
        )
        assert functions(conn) == rows and sources.require_mapping(conn).fixes is None
        sources.apply(conn, sample_mapping())
        fixes = sources.require_mapping(conn).fixes
        assert fixes is not None and list(fixes.actions) == ["create_subscription", "update_subscription"]
        query = (
            "SELECT count(*) FROM pg_proc WHERE proname = ANY(:n)"
            " AND has_function_privilege('loyalty_reader', oid, 'EXECUTE')"
        )
        assert conn.execute(text(query), {"n": [*rows, *create, *update, *both]}).scalar_one() == 0


def test_the_lock_of_the_view_locks_the_table_and_is_given_up_after_a_moment(engine: Engine):
    with engine.begin() as conn:
        create_sample(conn)
    with engine.connect() as ours, engine.connect() as theirs:
        ours.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        ours.exec_driver_sql("SET LOCAL lock_timeout = '7s'")
        shop_fixes.lock_subscriptions(ours)
        assert ours.exec_driver_sql("SHOW lock_timeout").scalar_one() == "7s"
        theirs.exec_driver_sql("SELECT count(*) FROM sample_shop.subscriptions")
        theirs.exec_driver_sql("SET LOCAL lock_timeout = '50ms'")
        with pytest.raises(DBAPIError) as caught:
            theirs.exec_driver_sql("UPDATE sample_shop.subscriptions SET price = 1")
        assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)
        theirs.rollback()
        ours.rollback()
        theirs.exec_driver_sql("UPDATE sample_shop.subscriptions SET price = 1")
        with pytest.raises(DBAPIError) as caught:
            shop_fixes.lock_subscriptions(ours)
        assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)


def test_orders_are_locked_for_a_pipeline_that_may_not_change_them_and_given_up_after_a_moment(engine: Engine):
    with engine.begin() as conn:
        create_sample(conn)
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('m', 'm', 'UTC', 'EUR')"
        )
        conn.exec_driver_sql(
            "INSERT INTO sample_shop.orders (merchant_id, id) VALUES ('m', 'o1'), ('m', 'o2'), ('n', 'o1')"
        )
    with engine.connect() as ours, engine.connect() as theirs:
        ours.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        shop_fixes.lock_orders(ours, "m", ["o1", "no such order"])
        locked = "SELECT merchant_id || id FROM sample_shop.orders ORDER BY 1 FOR UPDATE SKIP LOCKED"
        assert list(theirs.exec_driver_sql(locked).scalars()) == ["mo2", "no1"]
        ours.rollback()
        ours.exec_driver_sql("SET LOCAL ROLE loyalty_pipeline")
        with pytest.raises(DBAPIError) as caught:
            shop_fixes.lock_orders(ours, "m", ["o2"])
        assert isinstance(caught.value.orig, psycopg.errors.LockNotAvailable)


def test_orders_that_can_not_be_locked_are_none_the_worse(engine: Engine):
    with engine.begin() as conn:
        create_sample(conn)
        conn.exec_driver_sql("CREATE VIEW sample_shop.few_orders AS SELECT DISTINCT * FROM sample_shop.orders")
        sources.apply(
            conn,
            sample_mapping(
                **{
                    "relation: sample_shop.orders": "relation: sample_shop.few_orders",
                    "capture: trigger": "capture: poll",
                }
            ),
        )
        answer = "SELECT loyalty_source.lock_orders('m', ARRAY['o1'])"
        assert conn.exec_driver_sql(answer).scalar_one() is False


def test_a_function_of_the_shop_gets_the_plan_and_answers(engine: Engine):
    name = FunctionName.model_validate({"schema": "the 100%", "name": "give :back"})
    with engine.begin() as conn:
        conn.exec_driver_sql('CREATE SCHEMA "the 100%%"')
        conn.exec_driver_sql(
            'CREATE FUNCTION "the 100%%"."give :back"(plan jsonb) RETURNS text'
            " LANGUAGE sql AS 'SELECT plan ->> ''id'''"
        )
        plan = {"id": "it's \\ 100% :sure", "amount": datetime(2024, 5, 1, tzinfo=UTC)}
        assert shop_fixes.call_function(conn, name, plan) == plan["id"]
        assert shop_fixes.call_function(conn, name, {}) is None


# --- what does not fit ------------------------------------------------------------------------------------


def problems(conn: Connection, mapping: SourceMapping) -> dict[str, str]:
    return {problem.path: str(problem) for problem in sources.check(conn, mapping)}


def test_a_function_that_is_not_there_names_those_that_are_near(engine: Engine):
    def of(function: str) -> str:
        call = f"ask_payment: {{function: {function}}}"
        found = problems(conn, sample_mapping(**{"create_subscription: write": call}))
        return found.pop("fixes.ask_payment.function", "") + "".join(found)

    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("CREATE SCHEMA billing")
        for signature in (
            "refund(plan json) RETURNS text",
            "ask(plan jsonb) RETURNS integer",
            "fine(plan jsonb) RETURNS text",
        ):
            conn.exec_driver_sql(f"CREATE FUNCTION billing.{signature} LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        assert (
            "found no function billing.refund(plan jsonb) RETURNS text; there is billing.refund(plan json) RETURNS text"
            in of("billing.refund")
        )
        assert "there is billing.ask(plan jsonb) RETURNS integer" in of("billing.ask")
        assert 'did you mean "refund"' in of("billing.refnd")
        assert 'did you mean "billing.fine"' in of("public.fine")
        assert 'schema "nowhere" has no functions' in of("nowhere.at_all")
        assert "GRANT USAGE ON SCHEMA billing and GRANT EXECUTE ON FUNCTION billing.fine(jsonb)" in of("billing.fine")
        conn.exec_driver_sql("GRANT USAGE ON SCHEMA billing TO loyalty_pipeline")
        assert of("billing.fine") == ""


def test_only_tables_and_simple_views_are_written(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql("CREATE VIEW sample_shop.grouped AS SELECT DISTINCT * FROM sample_shop.subscriptions")
        conn.exec_driver_sql(
            "CREATE VIEW sample_shop.simple AS SELECT * FROM sample_shop.subscriptions WHERE price > 0"
        )
        poll = {"capture: trigger": "capture: poll"}
        grouped = sample_mapping(**poll, **{"sample_shop.subscriptions": "sample_shop.grouped"})
        found = problems(conn, grouped)
        assert set(found) == {"fixes.create_subscription", "fixes.update_subscription"}
        assert "PostgreSQL can't insert, update and delete there" in found["fixes.update_subscription"]
        sources.apply(conn, sample_mapping(**poll, **{"sample_shop.subscriptions": "sample_shop.simple"}))
        key = create_subscription(conn, {"merchant_id": "m", "status": "active", "amount": "3", "plan_id": "p"})
        assert subscription(conn, key)["amount"] == 3


def test_columns_that_a_new_subscription_would_lack_are_named(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(
            "ALTER TABLE sample_shop.subscriptions ADD COLUMN shelf text NOT NULL, ADD COLUMN n int NOT NULL DEFAULT 1"
        )
        assert (
            'found column "shelf", which is NOT NULL' in problems(conn, sample_mapping())["fixes.create_subscription"]
        )
        assert problems(conn, sample_mapping(**{"  create_subscription: write\n": ""})) == {}
        conn.exec_driver_sql(
            "ALTER TABLE sample_shop.subscriptions DROP COLUMN shelf, ADD COLUMN number bigint NOT NULL UNIQUE"
        )
        rest = "\n    customer_id: customer_id\n    plan_id: plan_id\n    order_id: order_id\n    status"
        numbered = {f"subscription_id: id{rest}": f"subscription_id: number{rest}"}
        assert "without a default" in problems(conn, sample_mapping(**numbered))["fixes.create_subscription"]
        conn.exec_driver_sql("ALTER TABLE sample_shop.subscriptions ALTER number ADD GENERATED ALWAYS AS IDENTITY")
        assert problems(conn, sample_mapping(**numbered)) == {}
        sources.apply(conn, sample_mapping(**numbered))
        assert create_subscription(conn, {"merchant_id": "m", "status": "active", "subscription_id": "x"}) == "1"
        row = shop_fixes.subscription_row(conn, "m", "1")
        assert row is not None and shop_fixes.restore_subscription(conn, "m", "1", row)


def test_generated_columns_and_missing_rights_are_named(engine: Engine):
    with engine.begin() as conn:
        sample_shop.create(conn)
        conn.exec_driver_sql(
            "ALTER TABLE sample_shop.subscriptions ADD COLUMN twice numeric GENERATED ALWAYS AS (price * 2) STORED"
        )
        rest = "\n    currency: currency\n    current"
        generated = sample_mapping(**{f"amount: price{rest}": f"amount: twice{rest}"})
        assert "generated column" in problems(conn, generated)["subscriptions.columns.amount"]
        conn.exec_driver_sql("CREATE ROLE fixes_nobody NOLOGIN")
        conn.exec_driver_sql("GRANT USAGE ON SCHEMA sample_shop TO fixes_nobody")
        conn.exec_driver_sql("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA sample_shop TO fixes_nobody")
        conn.exec_driver_sql("SET LOCAL ROLE fixes_nobody")
        found = problems(conn, sample_mapping())
        assert "GRANT UPDATE, DELETE ON sample_shop.subscriptions" in found["fixes.update_subscription"]
        conn.exec_driver_sql("RESET ROLE")
        conn.exec_driver_sql("DROP OWNED BY fixes_nobody")
        conn.exec_driver_sql("DROP ROLE fixes_nobody")


def test_a_row_that_the_mapping_would_not_show_is_refused(engine: Engine):
    with engine.begin() as conn:
        create_uuids(conn)
        key = conn.exec_driver_sql("SELECT min(id::text) FROM member").scalar_one()
        conn.exec_driver_sql("ALTER TABLE member ADD COLUMN upper_plan text")
        with_plan = UUID_MAPPING.replace("where: {kind: [membership, club]}", 'where: {state: ["on"]}')
        sources.apply(conn, parse_mapping(with_plan + WRITE))
        fails(conn, "check option", update_subscription, "7", key, {"status": "cancelled"})
