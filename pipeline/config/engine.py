"""The config's section `engine`, for each name."""

from __future__ import annotations

from typing import Literal

from pipeline.config.base import Count, Positive, Section


class AutoOptions(Section):
    """Options of `auto`: trainings side by side on `cores` (all that the process may use), or one at a time."""

    name: Literal["auto"]
    cores: Count | None = None
    trial_minutes: Positive = 30.0
    memory_gb: Positive | None = None


class InlineOptions(Section):
    """Options of `inline`: one child process, replaced when it dies, hangs or takes too much memory."""

    name: Literal["inline"]
    trial_minutes: Positive = 30.0
    memory_gb: Positive | None = None


class ProcessesOptions(Section):
    """Options of `processes`: several child processes that share cores and memory, by default one a core."""

    name: Literal["processes"]
    workers: Count | None = None
    trial_minutes: Positive = 30.0
    memory_gb: Positive | None = None
