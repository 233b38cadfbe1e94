"""The record of a run's reference points, `references.json`; it exists once they have been asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from latency_models.files import read_file
from pipeline.errors import ReferencesError
from pipeline.files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.run import RunDirectory


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
    latency_ratio: float
    latency_ratio_low: float
    latency_ratio_high: float
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
    file: str | None = None
    metrics: dict[str, Any] = {}
    parity: str | None = None
    broken_limits: str = ""
    against_winner: AgainstWinner | None = None


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
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
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
