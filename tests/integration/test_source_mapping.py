"""Each preset on real tables of such a shop, and whatever such tables hold."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import Connection, Engine, text

from loyalty_pipelines.db import sources
from loyalty_pipelines.domain.source_mapping import SOURCE_RELATIONS, NoMappingError, SourceMappingError, parse_mapping
from tests.shops import (
    CREATE_SHOP,
    create_django_shop,
    create_flask_razorpay_shop,
    create_supabase_shop,
    mapping_of,
)

FIXED = "merchants: {rows: [{merchant_id: main, name: My shop, timezone: Asia/Kolkata, currency: INR}]}"


def rows(conn: Connection, query: str, **values: object) -> list[dict]:
    return [dict(row._mapping) for row in conn.execute(text(query), values)]


def one(conn: Connection, query: str, **values: object) -> dict:
    found = rows(conn, query, **values)
    assert len(found) == 1, found
    return found[0]


def paths(conn: Connection, mapping_text: str) -> dict[str, str]:
    return {problem.path: str(problem) for problem in sources.check(conn, parse_mapping(mapping_text))}


def typed_orders(*columns: str, mapping: str = "", relation: str = "typed", **fields: str) -> str:
    """A mapping of orders over a table of the given columns; `fields` maps beyond the usual names."""
    named = {name: name for name in ("order_id", "customer_id", "total_amount", "status", "paid_at", "updated_at")}
    listed = ", ".join(f"{field}: {column}" for field, column in (named | fields).items())
    return (
        f"version: 1\ncapture: poll\ntimezone: Europe/Paris\n{FIXED}\n"
        f"orders:\n  relation: {relation}\n  columns: {{{listed}}}\n  status: {{paid: [paid]}}\n"
        f"  defaults: {{merchant_id: main, currency: INR}}\n{mapping}"
    )


def create_typed(conn: Connection, **types: str) -> None:
    """A table of orders whose columns have the given types."""
    usual = {
        "order_id": "bigint PRIMARY KEY",
        "customer_id": "text",
        "total_amount": "numeric",
        "status": "text",
        "paid_at": "timestamptz",
        "updated_at": "timestamptz",
    }
    columns = ", ".join(f"{name} {kind}" for name, kind in (usual | types).items())
    conn.exec_driver_sql(f"CREATE TABLE public.typed ({columns})")


# --- the presets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", CREATE_SHOP)
def test_each_preset_fits_its_shop_and_every_view_has_the_documented_columns(engine: Engine, preset: str):
    with engine.begin() as conn:
        CREATE_SHOP[preset](conn)
        mapping = mapping_of(preset)
        assert sources.check(conn, mapping) == []
        applied = sources.apply(conn, mapping)
        assert applied.notes == ()
        assert sources.current(conn) == mapping
        for name, relation in SOURCE_RELATIONS.items():
            columns = conn.execute(text(f"SELECT * FROM loyalty_source.{name}")).keys()
            first = tuple(field.name for field in relation.first_fields)
            later = tuple(field.name for field in relation.later_fields)
            assert tuple(columns) == first + (("source_status",) if relation.statuses else ()) + later


def test_a_database_without_a_mapping_has_none(engine: Engine):
    with engine.begin() as conn:
        assert sources.current(conn) is None


def test_a_django_order_keeps_its_values_and_an_unknown_word_is_not_guessed(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql("INSERT INTO merchants_merchant (id, name) VALUES (7, 'Seven')")
        conn.exec_driver_sql(
            "INSERT INTO orders_order (merchant_id, total, loyalty_points_used, currency,"
            " payment_status, paid_at) VALUES (7, 19.99, 50, 'usd', 'paid', '2024-05-01 10:00+02'),"
            " (7, 5, 0, NULL, 'on_hold', NULL), (7, 6, 0, '', 'PAID', NULL)"
        )
        paid, held, upper = rows(conn, "SELECT * FROM loyalty_source.orders ORDER BY total_amount DESC, order_id")[
            0:3:1
        ]
        by_total = {row["total_amount"]: row for row in (paid, held, upper)}
        order = by_total[Decimal("19.99")]
        assert (order["merchant_id"], order["currency"], order["status"]) == ("7", "USD", "paid")
        assert (order["points_redeemed"], order["customer_id"]) == (50, None)
        assert order["paid_at"] == datetime(2024, 5, 1, 8, tzinfo=UTC)
        word = {total: (row["status"], row["source_status"], row["currency"]) for total, row in by_total.items()}
        assert word[Decimal(5)] == ("unrecognized", "on_hold", "EUR")
        assert word[Decimal(6)] == ("unrecognized", "PAID", "EUR")
        merchant = one(conn, "SELECT * FROM loyalty_source.merchants")
        assert (merchant["name"], merchant["locale"], merchant["is_active"]) == ("Seven", "en", True)


def test_a_supabase_shop_finds_refunds_and_payments_by_reference(engine: Engine):
    with engine.begin() as conn:
        create_supabase_shop(conn)
        sources.apply(conn, mapping_of("supabase_shop"))
        vendor = conn.exec_driver_sql("INSERT INTO vendors (store_name) VALUES ('V') RETURNING id").scalar_one()
        order = conn.execute(
            text(
                "INSERT INTO orders (vendor_id, total_amount, payment_status) VALUES (:v, 40, 'completed') RETURNING id"
            ),
            {"v": vendor},
        ).scalar_one()
        conn.execute(
            text(
                "INSERT INTO payment_transactions"
                " (vendor_id, reference_type, reference_id, transaction_type, amount, status)"
                " VALUES (:v, 'order', :o, 'payment', 40, 'completed'),"
                " (:v, 'order', :o, 'refund', 15, 'completed'),"
                " (:v, 'order', :o, 'refund', 99, 'failed'), (:v, 'gift_card', :o, 'refund', 98, 'completed')"
            ),
            {"v": vendor, "o": str(order)},
        )
        values = {"m": str(vendor), "o": str(order)}
        found = one(conn, "SELECT * FROM loyalty_source.order_by_id(:m, :o)", **values)
        assert (found["status"], found["source_status"], found["points_redeemed"]) == ("paid", "completed", 0)
        assert one(conn, "SELECT amount FROM loyalty_source.refunds_of_order(:m, :o)", **values) == {"amount": 15}
        payment = one(conn, "SELECT * FROM loyalty_source.payments")
        assert (payment["amount"], payment["status"], payment["order_id"]) == (40, "captured", str(order))
        assert one(conn, "SELECT timezone, currency FROM loyalty_source.merchants") == {
            "timezone": "America/New_York",
            "currency": "USD",
        }


def test_a_flask_shop_has_one_merchant_paise_and_utc_timestamps(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql("""INSERT INTO "user" (id, email) VALUES (3, 'a@b.example')""")
        conn.exec_driver_sql("INSERT INTO meal_plan (id, name, price_weekly) VALUES (1, 'Veg', 49900)")
        conn.exec_driver_sql(
            'INSERT INTO "order" (id, user_id, order_id, payment_id, amount, payment_status, paid_at) VALUES'
            " (11, 3, 'order_x', 'pay_x', 49950, 'captured', '2024-05-01 10:00'),"
            " (12, 3, 'order_y', NULL, 1, NULL, NULL)"
        )
        conn.exec_driver_sql(
            "INSERT INTO subscription (user_id, meal_plan_id, order_id, price, start_date)"
            " VALUES (3, 1, 11, 49900, '2024-05-02')"
        )
        order = one(conn, "SELECT * FROM loyalty_source.order_by_id('main', '11')")
        assert (str(order["total_amount"]), order["currency"], order["order_number"]) == (
            "499.50",
            "INR",
            "order_x",
        )
        assert order["paid_at"] == datetime(2024, 5, 1, 10, tzinfo=UTC)
        assert one(conn, "SELECT status, source_status FROM loyalty_source.order_by_id('main', '12')") == {
            "status": "unrecognized",
            "source_status": None,
        }
        assert [row["payment_id"] for row in rows(conn, "SELECT * FROM loyalty_source.payments")] == ["pay_x"]
        assert one(conn, 'SELECT "interval", amount FROM loyalty_source.plans') == {
            "interval": "week",
            "amount": 499,
        }
        subscription = one(conn, "SELECT * FROM loyalty_source.subscriptions")
        assert subscription["current_period_start"] == datetime(2024, 5, 2, tzinfo=UTC)
        assert rows(conn, "SELECT * FROM loyalty_source.refunds") == []
        assert rows(conn, "SELECT * FROM loyalty_source.refunds_of_order('main', '11')") == []
        assert rows(conn, "SELECT * FROM loyalty_source.order_by_id('other', '11')") == []


# --- hostile values -------------------------------------------------------------------------------------


def test_amounts_in_text_become_numbers_or_nan(engine: Engine):
    words = {
        " 19.99 ": "19.99",
        "-1": "-1",
        "+.5": "0.5",
        "7.": "7",
        "NaN": "NaN",
        "Infinity": "NaN",
        "1e400": "NaN",
        "1,5": "NaN",
        "": "NaN",
        "'; DROP TABLE typed; --": "NaN",
        "\U0001f4a5": "NaN",
        "9" * 200_000: "NaN",
    }
    with engine.begin() as conn:
        create_typed(conn, total_amount="varchar")
        sources.apply(conn, parse_mapping(typed_orders()))
        for number, word in enumerate(words):
            conn.execute(text("INSERT INTO typed VALUES (:n, 'c', :w, 'paid')"), {"n": number, "w": word})
        conn.exec_driver_sql("INSERT INTO typed VALUES (99, 'c', NULL, 'paid')")
        found = rows(conn, "SELECT total_amount FROM loyalty_source.orders ORDER BY order_id::int")
        assert [row["total_amount"] for row in found[:-1] if not row["total_amount"].is_nan()] == [
            Decimal(number) for number in words.values() if number != "NaN"
        ]
        assert [row["total_amount"].is_nan() for row in found[:-1]] == [number == "NaN" for number in words.values()]
        assert found[-1]["total_amount"].is_nan()


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("smallint", "7", "7"),
        ("bigint", "999999999999", "999999999999"),
        ("double precision", "0.1", "0.1"),
        ("double precision", "'-Infinity'", "-Infinity"),
        ("real", "'NaN'", "NaN"),
        ("money", "'$1,234.50'", "1234.50"),
        ("numeric(12, 2)", "0.01", "0.01"),
        ("numeric", "'Infinity'", "Infinity"),
        ("char(8)", "'4.20'", "4.20"),
    ],
)
def test_amounts_of_every_number_type_are_numeric(engine: Engine, kind: str, value: str, shown: str):
    with engine.begin() as conn:
        create_typed(conn, total_amount=kind)
        sources.apply(conn, parse_mapping(typed_orders()))
        conn.exec_driver_sql(f"INSERT INTO typed VALUES (1, 'c', {value}, 'paid')")
        found = one(
            conn,
            "SELECT total_amount::text, pg_typeof(total_amount)::text AS kind FROM loyalty_source.orders",
        )
        assert found == {"total_amount": shown, "kind": "numeric"}


@pytest.mark.parametrize(
    ("kind", "value", "points"),
    [
        ("integer", "25", 25),
        ("integer", "NULL", 0),
        ("numeric", "'NaN'", None),
        ("numeric", "'Infinity'", None),
        ("numeric", "1e30", None),
        ("numeric", "100.00", 100),
        ("numeric", "1.5", None),
        ("double precision", "'-Infinity'", None),
        ("double precision", "1e300", None),
        ("text", "' 12 '", 12),
        ("text", "'many'", None),
        ("text", "NULL", 0),
    ],
)
def test_redeemed_points_are_whole_or_unknown_and_never_raise(
    engine: Engine, kind: str, value: str, points: int | None
):
    with engine.begin() as conn:
        create_typed(conn, used=kind)
        sources.apply(conn, parse_mapping(typed_orders(points_redeemed="used")))
        conn.exec_driver_sql(f"INSERT INTO typed VALUES (1, 'c', 1, 'paid', NULL, NULL, {value})")
        found = one(
            conn,
            "SELECT points_redeemed, pg_typeof(points_redeemed)::text AS kind FROM loyalty_source.orders",
        )
        assert found == {"points_redeemed": points, "kind": "bigint"}


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("timestamp", "'2024-07-01 12:00'", datetime(2024, 7, 1, 10, tzinfo=UTC)),
        ("timestamp", "'2024-01-01 12:00'", datetime(2024, 1, 1, 11, tzinfo=UTC)),
        ("timestamptz(0)", "'2024-07-01 12:00+00'", datetime(2024, 7, 1, 12, tzinfo=UTC)),
        ("date", "'2024-07-01'", datetime(2024, 6, 30, 22, tzinfo=UTC)),
        ("date", "'5874897-12-31'", None),
        ("date", "'infinity'", None),
        ("timestamp", "'294276-12-31 23:59:59'", None),
        ("timestamp", "'4713-01-01 BC'", None),
    ],
)
def test_instants_are_read_in_the_zone_of_the_mapping(engine: Engine, kind: str, value: str, shown: datetime | None):
    with engine.begin() as conn:
        create_typed(conn, paid_at=kind)
        sources.apply(conn, parse_mapping(typed_orders()))
        conn.exec_driver_sql(f"INSERT INTO typed VALUES (1, 'c', 1, 'paid', {value})")
        assert one(conn, "SELECT paid_at FROM loyalty_source.orders") == {"paid_at": shown}


def test_flags_may_be_booleans_numbers_or_words(engine: Engine):
    customers = (
        "customers:\n  relation: people\n  columns: {customer_id: id, created_at: at, is_active: KIND}\n"
        "  defaults: {merchant_id: main}\n"
    )
    with engine.begin() as conn:
        create_typed(conn)
        conn.exec_driver_sql("CREATE TABLE people (id int, at timestamptz, flag boolean, number int, word text)")
        conn.exec_driver_sql(
            "INSERT INTO people VALUES (1, now(), true, 1, ' Yes'),"
            " (2, now(), false, 0, 'off'), (3, now(), NULL, NULL, '?')"
        )
        for kind in ("flag", "number", "word"):
            sources.apply(conn, parse_mapping(typed_orders(mapping=customers.replace("KIND", kind))))
            found = rows(conn, "SELECT is_active FROM loyalty_source.customers ORDER BY customer_id")
            assert [row["is_active"] for row in found] == [True, False, True]


def test_nobody_is_not_an_account_and_rows_without_a_key_are_left_out(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn, order_id="text")
        sources.apply(conn, parse_mapping(typed_orders()))
        conn.exec_driver_sql("INSERT INTO typed (order_id, customer_id) VALUES ('a', ''), (NULL, 'c'), ('', 'c')")
        found = rows(conn, "SELECT order_id, customer_id FROM loyalty_source.orders ORDER BY order_id")
        assert found == [{"order_id": "", "customer_id": "c"}, {"order_id": "a", "customer_id": None}]


HOSTILE_NAMES = [
    'Orders.2024 "quoted"',
    "x'; DROP SCHEMA loyalty CASCADE; --",
    "$loyalty0$; DROP SCHEMA loyalty CASCADE; --",
    "{} {0} %s %(a)s :bind",
    "Größe \U0001f381",
    "back\\slash",
    "user",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_and_words_are_data_whatever_they_look_like(engine: Engine, name: str):
    quoted = '"' + name.replace('"', '""') + '"'
    in_yaml = "'" + name.replace("'", "''") + "'"
    with engine.begin() as conn:
        plain = conn.connection.cursor()
        plain.execute(f"CREATE SCHEMA {quoted}")
        plain.execute(
            f"CREATE TABLE {quoted}.{quoted} ({quoted} text PRIMARY KEY, total_amount numeric, status text,"
            " customer_id text, paid_at timestamptz, updated_at timestamptz)"
        )
        mapping = typed_orders(relation=f"{{schema: {in_yaml}, table: {in_yaml}}}", order_id=in_yaml)
        mapping = mapping.replace("[paid]", f"[{in_yaml}]").replace("capture: poll", "capture: trigger")
        mapping = mapping.replace("merchant_id: main", f"merchant_id: {in_yaml}")
        mapping = mapping.replace("main, currency: INR}", f"{in_yaml}, currency: INR}}")
        mapping = mapping.replace("  status:", f"  where: {{{in_yaml}: [{in_yaml}]}}\n  status:")
        sources.apply(conn, parse_mapping(mapping))
        conn.execute(
            text("INSERT INTO " + f"{quoted}.{quoted}".replace(":", "\\:") + " VALUES (:n, 5, :n)"),
            {"n": name},
        )
        found = one(conn, "SELECT * FROM loyalty_source.order_by_id(:n, :n)", n=name)
        assert (found["merchant_id"], found["order_id"], found["status"]) == (name, name, "paid")
        assert one(conn, "SELECT order_id FROM loyalty.order_inbox") == {"order_id": name}


# --- problems -------------------------------------------------------------------------------------------


def test_a_missing_relation_names_those_that_are_near(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn)
        found = paths(conn, typed_orders(relation="public.typde"))
        assert list(found) == ["orders.relation"]
        assert 'no relation "typde" in schema "public"' in found["orders.relation"]
        assert 'did you mean "public.typed"' in found["orders.relation"]
        assert "there is public.typed" in paths(conn, typed_orders(relation="shop.typed"))["orders.relation"]
        assert 'did you mean "public.typed"' in paths(conn, typed_orders(relation="public.Typed"))["orders.relation"]


def test_a_name_longer_than_an_identifier_is_not_cut_to_another_one(engine: Engine):
    with engine.begin() as conn:
        conn.exec_driver_sql(f"CREATE TABLE public.{'t' * 63} (id int)")
        assert "orders.relation" in paths(conn, typed_orders(relation="public." + "t" * 64))


def test_all_problems_are_told_at_once_with_the_columns_that_exist(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn, total_amount="boolean", paid_at="time", updated_at="text")
        mapping = typed_orders(order_id="order_ident", mapping="refunds:\n" + REFUNDS).replace("Europe/Paris", "Paris")
        found = paths(conn, mapping)
    assert list(found) == [
        "timezone",
        "orders.columns.order_id",
        "orders.columns.total_amount",
        "orders.columns.paid_at",
        "orders.columns.updated_at",
        "refunds.relation",
    ]
    assert "its columns are order_id, customer_id, total_amount" in found["orders.columns.order_id"]
    assert 'did you mean "order_id"' in found["orders.columns.order_id"]
    assert "of type boolean; expected a number, money or text" in found["orders.columns.total_amount"]
    assert 'did you mean "Europe/Paris"' in found["timezone"]


REFUNDS = (
    "  relation: nowhere\n  columns: {refund_id: id, order_id: o, amount: a, refunded_at: r}\n"
    "  defaults: {merchant_id: main}\n"
)


@pytest.mark.parametrize("zone", ["IST", "Foo/Bar", "UTC+3", "'; SELECT 1"])
def test_only_names_of_time_zones_are_accepted(engine: Engine, zone: str):
    with engine.begin() as conn:
        create_typed(conn)
        assert "timezone" in paths(conn, typed_orders().replace("Europe/Paris", f'"{zone}"'))


def test_ids_whose_text_depends_on_settings_are_refused(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn, order_id="double precision")
        assert "orders.columns.order_id" in paths(conn, typed_orders())


def test_applying_what_does_not_fit_changes_nothing_and_says_why(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn)
        with pytest.raises(SourceMappingError, match=r"orders\.relation"):
            sources.apply(conn, parse_mapping(typed_orders(relation="nowhere")))
        assert sources.current(conn) is None


def test_a_domain_is_treated_as_the_type_below_it(engine: Engine):
    with engine.begin() as conn:
        conn.exec_driver_sql("CREATE DOMAIN key AS bigint CHECK (value > 0)")
        conn.exec_driver_sql("CREATE DOMAIN order_key AS key")
        create_typed(conn, order_id="order_key PRIMARY KEY")
        assert sources.apply(conn, parse_mapping(typed_orders())).notes == ()
        conn.exec_driver_sql("INSERT INTO typed VALUES (5, 'c', 1, 'paid')")
        assert one(conn, "SELECT order_id FROM loyalty_source.order_by_id('main', '5')") == {"order_id": "5"}


# --- applying again -------------------------------------------------------------------------------------


def test_applying_twice_leaves_what_was_built_on_the_views(engine: Engine):
    with engine.begin() as conn:
        create_django_shop(conn)
        sources.apply(conn, mapping_of("django_shop"))
        conn.exec_driver_sql("CREATE VIEW public.report AS SELECT order_id, status FROM loyalty_source.orders")
        create_flask_razorpay_shop(conn)
        conn.exec_driver_sql("""INSERT INTO "order" (id, amount) VALUES (5, 100)""")
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        assert one(conn, "SELECT * FROM public.report") == {"order_id": "5", "status": "pending"}
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        current = sources.current(conn)
        assert current is not None and current.yaml_text == mapping_of("flask_razorpay_shop").yaml_text


CATALOGUE = """
SELECT viewname::text AS name, definition AS content FROM pg_views WHERE schemaname = 'loyalty_source'
UNION ALL SELECT tgname::text, tgrelid::regclass::text FROM pg_trigger
UNION ALL SELECT proname::text, prosrc FROM pg_proc WHERE pronamespace = 'loyalty_source'::regnamespace
UNION ALL SELECT 'mapping', mapping_yaml FROM loyalty.source_mapping
ORDER BY 1, 2
"""


def test_showing_changes_nothing_and_its_script_can_be_run_by_hand(engine: Engine):
    with engine.begin() as conn:
        create_supabase_shop(conn)
        before = rows(conn, CATALOGUE)
        script = sources.render(conn, mapping_of("supabase_shop"))
        assert rows(conn, CATALOGUE) == before
        conn.connection.cursor().execute(script)
        assert rows(conn, "SELECT * FROM loyalty_source.orders") == []


def test_the_lock_timeout_of_the_caller_stays(engine: Engine):
    with engine.begin() as conn:
        create_typed(conn)
        conn.exec_driver_sql("SET LOCAL lock_timeout = '42s'")
        sources.apply(conn, parse_mapping(typed_orders()))
        assert conn.exec_driver_sql("SHOW lock_timeout").scalar_one() == "42s"


def test_withdrawing_lets_the_shop_change_its_tables_and_applying_puts_all_back(engine: Engine):
    with engine.begin() as conn:
        create_flask_razorpay_shop(conn)
        with pytest.raises(NoMappingError):
            sources.withdraw(conn)
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        conn.exec_driver_sql("CREATE VIEW public.report AS SELECT order_id FROM loyalty_source.orders")
        conn.exec_driver_sql("""INSERT INTO "order" (id, amount) VALUES (5, 100)""")
        for _ in range(2):
            sources.withdraw(conn)
        assert rows(conn, "SELECT * FROM public.report") == []
        assert rows(conn, "SELECT * FROM loyalty_source.order_by_id('main', '5')") == []
        assert rows(conn, "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'loyalty_capture%'") == []
        conn.exec_driver_sql("""ALTER TABLE "order" ALTER amount TYPE bigint""")
        conn.exec_driver_sql("""ALTER TABLE "order" ALTER id TYPE bigint""")
        sources.apply(conn, mapping_of("flask_razorpay_shop"))
        assert rows(conn, "SELECT * FROM public.report") == [{"order_id": "5"}]
