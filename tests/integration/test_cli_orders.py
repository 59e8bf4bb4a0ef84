"""`loyalty orders import`."""

import gzip
import json
import resource
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import Engine

from loyalty_pipelines.db.sources import apply
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.presets import read_preset
from tests.cli import Cli, write_orders
from tests.shop import Shop
from tests.shops import create_django_shop

HEADER = "order_id,customer_id,total,status,paid_at,currency"
GOOD = ["1,ann,19.99,paid,2024-05-01 10:00:00,EUR", "2,bob,5,pending,,EUR", "3,,7,paid,2024-05-02T10:00:00Z,EUR"]


@pytest.fixture
def cli(database_url: str) -> Cli:
    return Cli(database_url)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_orders(tmp_path / "orders.csv", HEADER, GOOD)


@pytest.fixture
def ledger(engine: Engine) -> Shop:
    """Reads the database, which has no shop until an import makes one."""
    return Shop(engine)


def load(cli: Cli, path: Path, *options: str) -> dict:
    return cli.ok("orders", "import", path, "--merchant", "try", *options, "--json").document


def problems(cli: Cli, path: Path, *options: str) -> list[str]:
    """The lines about a file that is refused, without the last, which sums up."""
    found = cli.run("orders", "import", path, "--merchant", "try", *options, "--json")
    assert found.status == 1, found
    assert found.out == ""
    *lines, last = found.err.splitlines()
    assert last.startswith("Error: ")
    assert "nothing was imported" in last
    return [line.strip() for line in lines]


def test_an_import_makes_shop_merchant_and_orders_and_awards_follow(cli: Cli, ledger: Shop, file: Path) -> None:
    found = load(cli, file, "--points-per-unit", "1")
    assert (found["orders_new"], found["customers_new"], found["currency"]) == (3, 2, "EUR")
    assert found["is_merchant_new"] is True
    assert found["is_program_new"] is True
    rows = ledger.rows("SELECT id, customer_id, total, status, currency, paid_at FROM sample_shop.orders ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("1", "ann", Decimal("19.99"), "paid", "EUR", datetime(2024, 5, 1, 10, tzinfo=UTC)),
        ("2", "bob", Decimal(5), "pending", "EUR", None),
        ("3", None, Decimal(7), "paid", "EUR", datetime(2024, 5, 2, 10, tzinfo=UTC)),
    ]
    cli.ok("award")
    assert ledger.balance("ann", merchant="try") == 19
    assert ledger.problems() == []


def test_the_output_says_which_columns_and_words_were_taken(cli: Cli, file: Path) -> None:
    text = cli.ok("orders", "import", file, "--merchant", "try").out
    assert "amount    is column total" in text
    assert "paid is paid: 2" in text
    assert "3 new, 0 changed, 0 as they were" in text
    assert "Next: loyalty programs set try --points-per-unit 1" in text


def test_importing_twice_touches_nothing(cli: Cli, ledger: Shop, file: Path) -> None:
    load(cli, file, "--points-per-unit", "1")
    cli.ok("award")
    before = ledger.rows("SELECT id, xmin::text, xmax::text, ctid::text FROM sample_shop.orders ORDER BY id")
    again = load(cli, file, "--points-per-unit", "2")
    assert (again["orders_new"], again["orders_changed"], again["orders_unchanged"]) == (0, 0, 3)
    assert (again["customers_new"], again["is_merchant_new"], again["is_program_new"]) == (0, False, False)
    assert ledger.rows("SELECT id, xmin::text, xmax::text, ctid::text FROM sample_shop.orders ORDER BY id") == before
    assert ledger.value("SELECT count(*) FROM loyalty.order_inbox") == 0
    assert ledger.value("SELECT count(*) FROM loyalty.programs") == 1
    said = cli.ok("orders", "import", file, "--merchant", "try", "--points-per-unit", "2").out
    assert "has a programme already; it stays as it is" in said


