"""Each folder in simulations/ is self-contained: files of the same name with the same purpose are copies."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3] / "simulations"


@pytest.mark.parametrize(
    "name", ["options.py", "waves.py", "etdrk4.py", "network.py", "modes.py", "slabs.py"]
)
def test_copies_of_a_file_are_equal(name):
    copies = {path.parent.name: path.read_text("utf-8") for path in ROOT.glob(f"*/{name}")}
    assert copies
    assert len(set(copies.values())) == 1, f"{name} differs between {', '.join(copies)}"
