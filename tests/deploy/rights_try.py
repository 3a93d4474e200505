#!/usr/bin/python3
"""make rights-try: the users, rights and topics of deploy/k8s on a real Apache Kafka.

A broker with TLS, SCRAM-SHA-512 and an authorizer; the topics of option1-free/topics.sh and the
users of components/strimzi/users.yaml, made by the commands that topics.sh and users.py print; the
four services, each as its own user, and one picture out of them. Then each user tries everything:
what it may must be what users.yaml says. The last line is "N rights as written, N not".
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "deploy/k8s"))

# pylint: disable=wrong-import-position
import users  # noqa: E402
from support import nodes  # noqa: E402
from support.processes import BUILD, TREE, wait_until  # noqa: E402
from support.stack import BIN, Stack  # noqa: E402
from support.topics import Topics  # noqa: E402

TOOLS = {"kafka-configs.sh": "kafka.admin.ConfigCommand",
         "kafka-acls.sh": "kafka.admin.AclCommand",
         "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand"}
PREFIX = "crafterse."
MIB = 1048576
GROUPS = ("router", "worker.default", "uploader", "uploader.repairs", "gateway.a", "somebody")
DENIED = ("TOPIC_AUTHORIZATION_FAILED", "GROUP_AUTHORIZATION_FAILED",
          "CLUSTER_AUTHORIZATION_FAILED")


class Broker(nodes.Kafka):
    """Its plain listener is the superuser's; `secured` is for everybody else."""

    def __init__(self, folder):
        ports = [nodes.free_port() for _ in range(3)]
        self.secured = f"127.0.0.1:{ports[1]}"
        self.ca = folder / "ca.crt"
        key = folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=kafka", "-addext", "subjectAltName=IP:127.0.0.1",
                        "-keyout", key, "-out", self.ca], check=True, capture_output=True)
        (folder / "broker.pem").write_text(key.read_text() + self.ca.read_text())
        listeners = f"PLAINTEXT://127.0.0.1:{ports[0]},CLIENTS://{self.secured}"
        super().__init__(folder, settings=f"""
controller.quorum.voters=1@127.0.0.1:{ports[2]}
listeners={listeners},CONTROLLER://127.0.0.1:{ports[2]}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENTS:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.clients.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PEM
ssl.keystore.location={folder}/broker.pem
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
""")


def say(text):
    print(text, flush=True)


def write_tools(folder):
    """Kafka's scripts by name, as the printed commands call them."""
    folder.mkdir()
    for name, java_class in TOOLS.items():
        (folder / name).write_text(
            "#!/bin/sh\nexec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto "
            f'-cp "{nodes.kafka_home()}/lib/*" {java_class} "$@"\n')
        (folder / name).chmod(0o755)


def run_commands(tools, *script):
    """What a person does with a script that prints commands: pipes it into bash -e."""
    printed = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    done = subprocess.run(["bash", "-e"], input=printed, text=True, capture_output=True,
                          env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}, check=False)
    assert done.returncode == 0, f"{script[0]}: {done.stdout}{done.stderr}"
    return printed


# ---- Topics -------------------------------------------------------------------------------------

def make_topics(broker, tools):
    printed = run_commands(tools, TREE / "deploy/k8s/overlays/option1-free/topics.sh",
                           "--bootstrap-server", broker.brokers)
    told = nodes.kafka_tool(TOOLS["kafka-topics.sh"], "--bootstrap-server", broker.brokers,
                            "--describe")
    topics, bound = {}, 0
    for line in told.splitlines():
        fields = dict(part.split(": ", 1) for part in line.split("\t") if ": " in part)
        if "PartitionCount" in fields and fields["Topic"].startswith(PREFIX):
            config = dict(pair.split("=") for pair in fields["Configs"].split(","))
            count = int(fields["PartitionCount"])
            topics[fields["Topic"]] = count
            bound += count * (int(config["retention.bytes"]) + int(config["segment.bytes"]))
    total = sum(topics.values())
    say(f"{len(topics)} topics as topics.sh says: {total} of 100 partitions, at most "
        f"{bound / 1e6:.0f} of 1000 MB ({printed.splitlines()[-1]})")
    assert total <= 100 and bound <= 1e9
    return sorted(topics)