def test_a_changed_line_changes_its_order_only(cli: Cli, ledger: Shop, file: Path, tmp_path: Path) -> None:
    load(cli, file, "--points-per-unit", "1")
    cli.ok("award")
    changed = write_orders(tmp_path / "later.csv", HEADER, [GOOD[0].replace("paid,", "cancelled,"), *GOOD[1:]])
    again = load(cli, changed)
    assert (again["orders_new"], again["orders_changed"], again["orders_unchanged"]) == (0, 1, 2)
    cli.ok("award")
    assert ledger.entries("ann", merchant="try") == [("earned", 19), ("reversed", -19)]


def test_one_bad_line_among_good_ones_loads_nothing(cli: Cli, ledger: Shop, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "f.csv", HEADER, [*GOOD, "4,ann,1.234,50,paid,2024-05-01,EUR"])
    assert problems(cli, path) == ["line 5, line: found 7 fields; expected 6, as in the header"]
    assert ledger.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'sample_shop'") == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (",ann,1,paid,2024-05-01,EUR", "order_id: found nothing; expected an id"),
        ("4,ann,,paid,2024-05-01,EUR", "total: found nothing; expected a number such as 1234.56"),
        ("4,ann,1e3,paid,2024-05-01,EUR", "total: found '1e3'; expected a number"),
        ("4,ann,NaN,paid,2024-05-01,EUR", "total: found 'NaN'; expected a number"),
        ("4,ann,Infinity,paid,2024-05-01,EUR", "total: found 'Infinity'; expected a number"),
        ("4,ann,\u0661\u0662,paid,2024-05-01,EUR", "total: found"),
        ('4,ann,"1,50",paid,2024-05-01,EUR', "total: found '1,50'; expected a number"),
        ("4,ann,1,posted,2024-05-01,EUR", "status: found 'posted'; expected a known status; say what it means with"),
        ("4,ann,1,,2024-05-01,EUR", "status: found nothing; expected a known status"),
        ("4,ann,1,paid,,EUR", "paid_at: found nothing; expected a date or time such as"),
        ("4,ann,1,paid,01/05/2024,EUR", "paid_at: found '01/05/2024'; expected a date or time"),
        ("4,ann,1,paid,0001-01-01T00:00+14:00,EUR", "paid_at: found"),
        ("4,ann,1,paid,2024-05-01,Euro", "currency: found 'Euro'; expected a currency code"),
        ("4,ann,1,paid,2024-05-01,", "currency: found nothing; expected a currency code, or --currency"),
        ("4,an\x00n,1,paid,2024-05-01,EUR", "customer_id: found 'an\\x00n'; expected an id without NUL"),
        (f"{'9' * 501},ann,1,paid,2024-05-01,EUR", "expected an id of at most 500 bytes"),
        ("1,eve,1,paid,2024-05-01,EUR", "order_id: found order '1', which line 2 has already; expected one line per"),
        ('4,"ann,1,paid,2024-05-01,EUR', "file: found CSV that can't be read"),
    ],
)
def test_a_bad_line_says_where_what_was_found_and_what_was_expected(
    cli: Cli, tmp_path: Path, line: str, says: str
) -> None:
    found = problems(cli, write_orders(tmp_path / "f.csv", HEADER, [GOOD[0], line]))
    assert len(found) == 1
    assert found[0].startswith("line 3, ")
    assert says in found[0]


def test_twenty_bad_lines_are_shown_and_all_are_counted(cli: Cli, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "f.csv", HEADER, [f"{n},ann,x,paid,2024-05-01,EUR" for n in range(50)])
    found = problems(cli, path)
    assert len(found) == 21
    assert found[-1] == "... and 30 more"
    assert "has 50 problems" in cli.run("orders", "import", path, "--merchant", "try").err
    repeated = write_orders(tmp_path / "g.csv", HEADER, ["7,ann,1,paid,2024-05-01,EUR"] * 50)
    assert problems(cli, repeated)[-1] == "... and 29 more"


