"""The record of a run's reference points, `references.json`; it exists once they have been asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator, with_config
from typing_extensions import TypedDict

from latency_models.files import read_file
from pipeline.errors import ReferencesError
from pipeline.files import write_whole
from pipeline.trials.row import first_fault

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.run import RunDirectory


_Share = Annotated[float, Field(ge=0, le=1)]
_Cost = Annotated[float, Field(gt=0)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_FILE_NAME = r"^references/[A-Za-z0-9_-][A-Za-z0-9._-]*\.onnx$"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


@with_config(ConfigDict(extra="allow", strict=True, allow_inf_nan=False))
class _Metrics(TypedDict):
    """Metrics of a reference that this program reads; a later version may add more."""

    accuracy_validation: NotRequired[_Share]
    accuracy_test: NotRequired[_Share]
    latency_ms: NotRequired[_Cost | None]
    latency_low_ms: NotRequired[_Cost | None]
    latency_high_ms: NotRequired[_Cost | None]
    size_bytes: NotRequired[_Count | None]
    peak_memory_bytes: NotRequired[_Count | None]
    macs: NotRequired[_Count | None]
    params: NotRequired[_Count | None]
    energy_mj: NotRequired[float | None]


_METRICS: TypeAdapter[_Metrics] = TypeAdapter(_Metrics)
_OF_FINISHED = {"accuracy_validation", "accuracy_test"}


class AgainstWinner(_Record):
    """A reference compared with the winner; differences and ratios are the reference's over the winner's.

    Attributes:
        winner: the trial's id.
        file_sha256: of the winner's file that was timed.
        latency_ratio: of times taken in alternation, with its 95 % interval.
        accuracy_test_difference: 0.01 where the reference is right for one image in a hundred more.
    """

    winner: str
    file_sha256: str
    latency_ratio: _Cost
    latency_ratio_low: _Cost
    latency_ratio_high: _Cost
    accuracy_validation_difference: float
    accuracy_test_difference: float


class Reference(_Record):
    """One reference point, finished or failed.

    Attributes:
        name: in the table, or a dotted path.
        recipe: a digest of all that decides its training and export.
        status: `failed` with the reason in `error`.
        seed: of its training.
        epochs: number of epochs trained.
        training_s: wall time of training, exporting and measuring.
        file: that the device runs, relative to the run directory.
        metrics: as the manifest has them for the winner.
        parity: ONNX Runtime against torch, in words.
        broken_limits: limits of the config that it breaks, which it needn't keep.
        against_winner: None until there is a winner.
    """

    name: str
    recipe: str
    status: Literal["ok", "failed"]
    error: str | None = None
    seed: int | None = None
    epochs: int | None = None
    training_s: float | None = None
    file: Annotated[str, Field(pattern=_FILE_NAME, max_length=300)] | None = None
    metrics: dict[str, Any] = {}
    parity: str | None = None
    broken_limits: str = ""
    against_winner: AgainstWinner | None = None

    @model_validator(mode="after")
    def _check_metrics(self) -> Self:
        try:
            metrics = _METRICS.validate_python(self.metrics)
        except ValidationError as error:
            raise ValueError(f"metrics.{first_fault(error)}") from None
        if self.status == "ok" and (missing := _OF_FINISHED - metrics.keys()):
            raise ValueError(f"metrics.{min(missing)}: is missing of a finished reference")
        return self


class References(_Record):
    """The content of the file.

    Attributes:
        version: of its format.
        references: in the order in which they were trained.
    """

    version: Literal[1] = 1
    references: tuple[Reference, ...] = ()

    def of(self, name: str) -> Reference | None:
        """The reference of that name, if there is one."""
        return next((reference for reference in self.references if reference.name == name), None)

    def with_one(self, reference: Reference) -> References:
        """A copy with this reference in place of the one of its name, or at the end."""
        if self.of(reference.name) is None:
            return self.model_copy(update={"references": (*self.references, reference)})
        kept = tuple(reference if known.name == reference.name else known for known in self.references)
        return self.model_copy(update={"references": kept})

    def without_failed(self) -> References:
        """A copy with the finished references alone, so that the others are tried again."""
        return self.model_copy(update={"references": tuple(r for r in self.references if r.status == "ok")})


def path_of(run: RunDirectory) -> Path:
    """The path of a run's file."""
    return run.path / "references.json"


def read(run: RunDirectory) -> References | None:
    """Read a run's file; None where references weren't asked for.

    Raises:
        ReferencesError: the file is damaged.
    """
    path = path_of(run)
    try:
        return References.model_validate_json(read_file(path))
    except FileNotFoundError:
        return None
    except (ValidationError, OSError) as error:
        first = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ReferencesError(f"{path} is damaged: {first}; delete it and ask with --references again") from error


def write(run: RunDirectory, references: References) -> None:
    """Write a run's file."""
    write_whole(path_of(run), f"{references.model_dump_json(indent=2)}\n".encode())


def ask(run: RunDirectory) -> None:
    """Record that references are asked for; those that failed before are tried again.

    Raises:
        ReferencesError: there is a file already, and it is damaged.
    """
    write(run, (read(run) or References()).without_failed())
