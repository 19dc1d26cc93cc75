"""The tutorial's notebooks as pages: text, code, and the outputs of their last execution."""

import base64
import json
from pathlib import Path
from typing import Any

__all__ = ["EXECUTED", "SOURCES", "pages"]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "docs" / "notebooks"
EXECUTED = ROOT / "build" / "notebooks"


def pages() -> dict[str, str | bytes]:
    """Returns a page for each notebook, and its pictures.

    `docs/run_notebook.py` executes the notebooks. Without that the pages have no outputs.
    """
    made: dict[str, str | bytes] = {}
    for source in sorted(SOURCES.glob("*.ipynb")):
        executed = EXECUTED / source.name
        cells = json.loads((executed if executed.exists() else source).read_text())["cells"]
        made |= _page(source.stem, cells)
    return made


def _page(name: str, cells: list[dict[str, Any]]) -> dict[str, str | bytes]:
    made: dict[str, str | bytes] = {}
    text = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
            continue
        text.append(f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(made) + 1}.png"
                made[f"tutorial/{picture}"] = base64.b64decode("".join(data["image/png"]))
                text.append(f"![output]({picture})")
                continue
            plain = "".join(output.get("text", data.get("text/plain", ""))).strip("\n")
            if plain:
                text.append(f"```text\n{plain}\n```")
    made[f"tutorial/{name}.md"] = "\n\n".join(text) + "\n"
    return made
