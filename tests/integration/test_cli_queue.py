"""`loyalty queue` on a queue with something in it."""

import pytest

from loyalty_pipelines.db import sources
from tests.cli import Cli
from tests.queued import Queue
from tests.shop import Shop

TOO_MANY = 1_000_000


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def waiting(shop: Shop) -> Queue:
    """The queue, empty; ann has 100 points."""
    shop.order("first", "100.00")
    shop.award()
    return Queue(shop)


def listed(cli: Cli, *options: str) -> list[int]:
    return [one["queue_id"] for one in cli.ok("queue", "list", "--json", *options).document["items"]]


def test_an_empty_queue_is_said_to_be_empty(cli: Cli, waiting: Queue) -> None:
    assert cli.ok("queue", "list").out == "No items.\n"
    assert cli.ok("queue", "list", "--json").document == {"items": [], "is_more": False}


def test_the_list_shows_what_waits_the_newest_first(cli: Cli, shop: Shop, waiting: Queue) -> None:
    first = waiting.report("o1", 25, 50)
    second = waiting.report("o2", 0, TOO_MANY, "bea", merchant_id=None)
    waiting.tried(merchants=[""])
    found = cli.ok("queue", "list").out
    rows = [line.split() for line in found.splitlines() if line.strip()[:1].isdigit()]
    assert [row[:6] for row in rows] == [
        [str(second), "-", "bea", "o2", "update", "merchant_unknown"],
        [str(first), "m1", "ann", "o1", "update", "reported_by_shop"],
    ]
    assert "The newest 1 items; --limit shows more." in cli.ok("queue", "list", "--limit", "1").out
    assert cli.ok("queue", "list", "--limit", "1", "--json").document["is_more"]


def test_the_list_is_narrowed_by_merchant_and_parked_and_widened_by_all(cli: Cli, shop: Shop, waiting: Queue) -> None:
    shop.merchant("m2")
    done = waiting.report("done", 10, 0)
    parked = waiting.report("parked", 0, TOO_MANY, merchant_id="m2")
    waiting.tried(max_tries=1)
    new = waiting.report("new", 10, 0)
    assert listed(cli) == [new, parked]
    assert listed(cli, "--merchant", "m2") == [parked]
    assert listed(cli, "--parked") == [parked]
    assert listed(cli, "--all") == [new, parked, done]
    assert "did you mean 'm1'" in cli.refused(1, "queue", "list", "--merchant", "m11")


def test_show_says_everything_of_an_item(cli: Cli, waiting: Queue) -> None:
    number = waiting.report("o", 25, TOO_MANY, order_total="99.90", error="timeout")
    assert "timeout" in cli.ok("queue", "show", str(number)).out
    waiting.tried(max_tries=1)
    found = cli.ok("queue", "show", str(number)).out
    assert f"Item {number}: update of order o, insufficient_points" in found
    for line in (
        "merchant       m1",
        "customer       ann",
        "detail         Insufficient loyalty points. Available: 100, Requested: 1000000",
        "points earned  25",
        "redeemed       1,000,000",
        "order total    99.9",
        "tries          1",
        "last run       test-run",
        "state          parked",
    ):
        assert f"  {line}\n" in found
    later = waiting.report("later", 1, 0)
    assert f"state          waits for item {number}" in cli.ok("queue", "show", str(later)).out
    assert cli.ok("queue", "show", str(number), "--json").document["points_redeemed"] == TOO_MANY
    assert "The queue has no item 999" in cli.refused(1, "queue", "show", "999")


def test_retrying_an_item_tries_it_at_once(cli: Cli, shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 150)
    found = cli.run("queue", "retry", str(number))
    assert found.status == 1
    assert "Tried 1 item: 0 done, 1 still in the queue; 'loyalty queue list' says why." in found.out
    shop.order("second", "50.00")
    shop.award()
    assert "Tried 1 item: 1 done, 0 still in the queue." in cli.ok("queue", "retry", str(number)).out
    assert shop.balance() == 25
    assert shop.value("SELECT actor FROM loyalty.ledger_entries WHERE kind = 'redeemed'").startswith("cli")
    assert f"Item {number} was resolved at" in cli.refused(1, "queue", "retry", str(number))


def test_retrying_an_item_leaves_the_others_alone(cli: Cli, shop: Shop, waiting: Queue) -> None:
    number = waiting.report("a", 25, 0)
    waiting.report("b", 10, 0)
    cli.ok("queue", "retry", str(number))
    assert shop.balance() == 125