def test_hostile_values_load_as_data(cli: Cli, ledger: Shop, tmp_path: Path) -> None:
    lines = [
        "\"'; DROP TABLE x;--\",\"a\"\"b\",1.5,paid,2024-05-01,EUR",
        "\U0001f6d2,\\N,-1,paid,2024-05-01,EUR",
        "tab\there,\"line\nbreak\",1000000000000000,paid,2024-05-01,EUR",
        "4,ann,0.004,paid,2024-05-01,EUR",
    ]  # fmt: skip
    load(cli, write_orders(tmp_path / "f.csv", HEADER, lines), "--points-per-unit", "1")
    stored = ledger.rows("SELECT id, customer_id FROM sample_shop.orders ORDER BY total")
    assert [tuple(row) for row in stored] == [
        ("\U0001f6d2", "\\N"), ("4", "ann"), ("'; DROP TABLE x;--", 'a"b'), ("tab\there", "line\nbreak"),
    ]  # fmt: skip
    assert cli.run("award").status == 1
    assert set(ledger.queued(merchant="try")) == {"\U0001f6d2", "tab\there"}


def test_names_of_columns_are_guessed_in_any_spelling(cli: Cli, tmp_path: Path) -> None:
    header = "Order Number;Customer;Payment-Status;Order Total;Created at;Refunded Amount"
    path = write_orders(tmp_path / "f.csv", header, ["A1;ann;Partially Refunded;10.00;2024-05-01 12:00:00 +0200;4"])
    found = load(cli, path, "--currency", "eur")
    assert found["columns"] == {
        "order": "Order Number", "customer": "Customer", "amount": "Order Total", "status": "Payment-Status",
        "paid_at": "Created at", "refunded": "Refunded Amount",
    }  # fmt: skip
    assert found["first_paid_at"] == "2024-05-01T10:00:00+00:00"


@pytest.mark.parametrize("zone", [" +0200", "+02:00", " UTC", "Z", " GMT", ""])
def test_a_zone_in_the_file_counts_however_it_is_written(cli: Cli, tmp_path: Path, zone: str) -> None:
    path = write_orders(tmp_path / "f.csv", HEADER, [f"1,ann,1,paid,2024-05-01 12:00:00{zone},EUR"])
    hour = "10" if "2" in zone else "12"
    assert load(cli, path)["first_paid_at"] == f"2024-05-01T{hour}:00:00+00:00"


def test_columns_can_be_named(cli: Cli, ledger: Shop, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "f.csv", "k,id,who,gross,net,state,day,cur", ["1,x,ann,12,10,ok,2024-05-01,EUR"])
    named = ["--order-column", "k", "--customer-column", "who", "--amount-column", "net", "--paid-at-column", "day"]
    load(cli, path, *named, "--currency-column", "cur", "--status-map", "ok=paid,no=failed")
    assert tuple(ledger.rows("SELECT id, total, status FROM sample_shop.orders")[0]) == ("1", 10, "paid")


def test_a_header_that_does_not_fit_is_told_at_once(cli: Cli, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "f.csv", "a,b,total,total", ["1,2,3,4"])
    found = problems(cli, path, "--customer-column", "who")
    assert [one.split(":")[0] for one in found] == [
        f"line 1, --{name}-column" for name in ("order", "customer", "amount", "status", "paid-at")
    ]
    assert "or name it with --order-column" in found[0]
    assert "expected column 'who'" in found[1]
    assert "found 2 columns 'total'; expected one" in found[2]
    assert "found no columns" in problems(cli, write_orders(tmp_path / "g.csv", "", []))[0]


def test_a_file_without_orders_is_refused(cli: Cli, tmp_path: Path) -> None:
    found = problems(cli, write_orders(tmp_path / "f.csv", HEADER, []))
    assert found == ["file: found a header and no orders; expected orders"]


