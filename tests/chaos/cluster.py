"""A real Apache Kafka of three brokers, as production has it: three copies of each partition, two
of which acknowledge. Each broker has two listeners: a plain one for those who look (tests, checker)
and one that is advertised through a proxy, which the services use."""

import base64
import os
import random
import secrets
import socket
from pathlib import Path

from chaos.proxy import Proxy
from support.nodes import Kafka
from support.processes import wait_until


def free_port():
    """Below the kernel's range for outgoing connections, so that nothing takes the port while its
    owner is down."""
    while True:
        port = random.randint(20000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


class Broker(Kafka):
    """One node of the cluster."""

    def __init__(self, folder, cluster, node):
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(folder)
        self.node = node
        self.plain_port, self.controller_port = free_port(), free_port()
        self.proxied_port = free_port()
        self.proxy = Proxy(self.proxied_port, kafka=True)
        self.settings = folder / "server.overrides"
        self.process.command.append(str(self.settings))
        self.process.environment.update({"CRAFTERSE_KAFKA_CLUSTER": cluster,
                                         "CRAFTERSE_KAFKA_HEAP": "320m"})

    def write_settings(self, voters, cluster_size):
        plain = f"PLAINTEXT://127.0.0.1:{self.plain_port}"
        proxied = "PROXIED://127.0.0.1"
        controller = f"CONTROLLER://127.0.0.1:{self.controller_port}"
        self.settings.write_text(f"""
node.id={self.node}
controller.quorum.voters={voters}
listeners={plain},{proxied}:{self.proxied_port},{controller}
advertised.listeners={plain},{proxied}:{self.proxy.port}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT
offsets.topic.replication.factor={cluster_size}
offsets.topic.num.partitions=6
transaction.state.log.replication.factor={cluster_size}
unclean.leader.election.enable=false
broker.session.timeout.ms=4000
replica.lag.time.max.ms=5000
leader.imbalance.check.interval.seconds=10
controlled.shutdown.max.retries=1
log.segment.bytes=16777216
log.index.size.max.bytes=65536
""")

    def begin(self):
        """Starts without waiting: a cluster's first nodes wait for each other."""
        self.process.start()
        return self

    def wait(self):
        self.port = self.process.port("kafka", timeout=120)
        return self

    def kill(self):
        pid = int((self.data / "kafka.pid").read_text())
        os.kill(pid, 9)
        self.process.child.wait(30)


class Cluster:
    """size 1 is for the short tests: the same listeners, one copy."""

    def __init__(self, folder, size=3):
        self.size = size
        cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22].replace("-", "a")
        self.nodes = [Broker(Path(folder) / f"broker{i}", cluster, i)
                      for i in range(1, size + 1)]
        voters = ",".join(f"{n.node}@127.0.0.1:{n.controller_port}" for n in self.nodes)
        for node in self.nodes:
            node.write_settings(voters, size)

    @property
    def brokers(self):
        """For those who look."""
        return ",".join(f"127.0.0.1:{node.plain_port}" for node in self.nodes)

    @property
    def proxied(self):
        """For the services."""
        return ",".join(f"127.0.0.1:{node.proxy.port}" for node in self.nodes)

    @property
    def proxies(self):
        return [node.proxy for node in self.nodes]

    def start(self):
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.wait()
        return self

    def heal(self):
        for proxy in self.proxies:
            proxy.heal()
        for node in self.nodes:
            if not node.process.is_running():
                node.begin()
        for node in self.nodes:
            node.wait()

    def stop(self):
        for proxy in self.proxies:
            proxy.close()
        for node in self.nodes:
            if node.process.is_running():
                node.process.child.terminate()
        for node in self.nodes:
            if node.process.child is not None:
                wait_until(lambda n=node: not n.process.is_running(), 30)
