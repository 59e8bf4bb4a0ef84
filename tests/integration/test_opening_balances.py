"""`loyalty accounts import`: balances of a programme that started elsewhere."""

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from loyalty_pipelines.cli.csv_file import CsvFile
from loyalty_pipelines.db import merges
from loyalty_pipelines.db.opening_balances import import_balances
from loyalty_pipelines.domain.csv_files import choose_columns
from loyalty_pipelines.domain.merges import Merge
from loyalty_pipelines.domain.opening_balances import COLUMN_GUESSES, OpeningFormat, OpeningReport
from tests.checkout import Checkout
from tests.cli import Cli, write_orders
from tests.shop import Shop

HEADER = "customer_id,points,merchant_id,last_activity_at"


@pytest.fixture
def cli(shop: Shop, database_url: str) -> Cli:
    """The command line on a shop with the merchant m1, whose points expire after a year."""
    shop.program(points_expiration_days=365)
    return Cli(database_url)


def write(tmp_path: Path, *lines: str, header: str = "customer_id,points", name: str = "balances.csv") -> Path:
    return write_orders(tmp_path / name, header, lines)


def load(cli: Cli, path: Path, *options: str) -> dict:
    return cli.ok("accounts", "import", path, *options, "--json").document


def problems(cli: Cli, path: Path, *options: str) -> list[str]:
    """The lines about a file that is refused, without the last, which sums up."""
    found = cli.run("accounts", "import", path, *options, "--json")
    assert found.status == 1, found
    *lines, last = found.err.splitlines()
    assert "nothing was imported" in last
    return [line.strip() for line in lines]


def counts(report: dict, merchant: str = "m1") -> tuple[int, int, int, int, int]:
    (one,) = [one for one in report["merchants"] if one["merchant_id"] == merchant]
    return one["lines"], one["lines_done"], one["accounts_new"], one["entries"], one["points"]


def account_of(shop: Shop, customer: str) -> tuple:
    account = shop.account(customer)
    return account.balance, account.last_activity_at, account.expires_at


def test_each_customer_gets_one_opening_entry(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "ann,120", "bob,30")
    report = load(cli, path, "--merchant", "m1")
    assert counts(report) == (2, 0, 2, 2, 150)
    (entry,) = shop.rows("SELECT * FROM loyalty.ledger_entries WHERE reference_id = 'ann'")
    assert (entry.seq, entry.kind, entry.points, entry.balance_after) == (1, "opening", 120, 120)
    assert (entry.reference_type, entry.reference_seq, entry.reason) == ("opening", 1, "imported from balances.csv")
    assert entry.actor.startswith("cli")
    assert (shop.balance("ann"), shop.balance("bob")) == (120, 30)
    assert shop.problems() == []
    assert Checkout(shop.engine).redeem("o", 100).balance_after == 20


def test_importing_twice_adds_nothing_and_says_so(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "ann,120", "bob,0")
    load(cli, path, "--merchant", "m1")
    before = shop.rows("SELECT * FROM loyalty.accounts ORDER BY customer_id")
    assert counts(load(cli, path, "--merchant", "m1")) == (2, 2, 0, 0, 0)
    assert (
        "Every line was there already: nothing was added." in cli.ok("accounts", "import", path, "--merchant", "m1").out
    )
    assert shop.rows("SELECT * FROM loyalty.accounts ORDER BY customer_id") == before
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries") == 1


