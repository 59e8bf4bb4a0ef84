"""What `loyalty demo` prints of a result, and which result is a failure."""

from dataclasses import replace
from decimal import Decimal

import pytest
from click.testing import CliRunner, Result

from loyalty_pipelines.cli import main
from loyalty_pipelines.demo import DemoResult, checks_of
from loyalty_pipelines.domain.subscription_report import ClassLine

MISMATCH = ClassLine(
    merchant_id=None,
    class_name="captured_twice",
    severity="error",
    policy="P",
    currency="EUR",
    findings=1,
    new_findings=1,
    closed_findings=0,
    amount=Decimal("59.5"),
    first_seen_at=None,
)


def demo(monkeypatch: pytest.MonkeyPatch, *, checks: dict[str, bool], mismatches: list[ClassLine]) -> Result:
    """Run the command with a demo that ends with this."""
    result = DemoResult(
        merchants=[],
        checks=checks,
        checks_of_mismatches=["nothing_is_captured_twice"],
        mismatches=mismatches,
        money_at_risk={"EUR": Decimal("59.5")} if mismatches else {},
        orders_added=1,
        subscriptions_added=1,
        orders_paid_late=0,
        orders_cancelled=0,
        orders_refunded=0,
        backlog_seconds=1,
        late_seconds=1,
        customers_warned=0,
        mails_sent=0,
        mails_to=None,
        total_seconds=1,
    )
    monkeypatch.setattr("loyalty_pipelines.demo.run_demo", lambda **_: result)
    return CliRunner().invoke(main, ["demo"])


def test_what_the_demo_put_there_is_shown_with_what_to_do_next_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = demo(monkeypatch, checks={"a": True, "nothing_is_captured_twice": False}, mismatches=[MISMATCH])
    assert done.exit_code == 0
    for words in (
        "found what is wrong (below)",
        "captured_twice",
        "59.50 EUR at risk",
        "'loyalty subscriptions findings'",
        "'loyalty subscriptions apply --dry-run'",
    ):
        assert words in done.output
    assert "FAILED" not in done.output


def test_another_check_that_fails_fails_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    done = demo(monkeypatch, checks={"a": False, "nothing_is_captured_twice": False}, mismatches=[MISMATCH])
    assert (done.exit_code, "FAILED" in done.output) == (1, True)


def test_where_everything_was_put_right_nothing_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    done = demo(monkeypatch, checks={"nothing_is_captured_twice": True}, mismatches=[])
    assert (done.exit_code, "Payments and subscriptions: nothing is wrong." in done.output) == (0, True)


def test_a_class_of_which_more_or_less_is_found_than_the_demo_put_there_is_no_excuse() -> None:
    assert checks_of([MISMATCH]) == ["nothing_is_captured_twice"]
    assert checks_of([replace(MISMATCH, findings=2)]) == []
    assert checks_of([MISMATCH, replace(MISMATCH, currency="USD")]) == []
    assert checks_of([]) == []
    assert checks_of([replace(MISMATCH, class_name="period_gap")]) == []
