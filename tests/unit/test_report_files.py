"""Reports as files, and where they go: hostile ids, several currencies, buckets, places that can't be used."""

import csv
import io
import re
import xml.etree.ElementTree as ET
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from loyalty_pipelines.domain.activity import ActivityEntry, ActivityReport, RedemptionPeriod, RedemptionReport
from loyalty_pipelines.domain.liability import (
    BalanceBucket,
    LiabilityReport,
    MerchantLiability,
    Movement,
    ReportedMerchant,
    liability_of,
)
from loyalty_pipelines.domain.money import rounded, worth
from loyalty_pipelines.processes import reports_environment
from loyalty_pipelines.report_files.activity import activity_files, redemption_files, spent_by_day
from loyalty_pipelines.report_files.charts import line_and_bars
from loyalty_pipelines.report_files.liability import liability_files, owed_by_month
from loyalty_pipelines.report_files.tables import ReportFile, cell
from loyalty_pipelines.resources.report_store import (
    VARIABLE,
    ReportNotWrittenError,
    ReportStore,
    ReportsUrlError,
    report_store,
    secrets_of,
)

AS_OF = datetime(2026, 11, 21, 4, tzinfo=UTC)
TODAY = date(2026, 11, 21)
FORMULA = "=cmd|' /C calc'!A0"
SCRIPT = "<script>alert('x')</script>"
TWO = [ReportFile(name="a.csv", content=b"1"), ReportFile(name="b.html", content=b"2")]


def merchant(
    merchant_id: str,
    *,
    currency: str | None = "EUR",
    points: int = 1000,
    more: int = 0,
    month_on: date = date(2026, 11, 1),
    months: int = 24,
) -> MerchantLiability:
    """A merchant that owes points, with a balance that has `more`; its present month is `month_on`."""
    known = ReportedMerchant(
        merchant_id=merchant_id,
        currency=currency,
        point_value_amount=Decimal("0.01"),
        is_expiring=True,
        timezone="Europe/Luxembourg",
        month_on=month_on,
        since_at=AS_OF - timedelta(days=740),
    )
    movements = [
        Movement(month_on=date(2026, 9, 1), kind="earned", points=points + 10, entries=2),
        Movement(month_on=date(2026, 11, 1), kind="redeemed", points=-10, entries=1),
    ]
    bucket = BalanceBucket(
        bucket="month", month_on=date(2027, 3, 1), accounts=3, balance=points + more, free=points + more, held=0, debt=0
    )
    return liability_of(known, movements, [bucket], months=months)


def liability(*merchants: MerchantLiability) -> dict[str, str]:
    """Return the files of a report."""
    files = liability_files(LiabilityReport(as_of=AS_OF, merchants=merchants), run_id="run-1")
    return {file.name: file.content.decode() for file in files}


def activity(customer: str) -> dict[str, str]:
    entry = ActivityEntry(
        merchant_id="m1",
        recorded_at=AS_OF,
        occurred_at=AS_OF,
        customer_id=customer,
        account_id=1,
        seq=1,
        kind="redeemed",
        points=-5,
        balance_before=5,
        balance_after=0,
        stamps=0,
        reference_type="order",
        reference_id="\u202egpj.exe",
        actor="checkout",
        run_id=None,
    )
    report = ActivityReport(as_of=AS_OF, days=30, limit=20, merchant_ids=["m1"], entries=[entry])
    return {file.name: file.content.decode() for file in activity_files(report)}


# --- files ---


def test_a_spreadsheet_runs_nothing_and_numbers_stay_numbers() -> None:
    files = liability(merchant(FORMULA), merchant("+1"), merchant("@x"), merchant("-2"), merchant("m\t=1"))
    ids = [row["merchant_id"] for row in csv.DictReader(io.StringIO(files["merchants.csv"]))]
    assert ids == [f"'{FORMULA}", "'+1", "'@x", "'-2", "m\t=1"]
    assert (cell(-5), cell(Decimal("-0.50")), cell("\tx"), cell(None)) == ("-5", "-0.50", "'\tx", "")
    assert cell("a\0b\ud800") == "a\\0b\\ud800"
    entries = list(csv.DictReader(io.StringIO(activity(FORMULA)["activity.csv"], newline="")))
    assert (entries[0]["customer_id"], entries[0]["points"]) == (f"'{FORMULA}", "-5")


