"""Source contracts on real views, by Great Expectations. All in one process, because it takes seconds to import."""

import json
import os
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.engine import Engine as AnyEngine
from sqlalchemy.exc import DBAPIError

from loyalty_pipelines.assets.shop import SHOP_TABLES
from loyalty_pipelines.checks.source_contracts import checks_of
from loyalty_pipelines.contracts import load_contracts
from loyalty_pipelines.db import sample_shop, sources
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.definitions import defs
from loyalty_pipelines.domain.contracts import Checked, CheckedView, Outcome, parse_contract
from loyalty_pipelines.domain.expectations import Severity
from loyalty_pipelines.domain.source_mapping import parse_mapping
from loyalty_pipelines.embedded import EmbeddedServer
from loyalty_pipelines.resources.database import LedgerDatabase
from tests import contract_shop
from tests.cli import Cli
from tests.conftest import TEMPLATE, administer
from tests.contract_shop import AS_OF, PLANTED
from tests.shop import Shop
from tests.shops import CREATE_SHOP, mapping_of

pytestmark = pytest.mark.xdist_group("great_expectations")

VOLUME = ("orders", "orders_of_yesterday_are_as_many_as_usual")
# Orders on the four Tuesdays before, and yesterday.
WEEKS = ("2025-12-30", "2026-01-06", "2026-01-13", "2026-01-20")
YESTERDAY = "2026-01-27"


def check(engine: Engine, contracts=None, **options) -> dict[str, CheckedView]:
    from loyalty_pipelines.resources.source_contracts import check_contracts

    found = check_contracts(engine, contracts or load_contracts(), **{"as_of": AS_OF, **options})
    return {one.view: one for one in found}


def ours(*views: str) -> dict:
    """The contracts that ship, of some views."""
    return {view: contract for view, contract in load_contracts().items() if view in views}


def by_name(view: CheckedView) -> dict[str, Checked]:
    return {one.name: one for one in view.results}


def own(view: str, yaml_text: str) -> dict:
    """The contract of one view as an operator writes it."""
    return {view: parse_contract(view, yaml_text, file=f"{view}.yaml", is_own=True)}


def expectation(name: str, **fields: str) -> str:
    """An expectation in YAML, an error unless `fields` say otherwise."""
    values = {
        "group": "other",
        "severity": "error",
        "says": "Something that is expected here.",
        "do": "Look at the rows and correct them.",
        **fields,
    }
    return f"expectations:\n  - name: {name}\n" + "".join(f"    {key}: {value}\n" for key, value in values.items())


