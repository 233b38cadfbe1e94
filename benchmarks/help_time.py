"""Time of `hwnas --help`, and the packages that it imports.

Fresh processes of `hwnas --help` alternate with an empty Python program, which shows what the interpreter alone
takes at that moment. None of the heavy packages may be imported for a page of help.
"""

import statistics
import subprocess
import sys
import time

from common import HWNAS, spread, summary
from options import begin, positive

_GOAL_S = 0.4
_UNWANTED = ("torch", "nni", "onnx", "numpy")


def main() -> None:
    runs = begin(__doc__, positive("--runs", 20, "of each program")).runs
    help_s, empty_s = [], []
    _seconds([str(HWNAS), "--help"])  # the first reads the disk
    for _ in range(runs):
        help_s.append(_seconds([str(HWNAS), "--help"]))
        empty_s.append(_seconds([sys.executable, "-c", "pass"]))
    print(f"hwnas --help:    {spread(help_s, 3)} s over {runs} runs")
    print(f"python -c pass:  {spread(empty_s, 3)} s over {runs} runs")
    imported = _imported()
    unwanted = [name for name in _UNWANTED if name in imported]
    print(f"top-level packages imported: {len(imported)}")
    median, least = statistics.median(help_s), min(help_s)
    summary("hwnas --help", f"median {median:.3f} s, min {least:.3f} s", f"at most {_GOAL_S} s")
    summary("heavy packages that it imports", ", ".join(unwanted) or "none", f"none of {', '.join(_UNWANTED)}")


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _imported() -> set[str]:
    """Top-level names in `sys.modules` when the help has been printed."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: sys.stderr.write(' '.join({m.partition('.')[0] for m in sys.modules})))\n"
        "from pipeline.cli.app import main\n"
        "sys.argv = ['hwnas', '--help']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


if __name__ == "__main__":
    main()
