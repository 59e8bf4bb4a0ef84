"""Mails: in which language and from which template, with which values.

The chain, and it is stated only here: for each language of (the customer's, the merchant's, English) the store's
override, the merchant's, the platform's, the built-in. What is there first and renders is the mail. A template that
does not render is passed over and named in the mail's problems.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from babel import Locale, UnknownLocaleError
from babel.dates import format_date
from babel.numbers import format_decimal

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mail_templates import (
    RENDER_ERRORS,
    ReadyTemplate,
    TemplateRefusedError,
    one_line,
    ready,
)
from loyalty_pipelines.mail_templates import LOCALES, TEMPLATES, read_template

Origin = Literal["store", "merchant", "platform", "built-in"]

LAST_RESORT = "en"
MAX_NAME = 100
LONGEST_LOCALE = 40
LOCALE_NAME = re.compile(r"[a-z]{2,3}(?:_[a-z0-9]+)*", re.IGNORECASE)
# "Undetermined" and the like; Babel takes the first for American English.
NO_LANGUAGES = ("und", "mul", "mis", "zxx", "root")
TERRITORY = re.compile(r"[a-z]{2}|\d{3}", re.IGNORECASE)
FIRST_OF_MONTH_IN_FRENCH = re.compile(r"^1 ")


@dataclass(frozen=True, kw_only=True)
class MailFacts:
    """What one mail is about: a row of the outbox, its merchant and its customer, as they are when it is sent."""

    template: str
    payload: Mapping[str, object]
    merchant_id: str
    merchant_name: str
    merchant_locale: str | None
    merchant_timezone: str
    customer_name: str | None
    customer_locale: str | None
    store_id: str | None


@dataclass(frozen=True, kw_only=True)
class Override:
    """A template in one language; `merchant_id` '' is the platform, `store_id` '' the merchant as a whole."""

    merchant_id: str
    store_id: str
    template: str
    locale: str
    subject: str
    text_body: str
    html_body: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """Merchant, store, template and language: there is one of each."""
        return (self.merchant_id, self.store_id, self.template, self.locale)

    @property
    def origin(self) -> Origin:
        """Whose override it is."""
        if self.store_id:
            return "store"
        return "merchant" if self.merchant_id else "platform"

    @property
    def label(self) -> str:
        """The override in words."""
        return label(*self.key)


@dataclass(frozen=True, kw_only=True)
class StoredOverride(Override):
    """An override as it is in the database."""

    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail without addresses. `problems` are the overrides that came first and do not render."""

    subject: str
    text: str
    html: str
    locale: str
    origin: Origin
    problems: tuple[str, ...] = ()


class Overrides(Collection[Override]):
    """Overrides by their key; made once for many mails."""

    def __init__(self, overrides: Iterable[Override] = ()) -> None:
        self._by_key = {one.key: one for one in overrides}

    def __contains__(self, override: object) -> bool:
        return isinstance(override, Override) and self._by_key.get(override.key) == override

    def __iter__(self) -> Iterator[Override]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)

    def find(self, merchant_id: str, store_id: str, template: str, language: str) -> Override | None:
        """Return the override with this key."""
        return self._by_key.get((merchant_id, store_id, template, language))


def label(merchant_id: str, store_id: str, template: str, locale: str) -> str:
    """Return an override's key in words."""
    whose = f"merchant {merchant_id!r}" if merchant_id else "the platform"
    return f"{template} in {locale!r} of {f'store {store_id!r} of ' if store_id else ''}{whose}"


class MailFactsError(LoyaltyError):
    """A mail can't be written from its row of the outbox: its template or its payload is not what it should be."""


class UnknownLanguageError(LoyaltyError):
    """A locale has no language that dates and numbers can be written in."""

    def __init__(self, *, locale: str) -> None:
        self.locale = locale
        super().__init__(f"{locale!r} is no language: use a code such as en, fr, de, lb or pt.")


