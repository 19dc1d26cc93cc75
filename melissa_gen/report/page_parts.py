"""Names of the files in which pages are written before they replace the old ones."""

from pathlib import Path

__all__ = ["part_of_page"]


def part_of_page(page: Path, process: int) -> Path:
    """Returns the file that a process writes before it becomes the page."""
    return page.with_name(f".{page.name}.{process}.part")
