"""One temporary SLURM cluster for all tests, and studies that run on it."""

import shutil
import tempfile
from pathlib import Path

import pytest

from .cluster import Cluster, missing, wait_for_it


@pytest.fixture(scope="session")
def cluster():
    """Four virtual nodes."""
    if problem := missing():
        pytest.skip(problem)
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = Cluster(folder)
    try:
        yield cluster.start()
    finally:
        try:  # a client whose cancellation the controller forgot ends by itself, once its server is gone
            wait_for_it(lambda: not cluster.jobs(), "an empty queue", patience=60)
        finally:
            cluster.close()
            shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def talks_to_it(cluster, monkeypatch):
    """Sets the environment so that commands and studies of a test use this cluster."""
    for name, value in cluster.whole_environment().items():
        monkeypatch.setenv(name, value)
