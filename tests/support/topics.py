"""Reads and writes topics past our own code: librdkafka through Debian's confluent-kafka."""

import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from support import messages

MESSAGE_BYTES_MAX = 16 * 1024 * 1024


def ask(question):
    """A new topic has no leader at first, and one whose broker came back gets another; so do
    groups' coordinators."""
    for left in reversed(range(100)):
        try:
            return question()
        except KafkaException:
            if left == 0:
                raise
            time.sleep(0.1)


def watermarks(consumer, partition):
    """The offsets of the first record and behind the last."""
    return ask(lambda: consumer.get_watermark_offsets(partition, timeout=10))


class Topics:
    """The topics of one stack; names are given without the prefix."""

    def __init__(self, brokers, prefix):
        self.brokers = brokers
        self.prefix = prefix

    def name(self, topic):
        return self.prefix + topic

    # ---- Writing -----------------------------------------------------------------------------

    def write(self, topic, payload, key=None, partition=None):
        """One record; returns when Kafka has it."""
        producer = Producer({"bootstrap.servers": self.brokers, "acks": "all",
                             "message.max.bytes": MESSAGE_BYTES_MAX, "linger.ms": 0,
                             "partitioner": "murmur2_random"})
        failures = []
        name = self.name(topic)
        extra = {} if partition is None else {"partition": partition}
        # librdkafka looks only once a second for the partition of a record that was written before
        # it knew a broker.
        producer.list_topics(name, timeout=30)
        producer.produce(name, value=payload, key=key,
                         on_delivery=lambda error, _: failures.append(error), **extra)
        producer.flush(30)
        assert failures == [None], f"{name}: not written: {failures or 'no answer'}"

    def write_all(self, topic, payloads):
        """Records without keys, as they come."""
        producer = Producer({"bootstrap.servers": self.brokers, "acks": "all",
                             "message.max.bytes": MESSAGE_BYTES_MAX})
        for payload in payloads:
            producer.produce(self.name(topic), value=payload)
        assert producer.flush(60) == 0, f"{self.name(topic)}: not all records were written"

    def send(self, topic, message, partition=None):
        self.write(topic, message.SerializeToString(), message.envelope.job_id or None, partition)

    def create(self, *topics, partitions=4):
        """For services that run without a router, which would make them."""
        client = AdminClient({"bootstrap.servers": self.brokers})
        settings = {"max.message.bytes": str(MESSAGE_BYTES_MAX)}
        wanted = [NewTopic(self.name(topic), partitions, 1, config=settings) for topic in topics]
        for future in client.create_topics(wanted).values():
            future.result(30)

    def add_partitions(self, topic, total):
        client = AdminClient({"bootstrap.servers": self.brokers})
        wanted = [NewPartitions(self.name(topic), total)]
        for future in client.create_partitions(wanted).values():
            future.result(30)

    # ---- Reading -----------------------------------------------------------------------------

    def exists(self, topic):
        client = AdminClient({"bootstrap.servers": self.brokers})
        return self.name(topic) in client.list_topics(timeout=10).topics

    def records(self, topic):
        """Everything that is in the topic now, partition by partition, as (key, bytes)."""
        return [(record.key(), record.value()) for record in self._records(topic)]

    def headers(self, topic, key):
        """Those of the last record with this key, {} when there is none."""
        found = [record.headers() or [] for record in self._records(topic)
                 if record.key() == key.encode()]
        return {name: value.decode() for name, value in found[-1]} if found else {}

    def _records(self, topic):
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": "tests-read",
                             "enable.auto.commit": False, "fetch.wait.max.ms": 20,
                             "enable.partition.eof": False,
                             "fetch.message.max.bytes": MESSAGE_BYTES_MAX})
        try:
            name = self.name(topic)
            partitions = consumer.list_topics(name, timeout=10).topics[name].partitions
            ends = {}
            for partition in partitions:
                low, high = watermarks(consumer, TopicPartition(name, partition))
                if high > low:
                    ends[partition] = (low, high)
            consumer.assign([TopicPartition(name, p, low) for p, (low, _) in ends.items()])
            return self._read_to(consumer, {p: high for p, (_, high) in ends.items()})
        finally:
            consumer.close()

    @staticmethod
    def _read_to(consumer, ends):
        found = {partition: [] for partition in ends}
        deadline = time.monotonic() + 30
        while ends and time.monotonic() < deadline:
            record = consumer.poll(0.2)
            if record is None:
                continue
            assert record.error() is None, record.error()
            partition = record.partition()
            if partition in ends:
                found[partition].append(record)
                if record.offset() + 1 >= ends[partition]:
                    del ends[partition]
        assert not ends, f"the topic could not be read to its end: {ends} missing"
        return [record for partition in sorted(found) for record in found[partition]]

    def read(self, topic, message_type):
        """All messages of a topic that decode, in the order of their partitions."""
        found = []
        for _, value in self.records(topic):
            message = message_type()
            try:
                message.ParseFromString(value or b"")
            except Exception:  # pylint: disable=broad-except
                continue
            found.append(message)
        return found

    def statuses(self, job_id):
        return [status for status in self.read("status", messages.Status)
                if status.envelope.job_id == job_id]

    def hits(self, job_id=None):
        """The ends of jobs that were answered from a cache without an Idempotency-Key: of all."""
        return [end for hits in self.read("hits", messages.Hits) for end in hits.ends
                if job_id in (None, end.envelope.job_id)]

    def dead_letters(self):
        return self.read("deadletter", messages.DeadLetter)

    def partitions(self, topic):
        client = AdminClient({"bootstrap.servers": self.brokers})
        name = self.name(topic)
        return len(client.list_topics(name, timeout=10).topics[name].partitions)

    def lag(self, topic, group):
        """Records of the topic that the group has not committed."""
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": self.prefix + group,
                             "enable.auto.commit": False})
        try:
            name = self.name(topic)
            partitions = [TopicPartition(name, partition) for partition in
                          consumer.list_topics(name, timeout=10).topics[name].partitions]
            waiting = 0
            for committed in ask(lambda: consumer.committed(partitions, timeout=10)):
                low, high = watermarks(consumer, committed)
                waiting += high - max(committed.offset, low)
            return waiting
        finally:
            consumer.close()
