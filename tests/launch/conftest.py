from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import slurm_cluster as clusters


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[clusters.Cluster]:
    """A Slurm cluster of this machine; the tests that want one are skipped where it lacks."""
    if reason := clusters.missing():
        pytest.skip(reason)
    running = clusters.Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        yield running
    finally:
        running.stop()
