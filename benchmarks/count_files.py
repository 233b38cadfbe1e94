"""MACs, parameters and peak memory of random valid models against hand-made counts and the runtime's own readings.

MACs: products counted one by one in arrays that ONNX Runtime returned (`naive_products.py`). Parameters: what was put
in. Peak: the input and output arrays' bytes where the runtime runs a single kernel, else its profile, read here once
more. Each figure is right, null with a reason, or wrong. Costs that `static_costs` plans for candidates are held
against the runtime's: a plan may be one of several, since copies out of the blocked layout run in a changing order.
"""

import collections
import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from common import summary
from counted_graphs import graph_case, planned_case
from counted_models import Case, product_case, published_case, published_count
from naive_products import UnknownCostError, products
from options import SEED, amount, begin, option, some_of

from latency_models.counted_costs import static_costs
from latency_models.counters.activation_memory import counted_peak_bytes
from latency_models.counters.unavailable import Unavailable
from latency_models.devices.resolve import resolve_device
from latency_models.errors import CostError
from latency_models.graph.macs import macs
from latency_models.graph.model_file import parse
from latency_models.graph.observed_shapes import observe
from latency_models.graph.planned import is_inferable, is_planned
from latency_models.graph.weights import params

Array = np.ndarray[Any, Any]
_GROUPS = ("operators", "products", "graphs", "planned")
_RIGHT, _NULL, _WRONG, _NO_ORACLE = "right", "null", "WRONG", "no oracle"
_PEAK_TOLERANCE = 0.01
_COUNTS = 8
"""Runs in which a plan has to be met once."""


@dataclass(frozen=True)
class Verdict:
    """What became of one figure of a case."""

    figure: str
    outcome: str
    note: str = ""


def main() -> None:
    arguments = begin(
        __doc__,
        option("--from", 0, "the number of the first case of each group", type=int, dest="first"),
        option("--count", 400, "cases of each group", type=int),
        amount("--seconds", 900, "after which no further case is begun"),
        some_of("--groups", _GROUPS),
        SEED,
    )
    began = time.monotonic()
    for group in arguments.groups:
        with tempfile.TemporaryDirectory(prefix="hwnas-counts-") as folder:
            _run(group, arguments, began, Path(folder))


def _run(group: str, arguments: Any, began: float, folder: Path) -> None:
    tally: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    nulls: collections.Counter[str] = collections.Counter()
    operators: set[tuple[str, str]] = set()
    count = min(arguments.count, published_count()) if group == "operators" else arguments.count
    valid = number = 0
    for number in range(arguments.first, arguments.first + count):
        if time.monotonic() - began > arguments.seconds:
            print(f"{group}: stopped before case {number}; --from {number} goes on")
            break
        case = _made(group, arguments.seed, number, folder)
        if case is None:
            continue
        found = _planned(case) if group == "planned" else _judged(case)
        if found is None:
            continue
        valid += 1
        operators.update((node.domain, node.op_type) for node in case.nodes)
        for verdict in found:
            tally[verdict.figure][verdict.outcome] += 1
            if verdict.outcome == _WRONG:
                print(f"WRONG {group} {number} {verdict.figure}: {verdict.note} [{case.name}]", flush=True)
            elif verdict.note and verdict.outcome in (_NULL, _NO_ORACLE):
                nulls[f"{verdict.outcome}, {verdict.figure}: {verdict.note}"] += 1
            elif verdict.note:
                print(f"{verdict.outcome}: {group} {number} {verdict.figure}: {verdict.note}", flush=True)
    print(f"\n{group}: {valid} valid models of {number - arguments.first + 1} drawn, {len(operators)} operators")
    for figure, outcomes in tally.items():
        summary(f"{group}, {figure}", ", ".join(f"{name} {n}" for name, n in outcomes.most_common()), "none wrong")
    for note, times in nulls.most_common(60):
        print(f"  {times} times {note}")