def test_pages_escape_what_the_shop_says_and_load_nothing() -> None:
    pages = [
        liability(merchant(SCRIPT, currency=SCRIPT, more=3))["liability.html"],
        activity(SCRIPT)["activity.html"],
    ]
    for page in pages:
        assert "<script" not in page.lower()
        assert "&lt;script&gt;" in page
        assert not re.search(r"""(src|href)\s*=\s*["']?(?!#)\w""", re.sub(r"xlink:href=\"#[^\"]*\"", "", page))
        assert "@import" not in page and "url(http" not in page
    assert "\u202e" not in pages[1] and "\\u202egpj" in pages[1]


def test_a_currency_with_dollar_signs_is_no_formula_to_the_chart() -> None:
    page = liability(merchant("m1", currency=r"$\frac{$"))["liability.html"]
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 2
    for chart in charts:
        ET.fromstring(chart)
    assert r"$\frac{$" in page


def test_a_chart_of_few_findings_counts_them_in_whole_numbers() -> None:
    labels = [f"11-{day:02}" for day in range(1, 8)]
    counts = {"errors": [0.0] * 6 + [1.0], "warnings": [0.0] * 7}
    svg = line_and_bars(labels, [0.3] * 7, counts, line_title="Money", bars_title="Open findings", key="x")
    bars = svg[svg.index('id="axes_2"') :]
    ticks = [text for text in re.findall(r"<text[^>]*>([^<]+)</text>", bars) if re.fullmatch(r"[0-9.]+", text)]
    assert ticks == ["0", "1"]


def test_currencies_stand_apart_and_unknown_ones_have_no_money() -> None:
    files = liability(
        merchant("a"), merchant("b", points=50), merchant("j", currency="JPY"), merchant("g", currency=None)
    )
    page = re.sub(r"\s+", " ", files["liability.html"])
    assert '<div class="big">10.50 <span class="unit">EUR</span></div> <div>1,050 points</div>' in page
    assert '<div class="big">10 <span class="unit">JPY</span></div> <div>1,000 points</div>' in page
    assert '<div class="big">? <span class="unit">currency or value unknown</span></div> <div>1,000 points' in page
    rows = {row["merchant_id"]: row for row in csv.DictReader(io.StringIO(files["merchants.csv"]))}
    assert (rows["a"]["closing_amount"], rows["j"]["closing_amount"], rows["g"]["closing_amount"]) == (
        "10.00",
        "10",
        "",
    )


def test_a_balance_that_differs_is_said_on_top_of_the_page() -> None:
    assert "differ at 1 merchant" in liability(merchant("a", more=-3), merchant("b"))["liability.html"]
    assert "alarm" not in liability(merchant("b"))["liability.html"].split("</style>")[1]


def test_the_same_report_is_the_same_file() -> None:
    assert liability(merchant("a")) == liability(merchant("a"))


def test_an_empty_report_is_a_page_too() -> None:
    assert "Points liability" in liability()["liability.html"]
    assert len(redemption_files(RedemptionReport(as_of=AS_OF, present_months={}, days=[], months=[]))) == 3


def redeemed(name: str = "a", on: date = TODAY, *, currency: str | None = "EUR", amount: str | None = "1.10"):
    """100 points that a customer has redeemed at a merchant on a day."""
    return RedemptionPeriod(
        merchant_id=name,
        currency=currency,
        period_on=on,
        redemptions=1,
        customers=1,
        spent_points=100,
        amount=None if amount is None else Decimal(amount),
        restored_points=0,
        earned_points=0,
        holds_released=0,
        holds_expired=0,
    )


def test_what_is_owed_does_not_drop_on_the_first_of_a_month_where_it_has_begun_for_some() -> None:
    # A year is shown; for b it is December already, and its year begins a month later.
    a, b = merchant("a", months=1), merchant("b", points=50, month_on=date(2026, 12, 1), months=1)
    assert owed_by_month([a, b], "EUR") == {
        date(2026, 10, 1): Decimal("10.10") + Decimal("0.60"),
        date(2026, 11, 1): Decimal("10.50"),
        date(2026, 12, 1): Decimal("10.50"),
    }
    assert owed_by_month([a, b], None) == {date(2026, 10, 1): 1070, date(2026, 11, 1): 1050, date(2026, 12, 1): 1050}


def test_before_its_first_entry_a_merchant_owes_nothing() -> None:
    a, new = merchant("a"), liability_of(merchant("new").merchant, [], [])
    assert list(owed_by_month([a, new], None).values()) == [1010, 1010, 1000]
    assert list(owed_by_month([new], None).values()) == [0]


