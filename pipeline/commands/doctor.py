"""Examination of this machine: what will and won't work here."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Callable


def examine() -> dict[str, Any]:
    """Make every check: its name, ok (None: nice to have, and missing) and a detail."""
    rows = [
        _row("python", True, f"{platform.python_version()} on {platform.platform()}"),
        _examined("cores", _cores),
        *[_package(Requirement(text)) for text in requires("hwnas") or () if "extra ==" not in text],
        _examined("torch", _torch),
        _examined("nni", _nni),
        _examined("onnxruntime", _providers),
        _examined("latency store", _store),
        _gpu(),
        _ssh(),
    ]
    return {"ok": all(row["ok"] is not False for row in rows), "checks": rows}


def _row(name: str, ok: bool | None, detail: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail}


def _package(requirement: Requirement) -> dict[str, Any]:
    name = f"package {requirement.name}"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return _row(name, False, f"not installed; needed is {requirement}")
    ok = requirement.specifier.contains(found, prereleases=True)
    return _row(name, ok, found if ok else f"{found}; needed is {requirement.specifier}")


def _examined(name: str, look: Callable[[], str]) -> dict[str, Any]:
    try:
        return _row(name, True, look())
    except Exception as error:  # a broken installation may raise anything, and this command is for finding it
        return _row(name, False, f"{type(error).__name__}: {error}")


def _cores() -> str:
    from latency_models.timer import usable_cores

    return str(usable_cores())


def _torch() -> str:
    import torch

    from pipeline.shims import import_torchvision

    import_torchvision()
    where = f"CUDA {torch.version.cuda}" if torch.cuda.is_available() else "CPU"
    return f"trains on {where} with {torch.get_num_threads()} threads"


def _nni() -> str:
    importlib.import_module("pipeline.nni_types")
    return "model spaces, strategies and Lightning import"


def _providers() -> str:
    import onnxruntime

    return ", ".join(onnxruntime.get_available_providers())


def _store() -> str:
    from latency_models.timing.reference_store import ReferenceStore

    path = ReferenceStore().path
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path.parent} can't be written")
    return str(path)


def _gpu() -> dict[str, Any]:
    from latency_models.counters.nvml import read_gpu
    from latency_models.counters.unavailable import Unavailable

    readings = read_gpu()
    if isinstance(readings, Unavailable):
        return _row("GPU (NVML)", None, f"unavailable: {readings.reason}")
    return _row("GPU (NVML)", True, str(readings.name))


def _ssh() -> dict[str, Any]:
    """Check that devices on other hosts can be reached from here."""
    if (path := shutil.which("ssh")) is None:
        return _row("ssh", None, "not found: devices with a host need OpenSSH's client (package openssh-client)")
    try:
        done = subprocess.run([path, "-V"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return _row("ssh", None, f"{path} can't be run: {error}")
    return _row("ssh", True, " ".join((done.stdout + done.stderr).split()) or path)
