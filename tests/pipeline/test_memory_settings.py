"""Freed memory stays with a process while it trains, goes back afterwards, and the user's own settings stay."""

import json
import os
import subprocess
import sys

import pytest

from latency_models.timer import give_back_memory
from pipeline.memory_settings import kept_memory

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "glibc" not in os.confstr("CS_GNU_LIBC_VERSION"), reason="glibc alone is set"
)

# Large blocks, taken and freed in turn as a step's activations are; in a process of its own, because what glibc has
# learnt about blocks stays.
PROGRAM = """
import contextlib, ctypes, json, resource, sys
from pipeline.memory_settings import kept_memory
block = 40 * 2**20
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
def step():
    at = libc.malloc(ctypes.c_size_t(block)); ctypes.memset(at, 1, block); libc.free(at)
def steps():
    step()
    before = faults()
    for _ in range(5): step()
    return faults() - before
plain = steps()
rest = resident()
with kept_memory():
    with kept_memory():
        kept = steps()
    still = steps()
    within = resident() - rest
print(json.dumps({"plain": plain, "kept": kept, "still": still, "within": within, "after": resident() - rest,
                  "again": steps()}))
"""
BLOCK, PAGES = 40 * 2**20, 40 * 2**20 // 4096


def seen(**more: str) -> dict[str, int]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**clean, **more}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_memory_is_kept_within_and_given_back_afterwards() -> None:
    found = seen()
    assert found["plain"] > PAGES / 2  # huge pages would be fewer
    assert found["kept"] < PAGES / 10
    assert found["still"] < PAGES / 10  # the inner use has ended, the outer one lasts
    assert found["within"] > BLOCK / 2
    assert found["after"] < BLOCK / 2
    assert found["again"] > PAGES / 2


@pytest.mark.parametrize(
    "settings", [{"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}, {"MALLOC_MMAP_THRESHOLD_": "131072"}]
)
def test_what_the_user_has_set_stays(settings: dict[str, str]) -> None:
    assert seen(**settings)["kept"] > PAGES / 2


def test_ends_with_an_error_too() -> None:
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    give_back_memory()
