"""What users get wrong, and what damage does: one message each that says what was found and what is valid."""

import gzip
from pathlib import Path
from typing import Any

import filelock
import pytest
import yaml

from helpers.cli import SMALL, Finished, check_message, command, merged, small_config, spawn

Case = tuple[str, dict[str, Any], tuple[str, ...]]

WRONG_CONFIGS: list[Case] = [
    ("unknown key", {"buget": {"trials": 3}}, ("buget: unknown key", "did you mean 'budget'?")),
    ("unknown nested key", {"budget": {"trial": 3}}, ("budget.trial: unknown key", "'trials'")),
    ("unknown option of a named section", {"space": {"widht": 8}}, ("space.widht: unknown key", "'width'")),
    ("wrong type", {"budget": {"trials": "many"}}, ("budget.trials", "'many'", "integer")),
    ("number in quotes", {"train": {"learning_rate": "0.1"}}, ("train.learning_rate", "'0.1'", "number")),
    ("wrong sign", {"budget": {"minutes": -1}}, ("budget.minutes", "greater than 0", "-1")),
    ("no number", {"train": {"learning_rate": float("nan")}}, ("train.learning_rate", "nan")),
    ("infinite minutes", {"budget": {"minutes": float("inf")}}, ("budget.minutes", "inf")),
    ("infinite decay", {"train": {"weight_decay": float("inf")}}, ("train.weight_decay", "inf")),
    ("infinite exponent", {"reward": {"exponent": -float("inf")}}, ("reward.exponent", "inf")),
    ("zero trials", {"budget": {"trials": 0}}, ("budget.trials", "0")),
    ("wrong optimizer", {"train": {"optimizer": "adam"}}, ("train.optimizer", "'adam'", "did you mean 'adamw'?")),
    ("wrong augment", {"train": {"augment": "lite"}}, ("train.augment", "'lite'", "light", "none")),
    ("misspelt data", {"data": {"name": "digitz"}}, ("data.name", "'digitz'", "did you mean 'digits'?", "cifar10")),
    ("misspelt space", {"space": {"name": "convnets"}}, ("space.name", "did you mean 'convnet'?")),
    ("misspelt strategy", {"strategy": {"name": "evolutoin"}}, ("strategy.name", "did you mean 'evolution'?", "grid")),
    ("misspelt evaluator", {"evaluator": {"name": "trian"}}, ("evaluator.name", "did you mean 'train'?")),
    ("misspelt engine", {"engine": {"name": "online"}}, ("engine.name", "did you mean 'inline'?")),
    ("misspelt device", {"device": {"name": "cpuu"}}, ("device", "'cpuu'", "did you mean 'cpu'?", "cuda")),
    ("misspelt metric", {"objectives": ["accuracy", "latency"]}, ("objectives.1", "did you mean 'latency_ms'?")),
    ("misspelt limit", {"constraints": {"latncy_ms": 1}}, ("constraints.latncy_ms", "did you mean 'latency_ms'?")),
    ("limit of accuracy", {"constraints": {"accuracy": 1}}, ("constraints.accuracy", "macs")),
    ("limit of nothing", {"constraints": {"macs": 0}}, ("constraints.macs", "greater than 0")),
    ("one objective", {"objectives": ["accuracy"]}, ("objectives", "at least one cost")),
    ("no accuracy", {"objectives": ["macs", "params"]}, ("objectives", "needs accuracy")),
    ("objective twice", {"objectives": ["accuracy", "macs", "macs"]}, ("objectives", "twice")),
    ("energy of a cpu", {"objectives": ["accuracy", "energy_mj"]}, ("objectives", "energy_mj", "'cpu'", "latency_ms")),
    ("limited energy", {"constraints": {"energy_mj": 1}}, ("constraints", "energy_mj", "'cpu'")),
    ("fp16", {"device": {"precision": "fp16"}}, ("device.precision", "'fp16'", "fp32", "int8")),
    ("unknown activation", {"space": {"activations": ["hardswich"]}}, ("activations", "'hardswich'", "'hardswish'")),
    ("no activation", {"space": {"activations": []}}, ("space.activations", "at least one choice")),
    ("choice twice", {"space": {"kernels": [3, 3]}}, ("space.kernels", "twice")),
    ("even kernel", {"space": {"kernels": [4]}}, ("space.kernels.0", "4", "3, 5, 7")),
    ("wrong block", {"space": {"blocks": ["residual", "ivnerted"]}}, ("space.blocks.1", "did you mean 'inverted'?")),
    ("bad pick", {"final": {"pick": "fastets"}}, ("final.pick", "'fastets'", "did you mean 'fastest'?", "knee")),
    ("bad name", {"name": "../elsewhere"}, ("name", "'../elsewhere'")),
    ("large sample", {"strategy": {"name": "evolution", "population": 4, "sample": 5}}, ("strategy.sample",)),
    ("section as text", {"data": "digits"}, ("data: needs a mapping with a name", "'digits'", "fashion_mnist")),
    ("section without name", {"space": {"name": None}}, ("space: needs a mapping with a name", "convnet")),
    ("section as list", {"train": [1]}, ("train",)),
    ("no data root", {"data": {"name": "cifar10"}}, ("data.root", "required")),
    ("empty data root", {"data": {"name": "cifar10", "root": "/nowhere"}}, ("data.root", "/nowhere")),
    ("opset", {"export": {"opset": 26}}, ("export.opset", "23", "26")),
    ("quantize", {"export": {"quantize": "sometimes"}}, ("export.quantize", "'sometimes'", "never")),
    ("cost model", {"cost_model": "predictt"}, ("cost_model", "'predictt'", "auto")),
    ("key that is no text", {1: 2}, ("1",)),
    ("foreign space", {"space": {"name": "no_module:Space"}}, ("no_module", "can't be imported")),
    ("foreign evaluator", {"evaluator": {"name": "no_module:Eval"}}, ("no_module", "can't be imported")),
    ("foreign strategy", {"strategy": {"name": "json:NoSuch"}}, ("json", "NoSuch", "can't be imported")),
    ("no strategy at all", {"strategy": {"name": "math:pi"}}, ("math:pi", "something of type float")),
    ("foreign engine", {"engine": {"name": "json:NoSuch"}}, ("json", "NoSuch", "can't be imported")),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [case[1:] for case in WRONG_CONFIGS], ids=[c[0] for c in WRONG_CONFIGS])
