"""Docker and a cluster for the tests that need one. Those of the cluster are collected only where one was asked for:
`make test-kubernetes`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from cluster import Cluster, running
from lab import Docker, docker_engine

collect_ignore_glob = [] if os.environ.get("ESTIBA_KUBERNETES") == "1" else ["kubernetes/test_*cluster*.py"]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A running cluster of one node, in its namespace `default`."""
    with running() as found:
        yield found


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, seen from a namespace made for one test."""
    with cluster.new_namespace() as inside:
        yield inside


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """A Docker engine, from which everything with this run's label is removed afterwards."""
    with docker_engine() as found:
        yield found
