"""What can be expected of a view of `loyalty_source`: the kinds of expectations, and the arguments that each takes.

Names and arguments are those of Great Expectations. They are validated with the view's relation as context, so that a
column that there is not is refused when the file is read.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, FieldKind, SourceRelation
from loyalty_pipelines.domain.source_rules import did_you_mean, listed

SCHEMA = "loyalty_source"
SOURCE_STATUS = "source_status"

TEXTS = (FieldKind.ID, FieldKind.TEXT, FieldKind.CURRENCY, FieldKind.STATUS)
NUMBERS = (FieldKind.AMOUNT, FieldKind.POINTS)
VIEW_IN_SQL = re.compile(rf"\b{SCHEMA}\.(\w+)", re.IGNORECASE)
# A semicolon after which nothing comes but comments; one in a text is followed by its quote.
END_IN_AN_EDITOR = re.compile(r";(?:\s|--[^'\n]*)*\Z")


class Severity(StrEnum):
    """What a failing expectation is: an error fails the run of the checks, a warning does not."""

    ERROR = "error"
    WARNING = "warning"


class Group(StrEnum):
    """What an expectation is about, and with that which section of the runbook helps."""

    KEYS = "keys"
    STATUSES = "statuses"
    AMOUNTS = "amounts"
    CURRENCIES = "currencies"
    TIMES = "times"
    REFERENCES = "references"
    VOLUME = "volume"
    OTHER = "other"

    @property
    def heading(self) -> str:
        """The heading of its section in docs/runbooks/source-contracts.md."""
        return self.value.capitalize()


# --- parts of an expectation ------------------------------------------------------------------------------


def _relation(info: ValidationInfo) -> SourceRelation:
    return (info.context or {})["relation"]


def columns_of(relation: SourceRelation) -> dict[str, FieldKind]:
    """Return the columns of a relation's view, each with its kind."""
    columns = {field.name: field.kind for field in relation.fields}
    return {**columns, SOURCE_STATUS: FieldKind.TEXT} if relation.statuses else columns


def _column(value: str, info: ValidationInfo) -> str:
    relation = _relation(info)
    columns = columns_of(relation)
    if value not in columns:
        raise ValueError(
            f"{SCHEMA}.{relation.name} has no such column, its columns are {listed(columns)}; "
            + did_you_mean(value, columns, "name one of these")
        )
    return value


def _key_column(value: str, info: ValidationInfo) -> str:
    keys = [name for name, kind in columns_of(_relation(info)).items() if kind is FieldKind.ID]
    if value not in keys:
        raise ValueError(f"only ids may be shown, because they are no personal data; ids here are {listed(keys)}")
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Column = Annotated[str, AfterValidator(_column)]
KeyColumns = Annotated[
    tuple[Annotated[str, AfterValidator(_key_column)], ...], BeforeValidator(_as_list), Field(min_length=1)
]
Columns = Annotated[tuple[Column, ...], BeforeValidator(_as_list)]
Words = Annotated[tuple[str, ...], BeforeValidator(_as_list), Field(min_length=1)]
Sentence = Annotated[str, Field(min_length=10, max_length=1000)]
CheckName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{2,99}$")]
Plain = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Share = Annotated[float, Field(gt=0, le=1)]


class DaysFromNow(BaseModel):
    """An instant, so many days after the run (before it, when negative)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days_from_now: Annotated[Decimal, Field(ge=-100_000, le=100_000, allow_inf_nan=False)]

    def at(self, as_of: datetime) -> datetime:
        """Return the instant."""
        return as_of + timedelta(days=float(self.days_from_now))


Bound = Annotated[Decimal, Field(allow_inf_nan=False)] | DaysFromNow


class Expectation(BaseModel):
    """One thing that is expected of every row of a view; each is an asset check.

    `says` is what holds when it is met, `do` what an operator does when it is not. `needs`: columns without which it
    says nothing; where the mapping gives none, it is skipped. `where`: column -> words that a row must have to count.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    # Fields of GX's expectation of the same name.
    arguments: ClassVar[tuple[str, ...]] = ("column", "mostly")
    kinds: ClassVar[tuple[FieldKind, ...]] = tuple(FieldKind)

    name: CheckName
    group: Group
    severity: Severity
    says: Sentence
    do: Sentence
    needs: Columns = ()

    @property
    def type(self) -> str:
        """The name that Great Expectations has for it."""
        return getattr(self, "expect")  # noqa: B009 - each kind declares its own words for it

    @property
    def views(self) -> tuple[str, ...]:
        """Other views that it reads; where the mapping has no such relation, it is skipped."""
        return ()

    @property
    def conditions(self) -> Mapping[str, tuple[str, ...]]:
        """Column -> words that a row must have to count."""
        return getattr(self, "where", {})

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that name a bad row; none: the view's own key."""
        return ()

    def values(self, as_of: datetime) -> dict[str, Any]:
        """Return its arguments as Great Expectations takes them."""
        found = {name: getattr(self, name) for name in self.arguments}
        return {name: _plain(value, as_of) for name, value in found.items() if value is not None}


def _plain(value: Any, as_of: datetime) -> Any:
    if isinstance(value, DaysFromNow):
        return value.at(as_of)
    if isinstance(value, tuple):
        return list(value)
    return float(value) if isinstance(value, Decimal) else value


