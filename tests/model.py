"""A small model of the ledger, by the words of the design: it decides alone what every account has and is told.

Days are numbers, and an instant is a day with a place in it: orders are paid early in the day, in the order in which
they came, and everything else happens after them, one thing after the other.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal

POINT_VALUE = Decimal("0.5")
MOST_POINTS = 2_000_000_000
MOST_AMOUNT = 10**12
MOST_RETRIES = 3
NEWS_DAYS = 7
FIRST_OF_NOW = 1000
EXPIRING, EXPIRED = "loyalty_points_expiring", "loyalty_points_expired"
ENROLLMENT, WELCOME_BONUS = "loyalty_enrollment", "loyalty_welcome_bonus"
Key = tuple[str, str]  # an order and a customer who has or had points of it
Instant = tuple[int, int]
FROM_THE_START: Instant = (-1_000_000, 0)


@dataclass(frozen=True, kw_only=True)
class Order:
    """An order as the shop has it."""

    customer: str | None
    total: Decimal
    status: str
    paid: Instant
    redeemed: int = 0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """A version of the programme."""

    valid_from: Instant
    rate: Decimal = Decimal(1)
    period: int | None = None
    warning_days: int = 14
    is_active: bool = True
    bonus: int = 0

    @property
    def lead(self) -> int | None:
        """How many days ahead a warning goes out; None: nothing expires."""
        return max(1, min(self.warning_days, self.period // 2)) if self.period else None

    def date_after(self, last: Instant | None) -> int | None:
        """The day on which points are gone whose account was active last at an instant."""
        return None if last is None or not self.period else last[0] + self.period + 1


@dataclass(kw_only=True)
class Share:
    """What an account has of an order: points in force, of these waived ones.

    `gone` are those that had expired on another account before it was merged into this one.
    """

    in_force: int = 0
    waived: int = 0
    gone: int = 0


@dataclass(kw_only=True)
class Hold:
    """What an order redeems, and whose points they are."""

    customer: str
    points: int
    status: str


@dataclass(kw_only=True)
class Mail:
    """A mail of the outbox; `on` is the day that it names. A mail that is put off is not due before another day."""

    customer: str
    template: str
    points: int | None = None
    on: int | None = None
    status: str = "pending"
    attempts: int = 0
    is_due: bool = True
    waits_since: int

    @property
    def is_open(self) -> bool:
        """Whether somebody still waits for it."""
        return self.status in ("pending", "failed")

    def renew(self, points: int, on: int) -> None:
        """Another date: another mail. Its customer has waited for it since the first one."""
        self.points, self.on = points, on
        self.status, self.attempts, self.is_due = "pending", 0, True

    def settle(self, status: str) -> None:
        self.status = status


@dataclass(kw_only=True)
class Expiry:
    """What one night took from an account: its points, and of which orders points were in force then."""

    customer: str
    points: int
    mail: Mail
    in_force: dict[str, int]
    is_undone: bool = False


@dataclass(kw_only=True)
class Account:
    """A customer's account."""

    balance: int = 0
    held: int = 0
    last: Instant | None = None
    expires: int | None = None
    warned: int | None = None
    is_active: bool = True
    expiries: list[Expiry] = field(default_factory=list)

    @property
    def free(self) -> int:
        """What is there and not held."""
        return max(self.balance - self.held, 0)

    @property
    def is_warned(self) -> bool:
        """Whether its date is one that the customer was warned of."""
        return self.expires is not None and self.warned == self.expires


@dataclass(kw_only=True)
class Night:
    """What a night did."""

    warned: int = 0
    points_warned: int = 0
    moved: int = 0
    waiting: int = 0
    expired: int = 0
    points_expired: int = 0


