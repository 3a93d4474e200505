"""What is wrong from the start, or with the machine: each service says so and goes on by itself as
soon as it is put right."""

import io
import os
import random
import subprocess
import time

from PIL import Image
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

from support.processes import BUILD, wait_until

ZERO_WORKER = BUILD / "test/bench/zero_worker"
SMALL = {"width": 64, "height": 64, "steps": 1}
# Preloaded into a service: while the file that FULL_DISK names exists, every disk is full.
FULL_DISK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real_write)(int, const void *, size_t);
    struct stat info;
    const char *flag = getenv("FULL_DISK");
    if (real_write == NULL) {
        *(void **)&real_write = dlsym(RTLD_NEXT, "write");
    }
    if (fd > 2 && flag != NULL && access(flag, F_OK) == 0 && fstat(fd, &info) == 0 &&
        S_ISREG(info.st_mode)) {
        errno = ENOSPC;
        return -1;
    }
    return real_write(fd, data, size);
}
"""


def why_not(service):
    return service.get("/readyz").text


def start(stack, names):
    for name in names:
        stack.services[name].start()
    for name in names:
        wait_until(lambda: stack.services[name].port("metrics"), 20)


def test_services_wait_for_a_broker_and_say_so(own_kafka, make_stack, s3):
    brokers = own_kafka.brokers
    own_kafka.kill()
    stack = make_stack(start=False, brokers=brokers, s3=s3, worker_binary=ZERO_WORKER)
    start(stack, stack.services)
    for name, service in stack.services.items():
        wait_until(lambda: "broker" in why_not(service).lower(), 40,
                   lambda: service.fail(why_not(service)))
        assert service.is_running() and service.get("/healthz").status_code == 200, name
    own_kafka.start()
    stack.wait_ready()
    stack.client.draw("after all", seed=1, **SMALL)
    # It goes away once more, while nobody has anything to do: that is seen, too.
    own_kafka.kill()
    for name in ("gateway", "router", "worker1", "uploader"):
        service = stack.services[name]
        wait_until(lambda: service.get("/readyz").status_code == 503, 30,
                   lambda: service.fail("is ready without a broker"))
        assert service.get("/healthz").status_code == 200
    own_kafka.start()
    stack.wait_ready()
    stack.client.draw("and again", seed=2, **SMALL)


def test_services_wait_for_their_topics_and_name_one(kafka, make_stack, s3):
    stack = make_stack(start=False, s3=s3, worker_binary=ZERO_WORKER)
    early = ("worker1", "uploader", "gateway")
    start(stack, early)
    for name in early:
        service = stack.services[name]
        wait_until(lambda: stack.prefix in why_not(service), 40,
                   lambda: service.fail(why_not(service)))
    stack.router.start()  # it may create them
    stack.wait_ready()
    stack.client.draw("at last", seed=1, **SMALL)
    client = AdminClient({"bootstrap.servers": kafka.brokers})
    found = client.list_topics(timeout=10).topics
    wanted = {"requests": 4, "queue.default.interactive": 4, "queue.default.batch": 4,
              "jobs.default": 8, "retry.default": 2, "results": 4, "status": 4, "hits": 1,
              "progress": 2, "workers": 1, "control": 1, "deadletter": 1, "inputs": 2, "repairs": 1}
    assert {name.removeprefix(stack.prefix): len(topic.partitions) for name, topic in found.items()
            if name.startswith(stack.prefix)} == wanted
    results, workers = (ConfigResource(ConfigResource.Type.TOPIC, stack.topics.name(name))
                        for name in ("results", "workers"))
    policy = {resource: future.result(10) for resource, future in
              client.describe_configs([results, workers]).items()}
    assert policy[results]["max.message.bytes"].value == str(16 * 1024 * 1024)
    assert int(policy[results]["retention.bytes"].value) > 0
    assert policy[workers]["cleanup.policy"].value == "compact"
    assert policy[workers]["delete.retention.ms"].value == str(8 * 24 * 3600 * 1000)


def test_a_router_that_may_not_create_topics_says_why_and_ends(make_stack):
    stack = make_stack(start=False, services=["router"],
                       service_settings={"router": {"TOPICS_REPLICATION": "3"}})
    stack.router.start()
    wait_until(lambda: not stack.router.is_running(), 30)
    assert stack.router.child.returncode != 0
    assert "cannot create topics" in stack.router.log()
    assert "eplication factor" in stack.router.log()


def test_a_picture_that_the_cluster_does_not_take_fails_its_job_alone(kafka, make_stack, s3):
    stack = make_stack(start=False, s3=s3)
    client = AdminClient({"bootstrap.servers": kafka.brokers})
    made = client.create_topics(
        [NewTopic(stack.topics.name("results"), 4, 1, config={"max.message.bytes": "3000"}),
         NewTopic(stack.topics.name("inputs"), 2, 1, config={"max.message.bytes": "3000"})])
    for future in made.values():
        future.result(30)
    stack.start()
    job = stack.client.draw_in_vain("too large", seed=1, width=128, height=128, steps=1)
    assert job["error"]["code"] == "picture_too_large"
    noise = io.BytesIO()
    Image.frombytes("RGB", (64, 64), random.Random(1).randbytes(64 * 64 * 3)).save(noise, "PNG")
    answer = stack.client.give(noise.getvalue())
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
    assert stack.router.is_ready() and stack.worker1.is_ready()


def test_a_full_disk_delays_pictures_and_loses_none(make_stack, tmp_path):
    library = tmp_path / "full_disk.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-x", "c", "-o", library, "-", "-ldl"],
                   input=FULL_DISK, text=True, check=True)
    flag = tmp_path / "full"
    stack = make_stack(start=False, worker_binary=ZERO_WORKER)
    # A sanitizer wants to be the first library, but need not.
    sanitizer = os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"
    stack.uploader.environment.update({"LD_PRELOAD": str(library), "FULL_DISK": str(flag),
                                       "ASAN_OPTIONS": sanitizer})
    stack.start()
    flag.touch()
    job = stack.client.submit("no room", seed=1, **SMALL)["id"]
    wait_until(lambda: "No space left" in why_not(stack.uploader), 20,
               lambda: stack.uploader.fail(why_not(stack.uploader)))
    time.sleep(0.5)
    assert stack.client.get(job)["state"] == "rendered"
    flag.unlink()
    assert stack.client.wait(job)["state"] == "succeeded"
    wait_until(stack.uploader.is_ready, 10)
    assert not list((stack.objects_folder / ".incoming").iterdir()), "a half was left behind"
