"""MkDocs hooks: add the pages that are generated from the code."""

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

# MkDocs loads this file by its path, so that the folder has to be added for its neighbors.
sys.path.insert(0, str(Path(__file__).resolve().parent))

from generators import MAKERS


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds every generated page, and the pictures that belong to it."""
    for make in MAKERS:
        for path, content in make().items():
            files.append(File.generated(config, path, content=content))
    return files
