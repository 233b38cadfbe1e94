"""Progress of long work for people: on stderr, a live bar on a terminal and plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from export.bundle.plain_text import clean, clean_line
from pipeline.trials.objectives import as_losses, pareto_front
from pipeline.trials.reporter import Reporter, duration
from pipeline.trials.result import is_stopped, scored_by, stop_phrase

if TYPE_CHECKING:
    from pipeline.config.run import RunConfig
    from pipeline.trials.budget import Budget
    from pipeline.trials.journal import TrialRecord


class TerminalReporter(Reporter):
    """Shows the best so far, the size of the front and the time left, on stderr."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._best: float | None = None
        self._front: list[dict[str, float]] = []
        self._state = ""
        self._share = 0.0
        self._stopped = 0
        self._what = "accuracy"

    def stage(self, text: str) -> None:
        """Print a line of its own."""
        self._print(Text(text, style="bold"))

    def note(self, text: str) -> None:
        """Print an indented line."""
        self._print(Text(f"  {text}"))

    def search_started(self, config: RunConfig, budget: Budget, records: list[TrialRecord]) -> None:
        """Start the bar."""
        self._config, self._budget = config, budget
        self._best, self._front, self._stopped = None, [], 0
        self._take_in(records)
        self._began, self._done_before = time.monotonic(), budget.trials
        if records:
            self.note(f"{len(records)} finished trials are taken from the journal")
        if self._console.is_terminal:
            self._live = Live(self._cut(self._line()), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()

    def trial_started(self, number: int, identity: str) -> None:
        """Name the candidate on the bar."""
        self._state = identity
        self._refresh()

    def trial_progress(self, progress: dict[str, Any]) -> None:
        """Show the epoch on the bar."""
        self._state = f"epoch {progress['epoch']}/{progress['epochs']} {progress['accuracy']:.3f}"
        self._refresh()

    def trial_ended(self, record: TrialRecord) -> None:
        """Update the bar; without a terminal, print a line for each trial that counts."""
        self._take_in([record])
        self._state = stop_phrase(record.details) or self._state
        self._refresh()
        if record.status == "failed":
            self.note(f"trial {record.id} failed: {record.error}")
        if self._live is None and record.status != "infeasible":
            self._print(self._line())

    def search_ended(self, reason: str) -> None:
        """Take the bar away and print its last line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._state = reason
        self._print(self._line(with_time=False))

    def epoch(self, epoch: int, epochs: int, accuracy: float) -> None:
        """Print a line for each tenth of the final training."""
        if epoch == epochs or epoch % max(1, epochs // 10) == 0:
            self.note(f"epoch {epoch}/{epochs}: validation accuracy {accuracy:.4f}")

    def progress(self, text: str, share: float) -> None:
        """Show a live line on a terminal; elsewhere print a line for each tenth."""
        line = Text(f"  {text} ({min(share, 1.0):.0%})")
        if self._console.is_terminal:
            if self._live is None:
                self._live = Live(self._cut(line), console=self._console, refresh_per_second=4, transient=True)
                self._live.start()
            self._live.update(self._cut(line))
        elif int(10 * share) != int(10 * self._share):
            self._print(line)
        self._share = share
        if share >= 1.0:
            self.close()

    def close(self) -> None:
        """Give the terminal back, also after an interruption."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _take_in(self, records: list[TrialRecord]) -> None:
        """Keep the best and the front; all else of a long search needn't be looked at again."""
        feasible = [record.objectives for record in records if record.status == "ok"]
        accuracies = [values["accuracy"] for values in feasible]
        self._best = max(accuracies if self._best is None else [self._best, *accuracies], default=None)
        self._what = "score" if any(scored_by(record.details) for record in records) else self._what
        self._stopped += sum(is_stopped(record.details) for record in records)
        rows = self._front + feasible
        self._front = [rows[i] for i in pareto_front(as_losses(rows, self._config.objectives))]

    def _print(self, text: Text) -> None:
        text.plain = clean(text.plain)  # a text of one style
        self._console.print(text, soft_wrap=True)  # the reader's terminal breaks lines, a log keeps them whole

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._cut(self._line()))

    def _line(self, *, with_time: bool = True) -> Text:
        parts = [
            f"trial {self._budget.trials}/{self._budget.wanted}",
            f"best {self._what} {self._best:.4f}" if self._best is not None else "no feasible candidate yet",
            f"front {len(self._front)}",
            f"over the limits {self._budget.infeasible}",
        ]
        if self._stopped:
            parts.append(f"stopped early {self._stopped}")
        if with_time:
            parts.append(f"time left {self._time_left()}")
        return Text("  " + " · ".join([*parts, self._state]))

    @staticmethod
    def _cut(line: Text) -> Text:
        """Cut a text to the width of the terminal: on the live bar a line must stay a line."""
        line.plain = clean_line(line.plain)
        line.no_wrap, line.overflow = True, "ellipsis"
        return line

    def _time_left(self) -> str:
        """Estimate the time left from this session's own pace; never more than the budget's minutes."""
        done = self._budget.trials - self._done_before
        at_most = self._budget.limit_s - self._budget.elapsed_s
        if not done:
            return f"at most {duration(at_most)}"
        pace = (time.monotonic() - self._began) / done
        return "about " + duration(min(at_most, pace * (self._budget.wanted - self._budget.trials)))
