"""What is measured, on shops in known states; and who writes down what it is measured from."""

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, make_url, text

from loyalty_pipelines.db import sources
from loyalty_pipelines.db.engine import connect, reading
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.db.holds_run import release_stale_holds
from loyalty_pipelines.db.merchant_jobs_run import note_merchants
from loyalty_pipelines.db.metrics import read_metrics
from loyalty_pipelines.db.sweep_run import sweep_merchants
from loyalty_pipelines.domain.expiry import ExpiryOptions
from loyalty_pipelines.domain.metrics import METRICS
from loyalty_pipelines.resources.prometheus import as_text
from tests.checkout import Checkout
from tests.mail_server import mail_server
from tests.metrics import parsed, scrape
from tests.outbox import Outbox
from tests.queued import Queue
from tests.shop import Shop

ALL_OF_THEM = {metric.name for metric in METRICS}
HOSTILE = 'm"1\\n\n}\r{x="y"} é€🦊 \u2028\u202e # HELP'


def finding(shop: Shop, merchant: str, kind: str, number: int, **columns: Any) -> None:
    """Insert a finding, open and of severity error unless said otherwise."""
    values = {
        "merchant_id": merchant,
        "subject": "test",
        "class": kind,
        "severity": "error",
        "object_type": "account",
        "object_id": str(number),
        **columns,
    }
    shop.run(
        f"INSERT INTO loyalty.findings ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})",
        **values,
    )


def jobs(shop: Shop, job: str) -> dict[str, tuple[bool, bool]]:
    """Return who is noted for a job: whether it succeeded, and whether it failed, ever."""
    return {
        row.merchant_id: (row.succeeded_at is not None, row.failed_at is not None)
        for row in shop.rows("SELECT * FROM loyalty.merchant_jobs WHERE job = :job", job=job)
    }


def show_merchants(shop: Shop, currency: str, more: str = "") -> None:
    """Let the mapped view show the shop's merchants in another way."""
    columns = ", ".join(
        f'{value} COLLATE "C" AS {name}'
        for name, value in (("merchant_id", "id"), ("name", "name"), ("timezone", "timezone"), ("currency", currency),
                            ("locale", "locale"))
    )  # fmt: skip
    shop.run(
        f"CREATE OR REPLACE VIEW loyalty_source.merchants AS SELECT {columns}, is_active "
        f"FROM sample_shop.merchants {more}"
    )


def break_merchant(shop: Shop, merchant: str, table: str, verb: str = "INSERT") -> None:
    """Let a statement on a table of ours fail for a merchant, for a reason that no single row can cause."""
    shop.run(
        "CREATE FUNCTION break_one() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN IF NEW.merchant_id = '{merchant}' THEN RAISE undefined_column; END IF; RETURN NEW; END $$"
    )
    shop.run(f"CREATE TRIGGER break_one BEFORE {verb} ON loyalty.{table} FOR EACH ROW EXECUTE FUNCTION break_one()")


# --- values ---


def test_orders_are_counted_by_what_became_of_them(shop: Shop) -> None:
    shop.order("changed", "10.00")
    shop.order("unpaid", "10.00", status="pending")
    shop.order("odd", "NaN")
    shop.order("gone", "10.00")
    shop.delete("gone")
    shop.merchant("m2")
    shop.order("1", "5.00", merchant="m2")
    shop.award()
    shop.enqueue("changed")
    shop.award()
    orders = scrape(shop)["loyalty_award_orders"]
    assert {labels[1]: value for labels, value in orders.items() if labels[0] == "m1"} == {
        "changed": 1,
        "unchanged": 1,
        "skipped": 1,
        "queued": 1,
        "missing": 1,
    }
    assert orders["m2", "changed"] == 1


