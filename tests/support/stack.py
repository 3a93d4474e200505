"""The four services as processes, wired to real servers, on topics of their own."""

import hashlib
import json
import os
import re
import secrets
import time
from pathlib import Path

import requests

from support.gateway import Gateway
from support.processes import TREE, Process, wait_until
from support.topics import Topics

BIN = Path(os.environ.get("CRAFTERSE_BIN", TREE / "build/bin"))


def model_folder():
    """The small model that the tests draw with: fast, and the same on every machine."""
    return TREE / "tests/golden/tiny-sdxl"


def parse_metrics(text):
    """The samples of the Prometheus text format: [(name, {label: value}, number)]."""
    samples = []
    for line in text.splitlines():
        found = re.fullmatch(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)", line)
        if found and not line.startswith("#"):
            labels = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found.group(2) or ""))
            samples.append((found.group(1), labels, float(found.group(3))))
    return samples


class Service(Process):
    """One of our binaries."""

    def start(self):
        if not Path(self.command[0]).exists():
            raise AssertionError(f"{self.command[0]} is missing: run `make all` first")
        return super().start()

    def get(self, path):
        return requests.get(f"http://127.0.0.1:{self.port('metrics')}{path}", timeout=10)

    def is_ready(self):
        try:
            return self.get("/readyz").status_code == 200
        except requests.exceptions.ConnectionError:
            return False

    def wait_ready(self, timeout=60):
        def ready():
            if not self.is_running():
                self.fail(f"ended with status {self.child.returncode} before it was ready")
            return self.is_ready()

        def failed():
            self.fail(f"is not ready after {timeout} s ({self.get('/readyz').text.strip()})")
        wait_until(ready, timeout, failed)
        return self

    def metrics(self):
        """[(name, {label: value}, number)] of every sample on /metrics."""
        return parse_metrics(self.get("/metrics").text)

    def metric(self, name, **labels):
        """The sum of the time series that have these labels, 0 when there is none."""
        return sum(number for found, having, number in self.metrics()
                   if found == name and labels.items() <= having.items())

    def metric_sum(self, name):
        """The sum over all time series of this name."""
        return sum(float(line.rpartition(" ")[2]) for line in self.get("/metrics").text.splitlines()
                   if line.startswith((f"{name} ", f"{name}{{")))

    def stop_cleanly(self, timeout=40):
        """SIGTERM must end it with status 0."""
        status = self.terminate(timeout)
        if status != 0:
            self.fail(f"ended with status {status} on SIGTERM")
        self.check_log()


