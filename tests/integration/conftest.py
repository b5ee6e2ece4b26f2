# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the integration tests; logs of every process on a failure."""

import signal
import threading

import pytest

import services
import suite


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        for cluster in suite.LIVE:
            for name, tail in cluster.logs():
                report.sections.append((f"log of {name}", tail))


def pytest_configure(config):
    # Ended by a timeout or a service manager: clean up as after Ctrl-C. (One of
    # pytest-xdist's may be in another thread, and ends with its input.)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_unconfigure(config):
    for cluster in list(suite.LIVE):  # after Ctrl-C in mid-fixture
        cluster.close()


def _check_binaries():
    missing = [
        str(suite.binary(name))
        for name in "authd proxy peerd routed agent peerctl".split()
        if not suite.binary(name).exists()
    ]
    if missing:
        pytest.exit("not built (PEERWAY_BUILD?): " + ", ".join(missing), 3)


def _closing(clusters):
    found = []
    for cluster in clusters:
        found += cluster.complaints()
    if found:
        for cluster in clusters:
            for name, tail in cluster.logs(80):
                print(f"---- log of {name}\n{tail}")
    for cluster in clusters:
        cluster.close()
    assert not found, found


def _cluster_maker():
    _check_binaries()
    clusters = []

    def make(*args, **kwargs):
        clusters.append(suite.Cluster(*args, **kwargs))
        return clusters[-1]

    yield make
    _closing(clusters)


@pytest.fixture
def make_cluster():
    """Makes Clusters (not yet started) that end with the test."""
    yield from _cluster_maker()


@pytest.fixture(scope="module")
def module_cluster():
    """The same, for a cluster that all tests of a file share."""
    yield from _cluster_maker()


@pytest.fixture(scope="session")
def echo():
    """A TCP server that sends back what it gets (the pump, see services.py)."""
    server = services.Pump()
    yield server
    server.close()


@pytest.fixture(scope="session")
def sshd():
    server = services.Sshd()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres():
    server = services.Postgres()
    yield server
    server.close()
