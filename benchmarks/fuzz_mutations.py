"""Random damage: to bytes, to documents, to databases, to ONNX models."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import onnx

HOSTILE: list[Any] = [
    None, True, False, 0, -1, 1, 10**40, -(10**18), 2**31, 1e308, -1e308, 1e-320, float("nan"), float("inf"),
    "", " ", "nan", "x" * 5000, "../outside", "../../../../outside", "/dev/zero", "/etc/hostname", "a/b\\c", "~",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egnp.exe", "\x9b31m", "\x00", "é" * 300, "\ud800", "$HOME", "{}",
    "os:system", "os.path:join", "antigravity:x", [], {}, [[]], [None], {"a": {"b": {}}}, ["x"] * 2000,
    {"name": "digits"}, "cpu", "cuda", "relu", "1e5", "0x10", "-0",
]  # fmt: skip
_WORDS = [
    b"!!python/object/apply:os.system ['true']", b"&a [*a]", b"*nothing", b"\t", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf",
    b"[" * 400, b"{" * 400, b"- " * 200, b": ", b"\x1b[2J", b"<<: *a", b"? ", b"%YAML 9.9\n", b"---\n---\n", b"...",
    b"'", b'"', b"|", b"NaN", b"Infinity", b"1e999", b"\xc3\x28",
]  # fmt: skip


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Flip, cut, insert, repeat or replace some bytes."""
    result = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 5, 20])):
        at = rng.randrange(len(result) + 1) if result else 0
        way = rng.randrange(6)
        if way == 0 and result:
            result[min(at, len(result) - 1)] ^= 1 << rng.randrange(8)
        elif way == 1:
            del result[at : at + rng.choice([1, 3, 50, 10**6])]
        elif way == 2:
            result[at:at] = rng.choice(_WORDS)
        elif way == 3:
            result[at:at] = result[at : at + rng.choice([1, 20, 300])]
        elif way == 4:
            result[at : at + 4] = rng.randbytes(4)
        else:
            result[at : at + 8] = rng.choice([b"\xff" * 8, b"\x00" * 8, b"\x7f" * 8])
    return bytes(result)


def damaged_text(rng: random.Random, text: str) -> str:
    """Cut, insert, repeat or move some letters, words and lines."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        at, other = rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)
        length = rng.choice([1, 2, 10, 60])
        way = rng.randrange(5)
        if way == 0:
            text = text[:at] + text[at + length :]
        elif way == 1:
            text = text[:at] + rng.choice(_WORDS).decode("utf-8", "replace") + text[at:]
        elif way == 2:
            text = text[:at] + text[other : other + length] + text[at:]
        elif way == 3:
            text = text[:at] + rng.choice(":{}[],&*!|>'\"%@`#\n \t-0.e") + text[at + 1 :]
        else:
            lines = text.split("\n")
            rng.shuffle(lines)
            text = "\n".join(lines)
    return text


def damaged_document(rng: random.Random, document: Any) -> Any:
    """Replace, delete, rename or add entries of a document of mappings, lists and plain values, in place."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        places = list(_places(document))
        if not places:
            return rng.choice(HOSTILE)
        holder, key = rng.choice(places)
        way = rng.randrange(6)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[rng.choice(["", "x" * 200, "\x1b[1m", "name", 3, None])] = holder.pop(key)
        elif way == 2 and isinstance(holder, dict):
            holder[rng.choice(["unknown", "\x1b[7m", "__class__", "name"])] = rng.choice(HOSTILE)
        elif way == 3:
            holder[key] = _nested(rng.choice([5, 60, 300]))
        else:
            holder[key] = rng.choice(HOSTILE)
    return document


