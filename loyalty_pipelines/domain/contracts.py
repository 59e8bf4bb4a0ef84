"""Source contracts: what is expected of each view of `loyalty_source`, and what checking it gave.

A contract is a YAML file per view. Its expectations carry the names and arguments of Great Expectations, which runs
them (`resources/source_contracts.py`); here they are only read and validated, so that the code location can list the
checks without importing it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from loyalty_pipelines.domain.errors import ConfigurationError
from loyalty_pipelines.domain.expectations import AnyExpectation, Expectation, Severity, columns_of
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, FieldKind
from loyalty_pipelines.domain.source_models import MappingProblem
from loyalty_pipelines.domain.source_rules import Lines, did_you_mean, listed, shorten
from loyalty_pipelines.domain.source_yaml import YamlProblemError, read_yaml

# Keys of bad rows that a result shows.
SAMPLE = 20


class ContractError(ConfigurationError):
    """A contract can't be used; `problems` holds every reason, not only the first."""

    def __init__(self, file: str, problems: list[MappingProblem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"The contract {file} has {count}:", *(f"- {problem}" for problem in problems)]))


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
        return tuple(name for name, kind in columns_of(SOURCE_RELATIONS[self.view]).items() if kind is FieldKind.ID)


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
