"""A gateway alone on a real Kafka, and a test that plays router, worker and uploader."""

import time
import uuid

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from support.messages import Control, Image, Job, Progress, Status, WorkerAnnouncement
from support.stack import Stack

TOPICS = ("requests", "status", "hits", "progress", "workers", "control")
STATES = {"queued": 1, "dispatched": 2, "running": 3, "rendered": 4, "succeeded": 10, "failed": 11,
          "cancelled": 12, "expired": 13}


def now_ms():
    return int(time.time() * 1000)


class Player:
    """Starts only the gateway; its topics are made here. `settings` are the gateway's."""

    def __init__(self, folder, brokers, redis=None, embedded=False, **settings):
        self.stack = Stack(folder, brokers, redis=redis, workers=0, embedded=embedded,
                           service_settings={"gateway": {"OBJECTS_FOLDER": folder / "objects",
                                                         "KAFKA_FETCH_WAIT": "20ms", **settings}})
        self.brokers = brokers
        self.gateway = self.stack.services["gateway"]
        self.producer = Producer({"bootstrap.servers": brokers, "acks": "all", "linger.ms": 0,
                                  "partitioner": "murmur2_random"})

    def make_topics(self):
        client = AdminClient({"bootstrap.servers": self.brokers})
        made = client.create_topics([NewTopic(self.stack.topics.name(topic), 3, 1)
                                     for topic in TOPICS])
        for future in made.values():
            future.result(30)
        return self

    def start(self, announce=True):
        self.gateway.start().wait_ready()
        if announce:
            self.announce()
        return self

    def stop(self):
        if self.gateway.is_running():
            self.gateway.stop_cleanly()
        self.gateway.check_log()

    @property
    def client(self):
        return self.stack.client

    @property
    def port(self):
        return self.gateway.port("http")

    # ---- What the others would write -----------------------------------------------------------

    def _send(self, topic, message, key):
        self.producer.produce(self.stack.topics.name(topic), message.SerializeToString(), key)
        assert self.producer.flush(30) == 0, f"{topic}: Kafka did not take a record"

    def announce(self, worker_id="worker-1", model="demo", seconds=2.0, wait=True, **fields):
        """A worker says what it serves; waits until the gateway has read it."""
        message = WorkerAnnouncement(worker_id=worker_id, pool="default", lanes=[0, 1],
                                     last_seen_ms=now_ms(), started_ms=now_ms(),
                                     seconds_per_picture=seconds)
        message.envelope.sent_ms = now_ms()
        message.models.add(name=model, digest="d" * 64, width_default=128, height_default=128,
                           width_max=1024, height_max=1024, size_multiple=8, steps_default=20,
                           steps_max=100, guidance_default=7, scheduler_default="ddim",
                           schedulers=["ddim", "euler"], **fields)
        self._send("workers", message, worker_id)
        deadline = time.monotonic() + 20
        while wait and model not in [m["name"] for m in self.client.models()["models"]]:
            assert time.monotonic() < deadline, "the announcement did not arrive"
            time.sleep(0.02)

    def status(self, job_id, state, attempt=0, **fields):
        message = Status(state=STATES.get(state, state), pool="default", **fields)
        message.key_id = message.key_id or "tests"
        message.envelope.job_id = job_id
        message.envelope.attempt = attempt
        message.envelope.sent_ms = now_ms()
        self._send("status", message, job_id)

    def progress(self, job_id, step, steps=20, attempt=1, image=0):
        message = Progress(step=step, steps=steps, stage="denoise", image_index=image,
                           elapsed_ms=step * 100)
        message.envelope.job_id = job_id
        message.envelope.attempt = attempt
        message.envelope.sent_ms = now_ms()
        self._send("progress", message, job_id)

    def succeed(self, job, attempt=1):
        """The end of a job as an uploader tells it."""
        images = [Image(index=image["index"], seed=image["seed"], bytes=1234,
                        content_hash=image["content_hash"], width=image["width"],
                        height=image["height"],
                        object_key=f"{image['content_hash'][:2]}/{image['content_hash']}.png")
                  for image in job["images"]]
        self.status(job["id"], "succeeded", attempt, images=images)

    def run(self, job, steps=3):
        """The whole life of a job."""
        for state in ("queued", "dispatched"):
            self.status(job["id"], state)
        self.status(job["id"], "running", 1)
        for step in range(1, steps + 1):
            self.progress(job["id"], step, steps)
        self.status(job["id"], "rendered", 1)
        self.succeed(job)

    # ---- What the gateway wrote ----------------------------------------------------------------

    def requests(self, job_id=None):
        jobs = [Job.FromString(value) for _, value in self.stack.topics.records("requests")]
        return [job for job in jobs if job_id in (None, job.envelope.job_id)]

    def cancels(self, job_id):
        controls = [Control.FromString(value) for _, value in self.stack.topics.records("control")]
        return [control for control in controls if control.envelope.job_id == job_id]


class AutoPlayer:
    """Ends every job at once, in a thread of its own, until it is left."""

    def __init__(self, player):
        import threading
        self.player = player
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self):
        name = self.player.stack.topics.name("requests")
        self.consumer = Consumer({"bootstrap.servers": self.player.brokers,
                                  "group.id": f"player-{uuid.uuid4()}", "fetch.wait.max.ms": 10})
        partitions = self.consumer.list_topics(name, timeout=10).topics[name].partitions
        ends = []
        for partition in partitions:
            _, high = self.consumer.get_watermark_offsets(TopicPartition(name, partition), 10)
            ends.append(TopicPartition(name, partition, high))
        self.consumer.assign(ends)
        self.thread.start()
        return self

    def _run(self):
        while not self.stopping.is_set():
            record = self.consumer.poll(0.1)
            if record is None or record.error():
                continue
            job = Job.FromString(record.value())
            images = [{"index": i.index, "seed": i.seed, "content_hash": i.content_hash,
                       "width": i.width, "height": i.height} for i in job.images]
            self.player.succeed({"id": job.envelope.job_id, "images": images})

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        self.consumer.close()
