"""One temporary OAR cluster for all tests, and studies that run on it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from .cluster import CannotInstall, Cluster, missing, wait_for_it


@pytest.fixture(scope="session")
def cluster():
    """Two virtual nodes."""
    if problem := missing():
        pytest.skip(problem)
    folder = Path(tempfile.mkdtemp(prefix="oar-"))
    cluster = Cluster(folder)
    try:
        try:
            yield cluster.start()
        except CannotInstall as error:
            pytest.skip(f"OAR can't be installed: {error}")
        wait_for_it(lambda: not cluster.jobs(), "an empty queue")
    finally:
        cluster.close()
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def talks_to_it(cluster, monkeypatch):
    """Sets the environment so that commands and studies of a test use this cluster."""
    for name, value in cluster.environment().items():
        monkeypatch.setenv(name, value)