def fill(broker, topic, size, count):
    """Writes far more than the topic may keep; the MiB that its first partition takes after."""
    producer = Producer({"bootstrap.servers": broker.brokers, "message.max.bytes": 16 * MIB,
                         "queue.buffering.max.kbytes": 64 * 1024})
    for _ in range(count):
        producer.produce(topic, value=secrets.token_bytes(size), partition=0)
        producer.flush(60)
    folder = broker.data / "records" / f"{topic}-0"

    def taken():
        return sum(path.stat().st_size for path in folder.glob("*.log")) / MIB
    last = [taken(), time.monotonic()]

    def settled():
        """the broker has deleted what it will"""
        now = taken()
        if now != last[0]:
            last[:] = now, time.monotonic()
        return time.monotonic() - last[1] > 3
    wait_until(settled, 60, interval=0.2)
    return count * size / MIB, taken()


# ---- One picture, each service as its own user --------------------------------------------------

def login(broker, passwords, user):
    """As the overlay's ConfigMap and the component sasl say."""
    return {"METRICS_LISTEN": "127.0.0.1:0", "KAFKA_BROKERS": broker.secured,
            "KAFKA_SECURITY_PROTOCOL": "sasl_ssl", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user, "KAFKA_SASL_PASSWORD_FILE": passwords / user,
            "KAFKA_SSL_CA_LOCATION": broker.ca}


def draw(broker, passwords, folder):
    own = {service: login(broker, passwords, f"{PREFIX[:-1]}-{service}")
           for service in ("gateway", "router", "worker", "uploader")}
    own["router"]["TOPICS_CREATE"] = "false"
    own["worker"].update({"FAILING_DRAWS": "1", "JOB_RETRY_FIRST": "200ms", "STEP_TIME": "50ms"})
    stack = Stack(folder / "stack", broker.secured, prefix=PREFIX, service_settings=own,
                  worker_binary=BUILD / "test/bench/zero_worker")
    stack.topics = Topics(broker.brokers, PREFIX)
    try:
        stack.start()
        client = stack.client
        picture = client.draw("a flaming sword", seed=1, width=64, height=64, steps=4)
        assert len(client.download(picture["url"])) == picture["images"][0]["bytes"]
        say(f"a picture, each service as its own user: {picture['state']}")
        again = client.draw("fail once", seed=2, width=64, height=64, steps=4)
        say(f"a job whose first attempt fails: {again['state']} at attempt {again['attempts']}")
        late = client.submit("too late", seed=3, width=64, height=64, steps=400)
        client.cancel(late["id"])
        say(f"a job that is cancelled: {client.wait(late['id'])['state']}")
        stack.topics.write("requests", b"\xff no message of ours")
        wait_until(lambda: len(stack.topics.dead_letters()) == 1, 20)
        say("a dead letter: written by the router")
        operate(broker, passwords)
        stack.stop()
    finally:
        stack.kill_all()


def operate(broker, passwords):
    settings = login(broker, passwords, "crafterse-operator")
    environment = {f"CRAFTERSE_{name}": str(value) for name, value in settings.items()
                   if name.startswith("KAFKA_")}

    def admin(*command):
        done = subprocess.run([BIN / "crafterse-admin", *command], env=environment, check=False,
                              capture_output=True, text=True)
        assert done.returncode == 0, f"crafterse-admin {command}: {done.stderr}"
        return done.stdout.splitlines()
    for command in (["queues"], ["workers"], ["pause", "default"], ["resume", "default"]):
        admin(*command)
    letter = admin("letters")[1].split()[0]
    admin("letters", "show", letter)
    admin("letters", "drop", letter)
    say("crafterse-admin as crafterse-operator: queues, workers, pause, resume, letters")


# ---- Who may do what ----------------------------------------------------------------------------

