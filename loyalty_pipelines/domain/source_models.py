"""The parts of a source mapping, what can be wrong with one, and what applying one gives."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    model_validator,
)

from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS


@dataclass(frozen=True, kw_only=True)
class MappingProblem:
    """One thing that is wrong in a mapping: where, what was found, what exists, what to do."""

    path: str
    found: str
    exists: str
    advice: str
    line: int | None = None

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path} (line {self.line})"
        parts = [part for part in (self.found, self.exists, self.advice) if part]
        return f"{where}: {'; '.join(parts)}."


class NoMappingError(ConfigurationError):
    """No source mapping is in force, so there is no shop to read."""

    def __init__(
        self,
        text: str = "No source mapping is in force, so there is no shop to read: map yours with 'loyalty sources apply "
        "--file F' ('loyalty sources presets' has some to start from), or try an export with 'loyalty orders import'.",
    ) -> None:
        super().__init__(text)


class MappingWithdrawnError(NoMappingError):
    """The mapping was withdrawn and not applied again."""

    def __init__(self) -> None:
        super().__init__(
            "The source mapping is withdrawn, so nothing is awarded: put it back with 'loyalty sources apply --file F' "
            "('loyalty sources show' prints the last one)."
        )


class OutdatedViewsError(ConfigurationError):
    """The mapping was applied by an older version, whose views lack columns and functions."""

    def __init__(self) -> None:
        super().__init__(
            "The views in 'loyalty_source' are of an older version: run 'loyalty sources apply --file F' again "
            "('loyalty sources show' prints the last mapping)."
        )


class SourceMappingError(ConfigurationError):
    """A source mapping cannot be used; `problems` holds every reason, not only the first."""

    def __init__(self, problems: list[MappingProblem] | tuple[MappingProblem, ...]) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        head = "The source mapping has 1 problem" if count == 1 else f"The source mapping has {count} problems"
        super().__init__("\n".join([f"{head}:", *(f"- {problem}" for problem in self.problems)]))


class CaptureMode(StrEnum):
    """How changed orders get into the inbox: triggers on the shop's tables, or polling `updated_at`."""

    TRIGGER = "trigger"
    POLL = "poll"


def _storable(value: str) -> str:
    """Refuse what PostgreSQL cannot hold in a text, so that nothing later fails on it."""
    if "\x00" in value:
        raise ValueError("a text with a NUL character cannot be stored")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text with half of a surrogate pair cannot be stored") from None
    return value


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _currency_code(value: str) -> str:
    code = value.strip().upper()
    if len(code) != 3 or not (code.isascii() and code.isalpha()):
        raise ValueError("expected a currency code of three letters such as EUR")
    return code


