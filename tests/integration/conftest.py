"""Fixtures: real servers, one Kafka for all tests, and stacks of our services.

Every test that asks for `stack` shares one running stack of its module; tests that break things
make their own with `make_stack`. Each has its own topics and each module a Redis and an S3 server
that start empty, so nothing leaks from module to module.
"""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support import nodes  # noqa: E402
from support.s3_server import S3Server  # noqa: E402
from support.stack import Stack  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own(tmp_path_factory):
    """Packed weights of tests are nobody else's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """A real Apache Kafka, one node."""
    nodes.check_kafka_installed()
    node = nodes.Kafka(tmp_path_factory.mktemp("kafka")).start()
    yield node
    node.stop()


@pytest.fixture
def own_kafka(tmp_path):
    """A Kafka of the test's own, to be killed and started again."""
    nodes.check_kafka_installed()
    node = nodes.Kafka(tmp_path).start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A real Redis."""
    node = nodes.Redis(tmp_path_factory.mktemp("redis")).start()
    yield node
    node.stop()


@pytest.fixture
def own_redis(tmp_path):
    """A Redis of the test's own, to be killed and started again."""
    node = nodes.Redis(tmp_path).start()
    yield node
    node.stop()


@pytest.fixture(scope="module")
def shared_s3():
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture
def s3():
    """An S3 server of the test's own, empty and without faults."""
    server = S3Server().start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def stack(request, kafka, redis, shared_s3, tmp_path_factory):
    """The whole pipeline on Kafka, Redis and S3, shared by the tests of a module. A module may
    set STACK = {...} for Stack's arguments ("s3": None = folder store)."""
    options = {"s3": shared_s3, "redis": redis, **getattr(request.module, "STACK", {})}
    running = Stack(tmp_path_factory.mktemp("stack"), kafka.brokers, **options)
    try:
        running.start()
        yield running
        running.stop()
    finally:
        running.kill_all()


@pytest.fixture
def client(stack):
    return stack.client


@pytest.fixture
def make_stack(kafka, tmp_path):
    """Makes stacks that a test may break: make_stack(s3=..., workers=2). They are started, and at
    the end every service that still runs must stop cleanly."""
    made = []

    def make(start=True, brokers=None, **options):
        folder = tmp_path / f"stack{len(made) + 1}"
        new = Stack(folder, brokers or kafka.brokers, **options)
        made.append(new)
        return new.start() if start else new
    yield make
    try:
        for one in made:
            one.stop()
    finally:
        for one in made:
            one.kill_all()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Keeps what a failed test left behind, its own and its module's: copied to
    build/test/failed/."""
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    made = getattr(item, "funcargs", {})
    shared = made.get("stack")
    keep = Path(__file__).resolve().parents[2] / "build/test/failed" / item.name
    shutil.rmtree(keep, ignore_errors=True)
    for folder in (made.get("tmp_path"), shared.folder if isinstance(shared, Stack) else None):
        if folder is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True,
                            ignore=shutil.ignore_patterns("kafka-data"))
    report.sections.append(("logs", f"kept in {keep}"))