class OfColumn(Expectation):
    """One that looks at one column; a NULL passes, unless NULL is what it is about."""

    column: Column
    where: dict[Column, Words] = {}
    mostly: Share = 1.0

    @model_validator(mode="after")
    def _fits(self, info: ValidationInfo) -> "OfColumn":
        kind = columns_of(_relation(info))[self.column]
        if kind not in self.kinds:
            raise ValueError(
                f"{self.column} is of the kind {kind}; {self.type} is for columns of the kinds {listed(self.kinds)}"
            )
        wrong = [name for name in self.where if columns_of(_relation(info))[name] not in TEXTS]
        if wrong:
            raise ValueError(f"where compares words, and {listed(wrong)} holds none; name a column of texts")
        return self


class NotNull(OfColumn):
    """There is a value."""

    expect: Literal["expect_column_values_to_not_be_null"]


class Null(OfColumn):
    """There is no value."""

    expect: Literal["expect_column_values_to_be_null"]


class Unique(OfColumn):
    """No value is there twice."""

    expect: Literal["expect_column_values_to_be_unique"]


class Between(OfColumn):
    """A number or an instant lies between two others; NaN and Infinity are above every number."""

    arguments = ("column", "mostly", "min_value", "max_value", "strict_min", "strict_max")
    kinds = (*NUMBERS, FieldKind.TIMESTAMP)

    expect: Literal["expect_column_values_to_be_between"]
    min_value: Bound | None = None
    max_value: Bound | None = None
    strict_min: bool = False
    strict_max: bool = False

    @model_validator(mode="after")
    def _has_bounds(self, info: ValidationInfo) -> "Between":
        bounds = [bound for bound in (self.min_value, self.max_value) if bound is not None]
        if not bounds:
            raise ValueError("expected min_value, max_value or both")
        is_time = columns_of(_relation(info))[self.column] is FieldKind.TIMESTAMP
        if any(isinstance(bound, DaysFromNow) is not is_time for bound in bounds):
            expected = "days from the run, such as {days_from_now: 1}" if is_time else "numbers"
            raise ValueError(f"the bounds of {self.column} are {expected}")
        low, high = (bound.days_from_now if isinstance(bound, DaysFromNow) else bound
                     for bound in (self.min_value, self.max_value))  # fmt: skip
        if low is not None and high is not None and low > high:
            raise ValueError("min_value is above max_value, so no row could pass")
        return self


class InSet(OfColumn):
    """A text is one of those."""

    arguments = ("column", "mostly", "value_set")
    kinds = TEXTS

    expect: Literal["expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"]
    value_set: Words


class Matches(OfColumn):
    """A text matches a regular expression of PostgreSQL."""

    arguments = ("column", "mostly", "regex")
    kinds = TEXTS

    expect: Literal["expect_column_values_to_match_regex", "expect_column_values_to_not_match_regex"]
    regex: Annotated[str, Field(min_length=1)]


class Length(OfColumn):
    """A text has so many characters."""

    arguments = ("column", "mostly", "min_value", "max_value")
    kinds = TEXTS

    expect: Literal["expect_column_value_lengths_to_be_between"]
    min_value: Annotated[int, Field(ge=0)] | None = None
    max_value: Annotated[int, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _has_bounds(self) -> "Length":
        if self.min_value is None and self.max_value is None:
            raise ValueError("expected min_value, max_value or both")
        return self


class UniqueTogether(Expectation):
    """No two rows have the same values in all of these columns."""

    arguments = ("column_list", "mostly")

    expect: Literal["expect_compound_columns_to_be_unique"]
    column_list: Annotated[Columns, Field(min_length=2)]
    where: dict[Column, Words] = {}
    mostly: Share = 1.0


class Query(Expectation):
    """A query that returns what should not be there: one row for each, with the columns named in `keys`.

    `{batch}` stands for the view, `{as_of}` for the instant of the run. `numbers` are columns of the query to show
    beside the keys.
    """

    arguments = ("unexpected_rows_query",)

    expect: Literal["unexpected_rows_expectation"]
    unexpected_rows_query: Annotated[str, Field(min_length=10)]
    shows: KeyColumns | None = Field(default=None, alias="keys")
    numbers: Annotated[tuple[Plain, ...], BeforeValidator(_as_list)] = ()

    @model_validator(mode="after")
    def _has_batch(self) -> "Query":
        try:
            names = {name for _, name, _, _ in Formatter().parse(self.unexpected_rows_query) if name is not None}
        except ValueError as error:
            raise ValueError(f"{error}; a brace of SQL's own is written twice") from error
        if "batch" not in names:
            raise ValueError("expected {batch}, which stands for the view")
        if names - {"batch", "as_of"}:
            raise ValueError(
                f"found {{{min(names - {'batch', 'as_of'})}}}, expected {{batch}} or {{as_of}}; "
                "a brace of SQL's own is written twice"
            )
        unknown = [view for view in self.views if view not in SOURCE_RELATIONS]
        if unknown:
            raise ValueError(f"{SCHEMA} has no view {unknown[0]}; its views are {listed(SOURCE_RELATIONS)}")
        return self

    @property
    def views(self) -> tuple[str, ...]:
        """Other views that it reads; where the mapping has no such relation, it is skipped."""
        return tuple(dict.fromkeys(VIEW_IN_SQL.findall(self.unexpected_rows_query)))

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that name a bad row; none: the view's own key."""
        return self.shows or ()

    def values(self, as_of: datetime) -> dict[str, Any]:
        """Return the query, with the instant of the run in it."""
        instant = f"CAST('{as_of.isoformat()}' AS timestamptz)"
        query = END_IN_AN_EDITOR.sub("", self.unexpected_rows_query)
        return {"unexpected_rows_query": query.strip().replace("{as_of}", instant)}


AnyExpectation = Annotated[
    NotNull | Null | Unique | Between | InSet | Matches | Length | UniqueTogether | Query,
    Field(discriminator="expect"),
]