def test_lines_added_to_a_file_are_added_to_the_ledger(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    load(cli, write(tmp_path, "ann,120"), "--merchant", "m1")
    assert counts(load(cli, write(tmp_path, "ann,120", "bob,5"), "--merchant", "m1")) == (2, 1, 1, 1, 5)
    assert shop.problems() == []


def test_a_file_that_was_imported_is_right_though_its_points_have_expired_since(
    shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    shop.program(points_expiration_days=36_500)
    path = write(tmp_path, "ann,120,m1,2020-05-01", header=HEADER)
    load(cli, path)
    shop.program(points_expiration_days=365)
    assert counts(load(cli, path)) == (1, 1, 0, 0, 0)
    assert "would have expired" in problems(cli, write(tmp_path, "bob,120,m1,2020-05-01", header=HEADER))[0]


def test_no_points_make_an_account_without_an_entry(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    assert counts(load(cli, write(tmp_path, "ann,0"), "--merchant", "m1")) == (1, 0, 1, 0, 0)
    assert shop.entries() == []
    assert shop.account().last_activity_at is not None
    assert shop.problems() == []
    assert counts(load(cli, write(tmp_path, "ann,7"), "--merchant", "m1")) == (1, 0, 0, 1, 7)


def test_no_points_have_nothing_that_could_have_expired(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    assert counts(load(cli, write(tmp_path, "ann,0,m1,2020-05-01", header=HEADER))) == (1, 0, 1, 0, 0)


def test_an_import_that_loses_something_is_refused(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.run("CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$")
    shop.run("CREATE TRIGGER lose BEFORE UPDATE ON loyalty.accounts FOR EACH ROW EXECUTE FUNCTION lose()")
    line = cli.refused(1, "accounts", "import", write(tmp_path, "ann,120"), "--merchant", "m1")
    assert "its new lines have 120 points, its entries 120, and balances changed by 0" in line
    assert shop.rows("SELECT * FROM loyalty.ledger_entries") == []


def test_points_expire_as_the_programme_says_from_the_last_activity(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    recent = shop.value("SELECT (date_trunc('day', now()) - interval '20 days')")
    load(cli, write(tmp_path, f"ann,120,m1,{recent.isoformat()}", header=HEADER))
    expires_at = shop.value(
        "SELECT loyalty.expiry_instant(CAST(:at AS timestamptz), 365, 'Europe/Luxembourg')", at=recent
    )
    assert account_of(shop, "ann") == (120, recent, expires_at)
    assert shop.value("SELECT occurred_at FROM loyalty.ledger_entries") == recent


def test_a_time_without_a_zone_is_in_the_merchants(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.merchant("m2", timezone="America/New_York")
    shop.program(points_expiration_days=36_500)
    lines = [
        "ann,1,m1,2024-05-01 12:00:00",
        "bob,1,m1,2024-05-01T12:00:00+00:00",
        "cid,1,m1,2024-05-01 12:00:00 UTC",
        "dan,1,m1,2024-05-01",
        "eve,1,m2,2024-05-01 12:00:00",
    ]
    load(cli, write(tmp_path, *lines, header=HEADER))
    hours = {
        customer: shop.account(customer, merchant="m2" if customer == "eve" else "m1").last_activity_at
        for customer in ("ann", "bob", "cid", "dan", "eve")
    }
    assert hours == {
        "ann": datetime(2024, 5, 1, 10, tzinfo=UTC),
        "bob": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "cid": datetime(2024, 5, 1, 12, tzinfo=UTC),
        "dan": datetime(2024, 4, 30, 22, tzinfo=UTC),
        "eve": datetime(2024, 5, 1, 16, tzinfo=UTC),
    }


def test_a_later_activity_of_an_account_stays(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.order("1", "10.00")
    shop.award()
    _, active_at, expires_at = account_of(shop, "ann")
    recent = shop.value("SELECT now() - interval '20 days'")
    load(cli, write(tmp_path, f"ann,120,m1,{recent.isoformat()}", header=HEADER))
    assert account_of(shop, "ann") == (130, active_at, expires_at)
    assert shop.entries() == [("earned", 10), ("opening", 120)]
    assert shop.problems() == []


def test_a_balance_for_an_account_without_a_date_has_that_of_its_last_activity_and_no_warning(
    shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    shop.order("1", "10.00")
    shop.award()
    _, active_at, expires_at = account_of(shop, "ann")
    recent = shop.value("SELECT now() - interval '20 days'").isoformat()
    set_ = "UPDATE loyalty.accounts SET expires_at = :expires_at, warned_for = :warned_for"
    shop.run(set_, expires_at=None, warned_for=expires_at)
    load(cli, write(tmp_path, f"ann,120,m1,{recent}", f"bob,7,m1,{recent}", header=HEADER))
    assert account_of(shop, "ann") == (130, active_at, expires_at)
    assert shop.account("ann").warned_for is None
    shop.order("2", "10.00", customer="cid")
    shop.award()
    shop.run(set_, expires_at=expires_at, warned_for=expires_at)
    load(cli, write(tmp_path, f"cid,120,m1,{recent}", header=HEADER))
    assert (shop.account("cid").expires_at, shop.account("cid").warned_for) == (expires_at, expires_at)


def test_a_balance_that_comes_after_the_last_activitys_date_would_be_gone_at_once(
    shop: Shop, cli: Cli, tmp_path: Path
) -> None:
    shop.order("1", "10.00", paid_at="2024-03-01T12:00Z")
    shop.award()
    shop.expire("ann")
    shop.run("UPDATE loyalty.accounts SET expires_at = NULL")
    line = problems(cli, write(tmp_path, "ann,9,m1,2024-02-01T12:00Z", header=HEADER))[0]
    assert "would have expired" in line


def test_an_earlier_activity_of_an_account_moves_on(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET last_activity_at = '2020-01-01', expires_at = '2020-02-01'")
    recent = shop.value("SELECT date_trunc('day', now()) - interval '20 days'")
    load(cli, write(tmp_path, f"ann,120,m1,{recent.isoformat()}", header=HEADER))
    _, active_at, expires_at = account_of(shop, "ann")
    assert active_at == recent
    assert expires_at > recent


def test_points_on_an_account_whose_points_are_due_would_be_gone_at_once(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.run("UPDATE loyalty.accounts SET expires_at = now() - interval '1 day'")
    recent = shop.value("SELECT now() - interval '20 days'")
    assert "would have expired" in problems(cli, write(tmp_path, f"ann,9,m1,{recent.isoformat()}", header=HEADER))[0]


def test_an_opening_pays_a_debt(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.order("1", "10.00")
    shop.award()
    shop.program(clawback="allow_negative")
    shop.spend("ann", 10)
    shop.set_status("1", "cancelled")
    shop.award()
    assert shop.balance() == -10
    load(cli, write(tmp_path, "ann,4"), "--merchant", "m1")
    assert (shop.balance(), shop.account().is_debt_allowed) == (-6, True)
    assert shop.problems() == []


def test_a_file_may_be_of_several_merchants(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.merchant("m2")
    report = load(cli, write(tmp_path, "ann,1,m1,", "ann,2,m2,", "bob,3,m2,", header=HEADER))
    assert (counts(report), counts(report, "m2")) == ((1, 0, 1, 1, 1), (2, 0, 2, 2, 5))
    assert (shop.balance(merchant="m1"), shop.balance(merchant="m2")) == (1, 2)


def test_columns_and_delimiters_are_read_as_in_order_files(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "balances.csv.gz"
    path.write_bytes(gzip.compress("\ufeffNote;Customer;Balance\r\nold;ann;120\r\n".encode()))
    report = load(cli, path, "--merchant", "m1")
    assert report["columns"] == {"customer": "Customer", "points": "Balance"}
    assert shop.balance() == 120


def test_the_output_says_what_was_taken_for_what(cli: Cli, tmp_path: Path) -> None:
    text = cli.ok("accounts", "import", write(tmp_path, "ann,120"), "--merchant", "m1").out
    assert "points         is column points" in text
    assert "last activity  is now: the file has no such column" in text


def test_a_dry_run_says_the_same_and_writes_nothing(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "ann,120", "bob,0")
    planned = load(cli, path, "--merchant", "m1", "--dry-run")
    assert (counts(planned), planned["dry_run"]) == ((2, 0, 2, 1, 120), True)
    assert "nothing was written" in cli.ok("accounts", "import", path, "--merchant", "m1", "--dry-run").out
    assert shop.rows("SELECT * FROM loyalty.accounts") == []
    assert counts(load(cli, path, "--merchant", "m1")) == counts(planned)


# --- what is refused ---


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (",1,m1,", "customer_id: found nothing; expected an id"),
        (f"{'x' * 501},1,m1,", "expected an id of at most 500 bytes"),
        ("bob,,m1,", "points: found nothing; expected a whole number of points from 0 to 2,000,000,000"),
        ("bob,1.5,m1,", "points: found '1.5'; expected a whole number"),
        ("bob,-1,m1,", "points: found '-1'; expected a whole number"),
        ("bob,1e3,m1,", "points: found '1e3'; expected a whole number"),
        ("bob,2000000001,m1,", "points: found '2000000001'; expected a whole number"),
        (f"bob,{'9' * 5000},m1,", "points: found '999"),
        ("bob,\u0661,m1,", "points: found '\u0661'; expected a whole number"),
        ("ann,2,m1,", "customer_id: found customer 'ann', whom line 2 has already; expected one line per customer"),
        ("bob,1,,", "merchant_id: found nothing; expected an id"),
        ("bob,1,m9,", "merchant_id: found merchant 'm9', which the shop does not list; expected one of those that"),
        ("bob,1,off,", "merchant_id: found merchant 'off', which has no programme in force; expected one with a"),
        ("bob,1,none,", "expected one with a programme: loyalty programs set none --points-per-unit 1"),
        ("bob,1,m1,yesterday", "last_activity_at: found 'yesterday'; expected a date or time such as"),
        ("bob,1,m1,2999-01-01", "last_activity_at: found 2998-12-31T23:00:00+00:00, which is in the future"),
        ("bob,1,m1,2020-05-01", "found 2020-04-30T22:00:00+00:00, so that the points would have expired at 2021-05"),
        ("dan,1,m1,", "found customer 'dan', who was merged into 'eve'; expected a customer with an account of its"),
        ("old,8,m1,", "points: found 8 points for customer 'old', who began with 7; expected the same number again"),
        ("old,0,m1,", "change it with 'loyalty account adjust m1 old'"),
        ("bob,1,m1,,x", "line: found 5 fields; expected 4, as in the header"),
        ("b\x00b,1,m1,", "expected an id without NUL"),
    ],
)  # fmt: skip
def test_a_bad_line_says_where_what_was_found_and_what_was_expected(
    shop: Shop, cli: Cli, tmp_path: Path, line: str, says: str
) -> None:
    shop.merchant("off", is_active=False)
    shop.run("INSERT INTO sample_shop.merchants (id, name, timezone, currency) VALUES ('none', 'n', 'UTC', 'EUR')")
    load(cli, write(tmp_path, "dan,5", "old,7"), "--merchant", "m1")
    with shop.engine.begin() as conn:
        merge = Merge(merchant_id="m1", customer_id="dan", into_customer_id="eve", reason="one person", actor="test")
        merges.merge_accounts(conn, merge)
    entries = shop.value("SELECT count(*) FROM loyalty.ledger_entries")
    found = problems(cli, write(tmp_path, "ann,1,m1,", line, header=HEADER))
    assert len(found) == 1
    assert found[0].startswith("line 3, ")
    assert says in found[0]
    assert shop.value("SELECT count(*) FROM loyalty.ledger_entries") == entries
    assert shop.rows("SELECT * FROM loyalty.accounts WHERE customer_id IN ('ann', 'bob')") == []


def test_what_was_imported_for_a_customer_who_was_merged_since_is_there(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "ann,5")
    load(cli, path, "--merchant", "m1")
    with shop.engine.begin() as conn:
        merge = Merge(merchant_id="m1", customer_id="ann", into_customer_id="bob", reason="one person", actor="test")
        merges.merge_accounts(conn, merge)
    assert counts(load(cli, path, "--merchant", "m1")) == (1, 1, 0, 0, 0)
    assert (shop.balance("ann"), shop.balance("bob")) == (0, 5)


def test_what_is_wrong_with_a_merchant_is_said_once(cli: Cli, tmp_path: Path) -> None:
    found = problems(cli, write(tmp_path, *(f"c{n},1,m9," for n in range(50)), header=HEADER))
    assert len(found) == 1


def test_twenty_bad_lines_are_shown_and_all_are_counted(cli: Cli, tmp_path: Path) -> None:
    found = problems(cli, write(tmp_path, *(f"c{n},x" for n in range(50))), "--merchant", "m1")
    assert (len(found), found[-1]) == (21, "... and 30 more")
    repeated = problems(cli, write(tmp_path, *["ann,1"] * 50), "--merchant", "m1")
    assert (len(repeated), repeated[-1]) == (21, "... and 29 more")


def test_a_named_merchant_and_the_files_have_to_agree(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.merchant("m2")
    path = write(tmp_path, "ann,1,m1,", "bob,1,,", header=HEADER)
    assert problems(cli, path, "--merchant", "m2") == [
        "line 2, merchant_id: found 'm1'; expected 'm2', as --merchant says, or nothing"
    ]
    assert counts(load(cli, path, "--merchant", "m1")) == (2, 0, 2, 2, 2)
    assert "did you mean 'm1'" in cli.refused(1, "accounts", "import", path, "--merchant", "m11")


def test_a_header_that_does_not_fit_is_told_at_once(cli: Cli, tmp_path: Path) -> None:
    path = write(tmp_path, "ann,1", header="who,points,points")
    assert problems(cli, path) == [
        "line 1, customer: found columns who, points, points; expected one of customer_id, customer",
        "line 1, points: found 2 columns 'points'; expected one",
        "line 1, merchant: found columns who, points, points; expected one of merchant_id, merchant",
    ]
    assert "--merchant stands for the merchants' column" in cli.refused(1, "accounts", "import", path)


def test_a_file_without_balances_is_refused(cli: Cli, tmp_path: Path) -> None:
    found = problems(cli, write(tmp_path), "--merchant", "m1")
    assert found == ["file: found a header and no balances; expected a line per customer"]


def test_the_role_of_the_pipelines_is_enough_to_import(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    with shop.engine.begin() as conn:
        conn.execute(text("SET LOCAL ROLE loyalty_pipeline"))
        import_file(conn, write(tmp_path, "ann,5"), merchant="m1")
    assert shop.balance() == 5


# --- at once ---


def import_file(conn: Connection, path: Path, merchant: str | None = None) -> OpeningReport:
    """Import a file in the caller's transaction."""
    with path.open("rb") as raw:
        file = CsvFile(path, raw)
        columns, _ = choose_columns(file.header, COLUMN_GUESSES, required=())
        form = OpeningFormat(columns=columns, merchant_id=merchant)
        return import_balances(conn, file.rows(), form, path=str(path), actor="test")


def test_two_imports_at_once_add_every_balance_once(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    shop.merchant("m2")
    lines = [f"c{n},{n + 1},m{1 + n % 2}," for n in range(200)]
    paths = [
        write(tmp_path, *lines, header=HEADER, name="a.csv"),
        write(tmp_path, *reversed(lines), header=HEADER, name="b.csv"),
    ]
    start = threading.Barrier(2)

    def run(path: Path) -> int:
        start.wait()
        with shop.engine.begin() as conn:
            report = import_file(conn, path)
        return sum(one.entries for one in report.merchants)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(run, paths)) == [0, 200]
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts") == 200 * 201 // 2
    assert shop.problems() == []


def test_redeeming_while_balances_are_imported_loses_nothing(shop: Shop, cli: Cli, tmp_path: Path) -> None:
    for n in range(20):
        shop.order(f"o{n}", "10.00", customer=f"c{n}")
    shop.award()
    checkout = Checkout(shop.engine)
    path = write(tmp_path, *(f"c{n},100" for n in range(2_000)))
    start = threading.Barrier(2)

    def redeem() -> None:
        start.wait()
        for n in range(20):
            checkout.redeem(f"r{n}", 10, f"c{n}")

    def import_() -> None:
        start.wait()
        with shop.engine.begin() as conn:
            import_file(conn, path, merchant="m1")

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(redeem), pool.submit(import_)]:
            future.result()
    assert shop.value("SELECT sum(balance) FROM loyalty.accounts") == 200_000
    assert shop.problems() == []