def _made(group: str, seed: int, number: int, folder: Path) -> Case | None:
    if group == "operators":
        return published_case(seed, number)
    if group == "products":
        return product_case(seed, number, folder)
    return graph_case(seed, number, folder) if group == "graphs" else planned_case(seed, number)


# --- the oracle


def _fetched(case: Case) -> dict[str, Array] | None:
    """All arrays of the plain graph, as the runtime returns them without optimisations; None if it can't be run."""
    model = onnx.ModelProto()
    model.CopyFrom(case.plain)
    made = [name for node in model.graph.node for name in node.output if name]
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    arrays = dict(case.feed)
    for tensor in model.graph.initializer:
        arrays[tensor.name] = onnx.numpy_helper.to_array(tensor)
    for sparse in model.graph.sparse_initializer:
        dense = np.zeros(tuple(sparse.dims), np.float32)
        np.put(dense, onnx.numpy_helper.to_array(sparse.indices), onnx.numpy_helper.to_array(sparse.values))
        arrays[sparse.values.name] = dense
    try:
        session = _session(model.SerializeToString(), optimised=False)
        feed = {each.name: case.feed[each.name] for each in session.get_inputs() if each.name in case.feed}
        try:
            found = dict(zip(made, session.run(made, feed), strict=True))
        except RuntimeError:  # an array of a type that numpy doesn't have
            found = {}
            for name in made:
                try:
                    found[name] = session.run([name], feed)[0]
                except RuntimeError:
                    continue
    except Exception:  # the runtime's errors have no common base; what it can't run is no case
        return None
    return arrays | found


