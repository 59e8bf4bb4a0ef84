"""Source contracts: what is expected of each view of `loyalty_source`, and what checking it gave.

A contract is a YAML file per view. Its expectations carry the names and arguments of Great Expectations, which runs
them (`resources/source_contracts.py`); here they are only read and validated, so that the code location can list the
checks without importing it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from string import Formatter
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, FieldKind, SourceRelation
from loyalty_pipelines.domain.source_models import MappingProblem
from loyalty_pipelines.domain.source_rules import Lines, did_you_mean, listed, shorten
from loyalty_pipelines.domain.source_yaml import YamlProblemError, read_yaml

SCHEMA = "loyalty_source"
# Keys of bad rows that a result shows.
SAMPLE = 20
SOURCE_STATUS = "source_status"

TEXTS = (FieldKind.ID, FieldKind.TEXT, FieldKind.CURRENCY, FieldKind.STATUS)
NUMBERS = (FieldKind.AMOUNT, FieldKind.POINTS)
VIEW_IN_SQL = re.compile(rf"\b{SCHEMA}\.(\w+)", re.IGNORECASE)
# A semicolon after which nothing comes but comments; one in a text is followed by its quote.
END_IN_AN_EDITOR = re.compile(r";(?:\s|--[^'\n]*)*\Z")


class ContractError(ConfigurationError):
    """A contract can't be used; `problems` holds every reason, not only the first."""

    def __init__(self, file: str, problems: list[MappingProblem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"The contract {file} has {count}:", *(f"- {problem}" for problem in problems)]))


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


def _columns(relation: SourceRelation) -> dict[str, FieldKind]:
    columns = {field.name: field.kind for field in relation.fields}
    return {**columns, SOURCE_STATUS: FieldKind.TEXT} if relation.statuses else columns


def _column(value: str, info: ValidationInfo) -> str:
    relation = _relation(info)
    columns = _columns(relation)
    if value not in columns:
        raise ValueError(
            f"{SCHEMA}.{relation.name} has no such column, its columns are {listed(columns)}; "
            + did_you_mean(value, columns, "name one of these")
        )
    return value


def _key_column(value: str, info: ValidationInfo) -> str:
    keys = [name for name, kind in _columns(_relation(info)).items() if kind is FieldKind.ID]
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
        kind = _columns(_relation(info))[self.column]
        if kind not in self.kinds:
            raise ValueError(
                f"{self.column} is of the kind {kind}; {self.type} is for columns of the kinds {listed(self.kinds)}"
            )
        wrong = [name for name in self.where if _columns(_relation(info))[name] not in TEXTS]
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
        is_time = _columns(_relation(info))[self.column] is FieldKind.TIMESTAMP
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


class _ContractFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    expectations: tuple[AnyExpectation, ...]


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What is expected of the view `view`; `file` is where it is written, `is_own` an operator's instead of ours."""

    view: str
    file: str
    is_own: bool
    yaml_text: str
    expectations: tuple[Expectation, ...]

    def keys_of(self, one: Expectation) -> tuple[str, ...]:
        """Return the columns that name a bad row."""
        return one.keys or SOURCE_RELATIONS[self.view].key

    @property
    def ids(self) -> tuple[str, ...]:
        """The view's columns that may be shown: ids."""
        return tuple(name for name, kind in _columns(SOURCE_RELATIONS[self.view]).items() if kind is FieldKind.ID)


def readable_check(view: str) -> str:
    """Return the name of the check that each view has, whatever its contract says."""
    return f"{view}_can_be_checked"


# --- reading a file ---------------------------------------------------------------------------------------


def parse_contract(view: str, text: str, *, file: str, is_own: bool) -> Contract:
    """Return the contract of a view that the YAML `text` describes.

    Raises ContractError with every problem found, each with its place and line.
    """
    try:
        data, lines = read_yaml(text, is_ours=not is_own)
    except YamlProblemError as error:
        problem = MappingProblem(
            path="file", found=error.found, exists="", advice="write it as plain YAML", line=error.line
        )
        raise ContractError(file, [problem]) from error
    if not isinstance(data, dict):
        found = "found an empty file" if data is None else f"found a {type(data).__name__} at the top"
        problem = MappingProblem(
            path="file",
            found=found,
            exists="expected the key 'expectations' with a list",
            advice=f"start from ours: loyalty contracts show --view {view}",
        )
        raise ContractError(file, [problem])
    try:
        read = _ContractFile.model_validate(data, context={"relation": SOURCE_RELATIONS[view]})
    except ValidationError as error:
        raise ContractError(file, [_problem(dict(one), data, lines) for one in error.errors()]) from error
    problems = list(_names_given_twice(view, read.expectations, lines))
    if problems:
        raise ContractError(file, problems)
    return Contract(view=view, file=file, is_own=is_own, yaml_text=text, expectations=read.expectations)


