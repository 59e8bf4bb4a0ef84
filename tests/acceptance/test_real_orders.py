"""25,900 real orders, through the command line, against results that two independent programs agree on."""

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.cli import Cli
from tests.shop import Shop

DATA = Path(__file__).parents[3] / "shared" / "data"
ORDERS = DATA / "online_retail_2010_2011.csv.gz"

pytestmark = pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")


@pytest.fixture
def expected() -> dict:
    return json.loads((DATA / "expected_results.json").read_text(encoding="utf-8"))["online_retail_2010_2011"]


def summary(shop: Shop) -> dict:
    """What the ledger says, in the words of expected_results.json."""
    balances = shop.rows(
        "SELECT customer_id, balance AS points FROM loyalty.accounts "
        "WHERE merchant_id = 'retail' AND balance >= 1 ORDER BY customer_id"
    )
    text = "".join(f"{row.customer_id}|{row.points}\n" for row in balances)
    return {
        "awards_eligible_orders": shop.value("SELECT count(*) FROM loyalty.order_points"),
        "awards_with_points": shop.value("SELECT count(*) FROM loyalty.ledger_entries WHERE kind = 'earned'"),
        "total_points": sum(row.points for row in balances),
        "accounts": len(balances),
        "top20": [
            dict(row._mapping)
            for row in shop.rows(
                "SELECT a.customer_id, a.balance AS points, count(*) AS awards FROM loyalty.accounts AS a "
                "JOIN loyalty.order_points AS o USING (merchant_id, account_id) GROUP BY 1, 2 "
                "ORDER BY 2 DESC, 1 LIMIT 20"
            )
        ],
        "balances_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }


def test_real_orders_give_exactly_the_expected_points_and_again_none(
    engine: Engine, database_url: str, expected: dict
) -> None:
    cli, shop = Cli(database_url), Shop(engine)
    loaded = cli.ok("orders", "import", ORDERS, "--merchant", "retail", "--json").document
    assert loaded["orders_new"] == expected["orders_in_file"]
    words = {one["word"]: one["lines"] for one in loaded["statuses"]}
    assert words == expected["orders_by_status"]
    cli.ok("programs", "set", "retail", "--points-per-unit", "1", "--valid-from", "2000-01-01T00:00Z")
    awarded = cli.ok("award", "--json").document

    wanted = {name: expected[name] for name in summary(shop)}
    assert summary(shop) == wanted
    assert awarded["total"]["points_changed"] == expected["total_points"]
    assert awarded["total"]["entries_written"] == expected["awards_with_points"]
    assert shop.value("SELECT count(*) FROM loyalty.order_points WHERE target_points = 0") == 7
    assert shop.problems() == []

    assert cli.ok("award", "--json").document["total"]["rows_claimed"] == 0
    swept = cli.ok("award", "--sweep", "--json").document
    assert swept["swept"] == {"retail": 0}
    assert swept["total"]["entries_written"] == 0
    again = cli.ok(
        "orders",
        "import",
        ORDERS,
        "--merchant",
        "retail",
        "--status-map",
        "void=cancelled,adjustment=cancelled",
        "--json",
    ).document
    assert again["orders_unchanged"] == expected["orders_in_file"]
    assert cli.ok("award", "--json").document["total"]["rows_claimed"] == 0
    assert summary(shop) == wanted
    assert cli.ok("status", "--json").document["findings"] == []
