"""The report on payments and subscriptions: money at risk, by class, by age, by day, and what was fixed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TypeVar

from loyalty_pipelines.domain.findings import Finding
from loyalty_pipelines.domain.money import amounts_by_currency, currency_order, total
from loyalty_pipelines.domain.subscriptions import BY_CODE, CHECK_FAILED, NOT_CHECKED

REPORT = "subscription_report"
# Of the trend.
DAYS = 30
# Ends of the buckets are in ages.sql.
AGES = ("under 1 hour", "1 hour to 1 day", "1 to 7 days", "7 to 30 days", "over 30 days")
# Findings in the files, at most: a shop whose mapping is wrong has one per row.
MAX_FINDINGS = 100_000
MAX_FIXES = 1_000


@dataclass(frozen=True, kw_only=True)
class ComparedMerchant:
    """A merchant, when it was compared in full (None: never), and why its last comparison failed."""

    merchant_id: str
    compared_at: datetime | None
    failure: str | None


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """Open findings of one class, policy and currency; `amount` is their sum, and may count an object's money twice.

    `new_findings`: those of the last day. `closed_findings`: those that were closed in it. `merchant_id` None: of all.
    """

    merchant_id: str | None
    class_name: str
    severity: str
    policy: str | None
    currency: str | None
    findings: int
    new_findings: int
    closed_findings: int
    amount: Decimal
    first_seen_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class AgeLine:
    """What has been wrong for so long: of each object the largest amount, by the age of its oldest finding."""

    merchant_id: str | None
    currency: str | None
    bucket: int
    findings: int
    amount: Decimal

    @property
    def label(self) -> str:
        """Return the ages in words."""
        return AGES[self.bucket]


@dataclass(frozen=True, kw_only=True)
class TrendLine:
    """What was open at the end of a day (of the last one: now)."""

    merchant_id: str | None
    currency: str | None
    day_on: date
    errors: int
    warnings: int
    amount: Decimal


@dataclass(frozen=True, kw_only=True)
class RecentFix:
    """A fix that was applied or undone within the last day."""

    merchant_id: str
    plan_id: int
    class_name: str
    action: str
    object_type: str
    object_id: str
    target_id: str | None
    amount: Decimal
    currency: str | None
    status: str
    applied_at: datetime | None
    applied_by: str | None
    undone_at: datetime | None
    undone_by: str | None


@dataclass(frozen=True, kw_only=True)
class SubscriptionReport:
    """What is open and not accepted at the merchants; lines are per merchant, `days` all days of the trend.

    `findings_left`: how many findings are in no file, because there are too many. `missing_actions`: classes for which
    no plan can be made, with the entry of the mapping's `fixes` that is missing.
    """

    as_of: datetime
    days: Sequence[date]
    merchants: Sequence[ComparedMerchant]
    classes: Sequence[ClassLine]
    ages: Sequence[AgeLine]
    trend: Sequence[TrendLine]
    fixes: Sequence[RecentFix]
    findings: Sequence[Finding]
    missing_actions: Mapping[str, str] = field(default_factory=dict)

    @property
    def money(self) -> Mapping[str, Decimal]:
        """Return the money at risk by currency: the one number."""
        return money_of(self.ages)

    @property
    def open_findings(self) -> int:
        """Return how many findings are open."""
        return sum(one.findings for one in self.classes)

    @property
    def new_findings(self) -> int:
        """Return how many of them are of the last day."""
        return sum(one.new_findings for one in self.classes)

    @property
    def closed_findings(self) -> int:
        """Return how many were closed in the last day."""
        return sum(one.closed_findings for one in self.classes)

    @property
    def findings_left(self) -> int:
        """Return how many findings are in no file."""
        return max(0, self.open_findings - len(self.findings))

    @property
    def without_plans(self) -> Sequence[str]:
        """Return a sentence for each entry of `fixes` without which findings that are open can have no plan."""
        classes: defaultdict[str, list[str]] = defaultdict(list)
        for one in classes_together(self.classes):
            action = self.missing_actions.get(one.class_name)
            if action and one.findings and one.policy != "H" and one.class_name not in classes[action]:
                classes[action].append(one.class_name)
        return [
            f"No plan can be made for {', '.join(names)}: the source mapping has no fixes.{action}. Add it, or put it "
            "right by hand, as the runbook says."
            for action, names in classes.items()
        ]

    def by_merchant(self) -> Sequence["MerchantReport"]:
        """Return every merchant's part, the one with most findings first."""
        classes, ages, trend = _grouped(self.classes), _grouped(self.ages), _grouped(self.trend)
        found = [
            MerchantReport(
                merchant=one,
                classes=classes.get(one.merchant_id, []),
                ages=ages.get(one.merchant_id, []),
                trend=trend.get(one.merchant_id, []),
            )
            for one in self.merchants
        ]
        return sorted(found, key=lambda one: (-one.findings, one.merchant.merchant_id))