def _names_given_twice(view: str, expectations: tuple[Expectation, ...], lines: Lines) -> Iterator[MappingProblem]:
    seen = {readable_check(view)}
    for number, one in enumerate(expectations):
        if one.name in seen:
            yield MappingProblem(
                path=_place(("expectations", number, "name"), {"expectations": expectations}),
                found=f'found "{one.name}" twice'
                if one.name != readable_check(view)
                else f'found "{one.name}", which is the name of the view\'s own check',
                exists="",
                advice="give it another name",
                line=lines.get(("expectations", number, "name")),
            )
        seen.add(one.name)


def _problem(detail: dict[str, Any], data: dict[str, Any], lines: Lines) -> MappingProblem:
    """Turn what pydantic refused into a problem that an operator can act on."""
    location = tuple(part for part in detail["loc"] if not (isinstance(part, str) and part.startswith(TAGS)))
    line = next((lines[location[:n]] for n in range(len(location), 0, -1) if location[:n] in lines), None)
    found, exists, advice = f"found {shorten(detail['input'])}", detail["msg"].removeprefix("Value error, "), ""
    known = listed(detail.get("ctx", {}).get("expected_tags", "").replace("'", "").split(", "))
    match detail["type"]:
        case "union_tag_invalid":
            tag = detail["ctx"]["tag"]
            location, found, exists = (*location, "expect"), f'found "{tag}"', f"expectations are {known}"
            advice = did_you_mean(tag, known.split(", "), "name one of these")
        case "union_tag_not_found":
            location, found, exists, advice = (
                (*location, "expect"),
                "found nothing",
                f"expectations are {known}",
                "add it",
            )
        case "missing":
            found, exists, advice = "found nothing", "", "add it"
        case "extra_forbidden":
            found, exists, advice = (
                f"found the unknown key {shorten(location[-1])}",
                "",
                "remove it or correct its name",
            )
        case "enum" | "literal_error":
            words = detail["ctx"]["expected"]
            exists = f"expected {words}"
            advice = did_you_mean(str(detail["input"]), re.findall(r"'(\w+)'", words), "write one of these")
        case "string_pattern_mismatch":
            exists, advice = "expected small letters, digits and underscores, a letter first", "correct it"
        case "value_error":
            # About one value: the text says what was expected; about a whole expectation: that it was found, too.
            found = found if isinstance(detail["input"], str) else ""
            exists, _, advice = exists.partition("; ")
        case _:
            advice = "correct it"
    return MappingProblem(path=_place(location, data), found=found, exists=exists, advice=advice, line=line)


TAGS = ("expect_", "unexpected_rows_expectation")


def _place(location: tuple[str | int, ...], data: Mapping[str, Any]) -> str:
    """Return the place as a path in which an expectation goes by its name."""
    parts: list[str] = []
    for number, part in enumerate(location):
        if number == 1 and isinstance(part, int):
            one = list(data["expectations"])[part]
            name = one.get("name") if isinstance(one, dict) else getattr(one, "name", None)
            parts = [str(name) if name else f"expectations[{part}]"]
        else:
            parts.append(f"[{part}]" if isinstance(part, int) else f".{part}" if parts else str(part))
    return "".join(parts) or "file"


# --- what checking gives ----------------------------------------------------------------------------------


class Outcome(StrEnum):
    """What came of an expectation."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """There is nothing to look at: the shop has no such relation or column."""
    BROKEN = "broken"
    """It could not be checked, which is no better than failed."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What checking one expectation gave: how many rows are bad, of how many, and the keys of some."""

    name: str
    severity: Severity
    outcome: Outcome
    text: str
    rows: int = 0
    bad_rows: int = 0
    percent: float = 0.0
    sample: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_met(self) -> bool:
        """Whether nothing is wrong."""
        return self.outcome in (Outcome.PASSED, Outcome.SKIPPED)


@dataclass(frozen=True, kw_only=True)
class CheckedView:
    """What checking the contract of one view gave. `problem`: why none of it could be checked."""

    view: str
    file: str
    text: str
    problem: str | None = None
    results: tuple[Checked, ...] = ()

    @property
    def has_errors(self) -> bool:
        """Whether something is wrong that is an error."""
        return self.problem is not None or any(
            not one.is_met and (one.severity is Severity.ERROR or one.outcome is Outcome.BROKEN) for one in self.results
        )


def in_words(row: Mapping[str, Any]) -> str:
    """Return the keys of a bad row for people who look at it: merchant_id m1, order_id 7."""
    return ", ".join(f"{name} {'(empty)' if value in ('', None) else value}" for name, value in row.items())
