"""The names that `import export` offers, and what they load."""

import subprocess
import sys

import pytest

import export
import export.activations


def test_heavy_libraries_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys, export\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "export.verify_bundle, export.with_preprocessing, export.write_bundle, export.lower\n"
        "print('onnx' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "True False"]


@pytest.mark.parametrize("name", export.__all__)
def test_each_name_is_that_of_its_module(name: str) -> None:
    assert name in dir(export)
    assert getattr(export, name) is getattr(sys.modules[getattr(export, name).__module__], name)


def test_a_misspelt_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'exprot_model'"):
        export.exprot_model  # noqa: B018


def test_activations_are_registered_by_the_documented_path() -> None:
    assert export.activations.register is export.register
    assert export.activations.Activation is export.Activation
