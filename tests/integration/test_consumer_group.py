"""What common/bus/consumer.c promises, on a real Kafka: no record is lost and none of its attempts
goes uncounted, however its members come and go."""

import collections
import random
import signal
import time

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from support.processes import BUILD, Process
from support.topics import Topics, watermarks

MEMBER = BUILD / "test/support/group_member"
PARTITIONS = 8
SESSION_SECONDS = 6


class Group:
    """One topic, its group, and members that come and go."""

    def __init__(self, brokers, folder):
        self.brokers = brokers
        self.folder = folder
        self.topics = Topics(brokers, f"group-{time.time_ns()}.")
        self.topic = self.topics.name("work")
        self.members = []
        self.settings = {}
        self.topics.create("work", partitions=PARTITIONS)

    def fill(self, count):
        producer = Producer({"bootstrap.servers": self.brokers, "acks": "all"})
        for number in range(count):
            producer.produce(self.topic, str(number), partition=number % PARTITIONS)
        assert producer.flush(30) == 0

    def join(self, **settings):
        member = Process(f"member-{len(self.members) + 1}", [MEMBER], self.folder, {
            "CRAFTERSE_KAFKA_BROKERS": self.brokers, "CRAFTERSE_MEMBER_TOPIC": self.topic,
            "CRAFTERSE_MEMBER_GROUP": self.topic,
            "CRAFTERSE_KAFKA_SESSION_TIMEOUT": f"{SESSION_SECONDS}s",
            **{f"CRAFTERSE_{key}": value for key, value in {**self.settings, **settings}.items()},
        }).start()
        self.members.append(member)
        return member

    def said(self, word, members=None):
        """What members said in lines that begin with word, as tuples of numbers."""
        lines = [line.split() for member in members or self.members
                 for line in member.log().splitlines()]
        return [tuple(int(part) for part in line[1:]) for line in lines if line[:1] == [word]]

    def lag(self):
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": self.topic})
        try:
            wanted = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
            committed = consumer.committed(wanted, timeout=20)
            return sum(watermarks(consumer, one)[1] - max(one.offset, 0) for one in committed)
        finally:
            consumer.close()

    def wait_until_done(self, seconds):
        deadline = time.monotonic() + seconds
        while self.lag() > 0:
            assert time.monotonic() < deadline, f"{self.lag()} records are not committed"
            time.sleep(0.5)

    def wait_for(self, what, seconds=30):
        deadline = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    def end(self):
        for member in self.members:
            if member.is_running():
                member.child.send_signal(signal.SIGTERM)
        for member in self.members:
            member.child.wait(30)
            member.check_log()


@pytest.fixture
def group(kafka, tmp_path):
    made = Group(kafka.brokers, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "range"])
def test_no_record_is_lost_while_members_die_and_leave(group, assignor):
    """Kills and departures in turn while records are in hand: each record has its effect at least
    once, the offsets end at the end, and repeated work stays within what was in hand."""
    count, faults, chance = 800, 6, random.Random(7)
    group.settings = {"KAFKA_ASSIGNOR": assignor}
    group.fill(count)
    running = [group.join() for _ in range(3)]
    group.wait_for(lambda: group.said("done"))
    for fault in range(faults):
        time.sleep(chance.uniform(0.3, 1.5))
        member = running.pop(chance.randrange(len(running)))
        member.child.send_signal(signal.SIGKILL if fault % 2 == 0 else signal.SIGTERM)
        status = member.child.wait(20)
        assert status == (-signal.SIGKILL if fault % 2 == 0 else 0), member.log()[-2000:]
        running.append(group.join())
    group.wait_until_done(90)
    effects = collections.Counter(line[:2] for line in group.said("effect"))
    assert len(effects) == count
    assert sum(effects.values()) - count < count / 2
    assert {status for *_, status in group.said("done")} <= {0, -10}


def test_an_attempt_is_counted_before_the_work_and_survives_kill_9(group):
    group.fill(1)
    for attempt in (1, 2, 3):
        member = group.join(MEMBER_WORK="10m")
        group.wait_for(lambda: group.said("start", [member]))
        assert group.said("start", [member]) == [(0, 0, attempt)]
        member.child.kill()
        member.child.wait()
    assert group.said("effect") == []


def test_a_member_that_leaves_hands_over_at_once(group):
    """SIGTERM ends what is in hand and gives the partitions back: no session has to time out."""
    group.fill(PARTITIONS)
    leaver = group.join(MEMBER_WORK="300ms")
    group.wait_until_done(30)
    heir = group.join()
    group.wait_for(lambda: "partitions changed" in heir.log())
    leaver.child.send_signal(signal.SIGTERM)
    assert leaver.child.wait(10) == 0
    group.fill(PARTITIONS)
    begin = time.monotonic()
    group.wait_for(lambda: len(group.said("effect", [heir])) == PARTITIONS)
    assert time.monotonic() - begin < SESSION_SECONDS / 2
    assert len(group.said("effect")) == 2 * PARTITIONS


def test_a_partition_that_moves_brings_no_attempt_with_it(group):
    """Nobody has failed at what a living member has in hand when another one joins."""
    group.fill(PARTITIONS)
    settings = {"MEMBER_WORK": "10m", "MEMBER_IN_HAND": str(PARTITIONS)}
    first = group.join(**settings)
    group.wait_for(lambda: len(group.said("start", [first])) == PARTITIONS)
    heir = group.join(**settings)
    group.wait_for(lambda: len(group.said("start", [heir])) == PARTITIONS // 2)
    assert {attempt for *_, attempt in group.said("start", [heir])} == {1}
    for member in (first, heir):
        member.kill()


def test_a_long_record_costs_neither_membership_nor_its_neighbours(group):
    """Longer than the session and the poll interval: the member stays, the other partitions go on,
    and the record is worked on once."""
    settings = {"KAFKA_EXTRA": "max.poll.interval.ms=7000"}
    group.fill(1)
    slow = group.join(MEMBER_WORK="16s", **settings)
    group.wait_for(lambda: group.said("start"))
    group.wait_until_done(60)
    assert group.said("start") == [(0, 0, 1)]
    assert group.said("done") == [(0, 0, 0)]
    assert slow.log().count("change=assigned") == 1