def test_retrying_a_merchant_or_everything_tries_parked_items_too(cli: Cli, shop: Shop, waiting: Queue) -> None:
    shop.merchant("m2")
    waiting.report("o", 0, 150)
    waiting.report("o", 0, TOO_MANY, merchant_id="m2")
    waiting.tried(max_tries=1)
    shop.order("second", "50.00")
    shop.award()
    found = cli.ok("queue", "retry", "--merchant", "m1", "--json").document
    assert [(one["merchant_id"], one["applied"]) for one in found["merchants"]] == [("m1", 1)]
    everything = cli.run("queue", "retry", "--everything", "--json")
    assert (everything.status, everything.document["merchants"][0]["parked"]) == (1, 0)
    assert (everything.document["merchants"][0]["failed"], everything.document["failures"]) == (1, {})


def test_retry_says_when_there_is_nothing_to_try(cli: Cli, waiting: Queue) -> None:
    assert "Nothing was to be tried." in cli.ok("queue", "retry", "--everything").out


@pytest.mark.parametrize("args", [[], ["1", "--everything"], ["--merchant", "m1", "--everything"]])
def test_retry_wants_one_of_number_merchant_and_everything(cli: Cli, waiting: Queue, args: list[str]) -> None:
    assert "Name one of NUMBER, --merchant M and --everything." in cli.refused(2, "queue", "retry", *args)


def test_retry_names_the_merchant_that_fails(cli: Cli, shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 25, 0)
    shop.run("ALTER TABLE loyalty.ledger_entries RENAME COLUMN actor TO performer")
    assert "Error: merchant m1 failed: column" in cli.refused(1, "queue", "retry", "--everything")


def test_an_undecided_order_is_retried_too(cli: Cli, shop: Shop, waiting: Queue) -> None:
    shop.order("bad", "NaN")
    shop.award()
    shop.run("ALTER TABLE sample_shop.orders DISABLE TRIGGER ALL")
    shop.order("bad", "20")
    (number,) = waiting.numbers()
    assert "Tried 1 item: 1 done" in cli.ok("queue", "retry", str(number)).out
    assert shop.balance() == 120


def test_resolving_needs_a_reason_and_remembers_who(cli: Cli, shop: Shop, waiting: Queue) -> None:
    first, second = waiting.report("a", 25, 0), waiting.report("b", 25, 0)
    assert "Missing option '--reason'" in cli.refused(2, "queue", "resolve", str(first))
    found = cli.ok("queue", "resolve", str(first), "--reason", "paid back in cash", "--actor", "Bob")
    assert found.out == f"Item {first} (order a, reported_by_shop) is resolved by Bob: paid back in cash\n"
    cli.ok("queue", "resolve", str(second), "--reason", "the same")
    assert (waiting.item(second).resolved_by or "").startswith("cli")
    assert "state          resolved: paid back in cash" in cli.ok("queue", "show", str(first)).out
    assert (waiting.tried(), shop.balance()) == ({}, 100)
    assert "by Bob: paid back in cash" in cli.refused(1, "queue", "resolve", str(first), "--reason", "x")


def test_unparking_lets_a_customer_be_tried_again(cli: Cli, shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 0, TOO_MANY)
    waiting.tried(max_tries=1)
    assert "parked         item" in cli.ok("account", "show", "m1", "ann").out
    assert "Unparked 1 item of customer ann" in cli.ok("queue", "unpark", "m1", "ann").out
    assert waiting.tried() == {"failed": 1}
    assert "Nothing of customer 'ann' is parked" in cli.refused(1, "queue", "unpark", "m1", "ann")


def test_status_names_the_command_that_shows_the_queue(cli: Cli, shop: Shop, waiting: Queue) -> None:
    waiting.report("o", 25, 0)
    found = cli.run("status")
    assert found.status == 1
    assert (
        "1 point update waits in loyalty.reconciliation_queue (reported_by_shop 1): 'loyalty queue list' " in found.out
    )


def test_behind_a_withdrawn_mapping_the_queue_is_shown_and_not_retried(cli: Cli, shop: Shop, waiting: Queue) -> None:
    number = waiting.report("o", 25, 0)
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    assert listed(cli) == [number]
    assert "withdrawn" in cli.refused(1, "queue", "retry", "--everything")
