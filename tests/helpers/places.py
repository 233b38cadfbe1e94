"""Where the repository and the data shared between checkouts lie."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def shared_data(name: str) -> Path:
    """A file or folder of the shared data; skips the test where there is none."""
    folder = Path(os.environ.get("HWNAS_SHARED", REPOSITORY.parent / "shared")) / "data"
    if not (folder / name).exists():
        pytest.skip(f"no {name} in {folder}; HWNAS_SHARED tells where it is")
    return folder / name
