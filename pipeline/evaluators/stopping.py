"""The rule of an evaluator's section, `train`'s or a third party's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pipeline.config.evaluator import StoppingOptions
from pipeline.errors import EvaluatorError
from pipeline.evaluators.learning_curve import peers_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import BaseModel

    from pipeline.trials.journal import TrialRecord


def stopping_of(section: BaseModel, evaluator: object) -> StoppingOptions:
    """The checked rule; none where the evaluator doesn't stop.

    Raises:
        EvaluatorError: a third party's section holds what is no rule.
    """
    given: Any = getattr(section, "stopping", None)
    if given is None or not getattr(evaluator, "stops", False):
        return StoppingOptions()
    if isinstance(given, StoppingOptions):
        return given
    try:
        return StoppingOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in ("evaluator", "stopping", *first["loc"]))
        raise EvaluatorError(
            f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}, found {first['input']!r};"
            f" keys: {', '.join(StoppingOptions.model_fields)}"
        ) from None


def peers_for(section: BaseModel, records: Iterable[TrialRecord]) -> list[dict[str, Any]]:
    """The trials that one of this section is compared with; none where no rule compares."""
    given: Any = getattr(section, "stopping", None)
    rule = given.get("rule") if isinstance(given, dict) else getattr(given, "rule", None)
    return [] if rule in (None, "none") else peers_of(records)
