#!/usr/bin/python3
"""make alerts-try: fires every alert of deploy/monitoring by a real cause on a running stack.

Apache Kafka, Redis, an S3 server, the four services (the worker with an engine that only waits),
and a real Prometheus and Alertmanager (Debian's packages) with the rules and the routing of the
tree. Time runs faster for these two alone: every `for`, interval and range is divided by FACTOR, so
a minute of a rule is a second here; limits are those of the rules, so who must wait for ten minutes
does. The last line is "N alerts fired, N not". Takes 12 minutes.

    alerts_try.py [--keep FOLDER]     FOLDER gets panels.json: what every dashboard's query gave
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

# pylint: disable=wrong-import-position
from deploy import monitoring  # noqa: E402
from support import nodes  # noqa: E402
from support.processes import BUILD, wait_until  # noqa: E402
from support.s3_server import S3Server  # noqa: E402
from support.stack import BIN, Stack  # noqa: E402

FACTOR = 60
STEP = 0.1            # seconds that a step takes the worker's engine
WAITING = 30          # jobs that wait for ten minutes in a paused pool
PRICE = 60            # dollars an hour
# An ACL on a resource shuts everybody else out from it; without one everybody may.
KAFKA = """authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
"""
RECEIVER = {"critical": "night", "warning": "day", "info": "planning"}


class Try:
    """The stack, what watches it, and what was found."""

    def __init__(self, folder):
        nodes.check_kafka_installed()
        self.kafka = nodes.Kafka(folder, settings=KAFKA).start()
        self.redis = nodes.Redis(folder).start()
        self.s3 = S3Server().start()
        names = ("router", "worker1", "worker2", "uploader", "gateway")
        ports = {name: nodes.free_port() for name in names}
        own = {"router": {"POOLS": "default,slow"}, "gateway": {"RATE_PER_MINUTE": "0"},
               "worker": {"STEP_TIME": f"{int(STEP * 1000)}ms"},
               "worker1": {}, "worker2": {"POOL": "slow", "MODEL_NAME": "slow"}, "uploader": {}}
        for name, port in ports.items():
            own[name]["METRICS_LISTEN"] = f"127.0.0.1:{port}"
        self.stack = Stack(folder / "stack", self.kafka.brokers, s3=self.s3, redis=self.redis,
                           worker_binary=BUILD / "test/bench/zero_worker", services=names,
                           service_settings=own).start()
        self.client = self.stack.client
        self.receivers = monitoring.Receivers()
        self.alertmanager = monitoring.Alertmanager(folder, FACTOR, self.receivers)
        self.alertmanager.start()
        self.prometheus = monitoring.Prometheus(folder, FACTOR, ports, self.alertmanager)
        self.prometheus.start()
        self.prometheus.wait_ready()
        self.watch = monitoring.Watch(self.prometheus)
        self.began, self.began_unix = time.monotonic(), time.time()
        self.rules = monitoring.alert_rules()
        self.causes = {}  # alert -> (when, in words, whether it was silent)
        self.fired = {}   # alert -> seconds from its cause
        self.expected = set()  # by the cause that is being made
        self.seed = 0

    # ---- What provokes -----------------------------------------------------------------------

    def order(self, seconds=STEP, **fields):
        """A job that its worker draws for so long; its id."""
        self.seed += 1
        return self.client.submit(f"sword {self.seed}", seed=self.seed, width=64, height=64,
                                  steps=max(1, round(seconds / STEP)),
                                  **{"model": "zero", **fields})["id"]

    def order_each(self, pause, lasting, **fields):
        """Jobs one after another for this long."""
        end, jobs = time.monotonic() + lasting, []
        while time.monotonic() < end:
            jobs.append(self.order(**fields))
            time.sleep(pause)
        return jobs

    def admin(self, *command):
        environment = {**os.environ, "CRAFTERSE_KAFKA_BROKERS": self.kafka.brokers,
                       "CRAFTERSE_KAFKA_TOPIC_PREFIX": self.stack.prefix,
                       "CRAFTERSE_POOLS": "default,slow"}
        subprocess.run([BIN / "crafterse-admin", *command], env=environment, check=True,
                       stdout=subprocess.DEVNULL)

    def forbid_reading(self, topic, option):
        """Whoever may not read a topic may not commit in it either."""
        nodes.kafka_tool("kafka.admin.AclCommand", "--bootstrap-server", self.kafka.brokers,
                         "--topic", self.stack.topics.name(topic), "--deny-principal", "User:*",
                         "--operation", "Read", option, "--force")

    # ---- What is said ------------------------------------------------------------------------

    def say(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def cause(self, words, *alerts):
        for name in alerts:
            self.causes[name] = (time.monotonic(), words, name not in self.watch.firing)
        self.say(words)

    def expect(self, *alerts, within):
        """Waits until they fire; what does not is told, and the next ones are tried."""
        deadline = time.monotonic() + within
        self.expected |= set(alerts)
        for name in alerts:
            began, _, silent = self.causes[name]
            while name not in self.watch.firing and time.monotonic() < deadline:
                time.sleep(0.1)
            if name not in self.watch.firing or not silent:
                why = "fired before its cause" if not silent else f"not within {within} s"
                self.say(f"  NOT {name}: {why}")
                continue
            self.fired.setdefault(name, self.watch.since[name] - began)
            self.say(f"  fires {name}: {self.watch.firing[name]}")

    def cured(self, words, *alerts, within=90):
        self.say(f"  {words}")
        wait_until(lambda: not set(alerts) & set(self.watch.firing), within, lambda: self.say(
            f"  still firing after {within} s: {set(alerts) & set(self.watch.firing)}"))

    def run(self, step):
        """One cause and its alerts; tells which others came with it. False when it broke."""
        began, self.expected = time.monotonic(), set()
        try:
            step(self)
        except AssertionError as problem:
            self.say(f"  BROKEN {step.__name__}: {problem}")
            return False
        # What was caused and is looked for later is on its way.
        known = self.expected | (set(self.causes) - set(self.fired))
        others = sorted(name for name, since in self.watch.since.items()
                        if since > began and name not in known)
        if others:
            self.say(f"  came with it: {', '.join(others)}")
        return True

    def stop(self):
        self.watch.stop()
        self.prometheus.terminate()
        self.alertmanager.terminate()
        self.stack.stop()
        self.redis.stop()
        self.kafka.stop()
        self.s3.stop()


# ---- The causes, in the order in which they are made -------------------------------------------

def a_healthy_stack_is_silent(t):
    t.say("a healthy stack: a job a second")
    t.order_each(1, 20)
    assert not t.watch.since, f"fired without a cause: {t.watch.since}"
    t.say("  nothing fires")


def jobs_wait_for_ten_minutes(t):
    """Their alerts are looked for at the end."""
    t.admin("pause", "slow")
    t.cause(f"pool slow is paused, {WAITING} interactive jobs are ordered from it",
            "CrafterseQueueOld", "CrafterseMigrateForScale", "CrafterseLatencyHigh",
            "CrafterseMeanLatencyHigh", "CrafterseMigrateForLatency")
    t.waiting_jobs = [t.order(model="slow") for _ in range(WAITING)]


def an_idle_worker_is_dear(t):
    worker = t.stack.worker2
    worker.environment["CRAFTERSE_PRICE_PER_HOUR"] = str(PRICE)
    worker.stop_cleanly()
    t.stack.restart("worker2").wait_ready()
    t.cause(f"the idle worker of pool slow costs {PRICE} dollars an hour",
            "CrafterseMigrateForCost", "CrafterseCostPerPictureHigh")


def a_foreign_writer(t):
    t.cause("bytes that are no message are written to requests", "CrafterseDeadLetters")
    t.stack.topics.write("requests", b"\xff no message of ours")
    t.expect("CrafterseDeadLetters", within=20)


def the_only_worker_dies(t):
    t.cause("the only worker of pool default is killed, two jobs are ordered",
            "CrafterseServiceDown", "CrafterseNoWorkers")
    t.stack.worker1.kill()
    jobs = [t.order() for _ in range(2)]
    t.expect("CrafterseServiceDown", within=20)
    t.expect("CrafterseNoWorkers", within=90)
    t.stack.restart("worker1").wait_ready()
    t.cured("it is started again", "CrafterseServiceDown", "CrafterseNoWorkers")
    assert {t.client.wait(job)["state"] for job in jobs} == {"succeeded"}


def workers_die_with_their_jobs(t):
    t.cause("the worker is killed twice in the middle of a job", "CrafterseRetries")
    for _ in range(2):
        job = t.order(3)
        t.client.wait_for(job, "running")
        t.stack.worker1.kill()
        t.stack.restart("worker1").wait_ready()
        assert t.client.wait(job)["state"] == "succeeded"
    t.expect("CrafterseRetries", within=40)


def more_jobs_than_a_worker_draws(t):
    t.cause("two jobs of 2 s a second for one worker", "CrafterseQueueGrowing")
    jobs = t.order_each(0.5, 25, seconds=2)
    t.expect("CrafterseQueueGrowing", within=10)
    for job in jobs:
        t.client.cancel(job)
    t.cured("they are cancelled", "CrafterseQueueGrowing")


def a_picture_takes_for_ever(t):
    t.cause("a picture of 50 s and no other", "CrafterseNoProgress")
    job = t.order(50)
    t.expect("CrafterseNoProgress", within=49)
    t.client.wait(job)
    t.cured("it is there", "CrafterseNoProgress")


def nobody_uploads(t):
    t.cause("the uploader is stopped, 112 pictures are drawn", "CrafterseResultsWaiting")
    t.stack.uploader.stop_cleanly()
    jobs = [t.order(n=8) for _ in range(14)]
    t.expect("CrafterseResultsWaiting", within=60)
    t.stack.restart("uploader").wait_ready()
    assert {t.client.wait(job, 120)["state"] for job in jobs} == {"succeeded"}
    t.cured("it is started again: all are stored", "CrafterseResultsWaiting")


def the_store_refuses(t):
    t.cause("the store answers 403 to every request", "CrafterseStoreRefusing")
    t.s3.fault = "denied"
    job = t.order()
    t.expect("CrafterseStoreRefusing", within=30)
    t.s3.fault = None
    assert t.client.wait(job)["state"] == "succeeded"
    t.cured("it takes pictures again: none was lost", "CrafterseStoreRefusing")


def the_store_is_away(t):
    t.cause("the store closes every connection", "CrafterseStoreAway")
    t.s3.fault = "down"
    job = t.order()
    t.expect("CrafterseStoreAway", within=40)
    t.s3.fault = None
    assert t.client.wait(job)["state"] == "succeeded"
    t.cured("it is back: no picture was lost", "CrafterseStoreAway")


def redis_is_away(t):
    t.cause("Redis is killed, a job a second", "CrafterseCacheAway")
    t.redis.kill()
    jobs = t.order_each(1, 25)
    t.expect("CrafterseCacheAway", within=20)
    assert {t.client.wait(job)["state"] for job in jobs} == {"succeeded"}
    t.redis.start()
    t.cured("it is started again: no job had failed", "CrafterseCacheAway")


def workers_come_and_go(t):
    t.cause("a second worker comes and goes every 3 s", "CrafterseRebalancing")
    t.stack.add("worker3")
    deadline = time.monotonic() + 60
    while "CrafterseRebalancing" not in t.watch.firing and time.monotonic() < deadline:
        t.stack.worker3.start().wait_ready()
        t.stack.worker3.stop_cleanly()
    t.expect("CrafterseRebalancing", within=10)
    t.cured("it stays away", "CrafterseRebalancing")


def kafka_takes_no_commits(t):
    t.s3.fault = "down"
    jobs = [t.order() for _ in range(3)]
    wait_until(lambda: t.stack.uploader.metric("crafterse_uploader_in_hand") == 3, 20)
    t.forbid_reading("results", "--add")
    t.s3.fault = None
    t.cause("everybody loses the right to read results while three pictures are in hand",
            "CrafterseCommitsFail")
    t.expect("CrafterseCommitsFail", within=60)
    t.forbid_reading("results", "--remove")
    assert {t.client.wait(job, 120)["state"] for job in jobs} == {"succeeded"}
    t.cured("the right is back: every job succeeded", "CrafterseCommitsFail", "CrafterseStoreAway")


def kafka_is_away(t):
    t.cause("the broker stands still for 60 s", "CrafterseKafkaUnreachable",
            "CrafterseUptimeLow")
    t.kafka.signal(signal.SIGSTOP)
    try:
        t.expect("CrafterseKafkaUnreachable", within=40)
        time.sleep(max(0, t.causes["CrafterseKafkaUnreachable"][0] + 60 - time.monotonic()))
    finally:
        t.kafka.signal(signal.SIGCONT)
    t.cured("it goes on", "CrafterseKafkaUnreachable")
    t.expect("CrafterseUptimeLow", within=120)


def a_service_that_starts_again_and_again(t):
    t.cause("the uploader is killed six times", "CrafterseRestarts")

    def answers():
        try:
            return t.stack.uploader.get("/healthz").ok
        except requests.exceptions.ConnectionError:
            return False
    for _ in range(6):
        t.stack.uploader.kill()
        t.stack.restart("uploader")
        wait_until(answers, 20)
        time.sleep(1.1)  # it is scraped once a second
    t.expect("CrafterseRestarts", within=5)
    t.cured("it is left alone", "CrafterseRestarts")


def jobs_miss_their_deadline(t):
    t.cause("ten jobs of a second each must be there within two", "CrafterseSuccessLow")
    jobs = [t.order(1, deadline=2) for _ in range(10)]
    ends = [t.client.wait(job)["state"] for job in jobs]
    t.say(f"  {ends.count('succeeded')} succeed, {ends.count('expired')} expire")
    t.expect("CrafterseSuccessLow", within=40)


def what_took_its_time(t):
    t.say("what began long ago")
    t.expect("CrafterseMigrateForCost", within=60)
    t.expect("CrafterseCostPerPictureHigh", within=300)
    t.expect("CrafterseMigrateForScale", within=60)
    t.expect("CrafterseQueueOld", within=700)
    t.admin("resume", "slow")
    t.say("pool slow is resumed")
    ends = [t.client.wait(job, 120)["state"] for job in t.waiting_jobs]
    assert set(ends) == {"succeeded"}
    t.expect("CrafterseLatencyHigh", "CrafterseMeanLatencyHigh", within=40)
    t.expect("CrafterseMigrateForLatency", within=120)
    t.cured("they are drawn", "CrafterseQueueOld")


STEPS = [a_healthy_stack_is_silent, jobs_wait_for_ten_minutes, an_idle_worker_is_dear,
         a_foreign_writer, the_only_worker_dies, workers_die_with_their_jobs,
         more_jobs_than_a_worker_draws, a_picture_takes_for_ever, nobody_uploads,
         the_store_refuses, the_store_is_away, redis_is_away, workers_come_and_go,
         kafka_takes_no_commits, kafka_is_away, a_service_that_starts_again_and_again,
         jobs_miss_their_deadline, what_took_its_time]


# ---- The end -----------------------------------------------------------------------------------

def report(t):
    """True when every alert fired, and came to its receiver."""
    print(f"\n{'alert':29}{'after s':>8}  {'looks back':>10} {'for':>4}  told to")
    wrong = 0
    for name, rule in t.rules.items():
        wanted = RECEIVER[rule["labels"]["severity"]]
        told = ", ".join(sorted(t.receivers.told.get(name, {"nobody"})))
        after = f"{t.fired[name]:.1f}" if name in t.fired else "-"
        wrong += name in t.fired and told != wanted
        print(f"{name:29}{after:>8}  {monitoring.longest_range(rule['expr']) or '-':>10} "
              f"{rule.get('for', '-'):>4}  {told}{'' if told == wanted else ' (WRONG)'}")
    print(f"(looks back, for: as in the rules; here each is divided by {FACTOR})")
    print(f"\n{len(t.fired)} alerts fired, {len(t.rules) - len(t.fired)} not; {wrong} of them "
          "came to nobody or to somebody else")
    return len(t.fired) == len(t.rules) and wrong == 0


def look_at_panels(t, keep):
    """True when every query of the dashboards gave something while all of this went on."""
    found = monitoring.ask_panels(t.prometheus, t.began_unix, time.time())
    empty = [one for one in found if not one["series"]]
    print(f"\n{len(found)} queries of the dashboards' panels: {len(found) - len(empty)} gave data")
    for one in empty:
        print(f"  nothing: {one['dashboard']}: {one['panel']}: {one['query']}")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        (keep / "panels.json").write_text(json.dumps(found))
    return not empty


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alerts-") as folder:
        t = Try(Path(folder))
        try:
            complete = all([t.run(step) for step in STEPS])
            complete = report(t) and complete
            complete = look_at_panels(t, arguments.keep) and complete
            t.stop()
        finally:
            t.stack.kill_all()
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
