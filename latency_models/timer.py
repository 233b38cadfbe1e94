"""The program that runs models under the clock: one file that needs only Python 3.9, numpy and onnxruntime.

It runs in three places: imported; as a fresh worker process (`python timer.py`); on another host, to which it is sent
over ssh. The latter two serve requests over their standard input and output, as frames: the length of a header, the
header in JSON with the sizes of the binary parts, the parts.

An inference is `InferenceSession.run` with arrays in and arrays out, as a deployment calls it: on a GPU the copies
there and back are part of its time, and it is over when the results are in the host's memory.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import platform
import struct
import sys
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import BinaryIO

    import numpy as np

    Answer = tuple[dict[str, Any], list[memoryview]]

PROTOCOL = 1
"""The version of requests and answers, which has to be the same at both ends."""
MAGIC = b"\x01hwnas timer\x02"
"""The bytes before the first answer; a login shell may print something before them."""
CPU_PROVIDER = "CPUExecutionProvider"

# From 1.29 on ONNX Runtime reports its use to its maker unless told otherwise before it is first imported: a thread and
# a network connection beside what is timed, and files in the home folder.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_LENGTH = struct.Struct("<I")
_LONGEST_HEADER = 1 << 24
_LONGEST_LINE = 300
CANT_LOAD = "ONNX Runtime can't load it"
"""How the reason begins where a model is refused before anything is run; other inputs don't help."""
SEED = 20240229
SILENT = 4  # ONNX Runtime's log level: an error is raised as well, and its text holds names of the file
_KILL, _PR_SET_PDEATHSIG = 9, 1
_CPU_FOLDER = "/sys/devices/system/cpu/cpu0"
_GPU_FOLDER = "/proc/driver/nvidia/gpus"
_DTYPES = {
    "tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}  # fmt: skip
# One Identity: tells a provider that can't be used from a model that it can't run.
_SMALLEST_MODEL = bytes.fromhex(
    "08073a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a00100d"
)


class RefusedError(Exception):
    """A refused request; its `kind` is the cause: the "model", the "device" and its settings, or the "timer" itself."""

    def __init__(self, kind: str, reason: str) -> None:
        self.kind = kind
        self.reason = reason
        super().__init__(reason)


# ---- the clock


def stays_in_thread(provider: str, threads: int) -> bool:
    """Whether a run does all its work in the calling thread, whose processor time can be read."""
    # Elsewhere than on POSIX systems the clock of a thread moves in steps of many milliseconds.
    return os.name == "posix" and provider == CPU_PROVIDER and threads == 1


def burst(run: Callable[[], object], runs: int, *, in_thread: bool) -> np.ndarray:
    """Run `runs` times and return an int64 array (2, runs) in ns: wall times and undisturbed times.

    An interruption by another process lengthens the wall time. The thread's processor time leaves it out, but reading
    it takes a moment. The shorter of the two is the undisturbed time; without `in_thread` it is the wall time.
    """
    import numpy as np

    wall = time.perf_counter_ns
    if not in_thread:
        times = []
        for _ in range(runs):
            before = wall()
            run()
            times.append(wall() - before)
        return np.array([times, times], np.int64)
    processor = time.thread_time_ns
    walls, processors = [], []
    for _ in range(runs):
        processor_before = processor()
        before = wall()
        run()
        after = wall()
        processors.append(processor() - processor_before)
        walls.append(after - before)
    return np.array([walls, np.minimum(walls, processors)], np.int64)


def alternate(
    calls: Sequence[Callable[[], object]], runs: Sequence[int], rounds: int, *, in_thread: bool
) -> tuple[list[np.ndarray], float]:
    """Run a burst of each call in turn, `rounds` times.

    Returns one int64 array (rounds, 2, runs) in ns a call, as from `burst`, and this thread's share of a core.
    """
    import numpy as np

    times = [np.empty((rounds, 2, count), np.int64) for count in runs]
    # A collection in the middle of a run would be timed as part of it.
    collects = gc.isenabled()
    gc.disable()
    try:
        wall_start, cpu_start = time.perf_counter(), time.thread_time()
        for at in range(rounds):
            for call, count, into in zip(calls, runs, times):  # noqa: B905 - Python 3.9 has no `strict`
                into[at] = burst(call, count, in_thread=in_thread)
        cpu_s, wall_s = time.thread_time() - cpu_start, time.perf_counter() - wall_start
    finally:
        if collects:
            gc.enable()
    return times, cpu_s / wall_s if wall_s > 0 else 1.0


# ---- models


class Session:
    """A loaded model with its inputs, run once as a check.

    `model` is the path of a file or its bytes. `feed` are input arrays by name; without them inputs are made up.
    Raises RefusedError for a model that can't be loaded or run, and for a provider that can't be used.
    """

    def __init__(
        self,
        model: bytes | str,
        *,
        provider: str,
        provider_options: Mapping[str, str],
        threads: int,
        batch_size: int,
        feed: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        check_provider(provider)
        self._session = _loaded(model, provider, provider_options, threads)
        give_back_memory()  # loading leaves as much free memory behind as the weights take, or twice as much
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.feed = dict(feed) if feed is not None else _made_up_feed(self._session.get_inputs(), batch_size)
        refusals: tuple[type[Exception], ...] = (ValueError, *runtime_errors())
        started = time.perf_counter()
        # An operator may load and yet refuse its input: better now than under the clock.
        try:
            self.run()
        except refusals as error:
            raise RefusedError("model", f"the model can't be run: {one_line(error)}") from error
        self.first_run_s = time.perf_counter() - started

    def run(self) -> None:
        """Make one inference; its outputs are dropped."""
        self._session.run(self._outputs, self.feed)


@lru_cache(maxsize=1)
def c_library() -> Any:
    """The C library where it is glibc, as ctypes has it; else None."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes
    except ImportError:  # a Python that was built without it
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") and hasattr(library, "mallopt") else None


def give_back_memory() -> None:
    """Give memory that is free back to the kernel; where the C library isn't glibc nothing happens."""
    library = c_library()
    if library is not None:
        library.malloc_trim(0)


def check_provider(provider: str) -> None:
    """Raise RefusedError for an execution provider that the installed ONNX Runtime doesn't have."""
    import onnxruntime

    installed = onnxruntime.get_available_providers()
    if provider not in installed:
        raise RefusedError(
            "device",
            f"it needs ONNX Runtime's {provider}, which is not in the build of onnxruntime {onnxruntime.__version__} "
            f"that is installed; installed: {', '.join(installed)}",
        )


def session_options(threads: int) -> Any:
    """ONNX Runtime's options for every timed session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = SILENT
    return options


def providers(provider: str, options: Mapping[str, str]) -> list[Any]:
    """The device's provider with its options, and the CPU's for the operators that it lacks."""
    own = (provider, dict(options)) if options else provider
    return [own] if provider == CPU_PROVIDER else [own, CPU_PROVIDER]


def runtime_errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions: they share no base class of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    found = (getattr(state, name) for name in dir(state))
    return tuple(each for each in found if isinstance(each, type) and issubclass(each, Exception))


def _loading_errors() -> tuple[type[Exception], ...]:
    return (ValueError, RuntimeError, *runtime_errors())


def _loaded(model: bytes | str, provider: str, options: Mapping[str, str], threads: int) -> Any:
    try:
        session = _session(model, provider, options, threads)
    except _loading_errors() as error:
        _blame_the_provider(provider, options, threads)
        # Most are ONNX, but hold what this runtime has no kernel for, or is mistaken about.
        said = "not a loadable ONNX model" if type(error).__name__ == "InvalidProtobuf" else CANT_LOAD
        raise RefusedError("model", f"{said}: {one_line(error)}") from error
    if provider not in session.get_providers():
        _unusable(provider, f"it was left out of the session, which got {', '.join(session.get_providers())}")
    return session


def _session(model: bytes | str, provider: str, options: Mapping[str, str], threads: int) -> Any:
    import onnxruntime

    # No fallback: a time on the CPU must never pass for one on the device.
    return onnxruntime.InferenceSession(
        model, session_options(threads), providers=providers(provider, options), enable_fallback=0
    )


def _blame_the_provider(provider: str, options: Mapping[str, str], threads: int) -> None:
    """Raise RefusedError where not even the smallest model can be loaded."""
    if provider == CPU_PROVIDER and not options:
        return
    try:
        _session(_SMALLEST_MODEL, provider, options, threads)
    except _loading_errors() as error:
        _unusable(provider, one_line(error))


def _unusable(provider: str, why: str) -> NoReturn:
    raise RefusedError("device", f"ONNX Runtime's {provider} can't be used: {why}")


def _made_up_feed(declared: Sequence[Any], batch_size: int) -> dict[str, np.ndarray]:
    """Made-up inputs by name: floats in [0, 1) from a fixed seed, zeros for other types."""
    import numpy as np

    shapes = batch_sizes({each.name: each.shape for each in declared}, batch_size)
    rng = np.random.default_rng(SEED)
    return {each.name: made_up_input(each.type, shapes[each.name], rng) for each in declared}


def check_input_type(kind: str) -> None:
    """Raise RefusedError unless ONNX Runtime takes NumPy's arrays for inputs of its type `kind`."""
    if kind not in _DTYPES:
        raise RefusedError("model", f"inputs of type {kind} can't be given or made up; valid: {', '.join(_DTYPES)}")


def made_up_input(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """An array for an input of ONNX Runtime's type `kind`. RefusedError for a type or sizes that can't be had."""
    import numpy as np

    check_input_type(kind)
    dtype = np.dtype(_DTYPES[kind])
    try:
        if dtype.kind == "f":
            return rng.random(shape, dtype=np.float32).astype(dtype, copy=False)
        return np.zeros(shape, dtype)
    except (MemoryError, ValueError) as error:
        sizes = ",".join(map(str, shape))
        raise RefusedError("model", f"an input of the sizes {sizes} doesn't fit in memory") from error


def batch_sizes(declared: Mapping[str, Sequence[int | str | None]], batch_size: int) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs at `batch_size`, from declared sizes and names (None: open and unnamed).

    The batch is the first dimension where it is open, and any other of the same name. Raises RefusedError where
    another dimension is open, or where all first dimensions are fixed and none at a `batch_size` above 1.
    """
    firsts = [shape[0] for shape in declared.values() if shape]
    # A file that fixes its batch can't be run with another one; 1 is the default, which nobody asked for.
    fixed = [first for first in firsts if isinstance(first, int)]
    if batch_size > 1 and len(fixed) == len(firsts) > 0 and batch_size not in fixed:
        raise RefusedError("model", f"its batch is fixed at {fixed[0]}; it can't be run with {batch_size}")
    batch_names = {first for first in firsts if isinstance(first, str)}
    sizes: dict[str, tuple[int, ...]] = {}
    for name, shape in declared.items():
        for axis, size in enumerate(shape):
            if axis > 0 and not isinstance(size, int) and size not in batch_names:
                raise RefusedError(
                    "model",
                    f"dimension {size or f'at axis {axis}'!r} of input {name!r} is not fixed; "
                    "only the first, the batch, may be open",
                )
        sizes[name] = tuple(size if isinstance(size, int) else batch_size for size in shape)
    return sizes


def one_line(error: BaseException) -> str:
    """An error's message as one line of at most 300 characters; a longer one keeps its end, where the reason is."""
    text = " ".join(str(error).split())
    if len(text) <= _LONGEST_LINE:
        return text
    beginning = _LONGEST_LINE // 3
    return f"{text[:beginning]} … {text[beginning + 3 - _LONGEST_LINE :]}"


# ---- the machine


def facts() -> dict[str, Any]:
    """The facts of this machine that a time depends on: hardware, software, load.

    `cpu_flags_digest` stands for the instruction sets, which choose ONNX Runtime's kernels. `gpus` are the models of
    the NVIDIA GPUs that the driver lists. `load` is the 1-minute load average, None where the system keeps none.
    """
    return {
        **_lasting_facts(),
        "cores": usable_cores(),
        "governor": _read(f"{_CPU_FOLDER}/cpufreq/scaling_governor"),
        "load": load_average(),
    }


@lru_cache(maxsize=None)  # noqa: UP033 - what `functools.cache` is, by a name that needs no thought of versions
def _lasting_facts() -> dict[str, Any]:
    import numpy as np
    import onnxruntime

    cpu_model, flags_digest = _cpu()
    return {
        "cpu_model": cpu_model,
        "cpu_flags_digest": flags_digest,
        "l2_cache_bytes": l2_cache_bytes(),
        "gpus": _gpus(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "providers": onnxruntime.get_available_providers(),
        "platform": platform.platform(),
    }


def usable_cores() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """The 1-minute load average, None where the system keeps none."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def _cpu() -> tuple[str, str]:
    """The CPU's name and a digest of its instruction sets."""
    fields: dict[str, str] = {}
    text = _read("/proc/cpuinfo")
    for line in text.splitlines():
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    if not fields:
        return platform.processor() or platform.machine(), ""
    name = fields.get("model name") or fields.get("Model") or platform.machine()
    flags = " ".join(sorted((fields.get("flags") or fields.get("Features") or "").split()))
    return name, hashlib.sha256(flags.encode()).hexdigest()[:12]


def l2_cache_bytes(folder: str = f"{_CPU_FOLDER}/cache/index2") -> int | None:
    """The second-level cache's size, as Linux has it in `folder`; None where the system doesn't tell."""
    size = _read(f"{folder}/size")
    if _read(f"{folder}/level") == "2" and size[:-1].isdigit() and size[-1] in "KM":
        return int(size[:-1]) * (1024 if size[-1] == "K" else 1024 * 1024)
    try:
        return os.sysconf("SC_LEVEL2_CACHE_SIZE") or None
    except (AttributeError, ValueError, OSError):
        return None


def _gpus() -> list[str]:
    try:
        cards = sorted(os.listdir(_GPU_FOLDER))  # noqa: PTH208 - plain paths throughout this file
    except OSError:
        return []
    lines = [line for card in cards for line in _read(f"{_GPU_FOLDER}/{card}/information").splitlines()]
    return [line.partition(":")[2].strip() for line in lines if line.startswith("Model")]


def _read(path: str) -> str:
    """The text of a small system file, or the reason why it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().strip()
    except OSError as error:
        return f"unavailable: {error.strerror or type(error).__name__}"


# ---- requests and answers


def write_frame(stream: BinaryIO, header: Mapping[str, Any], parts: Sequence[bytes | memoryview] = ()) -> None:
    """Write one request or answer."""
    sizes = [memoryview(part).nbytes for part in parts]
    encoded = json.dumps({**header, "parts": sizes}).encode()
    stream.write(_LENGTH.pack(len(encoded)) + encoded)
    for part in parts:
        stream.write(part)
    stream.flush()


def read_frame(stream: BinaryIO, longest_part: int = 1 << 33) -> tuple[dict[str, Any], list[bytes]] | None:
    """The next request or answer; None at the stream's end. Raises ValueError for bytes that are no frame."""
    length = stream.read(_LENGTH.size)
    if len(length) < _LENGTH.size:
        return None
    (size,) = _LENGTH.unpack(length)
    if size > _LONGEST_HEADER:
        raise ValueError(f"a header of {size} bytes")
    encoded = stream.read(size)
    if len(encoded) < size:
        return None
    header = json.loads(encoded)
    sizes = header.pop("parts")
    if not all(isinstance(each, int) and 0 <= each <= longest_part for each in sizes):
        raise ValueError(f"parts of {sizes} bytes")
    parts = [stream.read(each) for each in sizes]
    whole = all(len(part) == each for part, each in zip(parts, sizes))  # noqa: B905
    return (header, parts) if whole else None


class _Server:
    """The sessions of one caller, who first sends the device's settings, then models and runs of them."""

    def __init__(self) -> None:
        self._settings: dict[str, Any] = {}
        self._sessions: dict[int, Session] = {}
        self._next = 0

    def answer(self, request: dict[str, Any], parts: list[bytes]) -> Answer:
        """The answer's header and parts. Raises RefusedError."""
        handler: Callable[..., Answer] = getattr(self, f"_do_{request.pop('do')}")
        return handler(parts, **request)

    def _do_open(self, parts: list[bytes], threads: int, provider: str, provider_options: dict[str, str]) -> Answer:
        check_provider(provider)
        if threads > usable_cores():
            raise RefusedError("device", f"threads is {threads}, but there are {usable_cores()} cores for it")
        self._settings = {"threads": threads, "provider": provider, "provider_options": provider_options}
        return {}, []

    def _do_facts(self, parts: list[bytes]) -> Answer:
        return {"facts": facts()}, []

    def _do_load(self, parts: list[bytes], batch_size: int, path: str | None, feeds: list[list[Any]] | None) -> Answer:
        import numpy as np

        model = path if path is not None else parts.pop(0)
        feed = None
        if feeds is not None:
            feed = {
                name: (np.frombuffer(part, np.dtype(kind)) if part else np.empty(0, kind)).reshape(shape)
                for (name, kind, shape), part in zip(feeds, parts)  # noqa: B905
            }
        session = Session(model, batch_size=batch_size, feed=feed, **self._settings)
        self._next += 1
        self._sessions[self._next] = session
        return {"handle": self._next, "first_run_s": session.first_run_s}, []

    def _do_alternate(self, parts: list[bytes], handles: list[int], runs: list[int], rounds: int) -> Answer:
        calls = [self._sessions[handle].run for handle in handles]
        in_thread = stays_in_thread(self._settings["provider"], self._settings["threads"])
        times, cpu_share = alternate(calls, runs, rounds, in_thread=in_thread)
        samples = [array.astype("<i8", copy=False).data for array in times]
        return {"cpu_share": cpu_share}, samples

    def _do_unload(self, parts: list[bytes], handle: int) -> Answer:
        del self._sessions[handle]
        return {}, []


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Write a hello, then answer requests until they end."""
    server = _Server()
    hello = {"protocol": PROTOCOL, "python": platform.python_version(), "executable": sys.executable}
    sink.write(MAGIC)
    missing = _missing()
    write_frame(sink, {**hello, "missing": missing})
    while missing is None and (request := read_frame(source)) is not None:
        parts: list[memoryview] = []
        try:
            answer, parts = server.answer(*request)
        except RefusedError as refused:
            answer = {"refused": refused.kind, "reason": refused.reason}
        except Exception as error:  # lack of memory, say, ends one request and not the timer
            answer = {"refused": "timer", "reason": f"{type(error).__name__}: {one_line(error)}"}
        write_frame(sink, answer, parts)


def _missing() -> str | None:
    """The package that can't be imported, with the reason; None where all can."""
    for name in ("numpy", "onnxruntime"):
        try:
            __import__(name)
        except Exception as error:  # a broken installation may raise anything
            return f"{name} ({type(error).__name__}: {one_line(error)})"
    return None


def main(parent: int | None = None) -> None:
    """Serve over standard input and output; the prints of libraries go to standard error instead."""
    _die_with(parent)
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    gc.freeze()
    try:
        serve(source, sink)
        sink.close()
    except BrokenPipeError:
        pass  # the caller is gone
    # Providers have been seen to crash while a process takes itself apart.
    os._exit(0)


def _die_with(parent: int | None) -> None:
    """Let the kernel end this process with its parent; end it now where `parent` is gone already."""
    if sys.platform != "linux" or parent == 0:
        return
    import ctypes

    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _KILL)
    except (OSError, AttributeError):
        return  # the end of the requests ends it too, only later
    if parent is not None and os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else None)