class Model:
    """What the ledger has to show, by the words of the design."""

    def __init__(self, rules: Rules, *, is_debt_allowed: bool, with_address: set[str]) -> None:
        self.is_debt_allowed = is_debt_allowed
        self.with_address = with_address
        self.versions = [rules]
        self.today = 0
        self.part = FIRST_OF_NOW
        self.orders: dict[str, Order] = {}
        self.refunded: dict[str, Decimal] = defaultdict(Decimal)
        self.inbox: list[tuple[str, int, str]] = []
        # In the order in which they were made.
        self.accounts: dict[str, Account] = {}
        self.shares: dict[Key, Share] = {}
        self.queued: dict[str, str] = {}
        self.holds: dict[str, Hold] = {}
        self.owed: set[str] = set()
        self.updates: dict[str, tuple[str, int, int]] = {}
        self.survivors: dict[str, str] = {}
        self.openings: set[str] = set()
        self.mails: list[Mail] = []
        self.nights: dict[str, list[Expiry]] = {}
        # The version by which the last night computed all dates, and how many there were then.
        self.known: tuple[Rules, int] | None = None

    # --- time ---

    def now(self) -> Instant:
        return (self.today, self.part)

    def tick(self) -> None:
        """Begin another transaction: what it does comes after everything before it."""
        self.part += 1

    def pass_days(self, days: int) -> None:
        if not days:
            return
        self.today += days
        self.part = FIRST_OF_NOW
        for mail in self.mails:
            mail.is_due = True

    def rules_at(self, instant: Instant) -> Rules:
        valid = [(rules.valid_from, n) for n, rules in enumerate(self.versions) if rules.valid_from <= instant]
        return self.versions[max(valid)[1]]

    @property
    def rules(self) -> Rules:
        return self.rules_at(self.now())

    def attempt(self, action: Callable[[], str]) -> str:
        """Do something that is all or nothing; return the error's code, or nothing."""
        before = copy.deepcopy(self.__dict__)
        self.tick()
        if code := action():
            self.__dict__ = before
        return code

    # --- accounts ---

    def survivor(self, customer: str) -> str:
        return self.survivors.get(customer, customer)

    def account(self, customer: str) -> Account:
        """The account of a customer; an empty one that is kept nowhere if there is none."""
        return self.accounts.get(self.survivor(customer), Account())

    def spendable(self, customer: str) -> int:
        account = self.account(customer)
        return 0 if account.expires is not None and account.expires <= self.today else account.free

    def be_active(self, account: Account) -> None:
        """Earning, spending and restoring by anybody but an award batch: an activity of now."""
        account.last = self.now()
        account.expires = self.rules.date_after(account.last)
        account.warned = None

    def move(self, customer: str, points: int) -> None:
        account = self.account(customer)
        account.balance += points
        self.be_active(account)

    def enroll(self, customer: str, at: Instant) -> None:
        account = self.accounts[customer] = Account()
        is_news = at >= (self.today - NEWS_DAYS, FIRST_OF_NOW)
        if is_news:
            self.mails.append(Mail(customer=customer, template=ENROLLMENT, waits_since=self.today))
        rules = self.rules_at(at)
        if rules.is_active and rules.bonus:
            account.balance += rules.bonus
            account.last, account.expires = at, self.rules.date_after(at)
            if is_news:
                mail = Mail(customer=customer, template=WELCOME_BONUS, points=rules.bonus, waits_since=self.today)
                self.mails.append(mail)

    # --- awards ---

    def note(self, order_id: str, *customers: str | None) -> None:
        for customer in {name or "" for name in customers}:
            self.inbox.append((customer, len(self.inbox), order_id))

    def award(self, batch_size: int) -> None:
        rows, self.inbox = sorted(self.inbox), []
        for start in range(0, len(rows), batch_size):
            self.tick()
            self.award_batch({row[2] for row in rows[start : start + batch_size]})

    def award_batch(self, order_ids: set[str]) -> None:
        targets: dict[Key, int] = {}
        for order_id in order_ids:
            targets.update(self.look_at(order_id))
        new = [key for key in targets if key not in self.shares]
        for customer in sorted({customer for _, customer in new} - self.accounts.keys()):
            self.enroll(customer, min(self.orders[order_id].paid for order_id, owner in new if owner == customer))
        for order_id in order_ids:
            if self.step(order_id) == "give_back":
                self.give_back(order_id)
        changed = [
            key
            for key in sorted(targets, key=lambda key: (self.orders[key[0]].paid, key))
            if key not in self.shares or self.shares[key].in_force - self.shares[key].waived != targets[key]
        ]
        # Credits first. Then debits, those of the order that was paid first before others.
        for key in changed:
            self.grow(key, targets[key])
        for key in changed:
            self.shrink(key, targets[key])
        for customer in {customer for _, customer in changed}:
            self.date_after_awards(customer, [order_id for order_id, owner in changed if owner == customer])
        for order_id in sorted(order_ids):
            if self.step(order_id) == "take":
                self.take_or_owe(order_id)
            elif self.orders[order_id].status != "deleted":
                self.owed.discard(order_id)

    def date_after_awards(self, customer: str, order_ids: list[str]) -> None:
        """An order counts as activity of the instant when it was paid."""
        account = self.accounts[customer]
        paid = [self.orders[one].paid for one in order_ids if self.verdict(one) == "earning"]
        if paid and (account.last is None or max(paid) > account.last):
            account.last = max(paid)
            account.expires, account.warned = self.rules.date_after(account.last), None
        elif account.expires is None:
            account.expires, account.warned = self.rules.date_after(account.last), None

    def look_at(self, order_id: str) -> dict[Key, int]:
        """Return what each account deserves for the order now; nothing when it is left as it is."""
        targets = {} if self.orders[order_id].status == "deleted" else self.targets(order_id)
        if isinstance(targets, str):
            self.queued[order_id] = targets
            return {}
        self.queued.pop(order_id, None)
        return targets

    def points_of(self, order_id: str) -> int:
        order = self.orders[order_id]
        net = order.total - self.refunded[order_id] - order.redeemed * POINT_VALUE
        return int(max(net, Decimal(0)) * self.rules_at(order.paid).rate)

    def verdict(self, order_id: str) -> str:
        order = self.orders[order_id]
        if order.status not in ("paid", "partially_refunded"):
            return "unpaid"
        if not order.customer:
            return "no_customer"
        if not self.rules_at(order.paid).is_active:
            return "no_programme"
        if self.refunded[order_id] > MOST_AMOUNT:
            return "amount_invalid"
        return "points_out_of_range" if self.points_of(order_id) > MOST_POINTS else "earning"

    def targets(self, order_id: str) -> dict[Key, int] | str:
        """The same, without a trace; for an order that nobody can decide, the reason."""
        verdict, customer = self.verdict(order_id), self.orders[order_id].customer
        if verdict == "no_customer":
            return {}
        targets = dict.fromkeys((key for key in self.shares if key[0] == order_id), 0)
        if verdict == "earning" and customer:
            return targets | {(order_id, self.survivor(customer)): self.points_of(order_id)}
        return targets if verdict in ("unpaid", "no_programme") else verdict

    def is_different(self, order_id: str) -> bool:
        """Whether looking at the order would change something."""
        if self.orders[order_id].status == "deleted":
            return False
        step = self.step(order_id)
        if step == "give_back" or (step == "take" and order_id not in self.owed):
            return True
        targets = self.targets(order_id)
        if isinstance(targets, str) or order_id in self.queued:
            return self.queued.get(order_id) != targets
        shares = self.shares
        return any(key not in shares or shares[key].in_force - shares[key].waived != targets[key] for key in targets)

    def gone(self, key: Key) -> int:
        """Of an order's points in force, those that had expired: on this account, or on one that was merged into it."""
        order_id, customer = key
        taken = [one.in_force for one in self.accounts[customer].expiries if not one.is_undone]
        return max(self.shares[key].gone, taken[-1].get(order_id, 0) if taken else 0)

    def grow(self, key: Key, target: int) -> None:
        share = self.shares.setdefault(key, Share())
        more = max(target - (share.in_force - share.waived), 0)
        forgiven = min(more, share.waived)
        share.waived -= forgiven
        share.in_force += more - forgiven
        self.accounts[key[1]].balance += more - forgiven

    def shrink(self, key: Key, target: int) -> None:
        share, account = self.shares[key], self.accounts[key[1]]
        less = max(share.in_force - share.waived - target, 0)
        there = max(share.in_force - share.waived - self.gone(key), 0)
        taken = min(less, there if self.is_debt_allowed else min(there, account.free))
        share.in_force -= taken
        share.waived += less - taken
        account.balance -= taken

    # --- redemptions ---

    def is_undone(self, order_id: str) -> bool:
        return self.orders[order_id].status in ("cancelled", "refunded")

    def step(self, order_id: str) -> str | None:
        """Return what an order's redemption needs of a batch."""
        order, hold = self.orders[order_id], self.holds.get(order_id)
        if hold is None:
            return None
        worth = order.total - hold.points * POINT_VALUE
        is_undone = order.status == "cancelled" or (order.status == "refunded" and self.refunded[order_id] <= worth)
        if is_undone and hold.status in ("open", "captured"):
            return "give_back"
        is_paid = order.status in ("paid", "partially_refunded")
        is_paid_out = order.status == "refunded" and hold.status == "restored" and not is_undone
        is_owed = (is_paid or is_paid_out) and order.redeemed == hold.points and hold.status != "captured"
        return "take" if is_owed else None

    def give_back(self, order_id: str) -> None:
        hold = self.holds[order_id]
        if hold.status == "open":
            self.accounts[hold.customer].held -= hold.points
            hold.status = "released"
        elif hold.status == "captured":
            self.move(hold.customer, hold.points)
            hold.status = "restored"

    def take(self, order_id: str, *, is_due: bool = False) -> str:
        """Take the points of a hold; return the error's code, or nothing."""
        hold = self.holds[order_id]
        if hold.status == "captured":
            return ""
        if hold.status == "open":
            self.accounts[hold.customer].held -= hold.points
        elif self.is_undone(order_id) and not is_due:
            return "LP008"
        elif hold.points > self.spendable(hold.customer):
            return "LP002"
        self.move(hold.customer, -hold.points)
        hold.status = "captured"
        return ""

    def take_or_owe(self, order_id: str) -> None:
        if self.take(order_id, is_due=True):
            self.owed.add(order_id)
        else:
            self.owed.discard(order_id)

    def reserve(self, order_id: str, customer: str, points: int) -> str:
        hold, holder = self.holds.get(order_id), self.survivor(customer)
        if hold and hold.status in ("open", "captured"):
            return "" if (hold.customer, hold.points) == (holder, points) else "LP003"
        if hold and self.is_undone(order_id):
            return "LP008"
        if points > self.spendable(holder):
            return "LP002"
        if not self.rules.is_active:
            return "LP005"
        self.holds[order_id] = Hold(customer=holder, points=points, status="open")
        self.accounts[holder].held += points
        return ""

    def redeem(self, order_id: str, customer: str, points: int) -> str:
        return self.reserve(order_id, customer, points) or self.take(order_id)

    def capture(self, order_id: str) -> str:
        return self.take(order_id) if order_id in self.holds else "LP009"

    def release(self, order_id: str) -> str:
        if order_id not in self.holds:
            return "LP009"
        is_paid = self.orders[order_id].status in ("paid", "partially_refunded")
        if self.holds[order_id].status == "captured" and is_paid:
            return "LP012"
        self.give_back(order_id)
        return ""

    def update(self, order_id: str, customer: str, earned: int, redeemed: int) -> str:
        holder, order = self.survivor(customer), self.orders[order_id]
        if order.status != "deleted" and order.customer and self.survivor(order.customer) != holder:
            return "LP011"
        if earned and holder not in self.accounts:
            self.enroll(holder, self.now())
        request = (holder, earned, redeemed)
        if order_id in self.updates:
            before = self.updates[order_id]
            is_in_force = not before[2] or self.holds[order_id].status == "captured"
            if before[0] != holder or (is_in_force and before != request):
                return "LP003"
            if is_in_force:
                return ""
        if self.is_undone(order_id):
            return "LP008"
        if redeemed and (code := self.redeem(order_id, customer, redeemed)):
            return code
        code = ""
        if earned and not any(key[0] == order_id for key in self.shares):
            code = "" if self.rules.is_active else "LP005"
            self.shares[order_id, holder] = Share(in_force=earned)
            self.move(holder, earned)
        self.updates[order_id] = request
        return code

    # --- repairs ---

    def merge(self, customer: str, into: str) -> None:
        self.tick()
        self.survivors = {one: into if other == customer else other for one, other in self.survivors.items()}
        self.survivors[customer] = into
        old, new = self.accounts[customer], self.accounts.setdefault(into, Account())
        self.merge_dates(customer, into)
        for order_id, holder in list(self.shares):
            if holder == customer:
                self.merge_shares((order_id, customer), (order_id, into))
        new.balance += old.balance
        new.held += old.held
        old.balance = old.held = 0
        old.is_active = False
        for hold in self.holds.values():
            hold.customer = into if hold.customer == customer else hold.customer
        self.updates = {
            order_id: (into if request[0] == customer else request[0], *request[1:])
            for order_id, request in self.updates.items()
        }

    def merge_dates(self, customer: str, into: str) -> None:
        """Both keep the later of what they were told; one of them alone who was not makes that there is a new mail."""
        old, new = self.accounts[customer], self.accounts[into]
        is_old_later = old.last is not None and (new.last is None or old.last > new.last)
        last, expires = (old.last, old.expires) if is_old_later else (new.last, new.expires)
        dates = [old.expires, new.expires]
        if expires is None:
            expires = self.rules.date_after(last)
            dates = [] if expires is None else [*dates, expires]
        date = max((one for one in dates if one is not None), default=None)
        is_sent = any(mail.status == "sent" and mail.on == old.warned for mail in self.warnings_of(customer))
        is_old_told = old.balance <= 0 or (old.is_warned and is_sent)
        is_mail_kept = old.expires is None or new.expires is None or new.expires >= old.expires
        is_new_told = new.balance <= 0 or (
            new.is_warned and (is_mail_kept or not any(mail.is_open for mail in self.warnings_of(into)))
        )
        is_named = date is not None and date in ((old.warned if old.balance > 0 else None), new.warned)
        new.last, new.expires = last, date
        new.warned = date if is_old_told and is_new_told and is_named else None
        old.expires = old.warned = None

    def merge_shares(self, source: Key, into: Key) -> None:
        old = self.shares[source]
        gone = self.gone(source)
        if into not in self.shares or not self.shares[into].in_force:
            self.shares.setdefault(into, Share()).gone = gone
        elif old.in_force:
            # Both had points of the order, of which some expired. What of them is waived as well counts once.
            new = self.shares[into]
            new.gone = min(gone, old.in_force - old.waived) + min(self.gone(into), new.in_force - new.waived)
        new = self.shares[into]
        new.in_force += old.in_force
        new.waived += old.waived
        self.shares[source] = Share()

    def open_with(self, customer: str, points: int) -> None:
        self.tick()
        self.openings.add(customer)
        self.accounts.setdefault(customer, Account())
        self.move(customer, points)

    # --- expiry ---

    def live_accounts(self) -> Iterator[tuple[str, Account, int]]:
        """The accounts that have a date, with it."""
        for customer, account in self.accounts.items():
            if account.is_active and account.expires is not None:
                yield customer, account, account.expires

    def warnings_of(self, customer: str) -> list[Mail]:
        return [mail for mail in self.mails if mail.customer == customer and mail.template == EXPIRING]

    def is_told(self, customer: str, account: Account) -> bool:
        """Whether the warning of exactly this date was delivered, or can't be, and no other waits."""
        # One that had gone out before a merge was to the other customer, who is the same person.
        people = [customer, *(one for one, survivor in self.survivors.items() if survivor == customer)]
        settled = [mail for one in people for mail in self.warnings_of(one) if mail.status in ("sent", "parked")]
        is_there = any(mail.on == account.expires for mail in settled)
        return account.is_warned and is_there and not any(mail.is_open for mail in self.warnings_of(customer))

    def has_waiting_orders(self, customer: str) -> bool:
        """Whether an order that nobody has looked at may be an activity of the customer."""
        return any(self.survivor(owner) == customer for owner, _, _ in self.inbox)

    def warn(self, customer: str, points: int, on: int) -> None:
        """One mail per customer and date: one that was not sent because it was not true is true again."""
        mails = [mail for mail in self.warnings_of(customer) if mail.on == on]
        if not mails:
            mail = Mail(customer=customer, template=EXPIRING, points=points, on=on, waits_since=self.today)
            self.mails.append(mail)
        elif mails[0].status == "void":
            mails[0].renew(points, on)
            mails[0].waits_since = self.today

    @property
    def is_scheduled(self) -> bool:
        """Whether nobody has changed the programme since all dates were computed."""
        return self.known is not None and self.known[1] == len(self.versions)

    def run_night(self, run_id: str, *, is_warning_required: bool = True) -> Night:
        self.tick()
        night, rules, taken = Night(), self.rules, self.nights.setdefault(run_id, [])
        if not self.is_scheduled:
            if rules.is_active:
                self.reschedule(is_resumed=self.known is not None and not self.known[0].is_active)
            self.known = (rules, len(self.versions))
        if not rules.is_active or rules.lead is None:
            self.void_warnings()
            return night
        soon = self.today + rules.lead
        if is_warning_required:
            self.renew_warnings(night, soon)
        for customer, account, expires in self.live_accounts():
            is_due = expires <= soon and (is_warning_required or expires > self.today)
            if is_due and account.balance > 0 and not account.is_warned:
                promised = max(expires, soon) if is_warning_required else expires
                self.warn(customer, account.balance, promised)
                account.expires = account.warned = promised
                night.warned += 1
                night.points_warned += account.balance
                night.moved += promised > expires
        for customer, account, expires in list(self.live_accounts()):
            if expires <= self.today:
                self.expire(night, taken, customer, account, is_warning_required=is_warning_required)
        return night

    def reschedule(self, *, is_resumed: bool) -> None:
        """All dates anew, by other terms: nobody gets less than the lead, and what a mail has promised is kept."""
        rules = self.rules
        for account in self.accounts.values():
            due = rules.date_after(account.last)
            is_empty = account.balance <= 0 and not account.held
            if due is not None and is_empty and (due <= self.today or not account.is_active):
                due = None
            promised = account.expires if account.is_warned and not is_resumed else None
            account.warned = None
            if due is not None and promised is not None and promised >= due:
                account.expires = account.warned = promised
            elif due is not None and account.balance > 0 and rules.lead is not None:
                account.expires = max(due, self.today + rules.lead)
            else:
                account.expires = due

    def void_warnings(self) -> None:
        """Nobody needs warnings of dates that have no meaning; whoever was not told before is told anew later."""
        is_expiring = self.rules.is_active and self.rules.lead is not None
        for mail in self.mails:
            account = self.accounts[mail.customer]
            is_true = is_expiring and account.is_active and mail.on == account.expires
            if mail.template == EXPIRING and mail.is_open and not is_true:
                mail.settle("void")
                if mail.on == account.expires:
                    account.warned = None

    def renew_warnings(self, night: Night, soon: int) -> None:
        self.void_warnings()
        for customer, account, expires in self.live_accounts():
            for mail in self.warnings_of(customer):
                is_late = mail.is_open and mail.on == account.warned == expires < soon and account.balance > 0
                if is_late and not any(other.on == soon for other in self.warnings_of(customer)):
                    mail.renew(account.balance, soon)
                    account.expires = account.warned = soon
                    night.moved += 1
                    break

    def expire(
        self, night: Night, taken: list[Expiry], customer: str, account: Account, *, is_warning_required: bool
    ) -> None:
        if account.balance <= account.held:
            if not account.held:
                account.expires = account.warned = None
        elif (is_warning_required and not self.is_told(customer, account)) or self.has_waiting_orders(customer):
            night.waiting += 1
        else:
            points = account.balance - account.held
            mail = Mail(customer=customer, template=EXPIRED, points=points, on=account.expires, waits_since=self.today)
            shares = {order_id: share.in_force for (order_id, owner), share in self.shares.items() if owner == customer}
            one = Expiry(customer=customer, points=points, mail=mail, in_force=shares)
            self.mails.append(mail)
            taken.append(one)
            account.expiries.append(one)
            account.balance = account.held
            if not account.held:
                account.expires = account.warned = None
            night.expired += 1
            night.points_expired += points

    def undo(self, run_id: str, customer: str | None, *, is_mailed: bool) -> tuple[int, int, int]:
        """Give back what a night took: how many accounts, their points, and how many had it back before."""
        self.tick()
        order = list(self.accounts)
        taken = [one for one in self.nights[run_id] if customer in (None, one.customer)]
        accounts = points = before = 0
        for one in sorted(taken, key=lambda one: order.index(one.customer)):
            if one.is_undone:
                before += 1
                continue
            one.is_undone = True
            if one.mail.is_open:
                one.mail.settle("void")
            self.undo_one(one, is_mailed=is_mailed)
            accounts += 1
            points += one.points
        return accounts, points, before

    def undo_one(self, one: Expiry, *, is_mailed: bool) -> None:
        rules, account = self.rules, self.account(one.customer)
        # Behind a programme that is off nothing expires, whatever the date.
        lead = rules.lead if rules.is_active else 1
        account.balance += one.points
        old = account.expires
        account.expires = None if lead is None else max(self.today + lead, old or 0)
        if is_mailed and rules.is_active and lead is not None and account.expires == self.today + lead:
            self.warn(self.survivor(one.customer), account.balance, self.today + lead)
            account.warned = account.expires
        elif account.expires != old:
            account.warned = None

    # --- delivery ---

    def deliver(self, refused: str | None, answer: str) -> None:
        """Send what is due; `answer` (pending, failed, parked) is what the server says to the mails of a customer."""
        for mail in self.mails:
            if mail.status == "pending" and mail.is_due:
                self.deliver_one(mail, answer if mail.customer == refused else "sent")

    def deliver_one(self, mail: Mail, answer: str) -> None:
        account = self.accounts[mail.customer]
        is_warning = mail.template == EXPIRING and mail.on is not None
        if is_warning and not mail.on == account.expires == account.warned:
            mail.settle("void")
        elif is_warning and self.is_to_wait(mail, account):
            mail.is_due = False
        elif not account.is_active:
            mail.settle("void")
        elif mail.customer not in self.with_address:
            mail.settle("parked")
        else:
            if answer == "pending":
                mail.is_due = False
                answer = "failed" if mail.attempts >= MOST_RETRIES else "pending"
            mail.attempts += 1
            mail.settle(answer)

    def is_to_wait(self, mail: Mail, account: Account) -> bool:
        """Whether a warning is for the next night to decide about: it leaves too little time, or nothing expires."""
        assert mail.on is not None
        rules = self.rules
        if not rules.is_active or rules.lead is None or not account.is_active or mail.on <= self.today:
            return True
        return mail.on < self.today + rules.lead - 1 and self.today - mail.waits_since > 1

    def retry_mails(self) -> None:
        for mail in self.mails:
            is_over = mail.status == "parked" and mail.template == EXPIRING and (mail.on or 0) <= self.today
            if mail.status in ("failed", "parked") and not is_over:
                mail.status, mail.attempts, mail.is_due = "pending", 0, True

    def park_mails(self) -> None:
        for mail in self.mails:
            if mail.status == "failed":
                mail.settle("parked")

    def with_changes(self, **changes: object) -> Rules:
        """The rules of now with others in some respects, from now on."""
        self.tick()
        return replace(self.rules, valid_from=self.now(), **changes)  # type: ignore[arg-type]
