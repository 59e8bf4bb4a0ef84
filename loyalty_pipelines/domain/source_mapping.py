"""The source mapping: how the tables of one shop become the views of `loyalty_source`.

`parse_mapping` turns the operator's YAML into a `SourceMapping`. It needs no database: whether the relations
and columns exist is the business of `loyalty_pipelines.db.sources.check`.
"""

from functools import lru_cache

from pydantic import ValidationError

from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS, UNRECOGNIZED, FieldKind, SourceField
from loyalty_pipelines.domain.source_models import (
    AppliedMapping,
    CaptureMode,
    FixAction,
    FixedMerchants,
    Fixes,
    FunctionName,
    MappedRelation,
    MappingProblem,
    MappingWithdrawnError,
    MerchantRow,
    NoMappingError,
    OutdatedViewsError,
    RelationName,
    SourceMapping,
    SourceMappingError,
)
from loyalty_pipelines.domain.source_rules import problems_of, problems_of_shape
from loyalty_pipelines.domain.source_yaml import YamlProblemError, read_yaml

__all__ = [
    "SOURCE_RELATIONS",
    "UNRECOGNIZED",
    "AppliedMapping",
    "CaptureMode",
    "FieldKind",
    "FixAction",
    "FixedMerchants",
    "Fixes",
    "FunctionName",
    "MappedRelation",
    "MappingProblem",
    "MappingWithdrawnError",
    "MerchantRow",
    "NoMappingError",
    "OutdatedViewsError",
    "RelationName",
    "SourceField",
    "SourceMapping",
    "SourceMappingError",
    "parse_mapping",
]


@lru_cache(maxsize=8)
def parse_mapping(text: str) -> SourceMapping:
    """Return the mapping that the YAML `text` describes: the same one each time, because reading it takes 20 ms.

    Raises SourceMappingError with every problem found, each with the path of the field and its line.
    """
    try:
        data, lines = read_yaml(text)
    except YamlProblemError as error:
        raise SourceMappingError([_yaml_problem(error)]) from error
    if not isinstance(data, dict):
        raise SourceMappingError([_not_a_mapping(data)])
    try:
        mapping = SourceMapping.model_validate(data)
    except ValidationError as error:
        raise SourceMappingError(problems_of_shape(error, lines)) from error
    problems = problems_of(mapping, lines)
    if problems:
        raise SourceMappingError(problems)
    mapping._yaml_text = text
    return mapping


def _yaml_problem(error: YamlProblemError) -> MappingProblem:
    return MappingProblem(path="file", found=error.found, exists="", advice="write it as plain YAML", line=error.line)


def _not_a_mapping(data: object) -> MappingProblem:
    found = "found an empty file" if data is None else f"found a {type(data).__name__} at the top"
    return MappingProblem(
        path="file",
        found=found,
        exists="expected version, capture, merchants, orders ...",
        advice="start from a preset: loyalty sources presets",
    )