def _session(content: bytes | str, *, optimised: bool = True, trace: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if trace is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(trace / "run")
        options.optimized_model_filepath = str(trace / "optimised.onnx")
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimised.bin")
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _read_peak(case: Case) -> tuple[str, int | None]:
    """How the peak was found, and the peak; None where neither way says it.

    By the arrays alone where the runtime runs one kernel; else by its profile, whose readings are those at the ends of
    kernels: inputs count until the last kernel that reads them.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        content = str(case.content) if isinstance(case.content, Path) else case.content
        session = _session(content, trace=folder)
        declared = {each.name for each in session.get_inputs()}
        feed = {name: array for name, array in case.feed.items() if name in declared}
        results = session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(errors="replace"))
        graph = onnx.load_model(folder / "optimised.onnx", load_external_data=False).graph
    kernels = [event["args"] for event in events if event.get("name", "").endswith("_kernel_time")]
    if [node.op_type for node in graph.node] == ["If"] and len(kernels) == 2:
        # one kernel in the branch: what goes into the If, and what comes out
        return "one kernel", sum(array.nbytes for array in (*feed.values(), *results))
    inner = any(node.op_type in ("If", "Loop", "Scan", "SequenceMap") for node in graph.node)
    if inner or not kernels or len(kernels) != len(graph.node):
        return "not straight", None
    bytes_of = {name: array.nbytes for name, array in feed.items()}
    if len(kernels) == 1 and all(isinstance(each, np.ndarray) and each.dtype.kind != "O" for each in results):
        node = graph.node[0]
        names = [name for name in node.output if name]
        if set(names) <= {info.name for info in graph.output}:
            sizes = {info.name: each.nbytes for info, each in zip(graph.output, results, strict=True)}
            held = sum(size for name, size in bytes_of.items() if name in node.input)
            return "one kernel", held + sum(sizes.values())
    last = {name: len(kernels) for name in (info.name for info in graph.output)}
    shared: dict[str, str] = {}  # a view → the value whose memory it is
    for at, node in enumerate(graph.node):
        for name in node.input:
            last[shared.get(name, name)] = max(at, last.get(shared.get(name, name), 0))
        if node.op_type in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity") and node.output[0] not in last:
            shared[node.output[0]] = shared.get(node.input[0], node.input[0])
    peak = 0
    start = int(kernels[0].get("mem_bytes_requested_in_use", 0)) - int(kernels[0].get("mem_requested_in_use_delta", 0))
    for at, each in enumerate(kernels):
        if "mem_bytes_requested_in_use" not in each or each["op_name"] != graph.node[at].op_type:
            return "not straight", None
        held = int(each["mem_bytes_requested_in_use"]) - start
        peak = max(peak, held + sum(size for name, size in bytes_of.items() if last.get(name, -1) >= at))
    return "profile", peak


# --- verdicts


def _judged(case: Case) -> list[Verdict] | None:
    arrays = _fetched(case)
    if arrays is None:
        return None
    content = str(case.content) if isinstance(case.content, Path) else case.content
    try:
        _session(content).run(None, {name: case.feed[name] for name in case.feed})
    except Exception:  # as above: not valid for the runtime
        return None
    device = resolve_device("cpu")
    proto = parse(case.content)
    folder = case.content.parent if isinstance(case.content, Path) else None
    try:
        shapes = observe(proto, case.feed, folder=folder)
    except CostError as error:
        return [Verdict("macs", _NULL, str(error)[:150])]
    return [
        _macs_verdict(case, arrays, shapes),
        _same("params", params(proto, shapes.dims), case.params),
        _peak_verdict(counted_peak_bytes(case.content, device, case.feed), *_read_peak(case)),
    ]


def _macs_verdict(case: Case, arrays: Mapping[str, Array], shapes: Any) -> Verdict:
    try:
        wanted = case.turns * products(case.nodes, arrays, case.constants)
    except UnknownCostError as error:
        wanted = None
        unknown = str(error)
    except (AssertionError, KeyError) as error:
        return Verdict("macs", _NO_ORACLE, f"{error!r} [{case.name}]")
    try:
        found = macs(shapes)
    except CostError as error:
        return Verdict("macs", _NULL, str(error)[:150])
    if wanted is None:
        return Verdict("macs", _WRONG, f"{found}, though nobody knows what {unknown} costs")
    return _same("macs", found, wanted)


def _peak_verdict(found: int | Unavailable, how: str, wanted: int | None) -> Verdict:
    figure = f"peak ({how})"
    if isinstance(found, Unavailable):
        return Verdict(figure, _NULL, found.reason[:150])
    return Verdict(figure, _NO_ORACLE) if wanted is None else _same(figure, found, wanted)


def _same(figure: str, found: int, wanted: int) -> Verdict:
    if found == wanted:
        return Verdict(figure, _RIGHT)
    return Verdict(figure, _WRONG, f"{found}, should be {wanted}")


def _planned(case: Case) -> list[Verdict] | None:
    assert isinstance(case.content, bytes)
    proto = parse(case.content)
    if not is_inferable(proto):
        return None
    device = resolve_device("cpu")
    plan = static_costs(case.content, device)
    figure = "peak (planned)" if is_planned(proto) else "peak (run)"
    seen = macs(observe(proto, case.feed))
    counted = counted_peak_bytes(case.content, device, case.feed)
    verdicts = [
        Verdict("macs", _NULL, plan.macs.reason)
        if isinstance(plan.macs, Unavailable)
        else _same("macs", plan.macs, seen)
    ]
    if isinstance(counted, Unavailable):
        return [*verdicts, Verdict(figure, _NO_ORACLE, counted.reason)]
    if isinstance(plan.peak_memory_bytes, Unavailable):
        return [*verdicts, Verdict(figure, _NULL, plan.peak_memory_bytes.reason)]
    ratio = plan.peak_memory_bytes / max(1, counted)
    note = f"{plan.peak_memory_bytes}, should be {counted}: {ratio:.4f}"
    if plan.peak_memory_bytes == counted:
        return [*verdicts, Verdict(figure, _RIGHT)]
    if abs(ratio - 1) <= _PEAK_TOLERANCE:
        return [*verdicts, Verdict(figure, "within 1 %", note)]
    again = {counted_peak_bytes(case.content, device, case.feed) for _ in range(_COUNTS)}
    if plan.peak_memory_bytes in again:
        return [*verdicts, Verdict(figure, "right in one of the runtime's orders", note)]
    return [*verdicts, Verdict(figure, _WRONG, note)]


if __name__ == "__main__":
    main()
