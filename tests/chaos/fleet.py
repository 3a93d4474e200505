"""The services under attack: several of each, watched over as Kubernetes would (what ends is
started again), on real Kafka, Redis and S3."""

import hashlib
import os
import secrets
import signal
import threading
import time
from pathlib import Path

from chaos.cluster import Cluster, free_port
from chaos.proxy import Proxy
from support import nodes
from support.processes import BUILD, TREE
from support.s3_server import S3Server
from support.stack import BIN, Stack

FAULT_BUILD = TREE / "build/fault"
KEYS = ("alpha", "beta", "gamma")
SESSION_TIMEOUT_S = 3
RESTART_PAUSE_S = 0.3


class World:
    """What the services stand on. brokers=1 is for the short tests."""

    def __init__(self, folder, brokers=3):
        self.folder = Path(folder)
        self.cluster = Cluster(self.folder / "kafka", brokers)
        self.redis_folder = self.folder / "redis"
        self.redis_folder.mkdir(parents=True, exist_ok=True)
        self.redis = nodes.Redis(self.redis_folder)
        self.redis_proxy = Proxy(self.redis.port)
        self.s3 = S3Server()
        self.fleets = 0

    def start(self):
        self.redis.start()
        self.s3.start()
        self.cluster.start()
        return self

    def stop(self):
        self.cluster.stop()
        self.redis.stop()
        self.redis_proxy.close()
        self.s3.stop()

    def heal(self):
        self.s3.fault, self.s3.delay = None, 0
        self.redis_proxy.heal()
        if not self.redis.process.is_running():
            self.redis.start()
        self.cluster.heal()

    def fleet(self, **options):
        """New services in a new world: another fleet's pictures and cache entries are gone."""
        self.fleets += 1
        self.redis.client.flushall()
        self.s3.buckets["pictures"] = {}
        return Fleet(self, self.folder / f"fleet{self.fleets}", **options)


class ProxiedRedis:
    def __init__(self, proxy):
        self.url = f"redis://127.0.0.1:{proxy.port}/0"


