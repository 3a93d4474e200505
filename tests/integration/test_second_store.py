"""A second store beside the first: a copy of everything, a stand-in, and mended when it is back."""

import pytest

from support.processes import BUILD, wait_until
from support.s3_server import S3Server

SMALL = {"width": 64, "height": 64, "steps": 1, "cache": "bypass"}


@pytest.fixture
def second():
    server = S3Server(buckets=("copies",)).start()
    yield server
    server.stop()


@pytest.fixture
def pair(make_stack, s3, second):
    settings = {key.replace("CRAFTERSE_", "SECOND_"): value
                for key, value in second.settings("copies").items()}
    return make_stack(s3=s3, worker_binary=BUILD / "test/bench/zero_worker", service_settings={
        "uploader": {**settings, "STORE_PATIENCE": "500ms", "RETRY_MAX": "500ms"},
        "gateway": {"CDN_BASE_URL": "https://first.example",
                    "SECOND_CDN_BASE_URL": "https://second.example"}})


def bodies(server, bucket):
    return {key: value.body for key, value in server.objects(bucket).items()}


def draw(stack, seed, **fields):
    return stack.client.draw("a sword in two places", seed=seed, **{**SMALL, **fields})


def test_every_picture_is_in_both(pair, s3, second):
    job = draw(pair, 1, n=2)
    assert len(bodies(s3, "pictures")) == 2
    assert bodies(s3, "pictures") == bodies(second, "copies")
    assert job["url"].startswith("https://first.example/")


@pytest.mark.parametrize("fault", ["down", "error", "no_bucket", "denied"])
def test_the_second_stands_in_and_the_first_is_mended(pair, s3, second, fault):
    s3.fault = fault
    job = draw(pair, 2, n=2)
    assert {image["url"].split("/")[2] for image in job["images"]} == {"second.example"}
    assert bodies(s3, "pictures") == {} and len(bodies(second, "copies")) == 2
    assert pair.uploader.is_ready(), "a second store is there for this"
    assert pair.uploader.metric("crafterse_uploader_store_failing", store="first") == 1
    refuses = pair.uploader.metric("crafterse_uploader_store_refusing", store="first")
    assert refuses == (1 if fault in ("no_bucket", "denied") else 0)
    # What is not mended yet outlives the uploader.
    pair.uploader.kill()
    s3.fault = None
    pair.restart("uploader").wait_ready()
    wait_until(lambda: bodies(s3, "pictures") == bodies(second, "copies"), 40)
    wait_until(lambda: pair.topics.lag("repairs", "uploader") == 0, 20)
    assert draw(pair, 3)["url"].startswith("https://first.example/")


def test_without_the_second_nobody_waits_and_it_is_mended(pair, s3, second):
    second.fault = "down"
    jobs = [draw(pair, seed) for seed in (4, 5)]
    assert all(job["url"].startswith("https://first.example/") for job in jobs)
    assert bodies(second, "copies") == {}
    second.fault = None
    wait_until(lambda: bodies(s3, "pictures") == bodies(second, "copies"), 30)
    wait_until(lambda: pair.topics.lag("repairs", "uploader") == 0, 10)
    assert pair.uploader.metric("crafterse_uploader_repairs_total", outcome="copied") == 2


def test_with_both_away_jobs_wait(pair, s3, second):
    s3.fault = second.fault = "down"
    job = pair.client.submit("a sword nowhere", seed=6, **SMALL)["id"]
    pair.client.wait_for(job, "rendered")
    wait_until(lambda: not pair.uploader.is_ready(), 20)
    second.fault = None
    assert pair.client.wait(job)["state"] == "succeeded"
    s3.fault = None
    wait_until(lambda: bodies(s3, "pictures") == bodies(second, "copies"), 30)
