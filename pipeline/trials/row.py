"""The schema of a journal's rows: what a trial's columns and their JSON may hold, checked whenever one is read."""

from __future__ import annotations

import math
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, cast

from pydantic import AfterValidator, ConfigDict, Field, Json, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from pipeline.spaces.base import architecture_id

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["ok", "infeasible", "failed"]

COLUMNS = (
    "number",
    "id",
    "architecture",
    "status",
    "score",
    "objectives",
    "details",
    "error",
    "started",
    "seconds",
    "elapsed_s",
)
"""Of the table `trials`."""

_DETAILS = COLUMNS.index("details")
_LONGEST_TEXT = 120


def _is_time(text: str) -> str:
    datetime.fromisoformat(text)
    return text


Finite = Annotated[int, Field(ge=-(2**63), lt=2**63)] | Annotated[float, Field(allow_inf_nan=False)]
Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Label = Annotated[str, Field(min_length=1, max_length=1000)]
Value = Annotated[Annotated[str, Field(max_length=1000)] | bool | Finite, Field(union_mode="left_to_right")]
_OPEN = ConfigDict(strict=True, extra="allow")


@with_config(_OPEN)
class _Interval(TypedDict):
    latency_ms: Finite
    low_ms: Finite
    high_ms: Finite


@with_config(_OPEN)
class _Latency(TypedDict):
    source: NotRequired[str]
    low_ms: NotRequired[Finite]
    high_ms: NotRequired[Finite]
    predicted: NotRequired[_Interval]


@with_config(_OPEN)
class _Place(TypedDict):
    number: Count
    after: Count


@with_config(_OPEN)
class _Submission(TypedDict):
    number: Count
    after: Count
    earlier: NotRequired[list[_Place]]
    at_once: NotRequired[bool]
    workers: NotRequired[Count]
    threads: NotRequired[Count]


@with_config(_OPEN)
class _Details(TypedDict):
    """Details of a trial that this program reads; an evaluator may add more."""

    latency: NotRequired[_Latency]
    excess: NotRequired[dict[Label, Finite]]
    curve: NotRequired[list[Finite]]
    stopped_after: NotRequired[Annotated[int, Field(ge=1, lt=2**31)]]
    epochs: NotRequired[Annotated[int, Field(ge=1, lt=2**31)]]
    stopped_by: NotRequired[str]
    zero_cost: NotRequired[dict[Label, Finite]]
    submission: NotRequired[_Submission]


@with_config(ConfigDict(strict=True))
class _Row(TypedDict):
    number: Count
    id: Annotated[str, Field(pattern="^[0-9a-f]{12}$")]
    architecture: Json[dict[str, Value]]
    status: Status
    score: Finite
    objectives: Json[dict[Label, Finite]]
    details: Json[_Details]
    error: str | None
    started: Annotated[str, Field(max_length=100), AfterValidator(_is_time)]
    seconds: Duration
    elapsed_s: Duration


def checked(row: tuple[Any, ...]) -> dict[str, Any]:
    """The values of a row by the names of its columns, its JSON parsed.

    Raises:
        ValueError: a value is not what it has to be; says which trial and which value.
    """
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        found = cast("dict[str, Any]", _adapter().validate_python(values))
    except ValidationError as error:
        raise ValueError(f"trial {_shown(values['number'])}: {first_fault(error)}") from None
    if fault := _contradiction(found):
        raise ValueError(f"trial {found['number']}: {fault}")
    if "NaN" in row[_DETAILS] or "Infinity" in row[_DETAILS]:  # no JSON, but an evaluator may have told so before
        found["details"] = finite(found["details"])
    return found


def finite(value: Any) -> Any:
    """The value as JSON takes it: numbers in it that are none, at any depth, become None."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def first_fault(error: ValidationError) -> str:
    """The first of a schema's complaints in words: where, what is expected, what was found."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"][:1].lower() + first["msg"][1:]
    return f"{place}: {message}, found {_shown(first['input'])}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"


def _contradiction(row: Mapping[str, Any]) -> str:
    """A contradiction between a row's fields; empty where there is none."""
    details, latency = row["details"], row["details"].get("latency", {})
    if row["id"] != architecture_id(row["architecture"]):
        return f"id {row['id']} is not that of its architecture"
    if "source" in latency and not row["objectives"].get("latency_ms", 0) > 0:
        return "a latency in its details, none in its objectives"
    if latency.get("source") == "measured" and not ("low_ms" in latency and "high_ms" in latency):
        return "a measured latency without its interval"
    if any(each.get("low_ms", 0) > each.get("high_ms", math.inf) for each in (latency, latency.get("predicted", {}))):
        return "a latency whose interval ends before it begins"
    if ("stopped_after" in details) != ("epochs" in details):
        return "stopped after some epochs, of which only one number is there"
    return ""


@cache
def _adapter() -> TypeAdapter[_Row]:
    return TypeAdapter(_Row)