def test_a_file_without_a_status_needs_to_be_told_one(cli: Cli, ledger: Shop, tmp_path: Path) -> None:
    path = write_orders(tmp_path / "f.csv", "id,customer,amount,date", ["1,ann,10,2024-05-01"])
    assert "--status-column" in problems(cli, path)[0]
    load(cli, path, "--status", "paid", "--currency", "EUR")
    assert ledger.value("SELECT status FROM sample_shop.orders") == "paid"


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--status-map", "paid", "is no WORD=STATUS with one of pending, paid"),
        ("--status-map", "ok=payed", "is no WORD=STATUS"),
        ("--currency", "Euro", "is no currency code"),
        ("--timezone", "Mars/Base", "is no time zone"),
        ("--timezone", "../../etc/passwd", "is no time zone"),
        ("--status", "open", "'open' is not one of"),
        ("--points-per-unit", "x", "is no number"),
        ("--points-per-unit", "-1", "points_per_unit >= 0"),
    ],
)
def test_bad_options_are_bad_usage(cli: Cli, ledger: Shop, file: Path, option: str, value: str, says: str) -> None:
    assert says in cli.refused(2, "orders", "import", file, "--merchant", "try", option, value)
    assert ledger.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'sample_shop'") == 0


def test_a_merchant_and_a_file_are_needed(cli: Cli, file: Path, tmp_path: Path) -> None:
    assert "--merchant" in cli.refused(2, "orders", "import", file)
    assert "does not exist" in cli.refused(2, "orders", "import", tmp_path / "none.csv", "--merchant", "try")


def test_times_without_a_zone_are_read_in_the_merchants(cli: Cli, ledger: Shop, file: Path) -> None:
    found = load(cli, file, "--timezone", "Europe/Luxembourg")
    assert found["timezone"] == "Europe/Luxembourg"
    expected = datetime(2024, 5, 1, 8, tzinfo=UTC)
    paid_at = "SELECT paid_at FROM sample_shop.orders WHERE id = '1'"
    assert ledger.value(paid_at) == expected
    assert load(cli, file)["orders_unchanged"] == 3  # the merchant's zone, without being told again
    assert load(cli, file, "--timezone", "UTC")["timezone"] == "Europe/Luxembourg"  # the file's, not the merchant's
    assert ledger.value(paid_at) == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_the_currency_of_a_new_merchant_is_the_files_only_one(cli: Cli, tmp_path: Path) -> None:
    two = write_orders(tmp_path / "f.csv", HEADER, [GOOD[0], GOOD[1].replace("EUR", "USD")])
    refused = cli.refused(1, "orders", "import", two, "--merchant", "try")
    assert "has orders in EUR, USD, so the currency of the new merchant 'try' can't be told" in refused
    assert load(cli, two, "--currency", "USD")["currency"] == "USD"
    none = write_orders(tmp_path / "g.csv", "id,customer,amount,date,status", ["1,ann,10,2024-05-01,paid"])
    assert "has no currency column" in cli.refused(1, "orders", "import", none, "--merchant", "other")


def test_a_merchant_is_not_made_when_that_is_not_wanted(cli: Cli, file: Path) -> None:
    command = ("orders", "import", file, "--no-create-merchant", "--merchant")
    assert "has no merchant 'try' (it has none)" in cli.refused(1, *command, "try")
    load(cli, file)
    cli.ok(*command, "try")
    assert "has no merchant 'tri' (it has try)" in cli.refused(1, *command, "tri")


