"""Each command on files through published files and networks of many kinds: does it answer, and how long does it take?

The files are those of judged_networks.py (convolutions, transformers, recurrent layers, a text of open length) and of
the shared data. `predict` times its micro-benchmarks first where there are none for this machine.
"""

import json
import time
from pathlib import Path

from common import hwnas, summary, table
from judged_networks import JudgedFile, judged_files
from options import begin, file_path

_CODES = range(256)
_FIGURES = ("macs", "params", "peak_memory_bytes")


def main() -> None:
    options = begin(__doc__, file_path("--keep", Path("judged-files"), "folder of the exported networks"))
    options.keep.mkdir(parents=True, exist_ok=True)
    rows = [row for file in judged_files(options.keep) for row in _answers(file, options.keep)]
    table(rows)
    print()
    failed = sum(row["code"] != "0" for row in rows)
    summary("commands that answer", f"{len(rows) - failed} of {len(rows)}", "all")
    unknown = [row["file"] for row in rows if row["command"] == "profile" and "null" in row["figures"]]
    summary("files with a figure that can't be had", ", ".join(unknown) or "none", "none, or named with the reason")


def _answers(file: JudgedFile, folder: Path) -> list[dict[str, str]]:
    shapes = [
        word for name, sizes in file.shapes.items() for word in ("--shape", f"{name}={','.join(map(str, sizes))}")
    ]
    commands = {
        "profile": ["profile", file.path, "--seconds", 0.5],
        "predict": ["predict", file.path],
        "compare": ["compare", file.path, file.path, "--seconds", 1],
        "optimize": ["optimize", file.path, "--output", folder / "optimized.onnx", "--seconds", 2],
    }
    return [_answer(file, command, [*words, *shapes, "--json"]) for command, words in commands.items()]


def _answer(file: JudgedFile, command: str, words: list[object]) -> dict[str, str]:
    began = time.perf_counter()
    done = hwnas(*words, codes=_CODES)
    seconds = time.perf_counter() - began
    figures = done.stderr.strip().splitlines()[-1:] if done.returncode else [_figures(json.loads(done.stdout))]
    return {
        "file": file.path.stem,
        "command": command,
        "code": str(done.returncode),
        "s": f"{seconds:.1f}",
        "figures": " ".join(figures)[:110],
    }


def _figures(document: object) -> str:
    row = document[0] if isinstance(document, list) else document
    assert isinstance(row, dict)
    if "macs" in row:
        return ", ".join(f"{name} {row[name]:,}" if row[name] is not None else f"{name} null" for name in _FIGURES)
    if "changed" in row:
        return f"changed {row['changed']}: {row['reason']}"
    return f"{row['latency_ms']:.4g} ms ({row['latency_low_ms']:.4g} to {row['latency_high_ms']:.4g})"


if __name__ == "__main__":
    main()