def test_days_on_which_nothing_was_redeemed_are_in_the_chart() -> None:
    days = [redeemed(on=date(2026, 11, 16)), redeemed("b", on=date(2026, 11, 16)), redeemed(on=date(2026, 11, 19))]
    assert list(spent_by_day(days, upto=TODAY).items()) == [
        (date(2026, 11, 16), 200),
        (date(2026, 11, 17), 0),
        (date(2026, 11, 18), 0),
        (date(2026, 11, 19), 100),
        (date(2026, 11, 20), 0),
        (date(2026, 11, 21), 0),
    ]
    # Where tomorrow has begun.
    assert list(spent_by_day([redeemed(on=date(2026, 11, 22))], upto=TODAY)) == [date(2026, 11, 22)]
    assert spent_by_day([], upto=TODAY) == {}
    report = RedemptionReport(as_of=AS_OF, present_months={}, days=days, months=days)
    page = next(file for file in redemption_files(report) if file.name == "redemptions.html").content.decode()
    assert [day for day in ("11-17", "11-20", "11-21") if f">{day}</text>" not in page] == []


def test_redemptions_are_summed_by_currency() -> None:
    days = [redeemed(), redeemed("b", amount="2.20"), redeemed("c", currency=None, amount=None)]
    report = RedemptionReport(as_of=AS_OF, present_months={}, days=days, months=days)
    page = next(file for file in redemption_files(report) if file.name == "redemptions.html").content.decode()
    assert '<div class="big">3.30 <span class="unit">EUR</span></div>' in page


def test_money_is_rounded_half_away_from_zero_in_the_smallest_unit_of_its_currency() -> None:
    assert rounded(Decimal("2.675"), "EUR") == Decimal("2.68")
    assert rounded(Decimal("-2.675"), "EUR") == Decimal("-2.68")
    assert str(rounded(Decimal("0.5"), "JPY")) == "1"
    assert str(rounded(Decimal(1), "KWD")) == "1.000"
    assert worth(3, Decimal("0.335"), "EUR") == Decimal("1.01")
    assert worth(3, Decimal(1), None) is None and worth(3, None, "EUR") is None


# --- places ---


def test_a_run_has_a_folder_of_its_own_and_the_newest_an_address(tmp_path: Path) -> None:
    store = report_store({}, home=tmp_path)
    written = store.write("points_liability", TWO, on=TODAY, run_id="run-1", is_latest=True)
    folder = tmp_path / "reports" / "points_liability"
    assert written == {
        "a.csv": str(folder / "2026-11-21" / "run-1" / "a.csv"),
        "b.html": str(folder / "2026-11-21" / "run-1" / "b.html"),
    }
    store.write("points_liability", TWO, on=TODAY, run_id="run-2")
    assert "url=2026-11-21/run-1/b.html" in (folder / "latest.html").read_text()
    store.write("points_liability", TWO, on=TODAY, run_id="run-3", is_latest=True)
    assert "url=2026-11-21/run-3/b.html" in (folder / "latest.html").read_text()
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == [
        *["a.csv"] * 3,
        *["b.html"] * 3,
        "latest.html",
    ]


@pytest.mark.parametrize(
    ("said", "meant"), [("", "{here}/.loyalty/reports"), ("out", "{here}/out"), ("s3://b/x", "s3://b/x")]
)
def test_dagster_which_runs_elsewhere_writes_where_the_operator_stands(
    said: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, said)
    assert reports_environment() == {VARIABLE: meant.format(here=tmp_path)}


def test_a_bucket_takes_reports_by_its_url() -> None:
    store = report_store({VARIABLE: "memory://bucket/reports"}, home=Path("/nowhere"))
    written = store.write("recent_activity", TWO, on=TODAY, run_id="run-1", is_latest=True)
    assert written["b.html"] == "memory://bucket/reports/recent_activity/2026-11-21/run-1/b.html"
    assert MemoryFileSystem.store["/bucket/reports/recent_activity/2026-11-21/run-1/b.html"].getvalue() == b"2"
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("url", ["{here}/reports", "memory://again/reports"])
def test_a_second_attempt_that_fails_leaves_what_the_first_has_written(url: str, tmp_path: Path) -> None:
    store = report_store({}, home=tmp_path, url=url.format(here=tmp_path))
    store.write("r", TWO, on=TODAY, run_id="run-1", is_latest=True)
    page = store._base / "r" / "2026-11-21" / "run-1" / "b.html"
    too_long = ReportFile(name="x" * 300, content=b"")
    put = store._put

    def refusing(path: Any, content: bytes) -> None:
        if path.name == too_long.name:
            raise OSError("no room")
        put(path, content)

    store._put = refusing  # type: ignore[method-assign]
    with pytest.raises(ReportNotWrittenError):
        store.write("r", [*TWO, ReportFile(name="c.csv", content=b"3"), too_long], on=TODAY, run_id="run-1")
    assert page.read_bytes() == b"2", "latest.html leads there"
    assert not page.with_name("c.csv").exists()
    MemoryFileSystem.store.clear()