def _places(document: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    entries = document.items() if isinstance(document, dict) else enumerate(document) if _is_list(document) else ()
    for key, value in entries:
        found.append((document, key))
        found.extend(_places(value))
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and len(value) < 5000


def _nested(depth: int) -> Any:
    inner: Any = 1
    for level in range(depth):
        inner = [inner] if level % 2 else {"a": inner}
    return inner


def damage_database(rng: random.Random, path: Path, *, text: Callable[[Any], str]) -> str:
    """Change cells, rows or tables of an SQLite file; `text` writes a document as the file has it."""
    way = rng.randrange(8)
    if way == 0:
        path.write_bytes(damaged_bytes(rng, path.read_bytes()))
        return "bytes"
    with closing(sqlite3.connect(path)) as connection, suppress(sqlite3.Error, UnicodeError, OverflowError):
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type='table'")]
        name = rng.choice(tables)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
        column = rng.choice(columns)
        value = rng.choice(HOSTILE)
        value = text(value) if isinstance(value, list | dict) or rng.random() < 0.3 else value
        if isinstance(value, int) and abs(value) >= 2**63:
            value = str(value)
        if way == 1:
            statement = rng.choice([f"DROP TABLE {name}", f"DELETE FROM {name}", f"ALTER TABLE {name} ADD COLUMN more"])
            connection.execute(statement)
        elif way == 2:
            connection.execute("CREATE VIEW extra AS SELECT 1")
            connection.execute("CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END")
        elif way == 3:
            connection.execute(f"ALTER TABLE {name} RENAME COLUMN {column} TO other")
        elif way == 4:
            connection.execute(f"UPDATE {name} SET {column} = ?", (value,))
        else:
            rows = [row[0] for row in connection.execute(f"SELECT {columns[0]} FROM {name}")]
            connection.execute(f"UPDATE {name} SET {column} = ? WHERE {columns[0]} = ?", (value, rng.choice(rows)))
        connection.commit()
        return f"{name}.{column}"
    return "no change"


def damage_model(rng: random.Random, model: onnx.ModelProto) -> str:
    """Change nodes, types, shapes, weights, names or versions of a model, in place; returns the way."""
    graph = model.graph
    for _ in range(rng.choice([1, 1, 2])):
        ways = [_operator, _attribute, _wiring, _dims, _weight, _external, _names, _version, _outputs, _inputs, _repeat]
        way = rng.choice(ways)
        with suppress(ValueError, TypeError, IndexError):  # a value that protobuf doesn't take
            way(rng, model)
    return f"{way.__name__.strip('_')} of {graph.name}"


_OPERATORS = [
    "Relu", "Conv", "MatMul", "Loop", "If", "Scan", "Einsum", "LSTM", "Attention", "Softmax", "Reshape", "NonZero",
    "DFT", "Swish", "GroupNormalization", "Nonsense", "SequenceConstruct", "Concat", "Expand", "Tile", "Range",
    "Identity",
]  # fmt: skip
_NUMBERS = [0, -1, 1, 2, 7, 63, 10**6, 2**31 - 1, 2**40, -(2**62)]
_NAMES = ["", "x", "y", "w", "\x1b[31mred", "../name", "a" * 3000, "\u202ename", "name with spaces", "$x"]


def _operator(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    if rng.random() < 0.3:
        node.domain = rng.choice(["com.microsoft", "ai.onnx.ml", "nowhere", "\x1b[1m", "com.microsoft.nchwc"])
    else:
        node.op_type = rng.choice([*_OPERATORS, rng.choice(_NAMES)])


def _attribute(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice([each for each in model.graph.node if each.attribute] or list(model.graph.node))
    if not node.attribute or rng.random() < 0.3:
        value = rng.choice([1, 1.5, "text", [1, 2], [0.5], _NUMBERS])
        node.attribute.append(
            onnx.helper.make_attribute(rng.choice(["axis", "kernel_shape", "more", "\x1b[0m"]), value)
        )
        return
    attribute = rng.choice(node.attribute)
    way = rng.randrange(4)
    if way == 0:
        node.attribute.remove(attribute)
    elif way == 1:
        attribute.i = rng.choice(_NUMBERS)
    elif way == 2:
        del attribute.ints[:]
        attribute.ints.extend(rng.choice(_NUMBERS) for _ in range(rng.randrange(6)))
    else:
        attribute.type = rng.randrange(15)


def _wiring(rng: random.Random, model: onnx.ModelProto) -> None:
    node = rng.choice(model.graph.node)
    field = rng.choice([node.input, node.output])
    names = [name for each in model.graph.node for name in (*each.input, *each.output)] + _NAMES
    way = rng.randrange(3)
    if way == 0 and field:
        field[rng.randrange(len(field))] = rng.choice(names)
    elif way == 1 and field:
        del field[rng.randrange(len(field))]
    else:
        field.append(rng.choice(names))


def _dims(rng: random.Random, model: onnx.ModelProto) -> None:
    info = rng.choice([*model.graph.input, *model.graph.output])
    shape = info.type.tensor_type.shape
    way = rng.randrange(4)
    if way == 0:
        info.type.tensor_type.ClearField("shape")
    elif way == 1:
        shape.dim.add().dim_value = rng.choice(_NUMBERS)
    elif way == 2 and shape.dim:
        rng.choice(shape.dim).dim_value = rng.choice(_NUMBERS)
    elif shape.dim:
        rng.choice(shape.dim).dim_param = rng.choice(_NAMES)


def _weight(rng: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    way = rng.randrange(5)
    if way == 0:
        model.graph.initializer.remove(tensor)
    elif way == 1:
        tensor.data_type = rng.randrange(30)
    elif way == 2:
        tensor.dims.append(rng.choice(_NUMBERS))
    elif way == 3 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_NUMBERS)
    else:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]


def _external(rng: random.Random, model: onnx.ModelProto) -> None:
    if not model.graph.initializer:
        return
    tensor = rng.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, values in (
        ("location", ["../outside", "/etc/hostname", "weights.bin", "", "\x1b[1m", "/dev/zero", "."]),
        ("offset", ["0", "-1", "x", str(2**62)]),
        ("length", ["4", "-4", "many", str(2**62)]),
    ):
        if rng.random() < 0.8:
            tensor.external_data.add(key=key, value=rng.choice(values))


def _names(rng: random.Random, model: onnx.ModelProto) -> None:
    rng.choice(
        [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]
    ).name = rng.choice(_NAMES)


def _version(rng: random.Random, model: onnx.ModelProto) -> None:
    way = rng.randrange(3)
    if way == 0:
        model.opset_import[0].version = rng.choice([0, 1, 6, 7, 13, 20, 26, 99, -3, 2**40])
    elif way == 1:
        model.ir_version = rng.choice([0, 1, 3, 4, 99])
    else:
        del model.opset_import[:]


def _outputs(rng: random.Random, model: onnx.ModelProto) -> None:
    graph = model.graph
    names = [name for node in graph.node for name in node.output] + [t.name for t in graph.initializer]
    way = rng.randrange(3)
    if way == 0:
        del graph.output[:]
    else:
        graph.output.add(name=rng.choice([*names, *_NAMES, *(info.name for info in graph.input)]))


def _inputs(rng: random.Random, model: onnx.ModelProto) -> None:
    info = rng.choice(model.graph.input)
    way = rng.randrange(3)
    if way == 0:
        model.graph.input.remove(info)
    elif way == 1:
        info.type.tensor_type.elem_type = rng.randrange(30)
    else:
        info.type.CopyFrom(onnx.helper.make_sequence_type_proto(info.type))


def _repeat(rng: random.Random, model: onnx.ModelProto) -> None:
    graph = model.graph
    field = rng.choice([graph.node, graph.input, graph.initializer, graph.output])
    if field:
        field.add().CopyFrom(rng.choice(field))
