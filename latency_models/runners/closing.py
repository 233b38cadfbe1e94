"""The base of objects that hold a process, a session or memory until they are closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType


class Closing:
    """A context manager that closes itself at the end of a `with`. This base holds nothing."""

    def close(self) -> None:
        """Free the process, session or memory that is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