def test_an_order_that_is_tried_again_and_again_is_queued_once(shop: Shop) -> None:
    for number in range(30):
        shop.order(str(number), "10.00")
    shop.order("odd", "NaN")
    shop.award()
    queue = Queue(shop)
    for _ in range(8):
        queue.wait()
        queue.tried()
    assert shop.value("SELECT sum(orders_queued) FROM loyalty.award_batches") == 9
    orders = scrape(shop)["loyalty_award_orders"]
    assert orders["m1", "queued"] / sum(orders.values()) == 1 / 31
    shop.run("UPDATE sample_shop.orders SET total = 5 WHERE id = 'odd'")
    shop.award()
    assert scrape(shop)["loyalty_award_orders"]["m1", "queued"] == 1, "it had no decision at first"
    shop.run("UPDATE loyalty.reconciliation_queue SET created_at = now() - interval '61 minutes'")
    assert scrape(shop)["loyalty_award_orders"]["m1", "queued"] == 0


def test_batches_of_more_than_an_hour_ago_are_not_counted(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.run("UPDATE loyalty.award_batches SET recorded_at = now() - interval '61 minutes'")
    found = scrape(shop)
    assert found["loyalty_award_orders"] == found["loyalty_award_batch_seconds"] == {}


def test_how_long_batches_took_and_orders_waited_is_told_as_median_p95_and_longest(shop: Shop) -> None:
    shop.run(
        "INSERT INTO loyalty.award_batches (merchant_id, actor, rows_claimed, rows_repeated, orders_changed, "
        "orders_unchanged, orders_queued, orders_skipped, orders_missing, entries_written, points_changed, "
        "award_seconds, oldest_enqueued_at) SELECT 'm1', 'test', 1, 0, 1, 0, 0, 0, 0, 1, 1, n * 0.125, "
        "now() - n * interval '1 second' FROM generate_series(1, 100) AS n"
    )
    # From before revision 0007.
    shop.run("UPDATE loyalty.award_batches SET award_seconds = NULL, oldest_enqueued_at = NULL WHERE batch_id = 100")
    found = scrape(shop)
    assert found["loyalty_award_batch_seconds"] == {
        ("m1", "median"): 6.25,
        ("m1", "p95"): 11.875,
        ("m1", "longest"): 12.375,
    }
    assert found["loyalty_award_wait_seconds"]["m1", "longest"] == 99 * 1.125
    assert found["loyalty_award_orders"]["m1", "changed"] == 100


def test_a_batch_writes_how_long_it_took_and_how_long_its_oldest_order_waited(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.order("2", "NaN")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '1 hour' WHERE order_id = '1'")
    shop.award()
    # PostgreSQL itself refuses this one: it is moved to the queue in a batch of its own.
    shop.run("ALTER TABLE loyalty.accounts ADD CONSTRAINT no_bob CHECK (customer_id <> 'bob')")
    shop.order("3", "10.00", customer="bob")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '2 hours'")
    assert shop.drain().failures == {}
    rows = shop.rows(
        "SELECT award_seconds, extract(EPOCH FROM recorded_at - oldest_enqueued_at) AS waited, orders_queued "
        "FROM loyalty.award_batches ORDER BY batch_id"
    )
    assert [(int(row.waited) // 3600, row.orders_queued) for row in rows] == [(1, 1), (2, 1)]
    assert all(0 < row.award_seconds < 60 for row in rows)


def test_what_waits_is_told_per_merchant(shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("1", "10.00")
    shop.order("2", "10.00")
    shop.order("3", "10.00", merchant="m2")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '1 hour' WHERE order_id = '1'")
    found = scrape(shop)
    assert found["loyalty_inbox_orders"] == {("m1",): 2, ("m2",): 1}
    assert 3600 <= found["loyalty_inbox_oldest_seconds"]["m1",] < 3660
    assert found["loyalty_inbox_oldest_seconds"]["m2",] < 60


def test_open_items_of_the_queue_are_told_by_state_with_their_tries_and_points(shop: Shop) -> None:
    queue = Queue(shop)
    shop.order("first", "100.00")
    shop.award()
    for order, redeemed in (("parked", 1_000_000), ("retrying", 2_000_000)):
        queue.report(order, 0, redeemed, customer="ann" if order == "parked" else "bob")
    assert queue.tried(max_tries=1) == {"parked": 2}
    queue.report("waiting", 5, 7, customer="cid")
    shop.run("UPDATE loyalty.reconciliation_queue SET parked_at = NULL WHERE order_id = 'retrying'")
    shop.run("UPDATE loyalty.reconciliation_queue SET created_at = now() - interval '1 day' WHERE order_id = 'waiting'")
    queue.report("done", 5, 0, customer="dan")
    shop.run("UPDATE loyalty.reconciliation_queue SET resolved_at = now(), resolution = 'test' WHERE order_id = 'done'")
    found = scrape(shop)
    assert found["loyalty_queue_items"] == {("m1", "waiting"): 1, ("m1", "retrying"): 1, ("m1", "parked"): 1}
    assert found["loyalty_queue_points_at_stake"] == {("m1",): 3_000_012}
    assert found["loyalty_queue_tries"] == {("m1",): 2}
    assert 86_400 <= found["loyalty_queue_oldest_seconds"]["m1",] < 86_460


def test_point_updates_that_took_more_than_one_try_are_told_beside_all(shop: Shop) -> None:
    def rate() -> tuple[float, float]:
        found = scrape(shop)
        return found["loyalty_point_updates_retried"]["m1",], found["loyalty_point_updates"]["m1",]

    queue = Queue(shop)
    for number in range(3):
        shop.order(str(number), "10.00")
    for order in ("odd", "later", "let go"):
        shop.order(order, "NaN")
    shop.award()
    assert rate() == (0, 6)
    for _ in range(2):
        queue.wait()
        queue.tried()
    assert rate() == (3, 6), "still without a decision, each counted once"
    shop.run("UPDATE sample_shop.orders SET total = 5 WHERE id = 'later'")
    shop.award()
    assert rate() == (3, 6), "one is decided by its batch"
    shop.run("UPDATE loyalty.reconciliation_queue SET resolved_at = now(), resolution = 'test', resolved_by = 'ann' "
             "WHERE order_id = 'let go'")  # fmt: skip
    assert rate() == (2, 5), "what a person settles is no try"
    queue.report("failed in the shop", 5, 0)
    assert rate() == (2, 6)
    queue.wait()
    queue.tried()
    assert rate() == (3, 6), "the shop's own call was the first try"
    shop.run("UPDATE loyalty.reconciliation_queue SET last_seen_at = now() - interval '61 minutes', "
             "resolved_at = resolved_at - interval '61 minutes'")  # fmt: skip
    assert rate() == (0, 4)
    shop.run("UPDATE loyalty.award_batches SET recorded_at = now() - interval '61 minutes'")
    assert scrape(shop)["loyalty_point_updates"] == {}


def test_open_findings_are_told_by_class_with_points_and_money(shop: Shop) -> None:
    finding(shop, "m1", "order_awarded_twice", 1, points_difference=30, amount_at_risk="0.30", currency="EUR")
    finding(shop, "m1", "order_awarded_twice", 2, points_difference=-5, amount_at_risk="1.20", currency="EUR")
    finding(shop, "m1", "order_awarded_twice", 3, amount_at_risk="7", currency="USD", severity="warning")
    finding(shop, "m2", "order_awarded_twice", 1, amount_at_risk="2")
    finding(shop, "m2", "balance_differs", 1, points_difference=4)
    finding(shop, "m2", "balance_differs", 2, points_difference=4, closed_at="2026-01-01")
    found = scrape(shop)
    # class, merchant, severity | class, direction, merchant | class, currency, merchant
    assert found["loyalty_findings"] == {
        ("order_awarded_twice", "m1", "error"): 2,
        ("order_awarded_twice", "m1", "warning"): 1,
        ("order_awarded_twice", "m2", "error"): 1,
        ("balance_differs", "m2", "error"): 1,
    }
    assert found["loyalty_findings_points"] == {
        ("order_awarded_twice", "too_many", "m1"): 30,
        ("order_awarded_twice", "too_few", "m1"): 5,
        ("balance_differs", "too_many", "m2"): 4,
    }
    assert found["loyalty_findings_amount_at_risk"] == {
        ("order_awarded_twice", "EUR", "m1"): 1.5,
        ("order_awarded_twice", "USD", "m1"): 7,
        ("order_awarded_twice", "unknown", "m2"): 2,
    }
    assert found["loyalty_duplicate_awards"] == {(): 4}
    assert scrape(shop, "m2")["loyalty_duplicate_awards"] == {(): 1}


def test_mails_are_told_by_what_became_of_them_and_how_often_they_were_tried(shop: Shop) -> None:
    outbox = Outbox(shop)
    outbox.many(7)
    for customer, columns in {
        "c1": "waits_since = now() - interval '2 hours'",
        "c2": "attempts = 2",
        "c3": "attempts = 4, status = 'failed', settled_at = now(), waits_since = now() - interval '5 hours'",
        "c4": "attempts = 1, status = 'sent', settled_at = now()",
        "c5": "attempts = 2, status = 'sent', settled_at = now()",
        "c6": "status = 'parked', settled_at = now()",
        "c7": "attempts = 4, status = 'failed', settled_at = now() - interval '2 hours'",
    }.items():
        shop.run(f"UPDATE loyalty.notifications SET {columns} WHERE customer_id = '{customer}'")
    found = scrape(shop)
    assert found["loyalty_mails_undelivered"] == {("m1", "waiting"): 1, ("m1", "retrying"): 1, ("m1", "failed"): 2}
    assert found["loyalty_mails_settled"] == {("m1", "sent"): 2, ("m1", "failed"): 1, ("m1", "parked"): 1}
    assert found["loyalty_mails_retried"] == {("m1",): 2}
    # As the check no_mail_waits_long has it: what was given up waits for a person.
    assert 5 * 3600 <= found["loyalty_mails_oldest_seconds"]["m1",] < 5 * 3600 + 60


def test_liability_is_the_sum_of_all_balances_at_the_value_of_a_point_now(shop: Shop) -> None:
    shop.program(point_value_amount="0.005")
    shop.program(point_value_amount="99", valid_from="2100-01-01")
    shop.order("1", "100.00")
    shop.order("2", "50.00", customer="bob")
    # Its points are owed though it is off, and though nobody can spend them.
    shop.merchant("m2", currency="USD", point_value_amount="0.01")
    shop.order("3", "70.00", merchant="m2", currency="USD")
    shop.award()
    shop.program("m2", is_active=False, point_value_amount="0.01")
    shop.run(
        "UPDATE loyalty.accounts SET is_active = false, created_at = created_at - interval '1 day' "
        "WHERE customer_id = 'bob'"
    )
    # Left the shop: nobody knows its currency any more.
    shop.run(
        "INSERT INTO loyalty.accounts (merchant_id, customer_id, balance, is_debt_allowed) VALUES "
        "('m3', 'ann', 10, false), ('m3', 'bob', -30, true)"
    )
    found = scrape(shop)
    assert found["loyalty_accounts"] == {("m1",): 2, ("m2",): 1, ("m3",): 2}
    since = found["loyalty_first_account_timestamp_seconds"]
    assert since == {
        (row.merchant_id,): pytest.approx(row.created_at.timestamp())
        for row in shop.rows("SELECT merchant_id, min(created_at) AS created_at FROM loyalty.accounts GROUP BY 1")
    }
    assert found["loyalty_liability_points"] == {("m1",): 150, ("m2",): 70, ("m3",): -20}
    # currency, merchant
    assert found["loyalty_liability_amount"] == {("EUR", "m1"): 0.75, ("USD", "m2"): 0.7}


def test_who_was_served_last_comes_from_each_jobs_own_record(shop: Shop) -> None:
    shop.program(points_expiration_days=30)
    shop.merchant("m2")
    shop.order("1", "10.00")
    shop.award()
    list(expire_merchants(shop.engine, actor="test"))
    shop.run(
        "INSERT INTO loyalty.merchant_jobs (merchant_id, job, succeeded_at, failed_at) VALUES "
        "('m1', 'balance_integrity', '2026-01-02T00:00Z', '2026-01-01T00:00Z'), "
        "('m2', 'expired_points', NULL, '2026-01-01T00:00Z')"
    )
    found = scrape(shop)
    successes, failures = (found[f"loyalty_job_last_{name}_timestamp_seconds"] for name in ("success", "failure"))
    now = found["loyalty_metrics_collected_timestamp_seconds"][()]
    # asset, merchant
    assert set(successes) == {
        ("live_awards", "m1"),
        ("expired_points", "m1"),
        ("expired_points", "m2"),
        ("balance_integrity", "m1"),
    }
    assert successes["balance_integrity", "m1"] - failures["balance_integrity", "m1"] == 86_400
    assert set(failures) == {("balance_integrity", "m1"), ("expired_points", "m2")}
    assert all(now - 60 < successes["expired_points", merchant] <= now for merchant in ("m1", "m2"))


def test_a_night_that_was_stopped_or_of_a_past_day_or_not_over_has_served_nobody(shop: Shop) -> None:
    shop.run(
        "INSERT INTO loyalty.expiry_runs (merchant_id, run_id, as_of, actor, started_at, finished_at, is_stopped) "
        "VALUES ('m1', 'good', now() - interval '3 days', 't', now() - interval '3 days', now() - interval '3 days', "
        "false), ('m1', 'past', now() - interval '9 days', 't', now(), now(), false), "
        "('m1', 'stopped', now(), 't', now(), now(), true), ('m1', 'unfinished', now(), 't', now(), NULL, false)"
    )
    found = scrape(shop)
    now = found["loyalty_metrics_collected_timestamp_seconds"][()]
    successes = found["loyalty_job_last_success_timestamp_seconds"]
    assert now - successes["expired_points", "m1"] == pytest.approx(3 * 86_400, abs=60)


def test_the_programmes_of_the_shops_merchants_are_told_with_whether_points_expire(shop: Shop) -> None:
    shop.merchant("m2", points_expiration_days=30)
    shop.merchant("off")
    shop.program("off", is_active=False)
    # Not of the shop.
    shop.program("gone")
    shop.run("INSERT INTO sample_shop.merchants VALUES ('none', 'No programme', 'UTC', 'EUR')")
    shop.run("UPDATE loyalty.programs SET created_at = '2026-01-01T00:00Z' WHERE merchant_id = 'm2'")
    shop.program("m2", points_expiration_days=40)
    found = scrape(shop)["loyalty_program_set_timestamp_seconds"]
    # expires, merchant
    assert set(found) == {("false", "m1"), ("true", "m2")}
    assert found["true", "m2"] == 1767225600


def test_the_age_of_an_open_snapshot_is_told(shop: Shop) -> None:
    assert scrape(shop)["loyalty_oldest_snapshot_transactions"] == {(): 0}
    with shop.engine.connect() as dump, dump.begin():
        dump.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        dump.execute(text("SELECT 1"))
        for _ in range(5):
            shop.run("SELECT pg_current_xact_id()")
        found = scrape(shop)
        assert found["loyalty_oldest_snapshot_transactions"][()] >= 5
        assert 0 < found["loyalty_oldest_snapshot_seconds"][()] < 60
    assert scrape(shop)["loyalty_oldest_snapshot_seconds"] == {(): 0}


def test_every_metric_is_announced_and_none_else(shop: Shop) -> None:
    assert set(scrape(shop)) == ALL_OF_THEM


# --- states of an installation ---


def test_a_database_without_anything_has_the_metrics_of_the_installation_alone(engine: Engine) -> None:
    found = scrape(Shop(engine))
    with_samples = {name for name, samples in found.items() if samples}
    assert with_samples == {
        "loyalty_duplicate_awards",
        "loyalty_schema_info",
        "loyalty_mapping_in_force",
        "loyalty_shop_readable",
        "loyalty_oldest_snapshot_transactions",
        "loyalty_oldest_snapshot_seconds",
        "loyalty_metrics_collected_timestamp_seconds",
        "loyalty_metrics_collection_seconds",
    }
    assert (found["loyalty_mapping_in_force"], found["loyalty_shop_readable"]) == ({(): 0}, {(): 0})
    version = Shop(engine).value("SELECT version_num FROM loyalty.schema_version")
    assert found["loyalty_schema_info"] == {(version,): 1}
    # A dashboard may read the views themselves.
    with engine.connect() as conn:
        assert conn.execute(text("SELECT * FROM loyalty.metrics_merchants")).all() == []


def test_a_withdrawn_mapping_is_not_in_force_and_the_ledger_is_measured_all_the_same(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    assert scrape(shop)["loyalty_mapping_in_force"] == {(): 1}
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    found = scrape(shop)
    assert (found["loyalty_mapping_in_force"], found["loyalty_shop_readable"]) == ({(): 0}, {(): 0})
    assert (found["loyalty_liability_points"], found["loyalty_liability_amount"]) == ({("m1",): 10}, {})


def test_a_shop_that_can_not_be_read_takes_only_its_own_part_with_it(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    assert scrape(shop)["loyalty_shop_readable"] == {(): 1}
    shop.run("CREATE FUNCTION fails() RETURNS text LANGUAGE sql AS $$ SELECT (1 / 0)::text $$")
    show_merchants(shop, "fails()")
    found = scrape(shop)
    assert (found["loyalty_mapping_in_force"], found["loyalty_shop_readable"]) == ({(): 1}, {(): 0})
    assert found["loyalty_program_set_timestamp_seconds"] == found["loyalty_liability_amount"] == {}
    assert found["loyalty_liability_points"] == {("m1",): 10}
    assert found["loyalty_job_last_success_timestamp_seconds"]


def test_merchants_that_the_shop_shows_twice_are_measured_once(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    show_merchants(shop, "currency", "CROSS JOIN generate_series(1, 2)")
    found = scrape(shop)
    assert found["loyalty_liability_amount"] == {("EUR", "m1"): 0}
    (set_at,) = found["loyalty_program_set_timestamp_seconds"].values()
    assert set_at == shop.value("SELECT created_at FROM loyalty.programs").timestamp()


def test_a_merchants_id_may_be_any_text(shop: Shop) -> None:
    shop.merchant(HOSTILE, points_expiration_days=30)
    shop.order("1", "10.00", merchant=HOSTILE)
    shop.award()
    shop.order("2", "10.00", merchant=HOSTILE)
    finding(shop, HOSTILE, "balance_differs", 1)
    found = scrape(shop)
    assert found["loyalty_liability_points"] == {(HOSTILE,): 10}
    assert found["loyalty_inbox_orders"] == {(HOSTILE,): 1}
    assert ("balance_differs", HOSTILE, "error") in found["loyalty_findings"]
    assert set(found) == ALL_OF_THEM


def test_one_merchants_metrics_hold_no_other_merchant(shop: Shop) -> None:
    for merchant in ("m2", HOSTILE):
        shop.merchant(merchant, points_expiration_days=30)
    for merchant in ("m1", "m2", HOSTILE):
        shop.order("1", "10.00", merchant=merchant)
        shop.order("odd", "NaN", merchant=merchant)
        shop.award()
        shop.order("2", "10.00", merchant=merchant)
        finding(shop, merchant, "balance_differs", 1, points_difference=1, amount_at_risk=1)
    list(sweep_merchants(shop.engine, ["m1", "m2"]))
    found = scrape(shop, "m2")
    everything = [label for samples in found.values() for labels in samples for label in labels]
    assert "m2" in everything
    assert "m1" not in everything
    assert HOSTILE not in everything
    assert found["loyalty_mapping_in_force"] == {(): 1}


def test_no_customer_and_no_order_is_named(shop: Shop) -> None:
    person = "ann.secret@example.com"
    Outbox(shop).customer(person)
    shop.order("order-secret", "10.00", customer=person)
    shop.order("odd-secret", "NaN", customer=person)
    shop.award()
    Queue(shop).report("queue-secret", 0, 100_000, customer=person)
    finding(shop, "m1", "balance_differs", 1, object_id=person, evidence='{"customer": "ann.secret@example.com"}')
    shop.run(
        "INSERT INTO loyalty.merchant_jobs (merchant_id, job, failed_at, failure) "
        "VALUES ('m1', 'expired_points', now(), 'account of ann.secret@example.com')"
    )
    with reading(shop.engine) as conn:
        assert b"secret" not in as_text(read_metrics(conn))


def test_a_scrape_reads_no_ledger_entry(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    with shop.engine.connect() as other, other.begin():
        # Whoever reads it now waits.
        other.execute(text("LOCK TABLE loyalty.ledger_entries IN ACCESS EXCLUSIVE MODE"))
        assert scrape(shop)["loyalty_liability_points"] == {("m1",): 10}


# --- rights ---


@pytest.mark.parametrize("role", ["loyalty_reader", "loyalty_pipeline"])
def test_dashboards_and_pipelines_may_read_all_of_it(shop: Shop, role: str) -> None:
    shop.program(point_value_amount="0.01")
    shop.order("1", "10.00")
    shop.award()
    with shop.engine.connect() as conn, conn.begin():
        conn.execute(text(f"SET LOCAL ROLE {role}"))
        found = parsed(as_text(read_metrics(conn)).decode())
    assert found["loyalty_shop_readable"] == {(): 1}
    assert found["loyalty_liability_amount"] == {("EUR", "m1"): 0.1}


def test_the_age_of_a_strangers_snapshot_is_seen_without_its_time(shop: Shop, database_url: str) -> None:
    name = f"reader_of_{make_url(database_url).database}"
    shop.run(f'CREATE ROLE "{name}" LOGIN IN ROLE loyalty_reader')
    reader = connect(make_url(database_url).set(username=name).render_as_string())
    with shop.engine.connect() as dump, dump.begin(), reading(reader) as conn:
        dump.execute(text("SELECT pg_current_xact_id()"))
        shop.run("SELECT pg_current_xact_id()")
        found = parsed(as_text(read_metrics(conn)).decode())
    reader.dispose()
    shop.run(f'DROP ROLE "{name}"')
    assert found["loyalty_oldest_snapshot_transactions"][()] >= 1
    assert found["loyalty_oldest_snapshot_seconds"] == {}


# --- who writes down whom it has served ---


def test_a_sweep_of_all_orders_notes_whom_it_served_and_whom_it_failed(shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("1", "10.00")
    shop.order("2", "10.00", merchant="m2")
    break_merchant(shop, "m1", "ledger_entries")
    swept = list(sweep_merchants(shop.engine, ["m1", "m2"], run_id="run-7"))
    assert [one.failure is None for one in swept] == [False, True]
    assert jobs(shop, "awarded_points") == {"m1": (False, True), "m2": (True, False)}
    shop.run("DROP TRIGGER break_one ON loyalty.ledger_entries")
    list(sweep_merchants(shop.engine, ["m1"]))
    assert jobs(shop, "awarded_points")["m1"] == (True, True)
    assert shop.value("SELECT succeeded_run_id FROM loyalty.merchant_jobs WHERE merchant_id = 'm2'") == "run-7"


def test_a_dry_sweep_and_one_of_some_orders_are_not_noted(shop: Shop) -> None:
    shop.order("1", "10.00")
    now = shop.value("SELECT now()")
    options: list[dict[str, Any]] = [{"is_dry_run": True}, {"paid_from": now}, {"paid_to": now}]
    for one in options:
        list(sweep_merchants(shop.engine, ["m1"], **one))
    assert jobs(shop, "awarded_points") == {}


def test_a_merchant_whose_orders_can_not_be_read_is_noted_as_failed(shop: Shop) -> None:
    shop.run("DROP FUNCTION loyalty_source.orders_of_merchant CASCADE")
    (swept,) = sweep_merchants(shop.engine, ["m1"])
    assert swept.failure
    assert jobs(shop, "awarded_points") == {"m1": (False, True)}


def test_a_drain_of_the_queue_notes_merchants_but_not_for_a_single_item(shop: Shop) -> None:
    shop.merchant("m2")
    queue = Queue(shop)
    numbers = [queue.report("1", 5, 0, merchant_id=merchant) for merchant in ("m1", "m2")]
    queue.drain(only=numbers[0])
    assert jobs(shop, "reconciliation_queue") == {}
    queue.report("2", 5, 0, merchant_id="m1")
    break_merchant(shop, "m1", "ledger_entries")
    queue.drain()
    assert jobs(shop, "reconciliation_queue") == {"m1": (False, True), "m2": (True, False)}


def test_holds_that_were_released_are_noted(shop: Shop) -> None:
    shop.order("1", "10.00")
    shop.award()
    Checkout(shop.engine).reserve("2", 5)
    release_stale_holds(shop.engine)
    assert jobs(shop, "released_holds") == {}
    shop.run("UPDATE loyalty.holds SET expires_at = now()")
    release_stale_holds(shop.engine, run_id="run-8")
    assert jobs(shop, "released_holds") == {"m1": (True, False)}
    shop.run("UPDATE loyalty.holds SET status = 'open', expires_at = now()")
    shop.run("UPDATE loyalty.accounts SET held = 5")
    shop.run("ALTER TABLE loyalty.holds ADD CONSTRAINT never CHECK (status = 'open')")
    release_stale_holds(shop.engine)
    assert jobs(shop, "released_holds") == {"m1": (True, True)}


def test_mails_note_whom_the_server_took_mails_of(shop: Shop) -> None:
    shop.merchant("m2")
    outbox = Outbox(shop)
    outbox.add("ann")
    with mail_server() as server:
        outbox.sent(server)
        assert jobs(shop, "sent_notifications") == {"m1": (True, False)}
        outbox.many(10, merchant="m2")
        server.rules["rcpt"] = lambda _: "451 later"
        report = outbox.send(server)
        assert report.server_problem
        assert report.total("put_off") == 10
    assert jobs(shop, "sent_notifications") == {"m1": (True, False)}


def test_expiry_that_fails_is_noted_and_a_dry_run_is_not(shop: Shop) -> None:
    shop.program(points_expiration_days=30)
    shop.order("1", "10.00")
    shop.award()
    break_merchant(shop, "m1", "expiry_runs")
    shop.run("UPDATE loyalty.accounts SET expires_at = now(), warned_for = now()")
    assert next(iter(expire_merchants(shop.engine, options=ExpiryOptions(is_dry_run=True), actor="t"))).failure is None
    assert jobs(shop, "expired_points") == {}
    (done,) = expire_merchants(shop.engine, actor="test")
    assert done.failure
    assert jobs(shop, "expired_points") == {"m1": (False, True)}


def test_two_that_note_the_same_merchants_at_once_both_succeed(shop: Shop) -> None:
    merchants = [f"n{number}" for number in range(20)]

    def note(failed: str) -> None:
        for _ in range(20):
            note_merchants(shop.engine, job="test", served=merchants, failures={failed: "x"}, run_id=None)

    threads = [threading.Thread(target=note, args=(merchants[at],)) for at in (0, 19)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(jobs(shop, "test")) == set(merchants)
    assert jobs(shop, "test")["n0"] == jobs(shop, "test")["n19"] == (True, True)


def test_the_revision_has_every_view_that_is_read() -> None:
    folder = Path(__file__).parents[2] / "loyalty_pipelines" / "db"
    made = (folder / "migrations" / "versions" / "0007_metrics.sql").read_text()
    for statement in (folder / "sql" / "metrics").glob("*.sql"):
        for line in statement.read_text().splitlines():
            if line.startswith("FROM loyalty."):
                assert f"CREATE VIEW {line.split()[1]} AS" in made