Text = Annotated[str, AfterValidator(_storable)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_storable)]
Words = Annotated[tuple[Text, ...], BeforeValidator(_as_list)]
Currency = Annotated[str, AfterValidator(_currency_code)]
Divisor = Literal["10", "100", "1000", "10000", "100000", "1000000"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RelationName(_Part):
    """A table, view or foreign table of the shop; written `schema.table`, `table` or {schema:, table:}."""

    schema_name: Name = Field(default="public", alias="schema")
    table: Name

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = value.split(".")
        if len(parts) > 2 or not all(parts):
            raise ValueError("a name that has dots of its own is written {schema: ..., table: ...}")
        return {"schema": parts[0], "table": parts[1]} if len(parts) == 2 else {"table": parts[0]}

    def __str__(self) -> str:
        return f"{self.schema_name}.{self.table}"


class MappedRelation(_Part):
    """Where one view takes its rows from.

    `columns`: our field -> the shop's column. `divide_by`: amount field -> minor units in one unit.
    `status`: our word -> the shop's words. `defaults`: our field -> constant. `where`: the shop's column ->
    the words it must have for the row to count (for tables that hold several sorts of rows).
    """

    relation: RelationName
    columns: dict[Name, Name]
    divide_by: dict[Name, Divisor] = {}
    status: dict[Name, Words] = {}
    defaults: dict[Name, Text] = {}
    where: dict[Name, Words] = {}


class MerchantRow(_Part):
    """One merchant of a shop that keeps no table of merchants."""

    merchant_id: Name
    name: Name
    timezone: Name
    currency: Currency
    locale: Name = "en"
    is_active: bool = True


class FixedMerchants(_Part):
    """The merchants themselves, written into the mapping."""

    rows: tuple[MerchantRow, ...]


def _merchants_tag(value: object) -> str:
    is_fixed = isinstance(value, FixedMerchants) or (isinstance(value, Mapping) and "rows" in value)
    return "rows" if is_fixed else "relation"


Merchants = Annotated[
    Annotated[FixedMerchants, Tag("rows")] | Annotated[MappedRelation, Tag("relation")],
    Discriminator(_merchants_tag),
]


class FunctionName(_Part):
    """A SQL function of the shop; written `schema.name` or {schema:, name:}.

    The schema is never guessed: whose function a bare name finds depends on the caller's search_path.
    """

    schema_name: Name = Field(alias="schema")
    name: Name

    @model_validator(mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        parts = value.split(".")
        if len(parts) != 2 or not all(parts):
            raise ValueError("expected schema.name; a name that has dots of its own is {schema: ..., name: ...}")
        return {"schema": parts[0], "name": parts[1]}

    def __str__(self) -> str:
        return f"{self.schema_name}.{self.name}"


class FixAction(_Part):
    """How one action of a fix is done: by a function of the shop, or by writing its row (`function` is None).

    Written `write` or `{function: schema.name}`.
    """

    function: FunctionName | None

    @model_validator(mode="before")
    @classmethod
    def _from_word(cls, value: object) -> object:
        if value == "write":
            return {"function": None}
        if isinstance(value, dict) and value.get("function", "") is not None:
            return value
        raise ValueError("expected write, or {function: schema.name}")

    @property
    def is_write(self) -> bool:
        return self.function is None


class Fixes(_Part):
    """What the shop lets the product do to its subscriptions and payments; an action that is missing is not done."""

    create_subscription: FixAction | None = None
    update_subscription: FixAction | None = None
    refund_payment: FixAction | None = None
    ask_payment: FixAction | None = None

    @property
    def actions(self) -> dict[str, FixAction]:
        """The actions that are allowed, by name."""
        named = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: action for name, action in named.items() if action is not None}

    def is_written(self, *names: str) -> bool:
        """True when one of the actions writes the shop's row."""
        return any(name in names and action.is_write for name, action in self.actions.items())


WRITABLE_ACTIONS = ("create_subscription", "update_subscription")
"""Money is never written: whether it moved is what the payment provider says, so its actions call a function."""


class SourceMapping(_Part):
    """A whole mapping file. Its views, columns and words are listed in `domain.source_fields`."""

    version: Literal["1"]
    capture: CaptureMode = CaptureMode.TRIGGER
    poll_overlap_seconds: int = Field(default=600, ge=0, le=86_400)
    timezone: Name = "UTC"
    merchants: Merchants
    customers: MappedRelation | None = None
    orders: MappedRelation
    refunds: MappedRelation | None = None
    payments: MappedRelation | None = None
    subscriptions: MappedRelation | None = None
    plans: MappedRelation | None = None
    fixes: Fixes | None = None

    _yaml_text: str = PrivateAttr(default="")

    @property
    def yaml_text(self) -> str:
        """The text that this mapping was parsed from, comments and all."""
        return self._yaml_text

    @property
    def mapped_relations(self) -> tuple[str, ...]:
        """The names of the views that have rows; the others exist and are empty."""
        return tuple(name for name in SOURCE_RELATIONS if getattr(self, name) is not None)

    def relation(self, name: str) -> MappedRelation | None:
        """Return the mapping of the view `name`; None when it is unmapped or a fixed list."""
        part = getattr(self, name)
        return part if isinstance(part, MappedRelation) else None


@dataclass(frozen=True, kw_only=True)
class AppliedMapping:
    """What `apply` did: the mapping now in force, its triggers, and what the operator should know."""

    mapping: SourceMapping
    applied_at: datetime
    triggers: tuple[str, ...]
    notes: tuple[str, ...]