class FullBucket(MemoryFileSystem):
    """A bucket that takes no more than one object, and says its own password."""

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **more: object) -> None:
        if len(self.store) >= 1:
            raise OSError("quota of user:pa%40ss and pa@ss is used up\nmore")
        super().pipe_file(path, value, mode, **more)


def test_a_bucket_that_refuses_is_a_clear_error_and_leaves_nothing() -> None:
    base = report_store({}, home=Path("/nowhere"), url="memory://full/reports")._base
    base._fs_cached = FullBucket()  # type: ignore[attr-defined]
    store = ReportStore(base, ["user:pa%40ss", "pa%40ss", "pa@ss"])
    with pytest.raises(ReportNotWrittenError) as caught:
        store.write("points_liability", TWO, on=TODAY, run_id="run-1")
    assert "quota of *** and *** is used up. Nothing new was left there" in str(caught.value)
    assert MemoryFileSystem.store == {}


def test_a_folder_that_refuses_leaves_nothing_half_written(tmp_path: Path) -> None:
    store = report_store({}, home=tmp_path)
    store.write("r", TWO, on=TODAY, run_id="run-1", is_latest=True)
    long_name = ReportFile(name="x" * 300, content=b"")
    with pytest.raises(ReportNotWrittenError, match="File name too long"):
        store.write("r", [*TWO, long_name], on=TODAY, run_id="run-2", is_latest=True)
    assert sorted(path.name for path in (tmp_path / "reports" / "r" / "2026-11-21").iterdir()) == ["run-1"]
    assert "run-1" in (tmp_path / "reports" / "r" / "latest.html").read_text()
    (tmp_path / "reports" / "r" / "2026-11-21" / "run-3" / "b.html").mkdir(parents=True)
    with pytest.raises(ReportNotWrittenError):
        store.write("r", TWO, on=TODAY, run_id="run-3")
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".part") or (path.name == "a.csv" and
                path.parent.name == "run-3")]  # fmt: skip
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(ReportNotWrittenError, match=r"Not a directory|File exists"):
        report_store({}, home=tmp_path, url=str(blocked)).write("r", TWO, on=TODAY, run_id="x")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://KEY:SECRET@bucket/reports", "Install s3fs"),
        ("gs://bucket/reports", "gcsfs"),
        ("nope://user:SECRET@bucket/x", "nobody here knows"),
        ("https://user:SECRET@host/x", "nothing can be written"),
        ("s3://", "names no bucket"),
        ("s3://[SECRET/x", "can't be read"),
        ("ftp://user:SECRET@127.0.0.1:1/x", "can't be used"),
    ],
)
def test_a_place_that_cannot_be_used_is_said_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ReportsUrlError) as caught:
        report_store({VARIABLE: url}, home=Path("/nowhere"))
    assert said in str(caught.value) and VARIABLE in str(caught.value)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("abfs://reports@account.dfs.core.windows.net/x", []),
        ("abfss://reports@account.dfs.core.windows.net/x?sig=SECRET", ["sig=SECRET"]),
        ("wasbs://reports@account.blob.core.windows.net/x", []),
        ("abfs://reports:SECRET@account.dfs.core.windows.net/x", ["SECRET"]),
        ("sftp://backup@host/x", []),
        ("s3://KEY:p%40ss@bucket/x", ["KEY:p%40ss", "p%40ss", "p@ss"]),
        ("s3://KEY:@bucket/x", ["KEY:"]),
        ("s3://bucket/x", []),
    ],
)
def test_a_container_and_a_user_are_no_secrets(url: str, secrets: list[str]) -> None:
    assert secrets_of(urlsplit(url)) == secrets


def test_a_place_with_a_user_alone_is_shown_as_it_is() -> None:
    store = report_store({}, home=Path("/nowhere"), url="memory://reports@account/reports")
    assert store.place == "memory://reports@account/reports"


def test_the_place_is_shown_without_user_and_password() -> None:
    store = report_store({}, home=Path("/nowhere"), url="memory://user:p%40ss@bucket/reports")
    assert store.place == "memory://***@bucket/reports"
    written = store.write("r", TWO[:1], on=TODAY, run_id="../../x")
    assert written == {"a.csv": "memory://***@bucket/reports/r/2026-11-21/_.._x/a.csv"}
    MemoryFileSystem.store.clear()