@dataclass(frozen=True, kw_only=True)
class MerchantReport:
    """One merchant's part of the report."""

    merchant: ComparedMerchant
    classes: Sequence[ClassLine]
    ages: Sequence[AgeLine]
    trend: Sequence[TrendLine]

    @property
    def money(self) -> Mapping[str, Decimal]:
        """Return the money at risk by currency."""
        return money_of(self.ages)

    @property
    def findings(self) -> int:
        """Return how many findings are open."""
        return sum(one.findings for one in self.classes)

    @property
    def first_seen_at(self) -> datetime | None:
        """Return since when the oldest of them has been there."""
        return min((one.first_seen_at for one in self.classes if one.first_seen_at), default=None)


Line = TypeVar("Line", ClassLine, AgeLine, TrendLine)


def money_of(ages: Iterable[AgeLine]) -> Mapping[str, Decimal]:
    """Return the sums by currency; of a currency in which nothing is at risk: no sum, of none at all: none."""
    return {
        name: amount for name, amount in amounts_by_currency((o.currency, o.amount) for o in ages).items() if amount
    }


def classes_together(lines: Iterable[ClassLine]) -> Sequence[ClassLine]:
    """Return the lines of all merchants together, in the order of the classes."""
    groups: defaultdict[tuple[str, str, str | None, str | None], list[ClassLine]] = defaultdict(list)
    for one in lines:
        groups[one.class_name, one.severity, one.policy, one.currency].append(one)
    order = [CHECK_FAILED, *BY_CODE, NOT_CHECKED]
    found = [
        ClassLine(
            merchant_id=None,
            class_name=name,
            severity=severity,
            policy=policy,
            currency=currency,
            findings=sum(one.findings for one in group),
            new_findings=sum(one.new_findings for one in group),
            closed_findings=sum(one.closed_findings for one in group),
            amount=total(one.amount for one in group),
            first_seen_at=min((one.first_seen_at for one in group if one.first_seen_at), default=None),
        )
        for (name, severity, policy, currency), group in groups.items()
    ]

    def rank(one: ClassLine) -> tuple[int, str, str, tuple[bool, str]]:
        place = order.index(one.class_name) if one.class_name in order else len(order)
        return place, one.class_name, one.policy or "", currency_order(one.currency)

    return sorted(found, key=rank)


def ages_together(lines: Iterable[AgeLine]) -> Sequence[AgeLine]:
    """Return the lines of all merchants together, by currency and age; every bucket of a currency has one."""
    groups: defaultdict[tuple[str | None, int], list[AgeLine]] = defaultdict(list)
    for one in lines:
        groups[one.currency, one.bucket].append(one)
    currencies = sorted({currency for currency, _ in groups}, key=currency_order)
    return [
        AgeLine(
            merchant_id=None,
            currency=currency,
            bucket=bucket,
            findings=sum(one.findings for one in groups.get((currency, bucket), ())),
            amount=total(one.amount for one in groups.get((currency, bucket), ())),
        )
        for currency in currencies
        for bucket in range(len(AGES))
    ]


def trend_together(lines: Iterable[TrendLine], days: Sequence[date]) -> Sequence[TrendLine]:
    """Return the lines of all merchants together, by currency and day; every day of a currency has one."""
    groups: defaultdict[tuple[str | None, date], list[TrendLine]] = defaultdict(list)
    for one in lines:
        groups[one.currency, one.day_on].append(one)
    currencies = sorted({currency for currency, _ in groups}, key=currency_order)
    return [
        TrendLine(
            merchant_id=None,
            currency=currency,
            day_on=day_on,
            errors=sum(one.errors for one in groups.get((currency, day_on), ())),
            warnings=sum(one.warnings for one in groups.get((currency, day_on), ())),
            amount=total(one.amount for one in groups.get((currency, day_on), ())),
        )
        for currency in currencies
        for day_on in days
    ]


def _grouped(lines: Iterable[Line]) -> Mapping[str | None, list[Line]]:
    found: defaultdict[str | None, list[Line]] = defaultdict(list)
    for one in lines:
        found[one.merchant_id].append(one)
    return found
