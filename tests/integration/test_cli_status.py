"""`loyalty status` at each stage of an installation."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from loyalty_pipelines.embedded import EmbeddedServer
from tests.cli import Cli
from tests.shop import Shop


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def empty(server: EmbeddedServer) -> Iterator[Cli]:
    name = f"empty_{uuid.uuid4().hex[:16]}"
    server.ensure_database(name)
    yield Cli(server.url(name))
    with psycopg.connect(server.url("postgres").replace("+psycopg", ""), autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def check(cli: Cli, stage: str, *says: str) -> None:
    """Check stage, exit status and sentences of `loyalty status`, as text and as JSON."""
    text, as_json = cli.run("status"), cli.run("status", "--json")
    assert as_json.document["stage"] == stage
    assert text.status == as_json.status == (1 if says else 0)
    findings = as_json.document["findings"]
    assert len(findings) == len(says), findings
    for said, finding in zip(says, findings, strict=True):
        assert said in finding
        assert finding in text.out
    assert text.err.startswith("database: ")
    assert as_json.err == ""


def test_a_database_that_does_not_answer() -> None:
    cli = Cli("postgresql://somebody:secret@127.0.0.1:1/shop")
    check(cli, "unreachable", "The database can't be reached (connection failed")
    assert "secret" not in cli.run("status").out + cli.run("status", "--json").out


def test_nothing_installed(empty: Cli) -> None:
    check(empty, "not_installed", "run 'loyalty init'")


def test_no_mapping(cli: Cli) -> None:
    check(cli, "not_mapped", "loyalty sources apply --file F")


def test_a_newer_schema(cli: Cli, shop: Shop) -> None:
    shop.run("UPDATE loyalty.schema_version SET version_num = '9999'")
    check(cli, "other_version", "a newer release has upgraded this database")


def test_no_programme(cli: Cli, shop: Shop) -> None:
    shop.run("DELETE FROM loyalty.programs")
    check(cli, "no_program", "loyalty programs set MERCHANT")


def test_no_merchant(cli: Cli, shop: Shop) -> None:
    shop.run("UPDATE sample_shop.merchants SET is_active = false")
    check(cli, "no_program", "The shop lists no active merchant")


def test_everything_at_work(cli: Cli, shop: Shop) -> None:
    shop.run("INSERT INTO sample_shop.merchants VALUES ('m2', 'Second', 'UTC', 'EUR')")
    shop.order("1", "10")
    shop.award()
    shop.order("2", "10")
    check(cli, "working")
    found = cli.ok("status", "--json").document
    assert found["merchants"] == {"in_shop": 2, "with_program": 1}
    assert found["mapping"]["capture"] == "trigger"
    assert found["mapping"]["orders_relation"] == "sample_shop.orders"
    assert {one["state"] for one in found["mapping"]["triggers"]} == {"enabled"}
    assert (found["waiting"][0]["merchant_id"], found["waiting"][0]["orders"]) == ("m1", 1)
    assert found["last_batch"]["points_changed"] == 10
    text = cli.ok("status").out
    assert "2 active: 1 with a programme, 1 without" in text
    assert "13 of 13 triggers enabled" in text
    assert "1 order of 1 merchant" in text
    assert "Nothing needs you." in text


def test_open_findings_of_severity_error_need_a_person_until_they_are_accepted(cli: Cli, shop: Shop) -> None:
    for number, (subject, severity) in enumerate(
        [("subscriptions", "error"), ("subscriptions", "error"), ("subscriptions", "warning"), ("integrity", "error")]
    ):
        shop.run(
            "INSERT INTO loyalty.findings (merchant_id, subject, class, severity, object_type, object_id)"
            f" VALUES ('m1', '{subject}', 'captured_twice', '{severity}', 'payment', 'p{number}')"
        )
    check(cli, "working", "1 finding is open at 1 merchant, the oldest since ", "2 findings are open at 1 merchant, ")
    done = cli.run("status")
    assert done.status == 1
    assert (
        "'loyalty subscriptions findings' shows what is wrong, docs/runbooks/subscriptions.md what to do." in done.out
    )
    shop.run("UPDATE loyalty.findings SET accepted_at = now(), accepted_by = 'Kim', accepted_because = 'so'")
    check(cli, "working")


def test_a_programme_that_is_switched_off_or_not_yet_valid_does_not_count(cli: Cli, shop: Shop) -> None:
    shop.run("UPDATE loyalty.programs SET is_active = false")
    check(cli, "no_program", "No merchant has a programme")
    shop.run("UPDATE loyalty.programs SET is_active = true, valid_from = now() + interval '1 day'")
    check(cli, "no_program", "No merchant has a programme")


def test_a_disabled_and_a_missing_trigger(cli: Cli, shop: Shop) -> None:
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER loyalty_capture_orders_insert")
    shop.run("DROP TRIGGER loyalty_capture_orders_update ON sample_shop.orders")
    check(cli, "working", "loyalty_capture_orders_insert on sample_shop.orders is disabled")
    finding = cli.run("status", "--json").document["findings"][0]
    assert "loyalty_capture_orders_update on sample_shop.orders is missing" in finding
    assert "11 of 13 triggers enabled" in cli.run("status").out


def test_a_shop_that_lost_what_the_mapping_reads(cli: Cli, shop: Shop) -> None:
    shop.run("DROP VIEW loyalty_source.merchants CASCADE")
    check(cli, "mapping_broken", 'relation "loyalty_source.merchants" does not exist')


def test_orders_without_a_view_to_read(cli: Cli, shop: Shop) -> None:
    shop.run("DROP FUNCTION loyalty_source.order_by_id CASCADE")
    check(cli, "mapping_broken", "order_by_id")


def test_a_recorded_mapping_that_is_not_understood(cli: Cli, shop: Shop) -> None:
    shop.run("INSERT INTO loyalty.source_mapping (mapping_yaml) VALUES ('version: 2')")
    found = cli.run("status", "--json")
    assert (found.status, found.document["stage"]) == (1, "mapping_broken")


def test_open_queue_items_are_counted_by_reason(cli: Cli, shop: Shop) -> None:
    shop.order("1", "NaN")
    shop.order("2", "5", currency="USD")
    shop.order("3", "-1")
    shop.award()
    check(cli, "working", "3 point updates wait in loyalty.reconciliation_queue (amount_invalid 2, currency_differs 1)")
    assert [(one["reason"], one["items"]) for one in cli.run("status", "--json").document["queue"]] == [
        ("amount_invalid", 2), ("currency_differs", 1),
    ]  # fmt: skip


def test_orders_that_wait_for_long_are_told(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '9 minutes'")
    check(cli, "working")
    shop.run("UPDATE loyalty.order_inbox SET enqueued_at = now() - interval '11 minutes'")
    check(cli, "working", "1 order waits, the oldest since")


def test_the_merchants_that_wait_longest_come_first_and_ten_at_most(cli: Cli, shop: Shop) -> None:
    for number in range(12):
        shop.run(
            "INSERT INTO loyalty.order_inbox (merchant_id, order_id, source, enqueued_at) "
            "VALUES (:merchant, '1', 'test', now() - :n * interval '1 second')",
            merchant=f"w{number}", n=number,
        )  # fmt: skip
    found = cli.ok("status", "--json").document
    assert [one["merchant_id"] for one in found["waiting"]] == [f"w{number}" for number in range(11, 1, -1)]
    assert (found["waiting_orders"], found["waiting_merchants"]) == (12, 12)
