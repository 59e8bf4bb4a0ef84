"""A merchant's programme: its rules, their versions, and why a change is refused."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from loyalty_pipelines.domain.errors import LoyaltyError


@dataclass(frozen=True, kw_only=True)
class ProgramRules:
    """The rules of one version; the defaults are those of the table, which also says what is in range.

    `points_per_unit` points for each `unit_amount` of the merchant's currency. `points_expiration_days`
    None: never. `stamp_target` None: stamps are counted without a goal. Redemptions are in whole blocks of
    `redemption_block_points`, at least `redemption_min_points`, and pay at most `redemption_max_percent` of an order
    (None: all of it) at `point_value_amount` a point. Before points expire a warning goes out `warning_days` ahead, at
    most half of `points_expiration_days`. `welcome_bonus_points` are given to who is enrolled.
    """

    points_per_unit: Decimal
    is_active: bool = True
    unit_amount: Decimal = Decimal(1)
    multiplier: Decimal = Decimal(1)
    rounding: str = "floor"
    point_value_amount: Decimal = Decimal(0)
    points_expiration_days: int | None = None
    stamps_per_order: int = 0
    stamp_min_amount: Decimal = Decimal(0)
    stamp_target: int | None = None
    clawback: str = "clamp_to_zero"
    redemption_block_points: int = 1
    redemption_min_points: int = 0
    redemption_max_percent: Decimal | None = None
    warning_days: int = 14
    welcome_bonus_points: int = 0

    @property
    def is_expiring(self) -> bool:
        """Whether points expire at all."""
        return (self.points_expiration_days or 0) > 0


@dataclass(frozen=True, kw_only=True)
class ProgramVersion:
    """Rules that apply to orders paid in [valid_from, valid_until); `valid_until` None: until further notice.

    A version that another one with the same `valid_from` replaced has an empty interval.
    """

    merchant_id: str
    version: int
    valid_from: datetime
    valid_until: datetime | None
    rules: ProgramRules
    created_at: datetime
    created_by: str


@dataclass(frozen=True, kw_only=True)
class MerchantProgram:
    """A merchant of the shop and the version in force; None: it has no programme, or none yet."""

    merchant_id: str
    name: str | None
    currency: str | None
    program: ProgramVersion | None


@dataclass(frozen=True, kw_only=True)
class ProgramChange:
    """A new version, the one whose values it took, and how many awarded orders it applies to from now on."""

    version: ProgramVersion
    base: ProgramVersion | None
    orders_touched: int

    @property
    def is_expiration_changed(self) -> bool:
        """Whether points of balances that exist expire at another time, or never, or no longer never."""
        if self.base is None:
            return False
        rules, before = self.version.rules, self.base.rules
        if not rules.is_expiring and not before.is_expiring:
            return False
        return rules.points_expiration_days != before.points_expiration_days


class MerchantNotFoundError(LoyaltyError):
    """No such merchant; `near` holds ids that look like it."""

    def __init__(self, *, merchant_id: str, near: tuple[str, ...], known: int) -> None:
        self.merchant_id = merchant_id
        self.near = near
        if near:
            advice = f"did you mean {', '.join(repr(one) for one in near)}?"
        elif known:
            advice = f"the shop has {known}; 'loyalty programs list' names them."
        else:
            advice = "the shop has no merchants; look at 'merchants' in the source mapping."
        super().__init__(f"Found no merchant {merchant_id!r}: {advice}")


class NoProgramError(LoyaltyError):
    """The merchant has no programme, or none at that instant or of that number."""

    def __init__(self, *, merchant_id: str, wanted: str, advice: str) -> None:
        self.merchant_id = merchant_id
        super().__init__(f"Merchant {merchant_id!r} has no programme{wanted}: {advice}")


class FirstVersionError(LoyaltyError):
    """The first version of a programme has nothing to take its points per unit from."""

    def __init__(self, *, merchant_id: str) -> None:
        self.merchant_id = merchant_id
        super().__init__(f"Merchant {merchant_id!r} has no programme yet: its first needs --points-per-unit.")


class RetroactiveChangeError(LoyaltyError):
    """The new version would apply to orders that have their points already."""

    def __init__(self, *, merchant_id: str, valid_from: datetime, orders: int) -> None:
        self.merchant_id = merchant_id
        self.valid_from = valid_from
        self.orders = orders
        noun = "order that is" if orders == 1 else "orders that are"
        super().__init__(
            f"A version valid from {valid_from.isoformat()} would touch {orders} {noun} awarded already at merchant "
            f"{merchant_id!r}: choose a later --valid-from, or say --retroactive to have them awarded again."
        )


class ProgramOutOfRangeError(LoyaltyError):
    """The table refused a value; `rule` is its own words for what it takes."""

    def __init__(self, *, rule: str) -> None:
        self.rule = rule
        super().__init__(f"A value of the programme is out of range: PostgreSQL expects {rule}.")
