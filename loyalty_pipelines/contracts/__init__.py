"""What is expected of the shop's data: a contract per view, to be copied and edited by the operator."""

import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from loyalty_pipelines.domain.contracts import Contract, ContractError, parse_contract
from loyalty_pipelines.domain.source_fields import SOURCE_RELATIONS
from loyalty_pipelines.domain.source_models import MappingProblem
from loyalty_pipelines.domain.source_rules import did_you_mean, listed

VARIABLE = "LOYALTY_CONTRACTS"


def load_contracts() -> Mapping[str, Contract | ContractError]:
    """Return the contract of each view: the operator's file in the folder LOYALTY_CONTRACTS, else ours.

    Instead of a contract that can't be used stands the error that says why: one wrong file takes neither the others
    with it nor the code location.
    """
    try:
        own = _own_files()
    except ContractError as error:
        return dict.fromkeys(SOURCE_RELATIONS, error)
    return {view: _load(view, own.get(view)) for view in SOURCE_RELATIONS}


def load_contract(view: str) -> Contract:
    """Return the contract of a view; raises ContractError when it can't be used."""
    found = load_contracts()[view]
    if isinstance(found, ContractError):
        raise found
    return found


def _load(view: str, own: Path | None) -> Contract | ContractError:
    try:
        if own is None:
            name = f"{view}.yaml"
            text = files("loyalty_pipelines.contracts").joinpath(name).read_text(encoding="utf-8")
            return parse_contract(view, text, file=name, is_own=False)
        return parse_contract(view, _text(own), file=str(own), is_own=True)
    except ContractError as error:
        return error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise _refused(path, f"found a byte that is not UTF-8 at {error.start}", "save it as UTF-8") from error
    except OSError as error:
        raise _refused(path, f"found that it can't be read ({error.strerror})", "let Dagster's user read it") from error


def _own_files() -> Mapping[str, Path]:
    """Return the operator's files by view."""
    named = os.environ.get(VARIABLE, "").strip()
    if not named:
        return {}
    folder = Path(named).expanduser()
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    except OSError as error:
        advice = f"make the folder, or unset {VARIABLE} to use the contracts that ship"
        raise _refused(folder, f"found no folder that can be read ({error.strerror})", advice) from error
    for path in found:
        if path.suffix != ".yaml" or path.stem not in SOURCE_RELATIONS:
            names = listed(f"{view}.yaml" for view in SOURCE_RELATIONS)
            advice = did_you_mean(path.stem, SOURCE_RELATIONS, "rename it or take it away")
            raise _refused(path, f"found a file of no view; files here are {names}", advice)
    return {path.stem: path for path in found}


def _refused(path: Path, found: str, advice: str) -> ContractError:
    problem = MappingProblem(path="file", found=found, exists="", advice=advice)
    return ContractError(f"{path} ({VARIABLE})", [problem])