@contextmanager
def odd_shop(server: EmbeddedServer) -> Iterator[Engine]:
    """A database with the clean odd shop, mapped."""
    name = f"contracts_{uuid.uuid4().hex[:12]}"
    administer(server.url("postgres"), f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    engine = connect(server.url(name))
    with engine.begin() as conn:
        contract_shop.create(conn)
    yield engine
    engine.dispose()
    administer(server.url("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def clean(server: EmbeddedServer) -> Iterator[Engine]:
    """The odd shop without a bad row; tests leave it as it is."""
    with odd_shop(server) as engine:
        yield engine


@pytest.fixture(scope="module")
def spoilt(server: EmbeddedServer) -> Iterator[tuple[Engine, dict[tuple[str, str], set[tuple[str, str]]]]]:
    """The odd shop with every planted row, and their keys by expectation; tests leave it as it is."""
    with odd_shop(server) as engine:
        with engine.begin() as conn:
            planted = contract_shop.plant(conn)
            for merchant, weekly, yesterday in (
                ("weak", (30, 31, 33, 30), 9),
                ("strong", (20, 25, 25, 20), 76),
                ("silent", (20, 20, 20, 20), 0),
                ("a third", (30, 30, 30, 30), 10),
                ("three times", (20, 25, 25, 20), 75),
                ("small", (19, 99, 99, 99), 0),
                ("young", (0, 99, 99, 99), 0),
            ):
                contract_shop.insert(
                    conn, "merchants", {"id": merchant, "name": "x", "timezone": "UTC", "currency": "EUR"}
                )
                for day, count in zip((*WEEKS, YESTERDAY), (*weekly, yesterday), strict=True):
                    contract_shop.orders_of_day(conn, merchant, day, count)
                # Today, and the days around the others, don't count.
                for day in ("2026-01-28", "2026-01-26", "2026-01-21"):
                    contract_shop.orders_of_day(conn, merchant, day, 50)
        yield engine, planted


@pytest.fixture(scope="module")
def statements() -> list[str]:
    """What Great Expectations asked of the views for `found`."""
    return []


@pytest.fixture(scope="module")
def found(spoilt, statements: list[str]) -> dict[tuple[str, str], Checked]:
    """What checking the spoilt shop gave, by view and expectation."""

    def note(conn, cursor, statement, parameters, context, executemany) -> None:
        if "FROM loyalty_source." in statement:
            statements.append(" ".join(statement.lower().split()))

    event.listen(AnyEngine, "before_cursor_execute", note)
    try:
        views = check(spoilt[0])
    finally:
        event.remove(AnyEngine, "before_cursor_execute", note)
    return {(view.view, one.name): one for view in views.values() for one in view.results}


def test_every_expectation_that_ships_has_a_row_that_it_must_find() -> None:
    shipped = {(view, one.name) for view, contract in load_contracts().items() for one in contract.expectations}  # type: ignore[union-attr]
    assert shipped == {*PLANTED, VOLUME}


@pytest.mark.parametrize("view_and_name", sorted(PLANTED), ids="-".join)
def test_an_expectation_finds_its_bad_rows_and_no_others(view_and_name, spoilt, found) -> None:
    view, name = view_and_name
    key = load_contracts()[view].keys_of(  # type: ignore[union-attr]
        next(one for one in load_contracts()[view].expectations if one.name == name)  # type: ignore[union-attr]
    )
    one = found[view_and_name]
    assert one.outcome is Outcome.FAILED, one
    assert one.bad_rows == PLANTED[view_and_name].count
    merchants_and_ids = {(row["merchant_id"], row[key[min(1, len(key) - 1)]]) for row in one.sample}
    assert merchants_and_ids == spoilt[1][view_and_name]
    assert set(one.sample[0]) == set(key)
    assert one.percent == pytest.approx(100 * one.bad_rows / one.rows)


def test_the_volume_of_yesterday_is_compared_with_the_same_weekday(found) -> None:
    one = found[VOLUME]
    assert (one.outcome, one.severity, one.bad_rows) == (Outcome.FAILED, Severity.WARNING, 3)
    assert sorted(tuple(row.values()) for row in one.sample) == [
        ("silent", 0, 20, 20),
        ("strong", 76, 20, 25),
        ("weak", 9, 30, 33),
    ]
    assert "of" not in one.text.split(":")[0], "merchants are not a share of orders"


def test_a_clean_shop_meets_every_expectation(clean: Engine) -> None:
    # Importing Great Expectations changes what is shown of warnings.
    import loyalty_pipelines.resources.source_contracts

    assert loyalty_pipelines.resources.source_contracts
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        views = check(clean)
    assert [str(one.message) for one in warned] == [], "an operator's log would have them"
    assert [one for view in views.values() for one in view.results if one.outcome is not Outcome.PASSED] == []
    assert not any(view.has_errors for view in views.values())
    assert views["orders"].text == "15 of 15 expectations of orders are met."


def test_only_counts_and_a_few_rows_leave_postgresql(found, statements: list[str]) -> None:
    assert found
    assert len(statements) > 100
    first = ("select count(", "select sum(", 'select "unexpectedcountsubquery".unexpected_count')
    assert [one for one in statements if not one.startswith(first) and " limit " not in one] == []


def test_what_could_not_be_read_for_a_moment_is_said_and_the_other_views_are_checked(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loyalty_pipelines.resources.gx_view.LOCK_TIMEOUT", "100ms")
    with odd_shop(server) as engine, engine.begin() as conn:
        conn.execute(text("LOCK TABLE odd.plans IN ACCESS EXCLUSIVE MODE"))
        views = check(engine, ours("plans", "merchants"))
    assert views["plans"].problem == "plans can't be checked: canceling statement due to lock timeout."
    assert {one.outcome for one in views["plans"].results} == {Outcome.BROKEN}
    assert views["plans"].has_errors
    assert not views["merchants"].has_errors


def test_waiting_for_a_view_to_compare_with_costs_only_what_needs_it(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loyalty_pipelines.resources.gx_view.LOCK_TIMEOUT", "100ms")
    with odd_shop(server) as engine, engine.begin() as conn:
        conn.execute(text("LOCK TABLE odd.customers IN ACCESS EXCLUSIVE MODE"))
        orders = check(engine, ours("orders"))["orders"]
    assert [(one.name, one.text) for one in orders.results if not one.is_met] == [
        ("every_order_belongs_to_a_known_customer", "It can't be checked: canceling statement due to lock timeout.")
    ]
    assert orders.has_errors, "a warning that can't be checked is no better than an error"


def test_a_view_that_is_gone_fails_alone(server: EmbeddedServer) -> None:
    with odd_shop(server) as engine:
        with engine.begin() as conn:
            conn.execute(text("DROP TABLE odd.refunds CASCADE"))
        views = check(engine, ours("orders", "refunds"))
    assert views["refunds"].problem == (
        'refunds can\'t be checked: relation "loyalty_source.refunds" does not exist; '
        "'loyalty sources apply' makes the views."
    )
    assert {one.outcome for one in views["refunds"].results} == {Outcome.BROKEN}
    assert [view for view, one in views.items() if one.has_errors] == ["refunds"]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("CAST(name AS numeric)", 'invalid input syntax for type numeric: "..."'),
        ("length(name) / (length(name) - 4)", "division by zero"),
        ("odd.judged(name)", "the shop's own code raised an error (SQLSTATE P0001) when the view was read"),
    ],
)
def test_a_view_that_raises_says_why_without_the_value(server: EmbeddedServer, expression: str, reason: str) -> None:
    with odd_shop(server) as engine:
        with engine.begin() as conn:
            conn.execute(
                text(
                    "CREATE FUNCTION odd.judged(name text) RETURNS numeric STABLE LANGUAGE plpgsql AS "
                    "$$BEGIN RAISE EXCEPTION 'do not know %', name; END$$"
                )
            )
            conn.execute(
                text(
                    'CREATE OR REPLACE VIEW loyalty_source.plans AS SELECT merchant_id COLLATE "C" AS merchant_id, '
                    f'id COLLATE "C" AS plan_id, name COLLATE "C" AS name, CAST({expression} AS numeric) AS amount, '
                    'currency COLLATE "C" AS currency, "interval" COLLATE "C" AS "interval", '
                    "false AS allows_multiple FROM odd.plans"
                )
            )
        views = check(engine, ours("merchants", "plans"))
    plans = by_name(views["plans"])
    assert plans["every_amount_of_a_plan_is_plausible"].outcome is Outcome.BROKEN
    assert plans["every_amount_of_a_plan_is_plausible"].text == f"It can't be checked: {reason}."
    assert plans["every_plan_has_a_currency"].outcome is Outcome.PASSED, "what needs no amount is checked"
    assert views["plans"].has_errors
    assert "Gold" not in repr(views)
    assert [view for view, one in views.items() if one.has_errors] == ["plans"]


def map_without_money(shop: Shop) -> None:
    """Map the sample shop as one that sells no subscriptions."""
    mapping = sample_shop.mapping().yaml_text
    with shop.engine.begin() as conn:
        sources.apply(conn, parse_mapping(mapping[: mapping.index("payments:\n")]))


def test_what_the_shop_does_not_have_is_skipped_and_says_so(shop: Shop) -> None:
    shop.run("INSERT INTO sample_shop.customers (merchant_id, id) VALUES ('m1', 'ann')")
    shop.order("1", "10.00")
    map_without_money(shop)
    views = check(shop.engine, as_of=None)
    assert not any(view.has_errors for view in views.values())
    assert {one.outcome for one in views["orders"].results} == {Outcome.PASSED}
    for view in ("payments", "subscriptions", "plans"):
        assert views[view].text == f"Not checked: the source mapping has no {view}, so the view is empty."
        assert {one.outcome for one in views[view].results} == {Outcome.SKIPPED}


@pytest.mark.parametrize("preset", sorted(CREATE_SHOP))
def test_the_shops_of_the_presets_can_be_checked(preset: str, engine: Engine) -> None:
    with engine.begin() as conn:
        CREATE_SHOP[preset](conn)
        sources.apply(conn, mapping_of(preset))
    views = check(engine)
    assert {one.outcome for view in views.values() for one in view.results} == {Outcome.PASSED, Outcome.SKIPPED}
    assert not any(view.has_errors for view in views.values())


def test_without_a_mapping_everything_is_skipped(shop: Shop) -> None:
    with shop.engine.begin() as conn:
        sources.withdraw(conn)
    views = check(shop.engine)
    assert {one.outcome for view in views.values() for one in view.results} == {Outcome.SKIPPED}
    assert views["orders"].text.startswith("Not checked. The source mapping is withdrawn")


def test_what_needs_a_column_or_a_view_that_is_not_mapped_is_skipped(server: EmbeddedServer) -> None:
    without = contract_shop.MAPPING.replace(",\n    captured_at: captured_at", "")
    without = without[: without.index("plans:\n")]
    with odd_shop(server) as engine:
        with engine.begin() as conn:
            sources.apply(conn, contract_shop.parse_mapping(without))
        views = check(engine, ours("payments", "subscriptions"))
    skipped = {(v.view, one.name): one.text for v in views.values() for one in v.results
               if one.outcome is Outcome.SKIPPED}  # fmt: skip
    assert skipped == {
        ("payments", "every_captured_payment_has_a_time"): "Not checked: the source mapping gives no captured_at of "
        "payments.",
        ("subscriptions", "every_subscription_has_its_plan"): "Not checked: the source mapping has no plans to compare "
        "with.",
    }
    assert views["payments"].text == "14 of 14 expectations of payments are met."


def test_no_personal_data_is_shown_whatever_a_contract_asks_for(clean: Engine, tmp_path: Path) -> None:
    contracts = own(
        "customers",
        expectation(
            "every_address_is_ours",
            expect="expect_column_values_to_match_regex",
            column="email",
            regex="'@ours[.]example$'",
        )
        + expectation(
            "nobody_has_a_name",
            expect="unexpected_rows_expectation",
            unexpected_rows_query="SELECT c.*, c.email AS age FROM {batch} AS c WHERE c.name IS NOT NULL",
            numbers="[age, name]",
        ).removeprefix("expectations:\n")
        + expectation(
            "no_name_is_a_number",
            expect="unexpected_rows_expectation",
            unexpected_rows_query="SELECT c.* FROM {batch} AS c WHERE CAST(c.email AS numeric) > 1",
        ).removeprefix("expectations:\n")
        + expectation(
            "no_two_share_an_address", expect="expect_compound_columns_to_be_unique", column_list="[name, email]"
        ).removeprefix("expectations:\n"),
    )
    with clean.begin() as conn:
        contract_shop.insert(conn, "customers", {**contract_shop.GOOD["customers"], "id": "twin",
                             "email": "ann@example.com", "name": "Ann Example"})  # fmt: skip
    try:
        views = check(clean, contracts, docs=tmp_path)
    finally:
        with clean.begin() as conn:
            conn.execute(text("DELETE FROM odd.customers WHERE id = 'twin'"))
    one = by_name(views["customers"])
    assert one["every_address_is_ours"].sample == (
        {"merchant_id": "m1", "customer_id": "ann"},
        {"merchant_id": "m1", "customer_id": "twin"},
    )
    assert one["nobody_has_a_name"].sample == one["every_address_is_ours"].sample
    assert one["no_two_share_an_address"].bad_rows == 2
    assert one["no_name_is_a_number"].outcome is Outcome.BROKEN
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert "no_two_share_an_address" in pages or "Something that is expected here" in pages
    assert "twin" in pages, "keys are shown"
    for text_shown in (repr(views), pages):
        assert "ann@example.com" not in text_shown
        assert "Ann Example" not in text_shown


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (
            "SELECT merchant_id, order_id FROM {batch} AS s JOIN nextval('odd.numbers') AS n ON n < 0",
            "cannot execute nextval() in a read-only transaction",
        ),
        ("SELECT merchant_id, order_id FROM {batch} AS s WHERE s.totl > 1", "column s.totl does not exist"),
        ("SELECT merchant_id, order_id FROM {batch}; SELECT 1", 'syntax error at or near ";"'),
    ],
)
def test_a_query_of_the_operator_that_can_not_run_breaks_nothing_else(clean: Engine, query: str, reason: str) -> None:
    with clean.begin() as conn:
        conn.execute(text("CREATE SEQUENCE IF NOT EXISTS odd.numbers"))
    contracts = own(
        "orders",
        expectation("a_query_of_mine", expect="unexpected_rows_expectation", unexpected_rows_query=query)
        + expectation(
            "every_order_has_a_number", expect="expect_column_values_to_not_be_null", column="order_id"
        ).removeprefix("expectations:\n"),
    )
    one = by_name(check(clean, contracts)["orders"])
    assert one["a_query_of_mine"].outcome is Outcome.BROKEN
    assert one["a_query_of_mine"].text == f"It can't be checked: {reason}."
    assert one["every_order_has_a_number"].outcome is Outcome.PASSED


@pytest.mark.parametrize("end", ["", ";", " ; \n", "\n-- all of them", "\n-- all of them;", "; -- all\n-- of them\n"])
def test_a_query_may_end_as_in_an_editor(clean: Engine, end: str) -> None:
    query = f"SELECT merchant_id, order_id FROM {{batch}} WHERE order_id <> ';--'{end}"
    contracts = own(
        "orders",
        expectation("there_is_no_order", expect="unexpected_rows_expectation", unexpected_rows_query=json.dumps(query)),
    )
    one = by_name(check(clean, contracts)["orders"])["there_is_no_order"]
    assert (one.outcome, one.bad_rows, len(one.sample)) == (Outcome.FAILED, 2, 2), one.text


def test_a_query_may_end_with_a_text_that_looks_like_an_end(clean: Engine) -> None:
    query = "SELECT merchant_id, order_id FROM {batch} WHERE order_id <> ';--'"
    contracts = own(
        "orders",
        expectation("there_is_no_order", expect="unexpected_rows_expectation", unexpected_rows_query=json.dumps(query)),
    )
    assert by_name(check(clean, contracts)["orders"])["there_is_no_order"].bad_rows == 2


def test_time_zones_are_known_to_the_role_that_checks(server: EmbeddedServer) -> None:
    with odd_shop(server) as engine:
        options = {"options": "-c role=loyalty_pipeline"}
        of_pipeline = connect(engine.url.update_query_dict(options).render_as_string(hide_password=False))
        merchants = check(of_pipeline, ours("merchants"))["merchants"]
        of_pipeline.dispose()
    assert merchants.text == "5 of 5 expectations of merchants are met."


def test_a_server_that_goes_away_is_nobodys_bad_data(clean: Engine) -> None:
    query = "SELECT merchant_id, order_id FROM {batch} AS s WHERE pg_terminate_backend(pg_backend_pid())"
    contracts = own(
        "orders", expectation("it_stays_up", expect="unexpected_rows_expectation", unexpected_rows_query=query)
    )
    with pytest.raises(DBAPIError):
        check(clean, contracts)


def test_some_rows_may_fail_where_the_contract_says_mostly(clean: Engine) -> None:
    # One of the two orders has no time of payment.
    for share, outcome in (("0.5", Outcome.PASSED), ("0.51", Outcome.FAILED)):
        contracts = own("orders", expectation("orders_are_paid", expect="expect_column_values_to_not_be_null",
                                              column="paid_at", mostly=share))  # fmt: skip
        assert by_name(check(clean, contracts)["orders"])["orders_are_paid"].outcome is outcome


def test_the_docs_are_a_site_and_nothing_else_is_written(
    spoilt, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    temporary = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    url = spoilt[0].url.render_as_string(hide_password=False)
    cli = Cli(url)
    outcome = cli.ok("contracts", "docs", "--to", "site", "--view", "orders")
    assert outcome.out.endswith("Open site/index.html.\n")
    assert (os.listdir(tmp_path), os.listdir(temporary)) == (["site"], [])
    pages = {path.stem: path.read_text() for path in (tmp_path / "site" / "validations").rglob("*.html")}
    assert list(pages) == ["orders"]
    assert "The amount of every order is a number from 0 to 1,000,000,000,000" in pages["orders"]
    assert "order_id every_amount_of_an_order_is_plausible 0" in pages["orders"]
    assert "x@example.com" not in "".join(pages.values())
    blocked = tmp_path / "a file"
    blocked.touch()
    assert "Cannot write to" in cli.refused(1, "contracts", "docs", "--to", blocked / "site")


def test_the_command_line_checks_and_shows(spoilt, clean: Engine, tmp_path: Path, monkeypatch) -> None:
    cli = Cli(clean.url.render_as_string(hide_password=False))
    assert "5 of 5 expectations of merchants are met." in cli.ok("contracts", "check", "--view", "merchants").out
    # What is wrong is an error; a warning alone is none.
    spoilt_url = spoilt[0].url.render_as_string(hide_password=False)
    outcome = cli.run("contracts", "check", "--view", "customers", database=spoilt_url)
    assert outcome.status == 1
    assert (
        "  error: every_customer_has_an_id: 1 row does not meet it, of 7.\n    merchant_id m1, customer_id (empty)\n"
        in outcome.out
    )
    assert outcome.err.count("\n") == 2, "no progress bars and no warnings"
    document = cli.run("contracts", "check", "--view", "customers", "--json", database=spoilt_url).document
    (twice,) = [one for one in document[0]["results"] if one["name"] == "no_customer_is_there_twice"]
    assert twice["sample"] == [{"merchant_id": "m1", "customer_id": "twin"}]
    text_of_ours = cli.ok("contracts", "show", "--view", "customers").out
    assert cli.ok("contracts", "show", "--json").document[0]["expectation"] == "no_merchant_is_there_twice"
    # An own file: one expectation is a warning now, all others of the view are gone.
    first = "\n\n".join(text_of_ours.split("\n\n")[1:2]).replace("severity: error", "severity: warning")
    (tmp_path / "customers.yaml").write_text(f"expectations:\n{first}\n")
    monkeypatch.setenv("LOYALTY_CONTRACTS", str(tmp_path))
    outcome = cli.run("contracts", "check", "--view", "customers", database=spoilt_url)
    assert (outcome.status, outcome.out.splitlines()[0]) == (0, "0 of 1 expectations of customers are met.")
    assert "  warning: every_customer_has_an_id: " in outcome.out
    # A wrong one is refused where it is shown, and is an error where it is checked.
    (tmp_path / "customers.yaml").write_text("expectations: 1\n")
    assert cli.refused(1, "contracts", "show").startswith(
        f"Error: The contract {tmp_path}/customers.yaml has 1 problem"
    )
    outcome = cli.run("contracts", "check", "--json")
    assert outcome.status == 1
    assert [view["view"] for view in outcome.document if view["problem"]] == ["customers"]


# --- Dagster ----------------------------------------------------------------------------------------------


def run(engine: Engine, checks: dg.AssetChecksDefinition | None = None, selection=None) -> dg.ExecuteInProcessResult:
    """Run the job of the checks on an ephemeral instance."""
    resources = {"ledger": LedgerDatabase(url=engine.url.render_as_string(hide_password=False))}
    if checks is None and selection is None:
        job = dg.Definitions(
            assets=defs.assets, asset_checks=defs.asset_checks, jobs=defs.jobs,
            resources={**(defs.resources or {}), **resources}, executor=defs.executor,
        ).resolve_job_def("source_contracts_job")  # fmt: skip
    else:
        made = checks or checks_of(load_contracts())
        job = dg.Definitions(
            assets=SHOP_TABLES,
            asset_checks=[made],
            jobs=[dg.define_asset_job("some", selection=selection or dg.AssetSelection.checks(made))],
            resources=resources,
            executor=dg.in_process_executor,
        ).resolve_job_def("some")
    with dg.DagsterInstance.ephemeral() as instance:
        return job.execute_in_process(instance=instance, raise_on_error=False)


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {one.check_name: one for one in result.get_asset_check_evaluations()}


def test_the_job_makes_a_check_of_every_expectation_and_fails_by_its_errors(spoilt) -> None:
    result = run(spoilt[0])
    made = evaluations(result)
    assert not result.success
    assert len(result.get_asset_check_evaluations()) == len(PLANTED) + 1 + 7
    assert {made[f"{view}_can_be_checked"].passed for view in load_contracts()} == {True}
    amount = made["every_amount_of_an_order_is_plausible"]
    assert (amount.asset_key, amount.passed, amount.severity) == (
        dg.AssetKey(["shop", "orders"]),
        False,
        dg.AssetCheckSeverity.ERROR,
    )
    assert amount.metadata["rows that don't meet it"].value == 6
    keys = amount.metadata["keys"]
    assert isinstance(keys, dg.TableMetadataValue)
    assert [column.name for column in keys.schema.columns] == ["merchant_id", "order_id"]
    assert len(keys.records) == 6
    assert made["every_order_belongs_to_a_known_customer"].severity is dg.AssetCheckSeverity.WARN
    assert "x@example.com" not in json.dumps([str(one) for one in result.get_asset_check_evaluations()])


def test_warnings_leave_the_run_green_and_a_wrong_file_turns_it_red(spoilt, tmp_path: Path, monkeypatch) -> None:
    text_of_ours = load_contracts()["customers"].yaml_text  # type: ignore[union-attr]
    (tmp_path / "customers.yaml").write_text(text_of_ours.replace("severity: error", "severity: warning"))
    monkeypatch.setenv("LOYALTY_CONTRACTS", str(tmp_path))
    made = checks_of({"customers": load_contracts()["customers"]})
    result = run(spoilt[0], made)
    assert result.success
    found = evaluations(result)
    # What is in the future of this test's instant may be in the past of the database's.
    passed = {name for name, one in found.items() if one.passed} - {"no_customer_is_from_the_future"}
    assert passed == {"customers_can_be_checked"}
    assert {one.severity for one in found.values() if not one.passed} == {dg.AssetCheckSeverity.WARN}
    (tmp_path / "customers.yaml").write_text("expectations: [1]\n")
    result = run(spoilt[0], checks_of({"customers": load_contracts()["customers"]}))
    assert not result.success
    (only,) = result.get_asset_check_evaluations()
    assert (only.check_name, only.passed) == ("customers_can_be_checked", False)
    assert "customers.yaml has 1 problem" in (only.description or "")


def test_an_expectation_that_can_not_be_checked_is_red_unless_its_whole_view_is(server: EmbeddedServer) -> None:
    with odd_shop(server) as engine:
        with engine.begin() as conn:
            conn.execute(
                text(
                    'CREATE OR REPLACE VIEW loyalty_source.plans AS SELECT merchant_id COLLATE "C" AS merchant_id, '
                    'id COLLATE "C" AS plan_id, name COLLATE "C" AS name, CAST(name AS numeric) AS amount, '
                    'currency COLLATE "C" AS currency, "interval" COLLATE "C" AS "interval", '
                    "false AS allows_multiple FROM odd.plans"
                )
            )
        result = run(engine, checks_of(ours("plans")))
        found = evaluations(result)
        assert found["plans_can_be_checked"].passed
        (broken,) = [one for one in found.values() if not one.passed]
        assert (broken.check_name, broken.severity) == (
            "every_amount_of_a_plan_is_plausible",
            dg.AssetCheckSeverity.ERROR,
        )
        assert (broken.description or "").startswith("It can't be checked: invalid input syntax")
        assert not result.success, "an error that nobody could look for is no better than one"
        with engine.begin() as conn:
            conn.execute(text("DROP TABLE odd.plans CASCADE"))
        found = evaluations(run(engine, checks_of(ours("plans"))))
        assert not found["plans_can_be_checked"].passed
        red = [name for name, one in found.items() if not one.passed and one.severity is dg.AssetCheckSeverity.ERROR]
        assert red == ["plans_can_be_checked"], "the view is one problem, not one for each of its expectations"


def test_a_warning_that_can_not_be_checked_is_red_as_on_the_command_line(clean: Engine) -> None:
    query = "SELECT merchant_id, order_id FROM {batch} AS s WHERE s.totl > 1"
    contracts = own(
        "orders",
        expectation("it_has_a_typo", expect="unexpected_rows_expectation", unexpected_rows_query=query,
                    severity="warning"),
    )  # fmt: skip
    found = evaluations(run(clean, checks_of(contracts)))
    assert (found["it_has_a_typo"].passed, found["it_has_a_typo"].severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_what_is_skipped_is_green_and_says_that_it_was_not_checked(shop: Shop) -> None:
    map_without_money(shop)
    found = evaluations(run(shop.engine, checks_of(ours("plans"))))
    one = found["every_amount_of_a_plan_is_plausible"]
    assert one.passed
    assert one.description == "Not checked: the source mapping has no plans, so the view is empty."
    assert one.metadata["was checked"].value is False


def test_one_check_can_be_run_alone(clean: Engine) -> None:
    made = checks_of(load_contracts())
    (key,) = [one.key for one in made.check_specs if one.name == "every_amount_of_a_plan_is_plausible"]
    result = run(clean, made, dg.AssetSelection.checks(key))
    assert [one.check_name for one in result.get_asset_check_evaluations()] == ["every_amount_of_a_plan_is_plausible"]