def test_refunded_amounts_are_taken_off_and_follow_the_file(cli: Cli, ledger: Shop, tmp_path: Path) -> None:
    header = f"{HEADER},refunded_amount"
    path = write_orders(tmp_path / "f.csv", header, [f"{GOOD[0]},5.00"])
    assert load(cli, path, "--points-per-unit", "1")["refunds_changed"] == 1
    cli.ok("award")
    assert ledger.balance(merchant="try") == 14
    assert load(cli, path)["refunds_changed"] == 0
    write_orders(path, header, [f"{GOOD[0]},"])
    assert load(cli, path)["refunds_changed"] == 1
    cli.ok("award")
    assert ledger.balance(merchant="try") == 19
    assert ledger.value("SELECT count(*) FROM sample_shop.refunds") == 0
    write_orders(path, header, [f"{GOOD[0]},-5"])
    assert "refunded_amount: found '-5'; expected at least 0" in problems(cli, path)[0]


def test_a_packed_file_and_a_byte_order_mark_are_read(cli: Cli, tmp_path: Path) -> None:
    text = "\ufeff" + "\r\n".join([HEADER, *GOOD, ""])
    path = tmp_path / "orders.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert load(cli, path)["orders_new"] == 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("f.csv.gz", b"order_id,total\n", "file: found a file that can't be unpacked"),
        ("f.csv.gz", gzip.compress("\n".join([HEADER, *GOOD]).encode())[:-10], "can't be unpacked"),
        ("f.csv", HEADER.encode() + b"\n1,\xe9ve,1,paid,2024-05-01,EUR\n", "line 2, file: found the byte 0xe9, which"),
        ("f.csv", b"k\xe9y,total\n1,2\n", "line 1, file: found the byte 0xe9, which is not UTF-8"),
        (
            "f.csv.gz",
            gzip.compress(HEADER.encode() + b"\n" + b"x" * 3_000_000),
            "line 2, file: found CSV that can't be read (a line of 1,000,000 bytes",
        ),
        ("f.csv", HEADER.encode() + b"\n" + b"x" * 200_000 + b"\n", "field larger than field limit"),
    ],
)
def test_a_file_that_cannot_be_read_is_told(cli: Cli, tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in problems(cli, tmp_path / name)[0]


def test_a_database_that_reads_another_shop_is_left_alone(cli: Cli, engine: Engine, ledger: Shop, file: Path) -> None:
    with engine.begin() as conn:
        create_django_shop(conn)
        apply(conn, parse_mapping(read_preset("django_shop")))
    line = cli.refused(1, "orders", "import", file, "--merchant", "try")
    assert "reads the orders of public.orders_order" in line
    assert "which nobody would read" in line
    assert ledger.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'sample_shop'") == 0


def test_two_imports_at_once_add_every_order_once(cli: Cli, ledger: Shop, file: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "loyalty_pipelines.cli",
        "orders",
        "import",
        str(file),
        "--merchant",
        "try",
        "--json",
    ]
    started = [
        subprocess.Popen(command, env={"LOYALTY_DATABASE_URL": cli.url or ""}, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    found = [json.loads(process.communicate(timeout=120)[0]) for process in started]
    assert sorted(one["orders_new"] for one in found) == [0, 3]
    assert ledger.value("SELECT count(*) FROM sample_shop.orders") == 3


def test_memory_does_not_grow_with_the_file(cli: Cli, tmp_path: Path) -> None:
    """The same process that loads 200 lines has room for 100 times as many."""
    peaks = []
    for count in (200, 40_000):
        lines = (f"{n},c{n % 100},10.00,paid,2024-05-01 10:00:00,EUR" for n in range(count))
        path = write_orders(tmp_path / f"{count}.csv", HEADER, lines)
        code = (
            "import resource, sys\nfrom loyalty_pipelines.cli import main\ntry: main()\n"
            "except SystemExit as end: assert not end.code\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "orders", "import", str(path), "--merchant", f"try{count}"],
            env={"LOYALTY_DATABASE_URL": cli.url or ""}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append(int(done.stdout.splitlines()[-1]))
    assert resource.RUSAGE_SELF == 0
    assert peaks[1] - peaks[0] < 8_000  # KiB; keeping the lines would take more than 20,000
