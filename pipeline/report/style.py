"""matplotlib in its own style: a `matplotlibrc` of the working folder may be a stranger's, and have programs run."""

from __future__ import annotations

import sys
from contextlib import chdir, contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def own_style() -> Iterator[None]:
    """Draw in matplotlib's own style, as long as the context lasts; a program's own settings are left as they were.

    `text.usetex` would start LaTeX for every word, and a pipe of that name would be waited for.
    """
    if "matplotlib" not in sys.modules:
        # It reads the file of the folder that it is first imported in, and in a Python shell modules come from there.
        with TemporaryDirectory() as empty, chdir(empty):
            import matplotlib
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield
