"""Executes the tutorial's notebooks, each in an empty folder of its own, and keeps the outputs.

The result is `build/notebooks/NAME.ipynb`; the sources in `docs/notebooks/` stay without outputs.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 600


def execute(source: Path, target: Path) -> None:
    """Executes one notebook.

    Args:
        source: The notebook without outputs.
        target: Where it is written with outputs.

    Raises:
        CellExecutionError: A cell raised an exception.
    """
    notebook = nbformat.read(source, as_version=4)
    with tempfile.TemporaryDirectory(prefix="melissa_gen_") as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
        )
        # The notebook calls the command that is installed beside this interpreter.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        client.execute(env={**os.environ, "PATH": path})
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)


def main() -> int:
    """Executes all notebooks; returns the exit status."""
    for source in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        print(f"docs: execute {source.name}", flush=True)
        execute(source, ROOT / "build" / "notebooks" / source.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