def render(facts: MailFacts, overrides: Collection[Override] = ()) -> Mail:
    """Return the mail for one row of the outbox; `overrides` may hold other merchants', too.

    Many mails: pass `Overrides`. Raises `MailFactsError` when the row has another payload than its template needs.
    """
    if facts.template not in TEMPLATES:
        raise MailFactsError(f"Found a mail of template {facts.template!r}, expected one of {', '.join(TEMPLATES)}.")
    problems: list[str] = []
    for language, origin, override in choices(
        facts.template,
        merchant_id=facts.merchant_id,
        store_id=facts.store_id,
        languages=languages_of(facts.customer_locale, facts.merchant_locale),
        overrides=overrides if isinstance(overrides, Overrides) else Overrides(overrides),
    ):
        found = ready_of(override)
        if isinstance(found, TemplateRefusedError):
            problems.append(f"{override.label}: {found.part}: {found.problem}")
            continue
        values = values_of(facts, format_locale(language, facts.customer_locale, facts.merchant_locale))
        try:
            subject, text, html = found.render(values)
        except RENDER_ERRORS as error:
            problems.append(f"{override.label}: {one_line(str(error), 300)}")
            continue
        return Mail(subject=subject, text=text, html=html, locale=language, origin=origin, problems=tuple(problems))
    raise MailFactsError(f"No template of {facts.template} renders: {'; '.join(problems)}")


def choices(
    template: str, *, merchant_id: str, store_id: str | None, languages: Iterable[str], overrides: Overrides
) -> Iterator[tuple[str, Origin, Override]]:
    """Yield language, origin and template of what could be the mail, the best first: the chain."""
    owners = dict.fromkeys([(merchant_id, store_id or ""), (merchant_id, ""), ("", "")])
    for language in languages:
        for owner_id, owner_store_id in owners:
            found = overrides.find(owner_id, owner_store_id, template, language)
            if found is not None:
                yield language, found.origin, found
        if language in LOCALES:
            yield language, "built-in", built_in(template, language)


def first_choice(
    template: str, merchant_id: str, store_id: str | None, languages: Iterable[str], overrides: Overrides
) -> tuple[str, Origin, Override]:
    """Return language, origin and template of the first choice that renders; English built-ins always do."""
    return next(
        choice
        for choice in choices(
            template, merchant_id=merchant_id, store_id=store_id, languages=languages, overrides=overrides
        )
        if choice[1] == "built-in" or not problem_of(choice[2])
    )


def languages_of(customer_locale: str | None, merchant_locale: str | None) -> tuple[str, ...]:
    """Return the languages to try: the customer's, the merchant's, English."""
    wanted = (language_of(customer_locale), language_of(merchant_locale), LAST_RESORT)
    return tuple(dict.fromkeys(language for language in wanted if language))


def language_of(locale: str | None) -> str | None:
    """Return the language of a locale as shops write it: de-LU, de_LU.UTF-8 and DE are de; None: it names none."""
    found = known_locale(locale)
    return found and found.language


def known_locale(locale: str | None) -> Locale | None:
    """Return what Babel knows of a locale; of an unknown territory or variant, its language.

    Its territory is the one in the text: Babel adds the likeliest to codes of three letters, the US to eng.
    """
    return None if not locale or len(locale) > LONGEST_LOCALE else _known_locale(locale)


def format_locale(language: str, customer_locale: str | None, merchant_locale: str | None) -> Locale:
    """Return how dates and numbers are written in a mail in `language`.

    As in the customer's country, or else the merchant's, where that country speaks it; English as everywhere but in
    the United States, unless one of the two is there.
    """
    for locale in (known_locale(customer_locale), known_locale(merchant_locale)):
        if locale is not None and locale.language == language and locale.territory:
            return locale
    return Locale.parse("en_001" if language == "en" else language)


def values_of(facts: MailFacts, locale: Locale) -> dict[str, object]:
    """Return the values of the template's variables, in the words of `locale`."""
    values: dict[str, object] = {
        "customer_name": one_line(facts.customer_name or "", MAX_NAME),
        "merchant_name": one_line(facts.merchant_name or "", MAX_NAME) or one_line(facts.merchant_id, MAX_NAME),
    }
    variables = TEMPLATES[facts.template]
    for name in ("points", "stamps"):
        if name in variables:
            number = facts.payload.get(name)
            if not isinstance(number, int):
                raise MailFactsError(f"Found {name} {number!r} for {facts.template}, expected a whole number.")
            values[name] = _number(number, locale)
            values[f"{name}_count"] = number
    if "gone_on" in variables:
        gone_on = _local_date(facts.payload.get("expires_at"), facts.merchant_timezone)
        values["gone_on"] = _date(gone_on, locale)
        values["last_day"] = _date(gone_on - timedelta(days=1), locale)
    return values


