"""Holds what clients saw against what the topics and the store say. The rules are in
docs/CHAOS.md."""

import hashlib
import io
import time
from collections import Counter, defaultdict

from PIL import Image as Picture

from chaos.ledger import ENDS
from support.messages import TERMINAL, DeadLetter, Job, Result, State, Status

LAG_PATIENCE_S = 15
NAMES = {State.STATE_SUCCEEDED: "succeeded", State.STATE_FAILED: "failed",
         State.STATE_CANCELLED: "cancelled", State.STATE_EXPIRED: "expired"}


class Verdict:
    def __init__(self):
        self.jobs = 0
        self.lost, self.doubled, self.wrong = [], [], []
        self.forgotten = 0      # cache hits whose id nobody knows any more, which is allowed
        self.again = 0          # jobs whose work was done more than once, which is allowed
        self.ends = Counter()

    @property
    def is_clean(self):
        return not (self.lost or self.doubled or self.wrong)

    def line(self):
        return (f"{self.jobs} jobs, {len(self.lost)} lost, {len(self.doubled)} doubled, "
                f"{len(self.wrong)} wrong")

    def add(self, other):
        self.jobs += other.jobs
        self.again += other.again
        self.forgotten += other.forgotten
        self.ends += other.ends
        self.lost += other.lost
        self.doubled += other.doubled
        self.wrong += other.wrong

    def problems(self):
        return ([f"lost: {text}" for text in self.lost] +
                [f"doubled: {text}" for text in self.doubled] +
                [f"wrong: {text}" for text in self.wrong])


class Evidence:
    """Everything that the topics and the store hold."""

    def __init__(self, topics, stored):
        self.requests = {}                  # job id -> Job, the first
        self.ends = {}                      # job id -> Status, the first terminal one
        self.runs = Counter()               # job id -> how often it was started
        self.pictures = defaultdict(set)    # content hash -> SHA-256 of each PNG that was drawn
        for job in topics.read("requests", Job):
            if job.envelope.job_id:  # what an empty record decodes to has none
                self.requests.setdefault(job.envelope.job_id, job)
        for status in topics.read("status", Status):
            job_id = status.envelope.job_id
            if status.state >= TERMINAL:
                self.ends.setdefault(job_id, status)
            elif status.state == State.STATE_RUNNING and status.retry_at_ms == 0:
                self.runs[job_id] += 1
        for end in topics.hits():
            self.ends.setdefault(end.envelope.job_id, end)
        for result in topics.read("results", Result):
            self.pictures[result.image.content_hash].add(hashlib.sha256(result.png).hexdigest())
        self.letters = topics.read("deadletter", DeadLetter)
        self.stored = stored


def check_picture(evidence, job_id, image, generation):
    """What is wrong with one picture of a job that succeeded."""
    body = evidence.stored.get(image.object_key)
    if body is None:
        return f"{job_id} succeeded without its object {image.object_key}"
    if image.content_hash not in image.object_key:
        return f"{job_id}: object {image.object_key} is not named by {image.content_hash}"
    drawn = evidence.pictures.get(image.content_hash)
    if drawn and hashlib.sha256(body).hexdigest() not in drawn:
        return f"{job_id}: object {image.object_key} is no picture that was drawn for it"
    if len(body) != image.bytes:
        return f"{job_id}: object {image.object_key} has {len(body)} bytes, not {image.bytes}"
    picture = Picture.open(io.BytesIO(body))
    said = picture.info.get("parameters", "")
    if generation is not None and generation.prompt not in said:
        return f"{job_id}: object {image.object_key} shows another order: {said[:80]!r}"
    if generation is not None and generation.model == "zero":
        colour = image.seed & 0xff
        if picture.convert("RGB").getpixel((0, 0)) != (colour, colour, colour):
            return f"{job_id}: object {image.object_key} does not show seed {image.seed}"
    return None


def check_hit(verdict, evidence, order):
    """The picture of a hit is there, whatever became of the job's id."""
    for content_hash in order.content_hashes:
        if not any(content_hash in key for key in evidence.stored):
            verdict.wrong.append(f"{order.id} was answered from the cache with {content_hash}, "
                                 "which is not in the store")