def test_a_wrong_config_is_told_before_a_run_is_made(
    hwnas: Any, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    config = small_config(tmp_path / "wrong.yaml", **{str(k): v for k, v in changes.items() if isinstance(k, str)})
    if not all(isinstance(key, str) for key in changes):
        config.write_text(yaml.safe_dump({**SMALL, **changes}, sort_keys=False), encoding="utf-8")
    result = hwnas("search", config, "--run-dir", tmp_path / "run")
    check_message(result, 2, *words)
    assert not (tmp_path / "run").exists()


FILE_NAMED = [
    c for c in WRONG_CONFIGS if c[0] in ("unknown key", "wrong type", "misspelt strategy", "unknown activation")
]


@pytest.mark.parametrize("changes", [case[1] for case in FILE_NAMED], ids=[c[0] for c in FILE_NAMED])
def test_the_message_names_the_file(hwnas: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = small_config(tmp_path / "wrong.yaml", **changes)
    check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, str(config))


def test_every_mistake_of_a_config_is_told_at_once(hwnas: Any, tmp_path: Path) -> None:
    config = small_config(tmp_path / "wrong.yaml", data={"name": "x"}, budget={"trial": 1}, strategy={"name": "y"})
    check_message(hwnas("search", config), 2, "data.name", "budget.trial", "strategy.name")


def test_data_and_space_are_required(hwnas: Any, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: empty\n", encoding="utf-8")
    check_message(
        hwnas("search", tmp_path / "c.yaml"), 2, "data: is required", "digits", "space: is required", "convnet"
    )


WRONG_FILES: list[tuple[str, bytes, tuple[str, ...]]] = [
    ("bad YAML", b"data: {name: digits\nspace: [", ("line", "column", "YAML")),
    ("tab", b"data:\n\tname: digits\n", ("line 2", "YAML")),
    ("empty", b"", ("mapping", "nothing")),
    ("only a comment", b"# nothing here\n", ("mapping", "nothing")),
    ("a list", b"- 1\n- 2\n", ("mapping", "list")),
    ("text", b"hello", ("mapping", "str")),
    ("binary", b"\xff\xfe\x00\x01", ("can't be read",)),
    ("control characters", b"data: \x07\n", ("YAML",)),
    ("a Python object", b"data: !!python/object/apply:os.getcwd []\n", ("YAML", "line 1")),
    ("two documents", b"a: 1\n---\nb: 2\n", ("YAML",)),
    ("nested without end", b"[" * 5000, ("YAML",)),
]


@pytest.mark.parametrize(("content", "words"), [c[1:] for c in WRONG_FILES], ids=[c[0] for c in WRONG_FILES])
def test_a_file_that_is_no_config(hwnas: Any, tmp_path: Path, content: bytes, words: tuple[str, ...]) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    check_message(hwnas("search", tmp_path / "c.yaml"), 2, str(tmp_path / "c.yaml"), *words)


def test_a_config_that_is_not_there(hwnas: Any, tmp_path: Path) -> None:
    small_config(tmp_path / "digits.yaml")
    check_message(hwnas("search", tmp_path / "digit.yaml"), 2, "no such file", "did you mean", "digits.yaml")
    check_message(hwnas("search", tmp_path / "no" / "c.yaml"), 2, "no such file", f"no folder {tmp_path / 'no'}")


def test_a_folder_as_config(hwnas: Any, tmp_path: Path) -> None:
    check_message(hwnas("search", tmp_path), 2, str(tmp_path), "can't be read")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("budget.trials", ("--set budget.trials", "key.path=value")),
        ("=3", ("key.path=value",)),
        ("budget.trials=[1", ("--set budget.trials=[1", "YAML")),
        ("seed.low=3", ("seed is a int, not a mapping",)),
        ("budget.trails=3", ("budget.trails: unknown key", "'trials'")),
        ("space.width=tiny", ("space.width", "'tiny'")),
        ("data=digits", ("data: needs a mapping with a name",)),
        ("budget..trials=3", ("budget",)),
    ],
)
def test_a_wrong_override(hwnas: Any, tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    config = small_config(tmp_path / "c.yaml", seed=1)
    check_message(hwnas("search", config, "--set", text, "--run-dir", tmp_path / "run"), 2, *words)


class TestFashionMnist:
    """Its files are checked before anything is read from them."""

    @staticmethod
    def search(hwnas: Any, folder: Path, **options: Any) -> Any:
        config = small_config(
            folder / "c.yaml",
            data={"name": "fashion_mnist", "root": str(folder), **options},
            budget={"trials": 1},
            final={"epochs": 1},
        )
        return hwnas("search", config, "--run-dir", folder / "run")

    def test_a_root_without_files(self, hwnas: Any, tmp_path: Path) -> None:
        result = self.search(hwnas, tmp_path)
        check_message(result, 2, "Fashion-MNIST", "data.root", "train-images-idx3-ubyte", "is missing")

    @pytest.mark.parametrize("damage", ["truncated", "empty", "other content"])
    def test_a_damaged_archive(self, hwnas: Any, tmp_path: Path, damage: str) -> None:
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        packed = gzip.compress(bytes(10_000))
        content = {"truncated": packed[: len(packed) // 2], "empty": b"", "other content": packed}[damage]
        for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
            (raw / f"{name}-ubyte.gz").write_bytes(content)
        result = self.search(hwnas, tmp_path)
        check_message(result, 2, "Fashion-MNIST", "train-images-idx3-ubyte.gz", "damaged")

    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            ("train-images-idx3-ubyte", "truncated"),
            ("train-images-idx3-ubyte", "empty"),
            ("train-images-idx3-ubyte", "other header"),
            ("train-labels-idx1-ubyte", "truncated"),
            ("train-labels-idx1-ubyte", "fewer"),
            ("train-labels-idx1-ubyte", "label 200"),
        ],
    )
    def test_a_damaged_unpacked_file(self, hwnas: Any, tmp_path: Path, name: str, damage: str) -> None:
        raw = tmp_path / "FashionMNIST" / "raw"
        raw.mkdir(parents=True)
        count = 2000
        for split in ("train", "t10k"):
            header = (2051).to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in (count, 28, 28))
            (raw / f"{split}-images-idx3-ubyte").write_bytes(header + bytes(count * 784))
            header = (2049).to_bytes(4, "big") + count.to_bytes(4, "big")
            (raw / f"{split}-labels-idx1-ubyte").write_bytes(header + bytes(n % 10 for n in range(count)))
        content = (raw / name).read_bytes()
        damaged = {
            "truncated": content[: len(content) // 2],
            "empty": b"",
            "other header": b"\x00\x00\x63\x03" + content[4:],
            "fewer": content[:4] + (count - 1).to_bytes(4, "big") + content[8:-1],
            "label 200": content[:-1] + b"\xc8",
        }[damage]
        (raw / name).write_bytes(damaged)
        result = self.search(hwnas, tmp_path, validation_samples=500)
        check_message(result, 2, "Fashion-MNIST", "-ubyte")

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"validation_samples": 70_000}, ("60000 training images", "data.validation_samples 70000")),
            ({"train_samples": 59_000}, ("60000 training images", "data.train_samples 59000")),
            ({"train_samples": 3}, ("data.train_samples", "3")),
            ({"validation_samples": 5}, ("data.validation_samples", "5")),
            ({"image_size": 500}, ("data.image_size", "224", "500")),
            ({"train_sample": 100}, ("data.train_sample: unknown key", "'train_samples'")),
        ],
    )
    def test_sizes_that_dont_fit(
        self, hwnas: Any, fashion_mnist_root: Path, tmp_path: Path, options: dict[str, Any], words: tuple[str, ...]
    ) -> None:
        data = {"name": "fashion_mnist", "root": str(fashion_mnist_root), **options}
        config = small_config(tmp_path / "c.yaml", data=data)
        check_message(hwnas("search", config, "--run-dir", tmp_path / "run"), 2, *words)