def sample_facts(
    template: str,
    *,
    merchant_id: str = "",
    merchant_name: str | None = None,
    merchant_locale: str | None = None,
    customer_locale: str | None = None,
    store_id: str | None = None,
) -> MailFacts:
    """Return a made-up mail, to look at a template."""
    return MailFacts(
        template=template,
        payload={"points": 1250, "stamps": 10, "expires_at": "2027-03-15T00:00:00+00:00"},
        merchant_id=merchant_id,
        merchant_name=merchant_name or merchant_id or "Sample Shop",
        merchant_locale=merchant_locale,
        merchant_timezone="UTC",
        customer_name="Ann Example",
        customer_locale=customer_locale,
        store_id=store_id,
    )


@cache
def built_in(template: str, language: str) -> Override:
    """Return a built-in template; `language` is one of LOCALES."""
    subject, text, html = read_template(template, language)
    return Override(
        merchant_id="", store_id="", template=template, locale=language, subject=subject, text_body=text, html_body=html
    )


def ready_of(override: Override) -> ReadyTemplate | TemplateRefusedError:
    """Return the template compiled, or why it is refused."""
    return ready(override.template, override.locale, override.subject, override.text_body, override.html_body)


def checked(override: Override) -> Override:
    """Return the override under its language; raise `TemplateRefusedError` or `UnknownLanguageError`."""
    language = language_of(override.locale)
    if language is None:
        raise UnknownLanguageError(locale=override.locale)
    right = replace(override, locale=language)
    found = ready_of(right)
    if isinstance(found, TemplateRefusedError):
        # Not the remembered one, which would collect where it was raised.
        raise TemplateRefusedError(template=found.template, part=found.part, problem=found.problem)
    return right


def problem_of(override: Override) -> str | None:
    """Return why the override can't be a mail; None: it can."""
    language = language_of(override.locale)
    if language is None:
        return str(UnknownLanguageError(locale=override.locale))
    if language != override.locale:
        return f"Its locale is written {override.locale!r}, and mails look for {language!r}: set it again as that."
    found = ready_of(override)
    return f"{found.part}: {found.problem}" if isinstance(found, TemplateRefusedError) else None


@lru_cache(maxsize=4_096)
def _known_locale(locale: str) -> Locale | None:
    name = re.split(r"[.@]", locale.strip().replace("-", "_"), maxsplit=1)[0]
    if not LOCALE_NAME.fullmatch(name):
        return None
    parts = name.split("_")
    if parts[0].lower() in NO_LANGUAGES:
        return None
    for number in range(len(parts), 0, -1):
        try:
            found = Locale.parse("_".join(parts[:number]))
            is_territory_given = any(TERRITORY.fullmatch(part) for part in parts[1:number])
            return found if is_territory_given or not found.territory else Locale(found.language, script=found.script)
        except (UnknownLocaleError, ValueError):
            continue
    return None


@lru_cache(maxsize=10_000)
def _number(number: int, locale: Locale) -> str:
    return format_decimal(number, locale=locale)


@lru_cache(maxsize=10_000)
def _date(day: date, locale: Locale) -> str:
    text = format_date(day, "long", locale=locale)
    # Babel's "1 mars" is "1er mars" in every French text.
    return FIRST_OF_MONTH_IN_FRENCH.sub("1er ", text) if locale.language == "fr" else text


def _local_date(instant: object, timezone: str) -> date:
    try:
        found = datetime.fromisoformat(str(instant))
        if found.tzinfo is not None:
            return found.astimezone(_zone(timezone)).date()
    except (ValueError, OverflowError):
        pass
    raise MailFactsError(f"Found expires_at {instant!r} in a mail's payload, expected an ISO instant with its zone.")


@cache
def _zone(name: str) -> tzinfo:
    """Return the zone of this name; like the database, in any case of letters, and UTC for what is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        known = next((one for one in available_timezones() if one.lower() == name.lower()), None)
        return ZoneInfo(known) if known else UTC
