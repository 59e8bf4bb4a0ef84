"""Points that go after a period without activity: how a run is asked for, what it plans, what it did."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from enum import StrEnum

from loyalty_pipelines.domain.errors import LoyaltyError

DEFAULT_CHUNK_SIZE = 500
LAST_ACCOUNT_ID = 2**63 - 1
# A merchant with fewer finished nights than this within 30 days has no history to be compared with.
NIGHTS_OF_HISTORY = 7


class Step(StrEnum):
    """The parts of a run, in their order; the plan is also made for what it allows."""

    WARN = "warn"
    PLAN = "plan"
    EXPIRE = "expire"


ALL_STEPS = frozenset(Step)


class FutureRunError(LoyaltyError):
    """A run that writes must not look from the future: it would take points that are valid still."""

    def __init__(self, *, as_of: datetime, now: datetime) -> None:
        super().__init__(
            f"as_of is {as_of.isoformat()}, and it is {now.isoformat(timespec='seconds')} now: expected an "
            "instant that has been. A dry run may look ahead; 'loyalty expiry forecast' does it per day."
        )


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When a plan looks wrong: far above the merchant's own nights, or, without a history, above a share of accounts.

    Up to `few_accounts` are never too many. `accepted_accounts` is what a person has seen and let through: so many may
    expire, whatever the history.
    """

    max_share_of_accounts: float = 0.2
    max_times_usual: float = 5.0
    few_accounts: int = 20
    # With a history of nights in which nothing expired, this share of the accounts is still no surprise.
    quiet_share_of_accounts: float = 0.01
    accepted_accounts: int | None = None

    def most(self, *, accounts_with_points: int, nights_compared: int, accounts_usual: int) -> int:
        """Return how many accounts may expire tonight.

        `accounts_usual` is the most that expired in one of the `nights_compared` finished runs of the last 30 days.
        """
        if self.accepted_accounts is not None:
            return self.accepted_accounts
        if nights_compared < NIGHTS_OF_HISTORY:
            return max(self.few_accounts, int(self.max_share_of_accounts * accounts_with_points))
        return max(
            self.few_accounts,
            int(self.max_times_usual * accounts_usual),
            int(self.quiet_share_of_accounts * accounts_with_points),
        )


@dataclass(frozen=True, kw_only=True)
class ExpiryOptions:
    """How to run. `as_of` None: the database's now. Without `is_warning_required` points go whoever was told.

    `chunk_size` accounts are one transaction and stay locked that long; `connections` merchants are worked on at once.
    """

    as_of: datetime | None = None
    is_dry_run: bool = False
    chunk_size: int = DEFAULT_CHUNK_SIZE
    connections: int = 2
    is_warning_required: bool = True
    limits: Limits = field(default_factory=Limits)
    steps: frozenset[Step] = ALL_STEPS


@dataclass(frozen=True, kw_only=True)
class MerchantTerms:
    """What a run has to know of a merchant, and whether there is anything to do.

    `lead_days` and `warn_until` are None where points never expire: accounts whose expires_at is not after `warn_until`
    are to be told. `is_scheduled`: every expires_at was computed by these terms.
    """

    merchant_id: str
    is_program_active: bool
    points_expiration_days: int | None
    timezone: str
    is_timezone_usable: bool
    lead_days: int | None
    warn_until: datetime | None
    known_timezone: str | None
    was_program_active: bool | None
    is_scheduled: bool
    is_something_due: bool
    has_open_warnings: bool
    has_unfinished_run: bool

    @property
    def is_expiring(self) -> bool:
        """Whether points of this merchant expire at all, now."""
        return self.is_program_active and self.lead_days is not None

    @property
    def is_idle(self) -> bool:
        """Whether a run has nothing to do here."""
        if not self.is_scheduled or self.has_unfinished_run:
            return False
        return not (self.has_open_warnings or (self.is_expiring and self.is_something_due))


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in the order in which accounts expire."""

    expires_at: datetime | str = "-infinity"
    account_id: int = 0

    @classmethod
    def behind(cls, expires_at: datetime) -> "Position":
        """The place behind all accounts of an instant."""
        return cls(expires_at=expires_at, account_id=LAST_ACCOUNT_ID)


@dataclass(frozen=True, kw_only=True)
class Page:
    """What one transaction did to a page of accounts; `last` is where the next one begins; None: it was the last."""

    accounts: int
    points: int
    accounts_moved: int
    last: Position | None


@dataclass(frozen=True, kw_only=True)
class ExpiryPlan:
    """What would expire at a merchant now, compared with its own last 30 days.

    `accounts_waiting` are due and don't expire: they were not told yet, their mail has not arrived, or an order of
    theirs has not been looked at.
    """

    accounts_with_points: int
    accounts_due: int
    points_due: int
    accounts_waiting: int
    nights_compared: int
    accounts_usual: int
    accounts_limit: int

    @property
    def is_stopped(self) -> bool:
        """Whether the plan looks wrong: nothing expires until a person lets it through."""
        return self.accounts_due > self.accounts_limit

    def reason(self, merchant_id: str) -> str:
        """Return why it is stopped, with its numbers and the command that lets it through."""
        compared = (
            f"at most {self.accounts_usual:,} expired in one of the {self.nights_compared} nights before"
            if self.nights_compared >= NIGHTS_OF_HISTORY
            else f"there are fewer than {NIGHTS_OF_HISTORY} nights to compare with ({self.nights_compared}), and "
            f"{self.accounts_with_points:,} accounts with points"
        )
        return (
            f"{self.accounts_due:,} accounts with {self.points_due:,} points are due, more than the "
            f"{self.accounts_limit:,} that are no surprise: {compared}. If they are right: "
            f"loyalty expire {shlex.quote(merchant_id)} --accept {self.accounts_due}"
        )


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What the night before expected this run to take, if nobody was active in between."""

    accounts: int
    points: int


@dataclass(frozen=True, kw_only=True)
class MerchantExpiry:
    """What a run did for one merchant; `failure` is the reason when it did not get to its end.

    The counters are those of the whole run, also where it goes on after a crash. `run_id` is what undoes it; None for a
    dry run, whose counters say what would be done. `refused` are the customers whose account PostgreSQL refused to
    change, each with its reason.
    """

    merchant_id: str
    run_id: str | None = None
    plan: ExpiryPlan | None = None
    forecast: Forecast | None = None
    accounts_rescheduled: int = 0
    accounts_warned: int = 0
    points_warned: int = 0
    accounts_moved: int = 0
    accounts_expired: int = 0
    points_expired: int = 0
    accounts_locked: int = 0
    is_stopped: bool = False
    refused: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class ForecastDay:
    """What one day will bring to a merchant, or to one of its customers, on its own calendar, if nobody is active."""

    merchant_id: str
    customer_id: str | None = None
    day_on: date
    accounts_warned: int
    points_warned: int
    accounts_expired: int
    points_expired: int


@dataclass(frozen=True, kw_only=True)
class LateMerchant:
    """A merchant whose points expire and whose expiry has not succeeded for long; None: never."""

    merchant_id: str
    succeeded_at: datetime | None
    is_stopped: bool


LATE_AFTER = timedelta(hours=26)