def test_cifar10_that_isnt_there_or_isnt_the_published_one(hwnas: Any, tmp_path: Path) -> None:
    config = small_config(tmp_path / "c.yaml", data={"name": "cifar10", "root": str(tmp_path)})
    check_message(hwnas("search", config), 2, "CIFAR-10", "data_batch_1", "is missing")
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")  # what a pickle may do to its reader
    check_message(hwnas("search", config), 2, "CIFAR-10", "data_batch_1", "damaged", "MD5")
    assert not Path("pwned").exists()


class TestRunDirectories:
    def test_one_that_exists(self, hwnas: Any, finished: Finished) -> None:
        result = hwnas("search", finished.config, "--run-dir", finished.run)
        check_message(result, 2, str(finished.run), "isn't empty", f"hwnas resume {finished.run}")

    def test_a_file_of_that_name(self, hwnas: Any, finished: Finished, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x", encoding="utf-8")
        result = hwnas("search", finished.config, "--run-dir", tmp_path / "file")
        check_message(result, 2, str(tmp_path / "file"))
        result = hwnas("search", finished.config, "--run-dir", tmp_path / "file" / "below")
        check_message(result, 2, "can't be made")

    @pytest.mark.parametrize("name", ["resume", "trials", "export", "report"])
    def test_none(self, hwnas: Any, tmp_path: Path, name: str) -> None:
        check_message(hwnas(name, tmp_path), 2, str(tmp_path), "is no run directory")
        check_message(hwnas(name, tmp_path / "nowhere"), 2, f"there is no run directory {tmp_path / 'nowhere'}")

    @pytest.mark.parametrize("name", ["resume", "export"])
    def test_one_in_use(self, hwnas: Any, run_copy: Path, name: str) -> None:
        with filelock.FileLock(run_copy / ".lock"):
            check_message(hwnas(name, run_copy), 2, str(run_copy), "in use by another hwnas process")
            assert hwnas("trials", run_copy).code == 0

    @pytest.mark.parametrize("name", ["resume", "export", "trials", "report"])
    def test_a_config_edited_in_what_decides(self, hwnas: Any, run_copy: Path, name: str) -> None:
        self.edit(run_copy, seed=5)
        check_message(hwnas(name, run_copy), 2, "config.yaml was changed", "budget")

    def test_a_config_edited_into_nonsense(self, hwnas: Any, run_copy: Path) -> None:
        self.edit(run_copy, seed="five")
        check_message(hwnas("resume", run_copy), 2, "config.yaml", "seed", "'five'")

    def test_a_pick_edited_into_nonsense_is_told_before_any_work(self, hwnas: Any, run_copy: Path) -> None:
        self.edit(run_copy, final={"pick": "kneee"})
        result = hwnas("resume", run_copy)
        check_message(result, 2, "'kneee'", "did you mean 'knee'?")
        assert "Searching" not in result.stderr

    @staticmethod
    def edit(run: Path, **changes: Any) -> None:
        path = run / "config.yaml"
        values = merged(yaml.safe_load(path.read_text(encoding="utf-8")), changes)
        path.write_text(yaml.safe_dump(values), encoding="utf-8")


MISTAKES: dict[str, tuple[str, ...]] = {
    "search": ("nowhere.yaml",),
    "resume": ("nowhere",),
    "export": ("nowhere",),
    "trials": ("nowhere",),
    "supernet-check": ("nowhere",),
    "verify": ("nowhere",),
    "profile": ("nowhere.onnx",),
    "compare": ("a.onnx", "b.onnx"),
    "calibrate": ("nowhere.yaml",),
    "predict": ("nowhere.onnx",),
    "optimize": ("nowhere.onnx", "--output", "out.onnx"),
    "bench": ("nowhere.yaml",),
    "report": ("nowhere",),
    "list": ("nothing",),
}


class TestAsJson:
    @pytest.mark.parametrize("name", MISTAKES)
    def test_a_mistake_is_the_one_document(self, hwnas: Any, name: str) -> None:
        check_message(hwnas(name, *MISTAKES[name], "--json"), 2, MISTAKES[name][0], as_json=True)

    @pytest.mark.parametrize("name", [*MISTAKES, "doctor"])
    def test_so_is_a_wrong_argument(self, hwnas: Any, name: str) -> None:
        result = hwnas(name, *MISTAKES.get(name, ()), "--no-such-option", "--json")
        assert result.code == 2
        assert result.document() == {"error": {"message": "No such option: --no-such-option", "exit_code": 2}}
        assert "--no-such-option" in result.stderr
        assert hwnas(name, *MISTAKES.get(name, ()), "--no-such-option").stdout == ""

    def test_these_are_all_commands(self) -> None:
        from typer.main import get_command

        from pipeline.cli.app import app

        assert {*MISTAKES, "doctor"} == set(get_command(app).commands)  # type: ignore[attr-defined]  # it is a group

    def test_arguments_that_exclude_each_other(self, hwnas: Any, run_copy: Path) -> None:
        result = hwnas("trials", run_copy, "--csv", "--json")
        assert result.document()["error"]["message"].endswith("--csv and --json exclude each other")


def test_an_unknown_table(hwnas: Any) -> None:
    check_message(hwnas("list", "strategy"), 2, "'strategy'", "did you mean 'strategies'?", "devices")


class TestAsProcesses:
    """The same road through the installed command."""

    def test_a_wrong_key(self, tmp_path: Path) -> None:
        config = small_config(tmp_path / "c.yaml", buget={"trials": 3})
        check_message(command("search", str(config), "--json", cwd=tmp_path), 2, "buget", "'budget'", as_json=True)
        assert not (tmp_path / "runs").exists()

    def test_an_unknown_command_and_option(self, tmp_path: Path) -> None:
        for arguments in (["serach"], ["search", "c.yaml", "--runs-dir", "x"], ["search"]):
            result = command(*arguments, cwd=tmp_path)
            assert result.code == 2
            assert result.stdout == ""
            assert "Usage" in result.stderr
            assert "Traceback" not in result.stderr

    def test_a_mistake_is_told_though_nobody_reads_stdout(self, tmp_path: Path) -> None:
        with Path("/dev/full").open("w") as full:
            process = spawn("resume", "nowhere", "--json", cwd=tmp_path, stdout=full.fileno())
        _, err = process.communicate(timeout=60)
        assert process.returncode == 2
        assert err == "hwnas: there is no run directory nowhere\n"
