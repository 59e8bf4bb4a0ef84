"""The demo: a shop with real traffic and a night, awarded and mailed by the sensors and jobs of a headless Dagster."""

import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Engine

from loyalty_pipelines.db import demo
from loyalty_pipelines.db.award_checks import waiting_orders
from loyalty_pipelines.db.engine import connect
from loyalty_pipelines.db.expiry_run import expire_merchants
from loyalty_pipelines.db.migrate import upgrade
from loyalty_pipelines.db.subscription_report import report_subscriptions
from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.subscription_report import ClassLine, classes_together
from loyalty_pipelines.domain.subscriptions import BY_CODE
from loyalty_pipelines.platform_time import platform_timezone
from loyalty_pipelines.processes import (
    dagster_environment,
    dagster_running,
    demo_mail_environment,
    end_leftovers,
)

PATIENCE_SECONDS = 240


class DemoStuckError(LoyaltyError):
    """The daemon ended, or orders or mails still wait after four minutes."""

    def __init__(self, *, waiting: str, log: Path) -> None:
        self.waiting = waiting
        super().__init__(f"{waiting} still wait after {PATIENCE_SECONDS} s, or Dagster's daemon ended: see {log}.")


class DemoNightError(LoyaltyError):
    """The night's expiry failed for a merchant."""

    def __init__(self, *, merchant_id: str, failure: str) -> None:
        super().__init__(f"The night's expiry failed for merchant {merchant_id!r}: {failure}")


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What the demo did; `checks` is name and result, times are in seconds.

    `checks_of_mismatches`: the checks that are to find what the demo has put there. `mismatches`: what the comparison
    of payments and subscriptions found; `money_at_risk`: by currency.
    """

    merchants: Sequence[demo.DemoMerchant]
    checks: dict[str, bool]
    checks_of_mismatches: Sequence[str]
    mismatches: Sequence[ClassLine]
    money_at_risk: Mapping[str, Decimal]
    orders_added: int
    subscriptions_added: int
    orders_paid_late: int
    orders_cancelled: int
    orders_refunded: int
    backlog_seconds: float
    late_seconds: float
    customers_warned: int
    mails_sent: int
    mails_to: str | None
    total_seconds: float

    @property
    def is_as_expected(self) -> bool:
        """Whether no check failed but those that the demo's own mismatches fail."""
        return all(passed or name in self.checks_of_mismatches for name, passed in self.checks.items())


def checks_of(mismatches: Sequence[ClassLine]) -> list[str]:
    """Return the checks that fail over what the demo itself put there: one finding of the class, and no more."""
    findings = Counter[str]()
    for one in mismatches:
        findings[one.class_name] += one.findings
    return [BY_CODE[code].sentence for code in demo.MISMATCHES if findings[code] == 1]


def run_demo(
    *, orders: int, merchants: int, say: Callable[[str], None], into_named_database: bool = False
) -> DemoResult:
    """Make the shop, start Dagster headless, let its sensor find the orders and its job award them, check, stop.

    A database that LOYALTY_DATABASE_URL names is only used with `into_named_database`, or when a demo made its shop:
    the ledger's entries could never be removed again. Only there, and with `into_named_database`, mails go where
    LOYALTY_MAIL_URL says; otherwise to files. `say` gets a line per stage. Raises `DemoStuckError` when orders are left
    after four minutes.
    """
    started = time.monotonic()
    named = bool(os.environ.get("LOYALTY_DATABASE_URL", "").strip())
    environment = dagster_environment()
    if not (named and into_named_database):
        # A shell may have the settings of the real servers: made-up customers get no mails, and nobody is alerted.
        environment |= demo_mail_environment()
    # Before anything is written: with a Dagster that runs already, this one could not award it.
    end_leftovers(environment)
    # Dagster reads its instance's settings from the environment, in this process too.
    os.environ.update(environment)
    engine = connect(environment["LOYALTY_DATABASE_URL"])
    upgrade(engine)
    with engine.begin() as conn:
        demo.prepare(conn, merchants=merchants, is_allowed=into_named_database or not named)
        sold = demo.add_subscriptions(conn, merchants=merchants)
        added = demo.add_orders(conn, orders=orders, merchants=merchants)
    also = f", and {sold:,} subscriptions with theirs" if sold else ""
    say(f"Made a shop with {merchants} merchants and added {added:,} orders to it{also}.")
    log = Path(environment["DAGSTER_HOME"]) / "demo.log"
    say("Starting Dagster headless. Its sensor looks for paid orders every 5 seconds.")
    with dagster_running("dagster-daemon", ["run"], environment=environment, log=log) as daemon:
        backlog_seconds = _until(lambda: _waiting_orders(engine), "orders", daemon, log)
        say(f"The sensor found them and the job awarded them, {backlog_seconds:.1f} s after the daemon started.")
        warned = _night(engine)
        say(f"A night: {warned:,} customers are warned that their points are about to expire.")
        late, cancelled, refunded = _traffic(engine)
        say(f"Meanwhile: {late:,} late payments, {cancelled:,} cancellations, {refunded:,} partial refunds.")
        late_seconds = _until(lambda: _waiting_orders(engine), "orders", daemon, log)
        say(f"Points given, taken back and corrected {late_seconds:.1f} s later.")
        mails_to = environment.get("LOYALTY_MAIL_URL") or os.environ.get("LOYALTY_MAIL_URL")
        if mails_to:
            _until(lambda: _waiting_mails(engine), "mails", daemon, log)
        with engine.connect() as conn:
            rows = demo.summary(conn)
        say("Proving that every balance is the sum of its entries, and every order has its points, once.")
        say("Comparing payments with subscriptions: the demo made some that are wrong.")
        checks = _prove_and_check([one.merchant_id for one in rows])
    with engine.connect() as conn:
        _, sent = demo.mails(conn)
    report = report_subscriptions(engine, timezone=platform_timezone())
    engine.dispose()
    mismatches = [one for one in classes_together(report.classes) if one.findings]
    return DemoResult(
        merchants=rows,
        checks=checks,
        checks_of_mismatches=checks_of(mismatches),
        mismatches=mismatches,
        money_at_risk=report.money,
        orders_added=added,
        subscriptions_added=sold,
        orders_paid_late=late,
        orders_cancelled=cancelled,
        orders_refunded=refunded,
        backlog_seconds=backlog_seconds,
        late_seconds=late_seconds,
        customers_warned=warned,
        mails_sent=sent,
        # A server's URL has its password in it.
        mails_to=mails_to if mails_to and mails_to.startswith("folder://") else None,
        total_seconds=time.monotonic() - started,
    )


