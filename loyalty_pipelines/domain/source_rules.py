"""The rules that a source mapping must follow before any database is asked."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

from pydantic import ValidationError

from loyalty_pipelines.domain.source_fields import (
    FALSE_WORDS,
    SOURCE_RELATIONS,
    TRUE_WORDS,
    FieldKind,
    SourceField,
    SourceRelation,
)
from loyalty_pipelines.domain.source_models import (
    WRITABLE_ACTIONS,
    FixAction,
    FixedMerchants,
    Fixes,
    FunctionName,
    MappedRelation,
    MappingProblem,
    MerchantRow,
    RelationName,
    SourceMapping,
)
from loyalty_pipelines.domain.source_yaml import Path

MAX_BIGINT = 2**63 - 1
Lines = Mapping[Path, int]


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return "did you mean X" for the known word nearest to `word`, or `otherwise` when none is near."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(by_lower), n=1, cutoff=0.6)
    return f'did you mean "{by_lower[near[0]]}"' if near else otherwise


def shorten(value: object, limit: int = 80) -> str:
    """Return `value` quoted for a message, cut when it is long."""
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= limit else f"{text[:limit]}..."


def listed(names: Iterable[str], limit: int = 30) -> str:
    """Return the names separated by commas, at most `limit` of them."""
    all_names = list(names)
    rest = len(all_names) - limit
    shown = ", ".join(all_names[:limit])
    return f"{shown} and {rest} more" if rest > 0 else shown


# --- the shape: what pydantic refused ---------------------------------------------------------------------


def problems_of_shape(error: ValidationError, lines: Lines) -> list[MappingProblem]:
    """Turn pydantic's findings into problems that an operator can act on."""
    return [_shape_problem(dict(detail), lines) for detail in error.errors(include_url=False)]


def _shape_problem(detail: dict, lines: Lines) -> MappingProblem:
    location = _without_tag(detail["loc"])
    path, line = _dotted(location), _line(location, lines)
    if detail["type"] == "extra_forbidden":
        known = _known_keys(location[:-1])
        return MappingProblem(
            path=path,
            found=f"found the unknown key {shorten(location[-1])}",
            exists=f"keys here are {listed(known)}",
            advice=did_you_mean(str(location[-1]), known, "remove it"),
            line=line,
        )
    if detail["type"] == "missing":
        return MappingProblem(path=path, found="found nothing", exists="", advice="add it", line=line)
    return MappingProblem(
        path=path,
        found=f"found {shorten(detail['input'])}",
        exists=detail["msg"].removeprefix("Value error, "),
        advice="correct it",
        line=line,
    )


def _without_tag(location: tuple[str | int, ...]) -> Path:
    """Drop the name of the union's branch that pydantic puts after `merchants`."""
    if location[:1] == ("merchants",) and location[1:2] in (("rows",), ("relation",)):
        return ("merchants", *location[2:])
    return location


def _known_keys(location: Path) -> list[str]:
    models = {
        0: SourceMapping,
        1: MappedRelation,
        2: RelationName,
        3: MerchantRow,
    }
    if location[:1] == ("fixes",):
        models = {1: Fixes, 2: FixAction, 3: FunctionName}
    model = models.get(len(location), MappedRelation)
    keys = [field.alias or name for name, field in model.model_fields.items()]
    return [*keys, "rows"] if location == ("merchants",) else keys


def _dotted(location: Path) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "file"


def _line(location: Path, lines: Lines) -> int | None:
    """Return the line of the nearest enclosing thing that is in the file."""
    for length in range(len(location), 0, -1):
        if location[:length] in lines:
            return lines[location[:length]]
    return None


# --- the meaning: what the field tables say ---------------------------------------------------------------


def problems_of(mapping: SourceMapping, lines: Lines) -> list[MappingProblem]:
    """Return everything in `mapping` that contradicts the field tables or itself."""
    found = list(_merchant_row_problems(mapping))
    for relation in SOURCE_RELATIONS.values():
        part = mapping.relation(relation.name)
        if part is not None:
            found.extend(_relation_problems(relation, part))
    found.extend(_fix_problems(mapping))
    return [_with_line(problem, location, lines) for location, problem in found]


Found = tuple[Path, MappingProblem]


def _with_line(problem: MappingProblem, location: Path, lines: Lines) -> MappingProblem:
    return MappingProblem(
        path=problem.path,
        found=problem.found,
        exists=problem.exists,
        advice=problem.advice,
        line=_line(location, lines),
    )


def _problem(location: Path, found: str, exists: str, advice: str) -> Found:
    return location, MappingProblem(path=_dotted(location), found=found, exists=exists, advice=advice)


def _merchant_row_problems(mapping: SourceMapping) -> Iterator[Found]:
    if not isinstance(mapping.merchants, FixedMerchants):
        return
    ids = [row.merchant_id for row in mapping.merchants.rows]
    if not ids:
        yield _problem(("merchants", "rows"), "found no merchants", "", "describe at least one")
    for number, merchant_id in enumerate(ids):
        if merchant_id in ids[:number]:
            location = ("merchants", "rows", number, "merchant_id")
            yield _problem(location, f"found {shorten(merchant_id)} twice", "", "give each merchant its own id")
    for name in mapping.mapped_relations:
        part = mapping.relation(name)
        default = part.defaults.get("merchant_id") if part else None
        if default is not None and default not in ids:
            yield _problem(
                (name, "defaults", "merchant_id"),
                f"found {shorten(default)}",
                f"merchants.rows has {listed(ids)}",
                did_you_mean(default, ids, "use one of these"),
            )