class Stack:
    """gateway, router, uploader and workers. `settings` go to all services (without their
    CRAFTERSE_ prefix), `service_settings` to one: {"uploader": {"RETRY_MAX": "1s"}}. `services`
    names those to run when not all are wanted."""

    def __init__(self, folder, brokers, *, s3=None, redis=None, workers=1, settings=None,
                 service_settings=None, embedded=False, prefix=None, worker_binary=None,
                 services=None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prefix = prefix or f"t{secrets.token_hex(4)}."
        self.brokers = brokers
        self.s3 = s3
        self.redis = redis
        self.embedded = embedded
        self.settings = settings or {}
        self.service_settings = service_settings or {}
        self.worker_binary = worker_binary
        self.key = secrets.token_urlsafe(24)
        self.topics = Topics(brokers, self.prefix)
        self.objects_folder = self.folder / "objects"
        self.services = {}
        self._write_keys()
        names = ("router", *(f"worker{i + 1}" for i in range(workers)), "uploader", "gateway")
        for name in services or names:
            self.add(name)

    # ---- Settings ----------------------------------------------------------------------------

    def _write_keys(self):
        digest = hashlib.sha256(self.key.encode()).hexdigest()
        (self.folder / "api.keys").write_text(f"tests:{digest}\n")

    def _environment(self, name, kind):
        shared = {"KAFKA_BROKERS": self.brokers, "KAFKA_TOPIC_PREFIX": self.prefix,
                  "KAFKA_SESSION_TIMEOUT": "6s", "METRICS_LISTEN": "127.0.0.1:0",
                  "INSTANCE": name, "LOG_LEVEL": "debug",
                  "PORT_FILE": self.folder / f"{name}.ports"}
        if self.embedded:
            shared["EMBEDDED"] = "true"
        if self.redis is not None and kind in ("gateway", "uploader"):
            shared["REDIS_URL"] = self.redis.url
        own = {
            "gateway": {"HTTP_LISTEN": "127.0.0.1:0",
                        "API_KEYS_FILE": self.folder / "api.keys"},
            "router": {"TOPICS_CREATE": "true", "LANES": "8"},
            "worker": {"MODEL_PATH": model_folder(), "THREADS": "1"},
            "uploader": {"RETRY_MAX": "500ms"},
        }[kind]
        environment = {key if key.startswith("OTEL_") else f"CRAFTERSE_{key}": value
                       for key, value in {**shared, **own, **self.settings,
                                          **self.service_settings.get(kind, {}),
                                          **self.service_settings.get(name, {})}.items()}
        if kind == "uploader" and self.s3 is not None:
            environment.update(self.s3.settings())
        elif self.s3 is None and kind == "uploader":
            environment.setdefault("CRAFTERSE_STORE_FOLDER", self.objects_folder)
        elif self.s3 is None and kind == "gateway":
            environment.setdefault("CRAFTERSE_OBJECTS_FOLDER", self.objects_folder)
        return environment

    # ---- Life --------------------------------------------------------------------------------

    def add(self, name):
        """One more service ("worker2", "router2"); the caller starts it."""
        kind = name.rstrip("0123456789")
        binary = self.worker_binary if kind == "worker" and self.worker_binary else BIN / kind
        self.services[name] = Service(name, [binary], self.folder, self._environment(name, kind))
        return self.services[name]

    def __getattr__(self, name):
        if name.startswith("_") or name == "services" or name not in self.services:
            raise AttributeError(name)
        return self.services[name]

    def start(self):
        for service in self.services.values():
            service.start()
        return self.wait_ready()

    def wait_ready(self):
        for service in self.services.values():
            service.wait_ready()
        self._wait_introduced()
        return self

    def _wait_introduced(self, timeout=10):
        """A worker is ready a moment before routers have read that it is there, and a job that
        comes in between is refused. Workers of pools that no router serves are not waited for."""
        workers = [name for name in self.services if name.startswith("worker")]
        deadline = time.monotonic() + timeout
        for name, service in self.services.items():
            while (name.startswith("router") and time.monotonic() < deadline and
                   service.metric_sum("crafterse_router_live_workers") < len(workers)):
                time.sleep(0.05)

    @property
    def client(self):
        return Gateway(f"http://127.0.0.1:{self.gateway.port('http')}", self.key)

    def restart(self, name):
        self.services[name].start()
        return self.services[name]

    def stop(self):
        """Ends everything; fails when a service that ran does not end cleanly."""
        problems = []
        running = [service for service in self.services.values() if service.is_running()]
        for service in running:
            service.port("metrics")  # one that has only just begun does not catch the signal yet
            service.child.terminate()
        for service in self.services.values():
            try:
                if service in running:
                    service.stop_cleanly()
                service.check_log()
            except AssertionError as problem:
                problems.append(str(problem))
        if problems:
            raise AssertionError("\n".join(problems))

    def kill_all(self):
        for service in self.services.values():
            service.kill()

    # ---- What is promised --------------------------------------------------------------------

    def stored(self):
        """key -> bytes of everything in the object store."""
        if self.s3 is not None:
            return {key: value.body for key, value in self.s3.objects().items()}
        return {str(path.relative_to(self.objects_folder)): path.read_bytes()
                for path in self.objects_folder.rglob("*.png")}

    def check_one_end(self, job_ids, timeout=60):
        """Every job has exactly one visible end, the same for a client and in `status`; returns
        the ends by job id. This is the guarantee of docs/ARCHITECTURE.md."""
        ends = {}
        deadline = time.monotonic() + timeout
        for job_id in job_ids:
            seen = self.client.wait(job_id, max(1, deadline - time.monotonic()))
            terminal = [s for s in self.topics.statuses(job_id) if s.state >= 10]
            assert terminal, f"{job_id} is {seen['state']} for its client, unended in `status`"
            name = {10: "succeeded", 11: "failed", 12: "cancelled", 13: "expired"}
            assert seen["state"] == name[terminal[0].state], json.dumps(seen)
            if seen["state"] == "succeeded":
                stored = self.stored()
                for image in terminal[0].images:
                    assert image.object_key in stored, f"{job_id} succeeded without its object"
                    assert len(stored[image.object_key]) == image.bytes
            ends[job_id] = seen
        return ends
