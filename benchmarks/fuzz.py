"""Damaged and hostile files through every command that reads them.

Each case is a small valid file (a config, a devices.yaml, a cost model, a journal, a bundle, an ONNX model) that was
changed at random from a seed, and a command that reads it. The command runs in a process of its own, forked from one
that has imported everything, in a folder of its own, with a home of its own. A case fails if the command

- prints a traceback, or ends with exit code 1 or by a signal,
- takes longer than 60 s,
- writes or changes anything outside of what the command may write (sentinels lie around the folder),
- or prints a control character that a terminal would obey.

What was done is kept in `--keep`: the same command goes on where it was stopped. A failing case can be made again by
its number: `--only N`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from common import summary, table
from fuzz_cases import KINDS, Case, Seeds, case_of
from options import SEED, begin, file_path, option, positive, some_of

_LIMIT_S = 60.0
_SENTINEL = "untouched"
_ALLOWED_CODES = {0, 2, 3, 130}


@dataclass(frozen=True)
class Outcome:
    """What one case did: `faults` is empty where all is well."""

    number: int
    kind: str
    what: str
    words: str
    code: int
    seconds: float
    faults: tuple[str, ...]
    tail: str


def main() -> None:
    options = begin(
        __doc__,
        positive("--cases", 2000, "in all"),
        some_of("--kinds", KINDS, text="of files"),
        file_path("--keep", Path("fuzz-results"), "folder of what was done"),
        option("--only", None, "run this case alone, and leave its folder", type=int),
        SEED,
    )
    options.keep.mkdir(parents=True, exist_ok=True)
    seeds = Seeds.in_folder(options.keep / "seeds")
    _import_everything()
    numbers = range(options.cases) if options.only is None else [options.only]
    done = {} if options.only is not None else _read(options.keep / "outcomes.jsonl")
    with (options.keep / "outcomes.jsonl").open("a", encoding="utf-8") as kept:
        for number in numbers:
            if number in done:
                continue
            kind = options.kinds[number % len(options.kinds)]
            outcome = _run(number, kind, seeds, options)
            done[number] = outcome
            if options.only is None:
                kept.write(json.dumps(asdict(outcome)) + "\n")
                kept.flush()
            if outcome.faults or options.only is not None:
                print(f"case {number} ({outcome.kind}, {outcome.what}): hwnas {outcome.words}")
                print(f"  code {outcome.code}, {outcome.seconds:.1f} s: {'; '.join(outcome.faults) or 'well'}")
                print("  " + outcome.tail.replace("\n", "\n  ")[-1500:], flush=True)
    _print_summary(done.values())


def _print_summary(outcomes: Iterator[Outcome]) -> None:
    found = list(outcomes)
    if not found:
        return
    table(
        {
            "file": kind,
            "cases": str(sum(each.kind == kind for each in found)),
            "codes": ", ".join(
                f"{code}: {count}" for code, count in sorted(Counter(e.code for e in found if e.kind == kind).items())
            ),
            "slowest s": f"{max(each.seconds for each in found if each.kind == kind):.1f}",
            "faults": str(sum(bool(each.faults) for each in found if each.kind == kind)),
        }
        for kind in dict.fromkeys(each.kind for each in found)
    )
    print()
    faults = Counter(fault.split(":")[0] for each in found for fault in each.faults)
    for fault in ("traceback", "exit code", "hang", "outside", "raw escape"):
        summary(f"{fault}, of {len(found)} inputs", str(faults[fault]), "0")


def _read(path: Path) -> dict[int, Outcome]:
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {row["number"]: Outcome(**{**row, "faults": tuple(row["faults"])}) for row in rows}


def _import_everything() -> None:
    """Import what the commands import, so that a forked process has it."""
    import onnxruntime  # noqa: F401
    import torch

    import pipeline.cli.app
    import pipeline.cli.text
    import pipeline.commands.files
    import pipeline.commands.runs
    import pipeline.optimize.optimize
    import pipeline.report.page
    import pipeline.search
    import pipeline.winner.verify  # noqa: F401

    torch.set_num_threads(1)


def _run(number: int, kind: str, seeds: Seeds, options: object) -> Outcome:
    seed = options.seed
    place = (options.keep / f"case-{number}").absolute()
    shutil.rmtree(place, ignore_errors=True)
    inside = place / "work"
    inside.mkdir(parents=True)
    for name in (_SENTINEL, f"home/{_SENTINEL}"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_text("as it was", encoding="utf-8")
    case = case_of(random.Random(f"{seed}/{number}"), kind, seeds, inside)
    before = _state(place, case)
    began = time.monotonic()
    code = _forked(case, place)
    seconds = time.monotonic() - began
    out, err = ((place / name).read_bytes() for name in ("stdout", "stderr"))
    faults = _faults(code, out, err, _changes(before, _state(place, case)))
    tail = (err or out).decode("utf-8", "backslashreplace").strip()[-2000:]
    if not faults and options.only is None:
        shutil.rmtree(place, ignore_errors=True)
    return Outcome(number, kind, case.what, " ".join(case.words), code, seconds, tuple(faults), tail)


def _forked(case: Case, place: Path) -> int:
    """Run a command in a forked process; returns its exit code, minus the signal that ended it, or −99 for a hang."""
    child = os.fork()
    if child == 0:
        _be_the_command(case, place)
    ends_at = time.monotonic() + _LIMIT_S
    while time.monotonic() < ends_at:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -99


def _be_the_command(case: Case, place: Path) -> None:
    """Become the command line; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(place / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(case.folder)
        home = place / "home"
        os.environ.update(HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), XDG_DATA_HOME=str(case.data_home))
        sys.argv = ["hwnas", *case.words]
        from pipeline.cli.app import main as command

        case.prepare()
        try:
            command()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException as error:  # the command's own handling failed: a fault like any other
        os.write(2, f"Traceback: outside of the command: {type(error).__name__}: {error}\n".encode(errors="replace"))
    finally:
        os._exit(code)


def _state(place: Path, case: Case) -> dict[str, tuple[int, int, int]]:
    """Every file around the case that its command must not touch, with its size, mode and time of change."""
    found = {}
    for path in sorted(place.rglob("*")):
        relative = path.relative_to(place)
        if relative.parts[0] in ("stdout", "stderr") or case.may_write(path):
            continue
        details = path.lstat()
        found[str(relative)] = (details.st_size if path.is_file() else 0, details.st_mode, details.st_mtime_ns)
    return {name: entry for name, entry in found.items() if not (place / name).is_dir()}


def _changes(before: dict[str, tuple[int, int, int]], after: dict[str, tuple[int, int, int]]) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _faults(code: int, out: bytes, err: bytes, touched: list[str]) -> list[str]:
    faults = []
    if b"Traceback" in err or b"internal error" in err:
        faults.append("traceback")
    if code == -99:
        faults.append("hang: longer than 60 s")
    elif code not in _ALLOWED_CODES:
        faults.append(f"exit code: {code}")
    if touched:
        faults.append(f"outside: {', '.join(touched[:5])}")
    text = (out + err).decode("utf-8", "replace")
    raw = {each for each in text if (ord(each) < 32 and each not in "\n\t\r") or 0x7F <= ord(each) < 0xA0}
    if raw:
        faults.append(f"raw escape: {', '.join(hex(ord(each)) for each in sorted(raw))}")
    return faults


if __name__ == "__main__":
    main()