class Fleet(Stack):
    """`counts` are instances of each service; faulty=True takes the build whose services die and
    err where they are told to. Pool "default" is drawn by zero_worker (everything of the worker but
    the engine), pool "real" by the worker itself with the tests' small model. `programs` says what
    some services run instead: {"worker1": path}."""

    def __init__(self, world, folder, *, counts=None, faulty=False, broken=None, settings=None,
                 service_settings=None, step_time="50ms", pools=("default",),
                 programs=None):
        self.world = world
        self.faulty = faulty or broken is not None
        self.broken = broken
        self.programs = programs or {}
        self.step_time = step_time
        self.keys = {name: secrets.token_urlsafe(24) for name in KEYS}
        self.http_ports = {}
        self.visitors = set()  # gateways that come for a while
        self.has_real = (counts or {}).get("realworker", 0) > 0
        # Gateways that were given less room than the jobs need answer 410 for those long over.
        self.forgets_jobs = "JOBS_MAX" in (service_settings or {}).get("gateway", {})
        self.pools = (*pools, "real") if self.has_real else pools
        counts = {"router": 2, "worker": 2, "uploader": 2, "gateway": 2, **(counts or {})}
        names = [f"{kind}{i + 1}" for kind in ("router", "worker", "realworker", "uploader",
                                               "gateway") for i in range(counts.get(kind, 0))]
        super().__init__(folder, world.cluster.proxied, s3=world.s3,
                         redis=ProxiedRedis(world.redis_proxy), settings=settings,
                         service_settings=service_settings, services=names)
        self.topics.brokers = world.cluster.brokers
        self.supervisor = Supervisor(self)

    def _write_keys(self):
        self.key = self.keys[KEYS[0]]
        lines = (f"{name}:{hashlib.sha256(key.encode()).hexdigest()}:rate=10000,burst=10000\n"
                 for name, key in self.keys.items())
        (self.folder / "api.keys").write_text("".join(lines))

    def _binary(self, name):
        if name in self.programs:
            return self.programs[name]
        kind = name.rstrip("0123456789")
        if kind == "worker":
            build = FAULT_BUILD if self.faulty else BUILD
            return build / "test/bench/zero_worker"
        name = "worker" if kind == "realworker" else kind
        return (FAULT_BUILD / "bin" if self.faulty else BIN) / name

    def _environment(self, name, kind):
        ours = {
            "gateway": {"REDIS_TIMEOUT": "100ms"},
            "router": {"TOPICS_REPLICATION": self.world.cluster.size, "WORKER_TTL": "8s",
                       "POOLS": ",".join(self.pools)},
            "worker": {"STEP_TIME": self.step_time},
            "realworker": {"POOL": "real"},
            "uploader": {"S3_TIMEOUT": "5s", "RETRY_MAX": "1s"},
        }[kind]
        if kind == "gateway":  # the same address after a restart, for its clients
            port = self.http_ports.setdefault(name, free_port())
            ours["HTTP_LISTEN"] = f"127.0.0.1:{port}"
        base = super()._environment(name, "worker" if kind == "realworker" else kind)
        shared = {"KAFKA_SESSION_TIMEOUT": f"{SESSION_TIMEOUT_S}s", "LOG_LEVEL": "info",
                  "KAFKA_FETCH_WAIT": "20ms"}
        mine = {f"CRAFTERSE_{key}": value for key, value in {
            **shared, **ours, **self.settings, **self.service_settings.get(kind, {}),
            **self.service_settings.get(name, {})}.items()}
        if self.broken is not None:
            mine["CRAFTERSE_FAULT_BREAK"] = self.broken
        if kind == "worker":
            base.pop("CRAFTERSE_MODEL_PATH", None)
            base.pop("CRAFTERSE_THREADS", None)
        return {**base, **mine}

    def add(self, name):
        service = super().add(name)
        service.command[0] = str(self._binary(name))
        return service

    # ---- Life --------------------------------------------------------------------------------

    def start(self):
        super().start()
        self.supervisor.start()
        return self

    def of_kind(self, kind):
        return sorted(name for name in self.services if name.rstrip("0123456789") == kind)

    @property
    def gateways(self):
        """Those that clients know."""
        return [self.gateway_url(name) for name in self.of_kind("gateway")
                if name not in self.visitors]

    def gateway_url(self, name):
        return f"http://127.0.0.1:{self.http_ports[name]}"

    def arm(self, name, point, **settings):
        """Starts the service again so that it dies at the point ("outbox.after_send:3"), or does
        there what the point's last word says (common/base/fault.h); the supervisor starts it a
        second time without."""
        service = self.services[name]
        self.leave(name)
        extra = {"CRAFTERSE_FAULT_POINT": point,
                 **{f"CRAFTERSE_{key}": value for key, value in settings.items()}}
        before = dict(service.environment)
        service.environment.update(extra)
        service.start()
        service.environment = before
        self.supervisor.hold(name, expects_kill=point.count(":") == 1)
        return service

    def was_passed(self, name, point):
        return f"point={point}\n" in self.services[name].log()

    def kill(self, name):
        """SIGKILL; the supervisor starts it again."""
        self.supervisor.expect(name)
        self.services[name].kill()

    def leave(self, name, timeout=60):
        """SIGTERM, and no new start."""
        self.supervisor.release(name)
        self.services[name].stop_cleanly(timeout)

    def signal(self, name, number):
        if self.services[name].is_running():
            os.kill(self.services[name].pid, number)

    def heal(self):
        for name in self.services:
            self.signal(name, signal.SIGCONT)
        self.world.heal()
        for name in sorted(self.supervisor.held):
            if not self.services[name].is_running():
                time.sleep(2 * RESTART_PAUSE_S)

    def stop(self):
        self._let_go()
        super().stop()
        self.supervisor.stop()

    def abandon(self):
        self._let_go()
        self.kill_all()
        self.supervisor.stop()

    def _let_go(self):
        """Nothing is started again. The supervisor's thread stays while the services are there:
        what it has started dies with it (Process, pdeathsig)."""
        for name in self.services:
            self.supervisor.release(name)
            self.signal(name, signal.SIGCONT)


class Supervisor(threading.Thread):
    """Starts again what ended. A service that ends by itself with a status is one that gave up
    (librdkafka's fatal errors: docs/PROTOCOL.md) and is counted; one that dies of a signal that we
    did not send is a failure."""

    def __init__(self, fleet):
        super().__init__(daemon=True)
        self.fleet = fleet
        self.held = set(fleet.services)
        self.expected = {}  # name -> deaths by SIGKILL that the test caused
        self.restarts = 0
        self.gave_up = []
        self.crashes = []
        self.ending = threading.Event()
        self.lock = threading.Lock()

    def hold(self, name, expects_kill=False):
        with self.lock:
            self.held.add(name)
            self.expected[name] = self.expected.get(name, 0) + expects_kill

    def release(self, name):
        with self.lock:
            self.held.discard(name)

    def expect(self, name):
        with self.lock:
            self.expected[name] = self.expected.get(name, 0) + 1

    def stop(self):
        self.ending.set()
        if self.is_alive():
            self.join()

    def _note(self, name, status):
        if status == 0:
            return
        if status > 0:
            self.gave_up.append(f"{name} ended with status {status}")
        elif status == -signal.SIGKILL and self.expected.get(name, 0) > 0:
            self.expected[name] -= 1
        else:
            self.crashes.append(f"{name} died of signal {-status} "
                                f"({self.fleet.services[name].log_path})")

    def run(self):
        while not self.ending.wait(RESTART_PAUSE_S):
            with self.lock:
                for name in sorted(self.held):
                    service = self.fleet.services.get(name)
                    if service is None or service.child is None or service.is_running():
                        continue
                    self._note(name, service.child.returncode)
                    self.restarts += 1
                    service.start()
