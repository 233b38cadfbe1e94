"""Cases of `fuzz.py`: a damaged file of each kind, and a command that reads it."""

import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import yaml
from fuzz_mutations import HOSTILE, damage_database, damage_model, damaged_bytes, damaged_document, damaged_text
from fuzz_seeds import CONFIG, DEVICES, Seeds

__all__ = ["KINDS", "Case", "Seeds", "case_of"]

_MOST_MEMORY = 12 << 30
_MATPLOTLIB = ("home/config/matplotlib", "home/.cache", "home/.config")


@dataclass
class Case:
    """A command, and the folder that it runs in.

    `writable` are the names in the folder that the command may write; `prepare` runs in its process before it.
    """

    folder: Path
    data_home: Path
    words: list[str] = field(default_factory=list)
    what: str = ""
    writable: tuple[str, ...] = ()
    steps: list[Callable[[], None]] = field(default_factory=list)

    def prepare(self) -> None:
        """Get the command's own process ready."""
        # A file may name any size: the machine shall live through it.
        resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, _MOST_MEMORY))
        for step in self.steps:
            step()

    def may_write(self, path: Path) -> bool:
        """Whether the command may write this file."""
        home = self.folder.parent
        allowed = [self.folder / name for name in self.writable] + [home / name for name in _MATPLOTLIB]
        return any(path == each or each in path.parents for each in allowed) or path == self.folder


def case_of(rng: random.Random, kind: str, seeds: Seeds, folder: Path) -> Case:
    """A case of one kind, with its files in the folder."""
    case = Case(folder, seeds.data_home)
    _KINDS[kind](rng, seeds, case)
    return case


