"""Run directories: what libraries say goes to the run's log, and a program's own logging is left as it was."""

import logging
import warnings
from pathlib import Path

from helpers.cli import SMALL
from pipeline.config.file import parse_config
from pipeline.run import RunDirectory


def test_chatter_goes_to_the_log_for_a_while(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", parse_config(dict(SMALL), "here"))
    root, shown = logging.getLogger(), warnings.showwarning
    before = (root.handlers[:], root.level)
    with run.log_chatter():
        logging.getLogger("library").warning("told by a library")
        warnings.warn("an odd thing", UserWarning, stacklevel=1)
    assert (root.handlers, root.level) == before
    assert warnings.showwarning is shown
    logging.getLogger("library").warning("told afterwards")
    log = run.log.read_text(encoding="utf-8")
    assert "told by a library" in log
    assert "an odd thing" in log
    assert "afterwards" not in log