def _traffic(engine: Engine) -> tuple[int, int, int]:
    """Let payments come in late, slice by slice, then cancel and refund some."""
    late = 0
    for digit in range(10):
        with engine.begin() as conn:
            late += demo.late_payments(conn, digit=digit)
    with engine.begin() as conn:
        cancelled, refunded = demo.cancellations_and_refunds(conn)
    return late, cancelled, refunded


def _night(engine: Engine) -> int:
    """Run a night's expiry for all merchants; return how many customers it warned."""
    done = list(expire_merchants(engine, actor="loyalty demo"))
    for one in done:
        if one.failure:
            raise DemoNightError(merchant_id=one.merchant_id, failure=one.failure)
    return sum(one.accounts_warned for one in done)


def _waiting_orders(engine: Engine) -> int:
    with engine.connect() as conn:
        return sum(found.orders for found in waiting_orders(conn))


def _waiting_mails(engine: Engine) -> int:
    with engine.connect() as conn:
        return demo.mails(conn)[0]


def _until(waiting: Callable[[], int], what: str, daemon: subprocess.Popen[bytes], log: Path) -> float:
    """Wait until nothing waits any more; return the seconds that took."""
    started = time.monotonic()
    while True:
        left = waiting()
        seconds = time.monotonic() - started
        if not left:
            return seconds
        if seconds > PATIENCE_SECONDS or daemon.poll() is not None:
            raise DemoStuckError(waiting=f"{left} {what}", log=log)
        time.sleep(0.2)


def _prove_and_check(merchants: Sequence[str]) -> dict[str, bool]:
    """Prove all merchants and run all checks of the ledger, as runs of the same instance, so that the UI shows them.

    Returns name and result. A check that found something fails the run, and one that could not look has not passed.
    The contracts of the shop's data are left out: Great Expectations would be half of the demo's time.
    """
    import dagster as dg

    from loyalty_pipelines.checks import CHECKS
    from loyalty_pipelines.definitions import defs
    from loyalty_pipelines.partitions import MERCHANT
    from loyalty_pipelines.schedules import RANGE_END, RANGE_START

    names = [one.name for check in CHECKS for one in check.check_specs if one.asset_key.path[0] == "loyalty"]
    passed: dict[str, bool] = {}
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.DagsterInstance.get() as instance:
        # merchants_sensor may not have come to it yet.
        instance.add_dynamic_partitions(MERCHANT, list(merchants))
        partitions = instance.get_dynamic_partitions(MERCHANT)
        for job in (
            "integrity_job",
            "integrity_checks_job",
            "award_checks_job",
            "expiry_checks_job",
            "notification_checks_job",
            "report_checks_job",
            "alert_checks_job",
            "subscriptions_job",
            "subscription_checks_job",
        ):
            result = defs.resolve_job_def(job).execute_in_process(
                instance=instance,
                run_config=quiet,
                tags={RANGE_START: partitions[0], RANGE_END: partitions[-1]}
                if job in ("integrity_job", "subscriptions_job")
                else None,
                raise_on_error=False,
            )
            passed.update({found.check_name: found.passed for found in result.get_asset_check_evaluations()})
    return {name: passed.get(name, False) for name in names}