def _config(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A search whose config is damaged; it is stopped where the first trial would begin."""
    case.what = _damaged_text(rng, case.folder / "config.yaml", CONFIG, yaml.safe_dump)
    case.words = ["search", "config.yaml", "--run-dir", "run"]
    case.writable = ("run",)
    case.steps.append(_stop_before_trials)
    if rng.random() < 0.3:
        key = rng.choice(["data.name", "space.width", "budget.trials", "device", "", "a.b.c.d", "strategy.name"])
        case.words += ["--set", f"{key}={str(rng.choice(HOSTILE))[:200]}".replace("\x00", "0")]
        case.words = [each.encode("utf-8", "replace").decode() for each in case.words]


def _stop_before_trials() -> None:
    import pipeline.search
    from pipeline.errors import HwnasError

    def stop(*_: Any, **__: Any) -> None:
        raise HwnasError("here the first trial would begin")

    pipeline.search.run_search = stop  # type: ignore[assignment]


def _devices(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A command with a damaged devices.yaml, the user's own or the working folder's."""
    own = rng.random() < 0.5
    place = case.folder.parent / "home" / "config" / "hwnas" if own else case.folder
    place.mkdir(parents=True, exist_ok=True)
    case.what = _damaged_text(rng, place / "devices.yaml", DEVICES, yaml.safe_dump)
    shutil.copy(seeds.models[0], case.folder / "net.onnx")
    case.words = rng.choice(
        [
            ["list", "devices"],
            ["list", "devices", "--json"],
            ["profile", "net.onnx", "--device", "laptop", "--seconds", "0.1"],
            ["profile", "net.onnx", "--seconds", "0.1", "--json"],
        ]
    )


def _cost_model(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A prediction by a damaged cost model, the run's own or one that its config names."""
    run = _run(seeds, case)
    model = seeds.cost_model if seeds.cost_model.exists() else next(run.glob("cost_model*.json"))
    target = case.folder / "cost_model.json"
    document = json.loads(model.read_text(encoding="utf-8"))
    case.what = _damaged_json(rng, target, document)
    shutil.copy(target, run / "cost_model.json")
    if rng.random() < 0.5:
        case.words = ["predict", "--run", "run", "--architecture", _a_trial(seeds), "--json"]
        return
    (case.folder / "config.yaml").write_text(CONFIG.replace("cost_model: auto", "cost_model: cost_model.json"))
    case.words = ["search", "config.yaml", "--run-dir", "new"]
    case.writable = ("new",)
    case.steps.append(_stop_before_trials)


def _journal(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A command that looks at a run whose journal, config or report is damaged."""
    run = _run(seeds, case)
    way = rng.randrange(4)
    if way == 0:
        case.what = _damaged_text(rng, run / "config.yaml", (run / "config.yaml").read_text("utf-8"), yaml.safe_dump)
    else:
        case.what = damage_database(rng, run / "journal.sqlite", text=json.dumps)
    case.words = rng.choice(
        [
            ["trials", "run"],
            ["trials", "run", "--json"],
            ["trials", "run", "--csv"],
            ["report", "run"],
            ["predict", "--run", "run", "--architecture", _a_trial(seeds)],
            ["resume", "run"],
            ["export", "run", "--pick", rng.choice(["knee", "fastest", "../../x", "\x1b[1m", _a_trial(seeds)])],
        ]
    )
    if case.words[0] == "report":
        case.writable = ("run/report.html",)
    if case.words[0] in ("resume", "export"):
        case.writable = ("run",)
        case.steps.append(_stop_before_training)


def _stop_before_training() -> None:
    _stop_before_trials()
    import pipeline.winner.bundle_builder
    from pipeline.errors import HwnasError

    def stop(*_: Any, **__: Any) -> None:
        raise HwnasError("here the final training would begin")

    pipeline.winner.bundle_builder.BundleBuilder.__init__ = stop  # type: ignore[method-assign, assignment]


def _bundle(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A check of a damaged bundle."""
    from tampering_tools import sign

    bundle = case.folder / "bundle"
    shutil.copytree(seeds.run / "bundle", bundle)
    names = sorted(path.name for path in bundle.iterdir())
    way = rng.randrange(7)
    name = rng.choice(names)
    case.what = f"{name}, way {way}"
    if way <= 2:
        document = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        case.what = "manifest: " + _damaged_json(rng, bundle / "manifest.json", document)
        if way == 1:
            _try(lambda: sign(bundle))
    elif way == 3:
        (bundle / name).write_bytes(damaged_bytes(rng, (bundle / name).read_bytes()))
        if rng.random() < 0.5:
            _try(lambda: sign(bundle))
    elif way == 4:
        model = onnx.load(bundle / "model.onnx")
        case.what = "model: " + damage_model(rng, model)
        _try(lambda: (bundle / "model.onnx").write_bytes(model.SerializeToString()))
        _try(lambda: sign(bundle))
    elif way == 5:
        (bundle / name).unlink()
        _strange_file(rng, bundle / name)
    else:
        _strange_file(rng, bundle / rng.choice(["more", "\x1b[31mred", "model.int8.onnx", ".hidden", "-rf"]))
    case.words = ["verify", "bundle", *rng.choice([[], ["--json"]])]


def _strange_file(rng: random.Random, path: Path) -> None:
    ways: list[Callable[[], object]] = [
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to("../../untouched"),
        lambda: path.mkdir(),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(bytes(10**6)),
        lambda: path.symlink_to(path.name),
    ]
    _try(rng.choice(ways))


def _model(rng: random.Random, seeds: Seeds, case: Case) -> None:
    """A command on a damaged ONNX file."""
    source = rng.choice(seeds.models)
    path = case.folder / "net.onnx"
    if rng.random() < 0.25:
        path.write_bytes(damaged_bytes(rng, source.read_bytes()))
        case.what = f"bytes of {source.stem}"
    else:
        model = onnx.load(source)
        case.what = f"{source.stem}: {damage_model(rng, model)}"
        try:
            path.write_bytes(model.SerializeToString())
        except ValueError:  # a name that is no text
            path.write_bytes(source.read_bytes())
    shutil.copy(seeds.models[0], case.folder / "other.onnx")
    (case.folder / "weights.bin").write_bytes(bytes(64))
    words = {
        "profile": ["profile", "net.onnx", "--seconds", "0.1"],
        "predict": ["predict", "net.onnx"],
        "optimize": ["optimize", "net.onnx", "--output", "out.onnx", "--seconds", "0.5"],
        "compare": ["compare", "other.onnx", "net.onnx", "--seconds", "0.2"],
        "int8": ["profile", "net.onnx", "--seconds", "0.1", "--precision", "int8"],
    }
    case.words = words[rng.choice(list(words))]
    if rng.random() < 0.2:
        case.words += rng.choice(
            [["--shape", "x=1,3,0,12"], ["--shape", "x=99999999,3,9999,9999"], ["--input", "flag=true"], ["--json"]]
        )
    case.writable = ("out.onnx",)


def _run(seeds: Seeds, case: Case) -> Path:
    run = case.folder / "run"
    shutil.copytree(seeds.run, run, symlinks=True)
    return run


def _a_trial(seeds: Seeds) -> str:
    import sqlite3

    with sqlite3.connect(f"file:{seeds.run / 'journal.sqlite'}?mode=ro", uri=True) as connection:
        return str(connection.execute("SELECT id FROM trials ORDER BY number").fetchone()[0])


def _damaged_text(rng: random.Random, path: Path, text: str, dump: Callable[[Any], str]) -> str:
    way = rng.random()
    if way < 0.1:
        path.write_bytes(damaged_bytes(rng, text.encode()))
        return "bytes"
    if way < 0.4:
        path.write_text(damaged_text(rng, text), encoding="utf-8")
        return "text"
    try:
        written = dump(damaged_document(rng, yaml.safe_load(text)))
    except (yaml.YAMLError, RecursionError, ValueError):
        written = text
    path.write_bytes(written.encode("utf-8", "surrogatepass"))
    return "document"


def _damaged_json(rng: random.Random, path: Path, document: Any) -> str:
    way = rng.random()
    if way < 0.1:
        path.write_bytes(damaged_bytes(rng, json.dumps(document).encode()))
        return "bytes"
    if way < 0.3:
        path.write_text(damaged_text(rng, json.dumps(document)), encoding="utf-8")
        return "text"
    try:
        path.write_text(json.dumps(damaged_document(rng, document)), encoding="utf-8")
    except (TypeError, ValueError, RecursionError):
        path.write_text("{}", encoding="utf-8")
    return "document"


def _try(work: Callable[[], object]) -> None:
    """Do what may not be possible with what is there by now."""
    try:
        work()
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return


_KINDS: dict[str, Callable[[random.Random, Seeds, Case], None]] = {
    "config": _config,
    "model": _model,
    "devices": _devices,
    "journal": _journal,
    "bundle": _bundle,
    "cost model": _cost_model,
    "model again": _model,
}
KINDS = list(_KINDS)
"""Kinds of files; models take two turns."""
