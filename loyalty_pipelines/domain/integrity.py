"""What is proved about the ledger: which sentence covers which classes of findings, and what a proof reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.findings import OpenFindings

SUBJECT = "integrity"
# The name under which loyalty.merchant_jobs and the asset know the proof.
JOB = "balance_integrity"
# What is wrong, but harms no customer and no balance now.
WARNINGS = ("date_too_late",)
CHECK_FAILED = "check_failed"


@dataclass(frozen=True, kw_only=True)
class Proof:
    """One sentence that is proved, and the classes of findings that make it false.

    `sentence` is the name of its asset check and the beginning of its section in docs/runbooks/integrity.md.
    """

    sentence: str
    classes: tuple[str, ...]
    meaning: str


PROOFS = (
    Proof(
        sentence="balances_equal_the_sum_of_entries",
        classes=("balance_differs",),
        meaning="The balance of every account, inactive ones too, is the sum of its ledger entries.",
    ),
    Proof(
        sentence="every_entry_continues_the_one_before",
        classes=("entries_missing", "chain_broken", "next_seq_behind", "account_missing"),
        meaning="The entries of every account are numbered without gaps, and each begins with the balance at which the "
        "one before it ended.",
    ),
    Proof(
        sentence="sealed_history_is_unchanged",
        classes=("history_changed",),
        meaning="What was proved once is as it was: nobody rewrote entries and balances together.",
    ),
    Proof(
        sentence="stamps_equal_the_sum_of_entries",
        classes=("stamps_differ",),
        meaning="The stamps of every account are the sum of its entries' stamps.",
    ),
    Proof(
        sentence="held_points_equal_open_holds",
        classes=("held_differs",),
        meaning="What an account holds for checkouts is the sum of its open holds.",
    ),
    Proof(
        sentence="no_debt_is_unallowed",
        classes=("debt_not_allowed",),
        meaning="No balance is below zero or below what is held, unless its programme allows debt.",
    ),
    Proof(
        sentence="no_order_is_awarded_twice",
        classes=("order_awarded_twice",),
        meaning="Every order was earned once, and one account at most deserves its points.",
    ),
    Proof(
        sentence="order_points_equal_their_entries",
        classes=("order_points_differ",),
        meaning="The entries of every order add up to what the order is accounted for, account by account.",
    ),
    Proof(
        sentence="redemptions_equal_their_entries",
        classes=("redemption_differs",),
        meaning="The entries of every redemption are what its hold says: taken once, or given back.",
    ),
    Proof(
        sentence="expiry_dates_follow_the_rule",
        classes=("date_missing", "date_too_early", "date_too_late", "last_expiry_differs"),
        meaning="The date of every account with points is the one that its last activity and the programme give, or a "
        "later one that its customer was told.",
    ),
    Proof(
        sentence="every_expiry_is_in_the_outbox",
        classes=("mail_missing",),
        meaning="Points that expired, welcome bonuses and warnings that count as given have their mail in the outbox.",
    ),
)
CLASSES = tuple(name for proof in PROOFS for name in proof.classes)
# What a look at the newest entries can't say is gone.
ONLY_IN_FULL = ("history_changed", "date_missing", "date_too_early", "date_too_late", "mail_missing")
CLOSED_BY_NEW_ENTRIES = tuple(name for name in CLASSES if name not in ONLY_IN_FULL)

# Columns of an account that an intact ledger gives: class by column.
REPAIRABLE = {
    "balance_differs": "balance",
    "stamps_differ": "stamp_count",
    "held_differs": "held",
    "next_seq_behind": "next_seq",
    "last_expiry_differs": "last_expiry_seq",
}


class UnknownClassError(LoyaltyError):
    """A class of findings that there is not."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"There is no class of findings {name!r}. There are: {', '.join((*CLASSES, CHECK_FAILED))}.")


def require_class(name: str) -> str:
    """Return the name of a class of findings; raise `UnknownClassError` for any other text."""
    if name not in (*CLASSES, CHECK_FAILED):
        raise UnknownClassError(name)
    return name


@dataclass(frozen=True, kw_only=True)
class MerchantProof:
    """What the proof of one merchant looked at and found; `failure`: why it could not be proved.

    `points_at_risk`, and `amounts_at_risk` by currency: of each account or order that something is wrong with, the
    finding that costs most.
    """

    merchant_id: str
    is_full: bool
    accounts: int = 0
    entries: int = 0
    findings: Sequence[OpenFindings] = field(default_factory=tuple)
    points_at_risk: int = 0
    amounts_at_risk: Mapping[str, Decimal] = field(default_factory=dict)
    failure: str | None = None

    @property
    def open_findings(self) -> int:
        """Return how many findings are open."""
        return sum(one.findings for one in self.findings)

    def metadata(self) -> Mapping[str, int | float | str]:
        """Return what the run shows of the merchant."""
        return {
            "accounts": self.accounts,
            "entries": self.entries,
            "findings": self.open_findings,
            "points at risk": self.points_at_risk,
            **{f"amount at risk {currency}": float(amount) for currency, amount in self.amounts_at_risk.items()},
            "classes": ", ".join(sorted({one.class_name for one in self.findings})) or "none",
            "proof": "full" if self.is_full else "new entries",
        }


@dataclass(frozen=True, kw_only=True)
class UnprovedMerchant:
    """A merchant whose last full proof is too long ago (None: never), or whose last proof failed, and why."""

    merchant_id: str
    fully_verified_at: datetime | None
    failure: str | None
