"""`loyalty award`, `account show` and `status` on a shop at work."""

import os
import pty
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.domain.source_mapping import parse_mapping
from tests.cli import Cli
from tests.shop import Shop


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


def test_award_drains_the_inbox_and_shows_each_merchant(cli: Cli, shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("1", "10")
    shop.order("2", "7", merchant="m2")
    shop.order("3", "7", merchant="m2", status="pending")
    found = cli.ok("award")
    assert "2 orders changed balances by 17 points." in found.out
    rows = [line.split()[:4] for line in found.out.splitlines() if line.strip().startswith("m")]
    assert rows == [["merchant", "orders", "changed", "unchanged"], ["m1", "1", "1", "0"], ["m2", "2", "1", "0"]]
    assert shop.balance() == 10
    assert "No orders wait." in cli.ok("award").out


def test_award_as_json_is_one_document(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    found = cli.ok("award", "--json").document
    assert found["total"]["points_changed"] == 10
    assert found["merchants"][0]["merchant_id"] == "m1"
    assert (found["dry_run"], found["failures"], found["swept"]) == (False, {}, None)


def test_award_of_one_merchant_leaves_the_others_waiting(cli: Cli, shop: Shop) -> None:
    shop.merchant("m2")
    shop.merchant("m3")
    for merchant in ("m1", "m2", "m3"):
        shop.order("1", "10", merchant=merchant)
    cli.ok("award", "--merchant", "m2", "--merchant", "m3", "--merchant", "m3")
    assert [shop.balance(merchant=one) for one in ("m1", "m2", "m3")] == [0, 10, 10]
    assert "did you mean 'm1'" in cli.refused(1, "award", "--merchant", "m11")


def test_a_dry_run_says_what_would_happen_and_writes_nothing(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    found = cli.ok("award", "--dry-run")
    assert "1 order changed balances by 10 points. It was a dry run: nothing was written." in found.out
    assert "1 new customer enrolled, with 0 points of welcome bonus." in found.out
    assert shop.balance() == 0
    cli.ok("award")
    assert shop.balance() == 10


def test_a_sweep_finds_what_no_trigger_saw(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    shop.run("DELETE FROM loyalty.order_inbox")
    assert "No orders wait." in cli.ok("award").out
    planned = cli.ok("award", "--sweep", "--dry-run")
    assert "Different from the ledger: 1 order. Nothing was written." in planned.out
    as_json = cli.ok("award", "--sweep", "--dry-run", "--json").document
    assert as_json["differences"]["m1"]["orders_paid"] == 1
    assert shop.value("SELECT count(*) FROM loyalty.order_inbox") == 0
    assert "Swept 1 merchant: 1 order to look at." in cli.ok("award", "--sweep").out
    assert shop.balance() == 10
    assert cli.ok("award", "--sweep", "--json").document["swept"] == {"m1": 0}


def test_in_poll_mode_it_brings_what_changed_before_it_awards(cli: Cli, shop: Shop) -> None:
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(sample_shop.mapping().yaml_text.replace("capture: trigger", "capture: poll")))
    shop.order("1", "10")
    planned = cli.ok("award", "--dry-run").out
    assert "1 more order changed in the shop since the last poll" in planned
    assert "No orders wait in the inbox." in planned
    assert cli.ok("award", "--dry-run", "--json").document["orders_not_polled"] == 1
    assert "1 order changed balances by 10 points." in cli.ok("award").out
    assert "No orders wait." in cli.ok("award").out
    assert "more order" not in cli.ok("award", "--dry-run").out


def test_a_sweep_of_one_merchant_leaves_the_others(cli: Cli, shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("1", "10")
    shop.order("1", "10", merchant="m2")
    shop.run("DELETE FROM loyalty.order_inbox")
    cli.ok("award", "--sweep", "--merchant", "m2")
    assert [shop.balance(), shop.balance(merchant="m2")] == [0, 10]
    assert shop.value("SELECT count(*) FROM loyalty.order_inbox") == 0


def test_orders_that_cannot_be_decided_are_status_1(cli: Cli, shop: Shop) -> None:
    shop.order("1", "NaN")
    shop.order("2", "10")
    found = cli.run("award")
    assert found.status == 1
    assert "1 order could not be decided" in found.err
    assert shop.balance() == 10
    shop.order("3", "NaN")
    shop.run("DELETE FROM loyalty.order_inbox")
    planned = cli.run("award", "--sweep", "--dry-run", "--json")
    assert (planned.status, planned.document["differences"]["m1"]["orders_undecided"]) == (1, 1)


def test_a_merchant_that_fails_hides_no_other_and_is_status_1(cli: Cli, shop: Shop) -> None:
    shop.merchant("m2")
    shop.order("1", "10")
    shop.order("1", "10", merchant="m2")
    # Not an error that an order could cause: a right that is missing for one merchant only.
    shop.run(
        """
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'no right to m1' USING ERRCODE = '42501'; END $$
        """
    )
    shop.run(
        "CREATE TRIGGER refuse BEFORE INSERT ON loyalty.accounts FOR EACH ROW WHEN (NEW.merchant_id = 'm1') "
        "EXECUTE FUNCTION public.refuse()"
    )
    found = cli.run("award")
    assert found.status == 1
    assert "Error: merchant m1 failed: no right to m1" in found.err
    assert shop.balance(merchant="m2") == 10
    assert cli.run("award", "--json").document["failures"] == {"m1": "no right to m1"}


def test_batch_size_has_bounds(cli: Cli, shop: Shop) -> None:
    assert "--batch-size" in cli.refused(2, "award", "--batch-size", "0")
    for number in range(5):
        shop.order(str(number), "10", customer=f"c{number}")
    assert cli.ok("award", "--batch-size", "2", "--json").document["merchants"][0]["batches"] >= 2


def test_ids_with_control_characters_and_markup_are_shown_as_text(cli: Cli, shop: Shop) -> None:
    hostile = "[bold]\x1b[31m'; DROP\n\U0001f6d2"
    shop.order("1", "10", customer=hostile)
    shop.award()
    shown = cli.ok("account", "show", "m1", hostile).out
    assert "[bold]\\x1b[31m'; DROP" in shown
    assert "\x1b" not in shown
    assert cli.ok("account", "show", "m1", hostile, "--json").document["account"]["customer_id"] == hostile


def test_an_id_that_the_terminal_cannot_show_is_escaped(shop: Shop, database_url: str) -> None:
    shop.order("\U0001f6d2", "10")
    shop.award()
    done = subprocess.run(
        [sys.executable, "-m", "loyalty_pipelines.cli", "account", "show", "m1", "ann"],
        capture_output=True,
        text=True,
        env={**os.environ, "LOYALTY_DATABASE_URL": database_url, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert "order \\U0001f6d2" in done.stdout


def test_a_terminal_gets_a_progress_bar_and_the_same_result(shop: Shop, database_url: str) -> None:
    shop.order("1", "10")
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "loyalty_pipelines.cli", "award", "--sweep"],
        stdout=subprocess.PIPE,
        stderr=terminal,
        env={**os.environ, "LOYALTY_DATABASE_URL": database_url, "TERM": "xterm"},
    )
    os.close(terminal)
    seen = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    out, _ = process.communicate(timeout=60)
    os.close(controller)
    assert process.returncode == 0
    assert b"awarding" in seen
    assert b"changed balances by 10 points" in out


# --- account show ---


def test_an_account_is_shown_with_its_newest_entries_first(cli: Cli, shop: Shop) -> None:
    shop.program(
        points_per_unit=1, points_expiration_days=30, stamps_per_order=1, valid_from=datetime(2001, 1, 1, tzinfo=UTC)
    )
    for number in range(1, 4):
        shop.order(f"o{number}", 10 * number)
    shop.award()
    shop.run("UPDATE loyalty.accounts SET held = 5")
    found = cli.ok("account", "show", "m1", "ann", "--json").document
    account = found["account"]
    assert [account[name] for name in ("balance", "held", "spendable", "stamp_count", "entries")] == [60, 5, 55, 3, 3]
    assert account["last_activity_at"] is not None
    assert account["expires_at"] is not None
    assert [one["reference_id"] for one in found["entries"]] == ["o3", "o2", "o1"]
    assert [one["seq"] for one in found["entries"]] == [3, 2, 1]
    text = cli.ok("account", "show", "m1", "ann", "--limit", "2").out
    assert "order o3" in text
    assert "order o1" not in text
    assert "The newest 2 of 3 entries" in text
    assert "spendable      55" in text


def test_points_past_their_expiry_are_not_spendable(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 second'")
    account = cli.ok("account", "show", "m1", "ann", "--json").document["account"]
    assert (account["balance"], account["spendable"]) == (10, 0)


def test_open_queue_items_of_the_customer_are_shown(cli: Cli, shop: Shop) -> None:
    shop.order("1", "10")
    shop.order("2", "NaN")
    shop.order("3", "NaN", customer="bob")
    shop.award()
    queue = cli.ok("account", "show", "m1", "ann", "--json").document["queue"]
    assert [(one["order_id"], one["reason"]) for one in queue] == [("2", "amount_invalid")]
    assert "order 2, amount_invalid" in cli.ok("account", "show", "m1", "ann").out
    line = cli.refused(1, "account", "show", "m1", "bob")
    assert "has no account at merchant 'm1' and 1 of its orders wait" in line


def test_an_unknown_customer_or_merchant_is_status_1(cli: Cli, shop: Shop) -> None:
    assert "Customer 'zoe' has no account at merchant 'm1'" in cli.refused(1, "account", "show", "m1", "zoe")
    assert "did you mean 'm1'" in cli.refused(1, "account", "show", "m11", "ann")


def test_no_command_prints_an_address(cli: Cli, shop: Shop) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id, email) VALUES ('m1', 'ann', 'ann@example.org')")
    shop.order("1", "10")
    commands = [["award"], ["account", "show", "m1", "ann"], ["status"], ["programs", "list"]]
    for command in commands:
        assert "example.org" not in cli.ok(*command).out
        assert "example.org" not in cli.ok(*command, "--json").out