def _relation_problems(relation: SourceRelation, part: MappedRelation) -> Iterator[Found]:
    yield from _unknown_field_problems(relation, part)
    for field in relation.fields:
        yield from _missing_problems(relation, part, field)
        if field.name in part.defaults:
            yield from _default_problems(relation, part.defaults[field.name], field)
    yield from _divisor_problems(relation, part)
    yield from _status_problems(relation, part)
    for column, words in part.where.items():
        if not words:
            location = (relation.name, "where", column)
            yield _problem(location, "found no words", "", "list the words that the column must have")


def _unknown_field_problems(relation: SourceRelation, part: MappedRelation) -> Iterator[Found]:
    for section in ("columns", "defaults", "divide_by"):
        for name in getattr(part, section):
            if name not in relation.field_names:
                yield _problem(
                    (relation.name, section, name),
                    f"found the unknown field {shorten(name)}",
                    f"fields of {relation.name} are {listed(relation.field_names)}",
                    did_you_mean(name, relation.field_names, "remove it"),
                )


def _missing_problems(relation: SourceRelation, part: MappedRelation, field: SourceField) -> Iterator[Found]:
    if not field.required or field.name in part.columns:
        return
    if field.takes_default and field.name in part.defaults:
        return
    where = f"{relation.name}.columns" + (f" or {relation.name}.defaults" if field.takes_default else "")
    advice = f"name its column in {where}"
    if field.name == "merchant_id" and relation.name == "refunds":
        advice += "; a table of refunds without either: map a view that joins it to the orders, with capture: poll"
    yield _problem((relation.name, "columns", field.name), "found nothing", "", advice)


def _default_problems(relation: SourceRelation, value: str, field: SourceField) -> Iterator[Found]:
    location = (relation.name, "defaults", field.name)
    if not field.takes_default:
        yield _problem(
            location,
            f"found a default for {field.name}",
            "keys, statuses and instants differ from row to row",
            f"name a column in {relation.name}.columns",
        )
        return
    expected = _expected_default(field.kind, value)
    if expected:
        yield _problem(location, f"found {shorten(value)}", f"expected {expected}", "correct it")


def _expected_default(kind: FieldKind, value: str) -> str | None:
    """Return what a default of this kind should look like when `value` does not; None when it is right."""
    match kind:
        case FieldKind.AMOUNT:
            return None if _is_amount(value) else "an amount in units such as 19.99, from 0 to 10^15"
        case FieldKind.POINTS:
            is_digits = value.isascii() and value.isdigit() and len(value) <= 19
            is_points = is_digits and int(value) <= MAX_BIGINT
            return None if is_points else "a whole number of points from 0"
        case FieldKind.CURRENCY:
            is_code = len(value) == 3 and value.isascii() and value.isalpha()
            return None if is_code else "a currency code of three letters such as EUR"
        case FieldKind.BOOLEAN:
            return None if value.lower() in TRUE_WORDS + FALSE_WORDS else "true or false"
        case _:
            return None if value else "a text"


def _is_amount(value: str) -> bool:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        return False
    return amount.is_finite() and 0 <= amount <= Decimal(10) ** 15


def _divisor_problems(relation: SourceRelation, part: MappedRelation) -> Iterator[Found]:
    amounts = [field.name for field in relation.fields if field.kind is FieldKind.AMOUNT]
    for name in part.divide_by:
        if name in relation.field_names and (name not in amounts or name not in part.columns):
            yield _problem(
                (relation.name, "divide_by", name),
                f"found {shorten(name)}",
                f"amounts of {relation.name} are {listed(amounts) or 'none'}",
                "divide_by is for amounts that are mapped to a column",
            )


def _status_problems(relation: SourceRelation, part: MappedRelation) -> Iterator[Found]:
    owner: dict[str, str] = {}
    for ours, theirs in part.status.items():
        if ours not in relation.statuses:
            known = f"statuses of {relation.name} are {listed(relation.statuses) or 'none'}"
            advice = did_you_mean(ours, relation.statuses, "remove it")
            yield _problem((relation.name, "status", ours), f"found the unknown status {shorten(ours)}", known, advice)
        for word in theirs:
            if owner.setdefault(word, ours) != ours:
                found = f"found {shorten(word)} under {owner[word]} and under {ours}"
                yield _problem((relation.name, "status", ours), found, "", "a word has one meaning: keep one")
    if relation.needed_status and not part.status.get(relation.needed_status):
        yield _problem(
            (relation.name, "status", relation.needed_status),
            "found no words",
            "",
            f"list the shop's words for {relation.needed_status}",
        )


def _fix_problems(mapping: SourceMapping) -> Iterator[Found]:
    """What `fixes` asks for and can't get, whatever the database holds."""
    for name, action in (mapping.fixes or Fixes()).actions.items():
        location = ("fixes", name)
        if not action.is_write:
            continue
        if name not in WRITABLE_ACTIONS:
            found = "found write"
            exists = "money is what the payment provider says, not what a row says"
            yield _problem(location, found, exists, "name a function of the shop: {function: schema.name}")
        elif mapping.subscriptions is None:
            yield _problem(location, "found write", "subscriptions are not mapped", "map them, or name a function")
