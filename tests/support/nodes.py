"""Real servers for the tests: Apache Kafka, Redis, and our own devbroker for comparison.

A missing one is an error that names it, never a skip.
"""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import redis

from support.processes import TREE, Process, wait_until

KAFKA_SCRIPT = TREE / "deploy/local/kafka.sh"


def kafka_home():
    return Path(os.environ.get("CRAFTERSE_KAFKA_HOME", TREE / "build/kafka"))


def kafka_tool(java_class, *arguments):
    """What one of Kafka's own command line tools prints."""
    done = subprocess.run(
        ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-cp",
         f"{kafka_home()}/lib/*", java_class, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{java_class} {arguments}: {done.stdout}{done.stderr}"
    return done.stdout


class Kafka:
    """A single node of Apache Kafka. kill() and start() again is a crash of the broker: its port
    and its records stay. It starts soonest; as_on_a_server it is compiled as it would be there.
    `settings` are lines of server.properties that override those of kafka.sh."""

    def __init__(self, folder, as_on_a_server=False, settings=None):
        self.data = Path(folder) / "kafka-data"
        command = [KAFKA_SCRIPT, "start", self.data, Path(folder) / "kafka.ports"]
        if settings is not None:
            command.append(Path(folder) / "server.overrides")
            command[-1].write_text(settings)
        self.process = Process("kafka", command, folder,
                               {"CRAFTERSE_KAFKA_HOME": kafka_home(),
                                "CRAFTERSE_KAFKA_JIT_LEVEL": 4 if as_on_a_server else 1})

    def start(self):
        self.process.start()
        self.port = self.process.port("kafka", timeout=90)
        return self

    @property
    def brokers(self):
        return f"127.0.0.1:{self.port}"

    def signal(self, number):
        os.kill(int((self.data / "kafka.pid").read_text()), number)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.process.child.wait(30)

    def stop(self):
        if self.process.is_running():
            self.process.terminate(timeout=30)


class DevBroker:
    """The product's embedded broker, for what is promised on one machine."""

    def __init__(self, folder, topic_prefix, bin_folder):
        self.process = Process("devbroker", [bin_folder / "devbroker"], folder, {
            "CRAFTERSE_PORT_FILE": Path(folder) / "devbroker.ports",
            "CRAFTERSE_KAFKA_TOPIC_PREFIX": topic_prefix})

    def start(self):
        self.process.start()
        self.port = self.process.port("kafka", timeout=60)
        return self

    @property
    def brokers(self):
        return f"127.0.0.1:{self.port}"

    def stop(self):
        if self.process.is_running():
            self.process.terminate(timeout=30)


class Redis:
    """A redis-server without persistence: a restart loses everything, as it may."""

    def __init__(self, folder):
        if shutil.which("redis-server") is None:
            raise AssertionError("no redis-server: apt install redis-server (make test does)")
        self.port = free_port()
        self.process = Process("redis", ["redis-server", "--bind", "127.0.0.1", "--port", self.port,
                                         "--save", "", "--appendonly", "no", "--daemonize", "no",
                                         "--dir", folder], folder)
        self.client = redis.Redis(port=self.port, socket_timeout=5)

    def start(self):
        self.process.start()

        def answers():
            if not self.process.is_running():
                self.process.fail("ended")
            try:
                return self.client.ping()
            except redis.exceptions.ConnectionError:
                return False
        wait_until(answers, 20, lambda: self.process.fail("does not answer"))
        return self

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def kill(self):
        self.process.kill()

    def stop(self):
        if self.process.is_running():
            self.process.terminate(timeout=20)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def check_kafka_installed():
    """The first sentence that a person needs when Kafka cannot run here."""
    if shutil.which("java") is None:
        raise AssertionError("no java: apt install openjdk-17-jre-headless (make test does)")
    if not (kafka_home() / "lib").is_dir():
        subprocess.run([KAFKA_SCRIPT, "install", kafka_home()], check=True)
