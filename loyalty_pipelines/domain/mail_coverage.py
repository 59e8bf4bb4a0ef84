"""Who gets which template: the matrix of a merchant, and overrides that nobody gets."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loyalty_pipelines.domain.errors import LoyaltyError
from loyalty_pipelines.domain.mails import (
    Origin,
    Override,
    Overrides,
    first_choice,
    label,
    language_of,
    languages_of,
    problem_of,
)
from loyalty_pipelines.mail_templates import LOCALES, TEMPLATES


@dataclass(frozen=True, kw_only=True)
class CustomerGroup:
    """Active customers of one store in one locale, as the shop writes both; a merchant without any has one of 0."""

    merchant_id: str
    merchant_locale: str | None
    store_id: str | None
    locale: str | None
    customers: int

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages of their mails, the best first."""
        return languages_of(self.locale, self.merchant_locale)


@dataclass(frozen=True, kw_only=True)
class CoverageCell:
    """What the customers of a store (None: of no store) who speak `language` get for one template."""

    template: str
    store_id: str | None
    language: str
    origin: Origin
    language_taken: str
    customers: int


@dataclass(frozen=True, kw_only=True)
class OverrideProblem:
    """An override that does not render, or that nobody gets, and why."""

    merchant_id: str
    store_id: str
    template: str
    locale: str
    reason: str

    @property
    def label(self) -> str:
        """The override in words."""
        return label(self.merchant_id, self.store_id, self.template, self.locale)

    @classmethod
    def of(cls, override: Override, reason: str) -> "OverrideProblem":
        """Return the problem of an override."""
        merchant_id, store_id, template, locale = override.key
        return cls(merchant_id=merchant_id, store_id=store_id, template=template, locale=locale, reason=reason)


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """Template by language by store for one merchant; `broken` and `unused` are its own overrides."""

    merchant_id: str
    languages: Sequence[str]
    stores: Sequence[str | None]
    cells: Sequence[CoverageCell]
    broken: Sequence[OverrideProblem]
    unused: Sequence[OverrideProblem]


class OverrideNotFoundError(LoyaltyError):
    """There is no override with this key."""

    def __init__(self, *, merchant_id: str, store_id: str, template: str, locale: str) -> None:
        super().__init__(
            f"Found no override of {label(merchant_id, store_id, template, locale)}: 'loyalty templates list"
            f"{f' {merchant_id}' if merchant_id else ''}' shows those that exist."
        )


def coverage(merchant_id: str, groups: Iterable[CustomerGroup], overrides: Overrides) -> Coverage:
    """Return what the customers of each store and language get; languages and stores of overrides count, too.

    `groups` are the merchant's, `overrides` its own and the platform's.
    """
    groups = list(groups)
    own = [one for one in overrides if one.merchant_id == merchant_id]
    counted = [group for group in groups if group.customers]
    merchant_locale = groups[0].merchant_locale if groups else None
    found = {group.languages[0] for group in counted} | {language_of(one.locale) for one in overrides} - {None}
    languages = [*LOCALES, *sorted(str(one) for one in found - set(LOCALES))]
    names = {group.store_id for group in counted if group.store_id} | {one.store_id for one in own if one.store_id}
    stores: list[str | None] = [None, *sorted(names)]
    customers: dict[tuple[str | None, str], int] = {}
    for group in counted:
        key = (group.store_id or None, group.languages[0])
        customers[key] = customers.get(key, 0) + group.customers
    cells = []
    for template in TEMPLATES:
        for store_id in stores:
            for language in languages:
                taken, origin, _ = first_choice(
                    template, merchant_id, store_id, languages_of(language, merchant_locale), overrides
                )
                cells.append(
                    CoverageCell(
                        template=template,
                        store_id=store_id,
                        language=language,
                        origin=origin,
                        language_taken=taken,
                        customers=customers.get((store_id, language), 0),
                    )
                )
    return Coverage(
        merchant_id=merchant_id,
        languages=languages,
        stores=stores,
        cells=cells,
        broken=broken_ones(own),
        unused=unused_ones(own, groups, overrides),
    )


def broken_ones(overrides: Iterable[Override]) -> list[OverrideProblem]:
    """Return the overrides that can't be a mail."""
    found = ((one, problem_of(one)) for one in overrides)
    return [OverrideProblem.of(one, problem) for one, problem in found if problem]


def unused_ones(
    looked_at: Iterable[Override], groups: Iterable[CustomerGroup], overrides: Overrides
) -> list[OverrideProblem]:
    """Return those of `looked_at` that render and that nobody of `groups` gets, with the reason.

    `groups` are of all merchants whose overrides are looked at, of all merchants for the platform's.
    """
    groups = list(groups)
    # What a mail depends on; a large shop has far fewer of these than customers.
    ways = {(group.merchant_id, group.store_id, group.languages) for group in groups if group.customers}
    used = set()
    # By merchant and template: store, the customers' language, that of their mail.
    reached: dict[tuple[str, str], list[tuple[str | None, str, str]]] = {}
    # Merchant by merchant: only so many compiled templates are remembered.
    for merchant_id, store_id, languages in sorted(ways, key=lambda way: way[0]):
        for template in TEMPLATES:
            taken, _, override = first_choice(template, merchant_id, store_id, languages, overrides)
            # A built-in's key is a platform's, which would have come before it.
            used.add(override.key)
            reached.setdefault((merchant_id, template), []).append((store_id, languages[0], taken))
    merchants = {group.merchant_id for group in groups}
    found = []
    for one in looked_at:
        if one.key in used or problem_of(one):
            continue
        near = [
            (spoken, taken)
            for merchant_id in ([one.merchant_id] if one.merchant_id else merchants)
            for store_id, spoken, taken in reached.get((merchant_id, one.template), ())
            if one.store_id in ("", store_id)
        ]
        found.append(OverrideProblem.of(one, _why_unused(one, merchants, near)))
    return found


def _why_unused(one: Override, merchants: set[str], near: Sequence[tuple[str, str]]) -> str:
    """Say why nobody gets it; `near` are the languages of its customers, and those of the mails that they get."""
    if one.merchant_id and one.merchant_id not in merchants:
        return "the shop has no such merchant"
    if not near:
        return "no active customer is in this store" if one.store_id else "there is no active customer"
    if one.locale in {taken for _, taken in near}:
        return f"all who get this mail in {one.locale!r} get a more specific override"
    spoken = ", ".join(sorted({language for language, _ in near}))
    return f"nobody gets this mail in {one.locale!r}: the customers' languages are {spoken}"