def check_order(verdict, evidence, order):
    """One job that a client was promised."""
    end = evidence.ends.get(order.id)
    verdict.wrong += [f"{order.id} {text}" for text in order.wrongs]
    if end is None and order.is_hit:
        verdict.forgotten += 1
        check_hit(verdict, evidence, order)
        return
    if end is None:
        verdict.lost.append(f"{order.id} was accepted and has no end in `status` "
                            f"(on `requests`: {order.id in evidence.requests})")
        return
    if not order.ends:
        verdict.lost.append(f"{order.id} has ended as {NAMES.get(end.state)} and no client sees it")
    if len(order.ends) > 1:
        verdict.doubled.append(f"{order.id} was seen to end as " + " and as ".join(
            f"{state} by {who}" for state, who in order.ends.items()))
    elif order.ends and NAMES.get(end.state) not in order.ends:
        verdict.doubled.append(f"{order.id} ended as {NAMES.get(end.state)} in `status` and as "
                               f"{next(iter(order.ends))} for its client")
    verdict.ends[NAMES.get(end.state)] += 1


def check_ends(verdict, evidence):
    """Jobs that nobody was promised must be as right: a client whose connection broke may ask."""
    for job_id, job in evidence.requests.items():
        end = evidence.ends.get(job_id)
        if end is None:
            verdict.lost.append(f"{job_id} is on `requests` and has no end in `status`")
        elif end.state == State.STATE_SUCCEEDED and len(end.images) != job.generation.n:
            verdict.wrong.append(f"{job_id}: {len(end.images)} of {job.generation.n} pictures")
    for job_id, end in evidence.ends.items():
        job = evidence.requests.get(job_id)
        if end.state != State.STATE_SUCCEEDED:
            continue
        for image in end.images:
            problem = check_picture(evidence, job_id, image, job.generation if job else None)
            if problem is not None:
                verdict.wrong.append(problem)


def check_lags(verdict, fleet):
    readers = [("requests", "router"), ("results", "uploader")]
    for pool in fleet.pools:
        readers += [(f"queue.{pool}.interactive", "router"), (f"queue.{pool}.batch", "router"),
                    (f"retry.{pool}", "router"), (f"jobs.{pool}", f"worker.{pool}")]
    deadline = time.monotonic() + LAG_PATIENCE_S
    for topic, group in readers:
        lag = fleet.topics.lag(topic, group)
        while lag != 0 and time.monotonic() < deadline:  # the last commit may be on its way
            time.sleep(0.5)
            lag = fleet.topics.lag(topic, group)
        if lag != 0:
            verdict.wrong.append(f"{lag} records of {topic} are left uncommitted at the end")


def check(fleet, ledger, poisoned=(), refusals_are_wrong=True):
    """The whole verdict on a fleet that has come to rest. poisoned: the reasons of the dead letters
    that the scenario made; None when it cannot say."""
    verdict = Verdict()
    evidence = Evidence(fleet.topics, fleet.stored())
    verdict.jobs = len(ledger.orders)
    for order in ledger.orders.values():
        check_order(verdict, evidence, order)
    if refusals_are_wrong:
        verdict.wrong += ledger.wrongs
    known = set(ledger.orders)
    check_ends(verdict, evidence)
    # Every cache hit was answered: its end stands in `hits` alone.
    for job_id in set(evidence.ends) - set(evidence.requests) - known:
        if evidence.ends[job_id].state != State.STATE_SUCCEEDED:
            verdict.wrong.append(f"{job_id} ended and was never ordered")
    # A record that is read twice is buried twice.
    letters = {(letter.topic, letter.partition, letter.offset, letter.reason)
               for letter in evidence.letters}
    found = Counter(reason for *_, reason in letters)
    if poisoned is not None and found != Counter(poisoned):
        verdict.wrong.append(f"dead letters {dict(found)}, expected {dict(Counter(poisoned))}")
    verdict.wrong += fleet.supervisor.crashes
    check_lags(verdict, fleet)
    verdict.again = sum(1 for job_id in ledger.orders if evidence.runs[job_id] > 1)
    return verdict


assert set(NAMES.values()) == set(ENDS)
