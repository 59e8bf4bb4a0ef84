"""How an installation stands, and what in it needs a person."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

# Orders are awarded within seconds while Dagster runs; one that has waited this long waits for nobody.
LONG_WAIT = timedelta(minutes=10)


class Stage(StrEnum):
    """How far an installation has come."""

    UNREACHABLE = "unreachable"
    NOT_INSTALLED = "not_installed"
    OTHER_VERSION = "other_version"
    NOT_MAPPED = "not_mapped"
    MAPPING_BROKEN = "mapping_broken"
    NO_PROGRAM = "no_program"
    WORKING = "working"


class TriggerState(StrEnum):
    """Whether a capture trigger does its work."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    MISSING = "missing"


@dataclass(frozen=True, kw_only=True)
class CaptureTrigger:
    """A trigger that the mapping in force asks for."""

    table: str
    trigger: str
    state: TriggerState


@dataclass(frozen=True, kw_only=True)
class MappingStatus:
    """The mapping in force: when and by whom it was applied, where orders come from, and what no longer fits."""

    applied_at: datetime
    applied_by: str
    orders_relation: str | None = None
    capture: str | None = None
    triggers: tuple[CaptureTrigger, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MerchantCounts:
    """Merchants that the shop lists as active, and how many of them have an active programme now."""

    in_shop: int
    with_program: int

    @property
    def without_program(self) -> int:
        """How many earn nothing at all."""
        return self.in_shop - self.with_program


@dataclass(frozen=True, kw_only=True)
class WaitingOrders:
    """What waits in a merchant's inbox; `age` is that of the oldest row."""

    merchant_id: str
    orders: int
    oldest_at: datetime
    age: timedelta


@dataclass(frozen=True, kw_only=True)
class LastBatch:
    """The newest award batch that was committed."""

    merchant_id: str
    recorded_at: datetime
    age: timedelta
    actor: str
    orders_changed: int
    points_changed: int


@dataclass(frozen=True, kw_only=True)
class QueuedReason:
    """Open items of the reconciliation queue that have one reason."""

    reason: str
    items: int
    merchants: int
    oldest_at: datetime


@dataclass(frozen=True, kw_only=True)
class OpenErrors:
    """Open findings of severity error of one proof: `integrity` or `subscriptions`."""

    subject: str
    findings: int
    merchants: int
    oldest_at: datetime


@dataclass(frozen=True, kw_only=True)
class Status:
    """Everything `loyalty status` shows; what a stage has not reached yet is empty."""

    database: str
    stage: Stage
    advice: str | None = None
    error: str | None = None
    schema_version: str | None = None
    expected_version: str | None = None
    server_version: str | None = None
    mapping: MappingStatus | None = None
    merchants: MerchantCounts | None = None
    waiting: tuple[WaitingOrders, ...] = ()
    waiting_orders: int = 0
    waiting_merchants: int = 0
    last_batch: LastBatch | None = None
    queue: tuple[QueuedReason, ...] = ()
    open_errors: tuple[OpenErrors, ...] = ()
    findings: tuple[str, ...] = field(default=())


def findings_of(status: Status) -> Iterator[str]:
    """Yield one sentence for each thing that needs a person: what was found, and what to do."""
    if status.advice:
        yield status.advice
    yield from _mapping_findings(status.mapping)
    late = [one for one in status.waiting if one.age > LONG_WAIT]
    if late:
        since = late[0].oldest_at.isoformat(timespec="seconds")
        yield (
            f"{_waiting(status.waiting_orders, 'order')}, the oldest since {since}: "
            "start 'loyalty up', or award them now with 'loyalty award'."
        )
    if status.queue:
        items = sum(one.items for one in status.queue)
        reasons = ", ".join(f"{one.reason} {one.items}" for one in status.queue)
        yield (
            f"{_waiting(items, 'point update')} in loyalty.reconciliation_queue ({reasons}): 'loyalty queue list' "
            "shows them; correct their cause in the shop or the mapping, then 'loyalty queue retry --everything'."
        )
    for one in status.open_errors:
        number = "1 finding is" if one.findings == 1 else f"{one.findings:,} findings are"
        merchants = "1 merchant" if one.merchants == 1 else f"{one.merchants:,} merchants"
        yield (
            f"{number} open at {merchants}, the oldest since {one.oldest_at.isoformat(timespec='seconds')}: "
            f"'loyalty {one.subject} findings' shows what is wrong, docs/runbooks/{one.subject}.md what to do."
        )


def _waiting(number: int, noun: str) -> str:
    return f"1 {noun} waits" if number == 1 else f"{number:,} {noun}s wait"


def _mapping_findings(mapping: MappingStatus | None) -> Iterator[str]:
    if mapping is None:
        return
    for problem in mapping.problems:
        yield f"The mapping in force no longer fits the shop: {problem}"
    idle = [one for one in mapping.triggers if one.state is not TriggerState.ENABLED]
    if idle:
        named = ", ".join(f"{one.trigger} on {one.table} is {one.state}" for one in idle)
        yield (
            f"Changed orders are not captured ({named}): apply the mapping again with 'loyalty sources apply'; the "
            "hourly sweep finds them meanwhile."
        )