class Client:
    """One user; each method is True when the broker let it, False when it forbade it."""

    def __init__(self, broker, passwords, user):
        self.settings = {
            "bootstrap.servers": broker.secured, "security.protocol": "sasl_ssl",
            "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": user,
            "sasl.password": (passwords / user).read_text(), "ssl.ca.location": str(broker.ca),
            "log_level": 2}
        self.producer = Producer({**self.settings, "message.timeout.ms": 20000})
        self.reader = Consumer({**self.settings, "group.id": "unused", "fetch.wait.max.ms": 20,
                                "enable.auto.commit": False, "enable.partition.eof": True})
        self.admin = AdminClient(self.settings)

    @staticmethod
    def is_allowed(error, otherwise=()):
        """Any other error is none that this try expects."""
        if error is not None and error.name() not in DENIED + otherwise:
            raise AssertionError(str(error))
        return error is None or error.name() not in DENIED

    def is_told_of(self, topic):
        """Without a right at all a topic is not even told of."""
        return self.is_allowed(self.reader.list_topics(topic, 30).topics[topic].error)

    def may_write(self, topic):
        if not self.is_told_of(topic):
            return False
        errors = []
        self.producer.produce(topic, b"x", key=b"x", partition=0,
                              on_delivery=lambda error, _: errors.append(error))
        self.producer.flush(30)
        return self.is_allowed(errors[0])

    def may_read(self, topic):
        if not self.is_told_of(topic):
            return False
        self.reader.assign([TopicPartition(topic, 0, 0)])
        try:
            record = self.reader.poll(30)
            while record is not None and record.error() is not None and \
                    record.error().name() == "GROUP_AUTHORIZATION_FAILED":
                record = self.reader.poll(30)  # of the group that this reader has to name
        finally:
            self.reader.unassign()
        assert record is not None, f"{topic}: no record and no error"
        return self.is_allowed(record.error(), ("_PARTITION_EOF", "OFFSET_OUT_OF_RANGE",
                                                "_AUTO_OFFSET_RESET"))

    def may_join(self, group, topic):
        """Whether it can be a member, who may commit too."""
        consumer = Consumer({**self.settings, "group.id": group, "enable.auto.commit": False})
        assigned = []
        consumer.subscribe([topic], on_assign=lambda *_: assigned.append(True))
        try:
            for _ in range(300):
                record = consumer.poll(0.1)
                if record is not None and record.error() is not None:
                    return self.is_allowed(record.error())
                if assigned or record is not None:
                    return True
            raise AssertionError(f"{group}: neither joined nor forbidden")
        finally:
            consumer.close()

    def may_manage(self, topic):
        """Whether it can make a topic or delete one."""
        found = []
        for future in (*self.admin.create_topics([NewTopic(f"{PREFIX}new", 1, 1)]).values(),
                       *self.admin.delete_topics([topic]).values()):
            try:
                future.result(20)
                found.append(True)
            except KafkaException as refused:
                found.append(self.is_allowed(refused.args[0]))
        return any(found)


def written(rights, kind, name, operation):
    return any(kind == k and operation in operations and
               (name.startswith(resource) if pattern == "prefix" else name == resource)
               for k, resource, pattern, operations in rights)


def try_everything(broker, passwords, topics):
    """Tries each user on each topic and group: (as written, differences)."""
    right, wrong = 0, []
    for user, rights in users.users():
        client = Client(broker, passwords, user)
        found = {}
        for topic in topics:
            found["topic", topic, "Write"] = client.may_write(topic)
            found["topic", topic, "Read"] = client.may_read(topic)
        readable = next(topic for topic in topics if found["topic", topic, "Read"])
        for group in GROUPS:
            found["group", PREFIX + group, "Read"] = client.may_join(PREFIX + group, readable)
        found["topic", topics[0], "Create or Delete"] = client.may_manage(topics[0])
        for (kind, name, operation), allowed in found.items():
            if allowed == written(rights, kind, name, operation):
                right += 1
            else:
                wrong.append(f"{user}: {operation} on {kind} {name}: "
                             f"{'allowed' if allowed else 'denied'}")
        say(f"{user}: {sum(found.values())} of {len(found)} things are allowed")
        client.reader.close()
    return right, wrong


def main():
    nodes.check_kafka_installed()
    with tempfile.TemporaryDirectory(prefix="rights-") as name:
        folder = Path(name)
        broker = Broker(folder)
        passwords = folder / "passwords"
        passwords.mkdir()
        for user, _ in users.users():
            (passwords / user).write_text(secrets.token_urlsafe(24))
        tools = folder / "bin"
        write_tools(tools)
        broker.start()
        topics = make_topics(broker, tools)
        printed = run_commands(tools, TREE / "deploy/k8s/users.py", passwords,
                               "--bootstrap-server", broker.brokers)
        say(f"{len(list(users.users()))} users by {len(printed.splitlines())} commands of users.py")
        draw(broker, passwords, folder)
        right, wrong = try_everything(broker, passwords, topics)
        for topic, size, count, bound in (("results", 4 * MIB, 30, 64),
                                          ("status", 900_000, 60, 32)):
            came, kept = fill(broker, PREFIX + topic, size, count)
            say(f"{came:.0f} MiB written to one partition of {topic}: {kept:.0f} kept, "
                f"{bound} planned")
            assert kept <= bound
        broker.stop()
    print("\n".join(wrong))
    print(f"{right} rights as written, {len(wrong)} not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
