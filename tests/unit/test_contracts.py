"""Contracts as files: what is read, and what is refused with which words."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from loyalty_pipelines.contracts import load_contract, load_contracts
from loyalty_pipelines.domain.contracts import Contract, ContractError, parse_contract, readable_check
from loyalty_pipelines.domain.expectations import Expectation, Group, Severity
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS
from loyalty_pipelines.processes import contracts_environment

NOT_NULL = {"expect": "expect_column_values_to_not_be_null", "column": "order_id"}
BETWEEN = {"expect": "expect_column_values_to_be_between", "column": "total_amount", "max_value": "1"}
QUERY = {
    "expect": "unexpected_rows_expectation",
    "unexpected_rows_query": "SELECT merchant_id, order_id FROM {batch} AS s WHERE s.paid_at > {as_of}",
}
RUNBOOK = Path(__file__).parent.parent.parent / "docs" / "runbooks" / "source-contracts.md"


def written(*many: Mapping[str, str | None]) -> str:
    """Return expectations as a file; None leaves a key out."""
    lines = ["expectations:"]
    for number, fields in enumerate(many):
        values = {
            "name": f"one_of_mine_{number}",
            "group": "other",
            "severity": "error",
            "says": "Something that is expected here.",
            "do": "Look at the rows and correct them.",
            **fields,
        }
        lines += [f"    {key}: {value}" for key, value in values.items() if value is not None]
        lines[-sum(value is not None for value in values.values())] = (
            "  - " + lines[-sum(value is not None for value in values.values())].strip()
        )
    return "\n".join(lines) + "\n"


def parse(*many: Mapping[str, str | None], view: str = "orders") -> tuple[Expectation, ...]:
    return parse_contract(view, written(*many), file="mine.yaml", is_own=True).expectations


def refusal(*many: Mapping[str, str | None]) -> str:
    """Return the only problem of a file."""
    with pytest.raises(ContractError) as raised:
        parse(*many)
    (problem,) = raised.value.problems
    return str(problem)


def test_every_view_has_a_contract_that_ships() -> None:
    contracts = load_contracts()
    assert list(contracts) == list(SOURCE_RELATIONS)
    for view, contract in contracts.items():
        assert isinstance(contract, Contract)
        assert contract.file == f"{view}.yaml"
        assert not contract.is_own


def test_what_ships_is_grouped_by_sections_of_the_runbook() -> None:
    headings = {line.removeprefix("## ").strip() for line in RUNBOOK.read_text().splitlines() if line.startswith("## ")}
    assert {group.heading for group in Group} <= headings
    assert "A view that can't be checked" in headings
    used = {one.group for view in SOURCE_RELATIONS for one in load_contract(view).expectations}
    assert used == set(Group) - {Group.OTHER}


def test_an_expectation_is_read_with_its_arguments() -> None:
    between, query = parse({**BETWEEN, "min_value": "0", "strict_min": "true", "where": "{status: paid}"}, QUERY)
    as_of = datetime(2026, 1, 31, tzinfo=UTC)
    assert between.values(as_of) == {
        "column": "total_amount",
        "mostly": 1.0,
        "min_value": 0.0,
        "max_value": 1.0,
        "strict_min": True,
        "strict_max": False,
    }
    assert (between.severity, between.conditions) == (Severity.ERROR, {"status": ("paid",)})
    assert query.values(as_of)["unexpected_rows_query"].endswith(
        "WHERE s.paid_at > CAST('2026-01-31T00:00:00+00:00' AS timestamptz)"
    )


def test_an_instant_is_so_many_days_from_the_run() -> None:
    (one,) = parse({**BETWEEN, "column": "paid_at", "max_value": "{days_from_now: -1.5}"})
    assert one.values(datetime(2026, 1, 31, tzinfo=UTC))["max_value"] == datetime(2026, 1, 29, 12, tzinfo=UTC)


def test_a_query_needs_the_views_that_it_names() -> None:
    sql = "SELECT * FROM {batch} JOIN loyalty_source.plans ON true JOIN LOYALTY_SOURCE.customers ON true"
    (one,) = parse({**QUERY, "unexpected_rows_query": sql})
    assert one.views == ("plans", "customers")


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (
            {**NOT_NULL, "expect": "expect_column_values_to_not_be_nul"},
            'one_of_mine_0.expect (line 2): found "expect_column_values_to_not_be_nul"; expectations are '
            "expect_column_values_to_not_be_null, ",
        ),
        ({**NOT_NULL, "expect": None}, "one_of_mine_0.expect (line 2): found nothing; expectations are "),
        (
            {**NOT_NULL, "column": "totl_amount"},
            'one_of_mine_0.column (line 8): found "totl_amount"; loyalty_source.orders has no such column, its columns '
            "are merchant_id, ",
        ),
        ({**NOT_NULL, "column": None}, "one_of_mine_0.column (line 2): found nothing; add it."),
        (
            {**NOT_NULL, "severity": "fatal"},
            "one_of_mine_0.severity (line 4): found \"fatal\"; expected 'error' or 'warning'; write one of these.",
        ),
        (
            {**NOT_NULL, "severity": "warn"},
            "one_of_mine_0.severity (line 4): found \"warn\"; expected 'error' or 'warning'; did you mean \"warning\".",
        ),
        ({**NOT_NULL, "group": "money"}, "one_of_mine_0.group (line 3): found \"money\"; expected 'keys', "),
        (
            {**NOT_NULL, "name": "Every Order"},
            'Every Order.name (line 2): found "Every Order"; expected small letters, digits and underscores, a letter '
            "first; correct it.",
        ),
        (
            {**NOT_NULL, "name": readable_check("orders")},
            'orders_can_be_checked.name (line 2): found "orders_can_be_checked", which is the name of the view\'s own '
            "check; give it another name.",
        ),
        (
            {**NOT_NULL, "sevrity": "error"},
            'one_of_mine_0.sevrity (line 9): found the unknown key "sevrity"; remove it or correct its name.',
        ),
        ({**NOT_NULL, "do": "x"}, 'one_of_mine_0.do (line 6): found "x"; String should have at least 10 characters; '),
        ({**NOT_NULL, "mostly": "1.5"}, 'one_of_mine_0.mostly (line 9): found "1.5"; Input should be less than or '),
        (
            {**NOT_NULL, "where": "{total_amount: 5}"},
            "one_of_mine_0 (line 2): where compares words, and total_amount holds none; name a column of texts.",
        ),
        (
            {**BETWEEN, "column": "status"},
            "one_of_mine_0 (line 2): status is of the kind status; expect_column_values_to_be_between is for columns "
            "of the kinds amount, points, timestamp.",
        ),
        (
            {**BETWEEN, "max_value": None},
            "one_of_mine_0 (line 2): expected min_value, max_value or both.",
        ),
        (
            {**BETWEEN, "max_value": "{days_from_now: 1}"},
            "one_of_mine_0 (line 2): the bounds of total_amount are numbers.",
        ),
        (
            {**BETWEEN, "column": "paid_at"},
            "one_of_mine_0 (line 2): the bounds of paid_at are days from the run, such as {days_from_now: 1}.",
        ),
        (
            {**BETWEEN, "min_value": "2"},
            "one_of_mine_0 (line 2): min_value is above max_value, so no row could pass.",
        ),
        (
            {**QUERY, "unexpected_rows_query": "SELECT order_id FROM loyalty_source.orders"},
            "one_of_mine_0 (line 2): expected {batch}, which stands for the view.",
        ),
        (
            {**QUERY, "unexpected_rows_query": "SELECT order_id FROM {batch} WHERE currency ~ '[A-Z]{3}'"},
            "one_of_mine_0 (line 2): found {3}, expected {batch} or {as_of}; a brace of SQL's own is written twice.",
        ),
        (
            {**QUERY, "unexpected_rows_query": "'SELECT order_id FROM {batch} WHERE x = {'"},
            "one_of_mine_0 (line 2): Single '{' encountered in format string; a brace of SQL's own is written twice.",
        ),
        (
            {**QUERY, "unexpected_rows_query": "SELECT 1 FROM {batch}, loyalty_source.custmers"},
            "one_of_mine_0 (line 2): loyalty_source has no view custmers; its views are merchants, customers, orders, "
            "refunds, payments, subscriptions, plans.",
        ),
        (
            {**QUERY, "keys": "order_number"},
            'one_of_mine_0.keys[0] (line 9): found "order_number"; only ids may be shown, because they are no personal '
            "data; ids here are merchant_id, order_id, customer_id, store_id, plan_id.",
        ),
        (
            {"expect": "expect_compound_columns_to_be_unique", "column_list": "[order_id]"},
            "one_of_mine_0.column_list (line 8): found ['order_id']; Value should have at least 2 items",
        ),
        (
            {"expect": "expect_column_value_lengths_to_be_between", "column": "order_id"},
            "one_of_mine_0 (line 2): expected min_value, max_value or both.",
        ),
    ],
)
def test_a_wrong_expectation_is_refused_with_what_to_do(fields: Mapping[str, str | None], problem: str) -> None:
    assert refusal(fields).startswith(problem)


def test_a_name_is_there_once() -> None:
    assert refusal({**NOT_NULL, "name": "mine"}, {**NOT_NULL, "name": "mine"}) == (
        'mine.name (line 9): found "mine" twice; give it another name.'
    )


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(ContractError) as raised:
        parse({**NOT_NULL, "severity": "x"}, {**NOT_NULL, "column": "y", "group": "z"})
    assert len(raised.value.problems) == 3
    assert str(raised.value).startswith("The contract mine.yaml has 3 problems:\n- one_of_mine_0.severity")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "file: found an empty file; expected the key 'expectations' with a list; start from ours: loyalty "),
        ("- 1", "file: found a list at the top; "),
        ("expectations: 1", 'expectations (line 1): found "1"; '),
        ("expectations: [1]", 'expectations[0] (line 1): found "1"; '),
        ("expectation: []", "expectations: found nothing; add it."),
        ("expectations: [a", "file (line 1): found expected ',' or ']'"),
        ("a: &x 1\nb: *x", "file (line 2): found an alias (*name); write it as plain YAML."),
    ],
)
def test_a_file_that_is_no_contract_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ContractError) as raised:
        parse_contract("orders", text, file="mine.yaml", is_own=True)
    assert any(str(one).startswith(problem) for one in raised.value.problems), raised.value


def test_an_operators_file_stands_in_for_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOYALTY_CONTRACTS", str(tmp_path))
    (tmp_path / "notes.txt").write_text("not a contract")
    assert not load_contract("orders").is_own
    (tmp_path / "orders.yaml").write_text("expectations: []\n", encoding="utf-8-sig")
    assert (load_contract("orders").is_own, load_contract("orders").expectations) == (True, ())
    assert load_contract("orders").file == str(tmp_path / "orders.yaml")
    assert not load_contract("plans").is_own


def test_a_folder_of_ones_own_is_found_from_where_dagster_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "orders.yaml").write_text("expectations: []\n")
    (tmp_path / "dagster").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOYALTY_CONTRACTS", "mine")
    assert load_contract("orders").is_own
    found = contracts_environment()
    monkeypatch.chdir(tmp_path / "dagster")
    monkeypatch.setenv("LOYALTY_CONTRACTS", found["LOYALTY_CONTRACTS"])
    assert load_contract("orders").file == str(tmp_path / "mine" / "orders.yaml")
    monkeypatch.setenv("LOYALTY_CONTRACTS", " ")
    assert contracts_environment() == {}


def test_a_folder_may_be_named_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orders.yaml").write_text("expectations: []\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOYALTY_CONTRACTS", "~")
    assert load_contract("orders").is_own


def test_a_wrong_file_takes_no_other_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOYALTY_CONTRACTS", str(tmp_path))
    (tmp_path / "orders.yaml").write_bytes(b"expectations: [] # \xff\n")
    contracts = load_contracts()
    assert [view for view, one in contracts.items() if isinstance(one, ContractError)] == ["orders"]
    assert "found a byte that is not UTF-8 at 19; save it as UTF-8." in str(contracts["orders"])
    with pytest.raises(ContractError):
        load_contract("orders")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("order.yaml", 'did you mean "orders"'),
        ("orders.yml", 'did you mean "orders"'),
        ("x.yaml", "rename it or take it away"),
        (None, "found no folder that can be read (No such file or directory); make the folder, or unset "),
    ],
)
def test_a_folder_of_which_nobody_knows_what_it_means_is_refused_for_all_views(
    name: str | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOYALTY_CONTRACTS", str(tmp_path / "mine"))
    if name:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / name).write_text("expectations: []")
    contracts = load_contracts()
    assert {type(one) for one in contracts.values()} == {ContractError}
    assert problem in str(contracts["plans"])
