"""The uploader alone: results written by the test, objects and states read by the test."""

import hashlib
import io
import secrets
import time
import uuid

import pytest
from PIL import Image as Pillow

from support import messages
from support.processes import wait_until

SERVICES = ["uploader"]


def png(colour="red"):
    out = io.BytesIO()
    Pillow.new("RGB", (8, 8), colour).save(out, "PNG")
    return out.getvalue()


def make_results(count=1, pictures=None):
    """The results of one job of `count` pictures, in order."""
    job_id = str(uuid.uuid4())
    now_ms = int(time.time() * 1000)
    images = [messages.Image(index=i, seed=7 + i, width=8, height=8,
                             content_hash=secrets.token_hex(32)) for i in range(count)]
    results = []
    for i, image in enumerate(images):
        result = messages.Result(image=image, images=images, accepted_ms=now_ms - 1000,
                                 rendered_ms=now_ms - 10, key_id="tests", worker_id="w1",
                                 png=pictures[i] if pictures else png())
        result.envelope.job_id = job_id
        result.envelope.attempt = 1
        result.envelope.traceparent = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
        result.timings.denoise_ms = 321
        results.append(result)
    return results


def make_uploader(make_stack, **options):
    stack = make_stack(start=False, services=SERVICES, **options)
    stack.topics.create("results", "status", "deadletter")
    return stack.start()


def wait_terminal(stack, job_id, timeout=20):
    def ended():
        return [s for s in stack.topics.statuses(job_id) if s.state >= messages.TERMINAL]
    return wait_until(ended, timeout, lambda: stack.uploader.fail(f"did not end job {job_id}"))[0]


def wait_dead_letter(stack):
    """The one dead letter: it is written beside the status, in no order."""
    letter, = wait_until(stack.topics.dead_letters, 20,
                         lambda: stack.uploader.fail("wrote no dead letter"))
    return letter


def wait_committed(stack):
    wait_until(lambda: stack.topics.lag("results", "uploader") == 0, 20,
               lambda: stack.uploader.fail("did not commit"))


@pytest.fixture
def uploader(make_stack, s3, redis):
    return make_uploader(make_stack, s3=s3, redis=redis)


def test_a_result_becomes_an_object_a_state_and_a_commit(uploader, s3):
    result, = make_results()
    uploader.topics.send("results", result)
    status = wait_terminal(uploader, result.envelope.job_id)
    assert status.state == messages.State.STATE_SUCCEEDED
    assert status.key_id == "tests"
    assert status.envelope.traceparent == result.envelope.traceparent
    assert status.timings.denoise_ms == 321
    assert 1000 <= status.timings.total_ms < 30000
    assert 10 <= status.timings.upload_ms < 30000
    image, = status.images
    assert image.object_key.endswith(f"{result.image.content_hash}.png")
    stored = s3.objects()[image.object_key]
    assert stored.body == result.png
    assert image.bytes == len(result.png)
    assert stored.content_type == "image/png"
    assert stored.cache_control == "public, max-age=31536000, immutable"
    wait_committed(uploader)


def test_requests_are_what_r2_takes(uploader, s3):
    result, = make_results()
    uploader.topics.send("results", result)
    wait_terminal(uploader, result.envelope.job_id)
    puts = [headers for method, _, status, headers in s3.requests if method == "PUT"]
    assert len(puts) == 1
    headers = {name.lower(): value for name, value in puts[0].items()}
    assert headers["x-amz-content-sha256"] == hashlib.sha256(result.png).hexdigest()
    assert headers["if-none-match"] == "*"
    assert "expect" not in headers
    assert "transfer-encoding" not in headers


def test_the_cache_entry_is_the_jobs_pictures_in_one_operation_and_expires(uploader, redis):
    results = make_results(2, [png("red"), png("green")])
    before = uploader.uploader.metric("crafterse_redis_operations_total")
    for result in results:
        result.cache_key = "ab" * 32
        uploader.topics.send("results", result)
    status = wait_terminal(uploader, results[0].envelope.job_id)
    key = f"crafterse:order:{'ab' * 32}"
    entry = messages.CacheEntry()
    entry.ParseFromString(redis.client.get(key))
    assert list(entry.images) == list(status.images)
    assert 0 < redis.client.ttl(key) <= 3600
    assert uploader.uploader.metric("crafterse_redis_operations_total") == before + 1


def test_what_is_not_to_be_remembered_or_is_not_whole_is_not(uploader, redis):
    for key, change in (("", {}), ("cd" * 32, {"cache": 1}), ("ef" * 32, {"partial_steps": 3})):
        result, = make_results()
        result.cache_key = key
        result.cache = change.get("cache", 0)
        result.image.partial_steps = result.images[0].partial_steps = change.get("partial_steps", 0)
        uploader.topics.send("results", result)
        status = wait_terminal(uploader, result.envelope.job_id)
        assert status.state == messages.State.STATE_SUCCEEDED
        assert redis.client.get(f"crafterse:order:{key}") is None


def test_a_full_redis_that_evicts_nothing_is_named(own_redis, make_stack, s3):
    own_redis.client.config_set("maxmemory-policy", "noeviction")
    own_redis.client.config_set("maxmemory", "1")
    uploader = make_uploader(make_stack, s3=s3, redis=own_redis)
    result, = make_results()
    result.cache_key = "ab" * 32
    uploader.topics.send("results", result)
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED
    assert "allkeys-lru" in uploader.uploader.log()


def test_all_pictures_of_a_job_are_stored_before_it_succeeds(uploader, s3):
    results = make_results(3, [png("red"), png("green"), png("blue")])
    for result in results[:2]:
        uploader.topics.send("results", result)
    wait_committed(uploader)
    assert uploader.topics.statuses(results[0].envelope.job_id) == []
    uploader.topics.send("results", results[2])
    status = wait_terminal(uploader, results[0].envelope.job_id)
    assert [image.index for image in status.images] == [0, 1, 2]
    assert [image.seed for image in status.images] == [7, 8, 9]
    stored = s3.objects()
    for image, result in zip(status.images, results):
        assert stored[image.object_key].body == result.png
        assert image.bytes == len(result.png)


def test_the_same_result_twice_is_one_object(uploader, s3):
    result, = make_results()
    uploader.topics.send("results", result)
    wait_terminal(uploader, result.envelope.job_id)
    again = messages.Result()
    again.CopyFrom(result)
    again.envelope.job_id = str(uuid.uuid4())
    uploader.topics.send("results", again)
    status = wait_terminal(uploader, again.envelope.job_id)
    assert status.state == messages.State.STATE_SUCCEEDED
    assert s3.count("PUT", 412) == 1
    assert len(s3.objects()) == 1


def test_other_bytes_under_the_same_key_are_reported_and_the_first_stay(uploader, s3):
    first, = make_results()
    uploader.topics.send("results", first)
    wait_terminal(uploader, first.envelope.job_id)
    other = messages.Result()
    other.CopyFrom(first)
    other.envelope.job_id = str(uuid.uuid4())
    other.png = png() + b"more"
    uploader.topics.send("results", other)
    status = wait_terminal(uploader, other.envelope.job_id)
    assert status.images[0].bytes == len(first.png)
    assert s3.objects()[status.images[0].object_key].body == first.png
    assert uploader.uploader.metric("crafterse_uploader_objects_total", outcome="differs") == 1
    assert "level=error" in uploader.uploader.log()


@pytest.mark.parametrize("fault", ["down", "error", "slow_down"])
def test_a_store_that_is_away_loses_nothing(uploader, s3, fault):
    s3.fault = fault
    results = [make_results()[0] for _ in range(6)]
    for result in results:
        uploader.topics.send("results", result)
    wait_until(lambda: not uploader.uploader.is_ready(), 10)
    assert "store" in uploader.uploader.get("/readyz").text
    assert uploader.uploader.get("/healthz").status_code == 200
    time.sleep(1)
    assert uploader.topics.lag("results", "uploader") == len(results)
    s3.fault = None
    for result in results:
        status = wait_terminal(uploader, result.envelope.job_id)
        assert status.state == messages.State.STATE_SUCCEEDED
    wait_committed(uploader)
    wait_until(uploader.uploader.is_ready, 10)
    assert len(s3.objects()) == len(results)


def test_refused_credentials_are_raised_and_lose_nothing(uploader, s3):
    s3.fault = "denied"
    result, = make_results()
    uploader.topics.send("results", result)
    name = "crafterse_uploader_store_refusing"
    wait_until(lambda: uploader.uploader.metric(name, store="first") == 1, 10)
    wait_until(lambda: s3.count("PUT", 403) >= 3, 10)
    assert "AccessDenied" in uploader.uploader.log()
    assert "level=error" in uploader.uploader.log()
    assert uploader.topics.lag("results", "uploader") == 1
    s3.fault = None
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED
    wait_until(lambda: uploader.uploader.metric(name, store="first") == 0, 10)


def test_a_picture_that_the_store_never_takes_fails_its_job(uploader, s3):
    s3.fault = "too_large"
    result, = make_results()
    uploader.topics.send("results", result)
    status = wait_terminal(uploader, result.envelope.job_id)
    assert status.state == messages.State.STATE_FAILED
    assert status.reason == "storage_refused"
    assert "EntityTooLarge" in status.message and "zu gro?" in status.message
    assert wait_dead_letter(uploader).reason == "storage_refused"
    wait_committed(uploader)


def test_a_job_whose_earlier_picture_never_came_fails_once_the_store_says_so(uploader, s3):
    last = make_results(2)[1]
    s3.fault = "no_list"
    uploader.topics.send("results", last)
    wait_until(lambda: "s3:ListBucket" in uploader.uploader.log(), 10)
    assert uploader.topics.statuses(last.envelope.job_id) == []
    s3.fault = None
    status = wait_terminal(uploader, last.envelope.job_id)
    assert status.state == messages.State.STATE_FAILED
    assert status.reason == wait_dead_letter(uploader).reason == "picture_missing"
    wait_committed(uploader)


def test_a_slow_store_is_left_after_the_timeout_and_tried_again(make_stack, s3):
    uploader = make_uploader(make_stack, s3=s3, settings={"S3_TIMEOUT": "500ms"})
    s3.delay = 2
    result, = make_results()
    uploader.topics.send("results", result)
    wait_until(lambda: uploader.uploader.metric("crafterse_uploader_store_failures_total",
                                                kind="away") >= 1, 15)
    s3.delay = 0
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED


def spoiled(field, value):
    result, = make_results()
    if field == "index":
        result.image.index = value
    else:
        setattr(result, field, value)
    return result.SerializeToString()


@pytest.mark.parametrize("payload", [
    b"this is no protobuf message", b"", b"\xff" * 1000, spoiled("png", b"GIF89a"),
    spoiled("index", 9)], ids=["text", "empty", "ff", "no-png", "no-such-picture"])
def test_what_is_no_result_goes_to_deadletter_and_its_job_fails(uploader, payload):
    job_id = str(uuid.uuid4())
    uploader.topics.write("results", payload, key=job_id)
    status = wait_terminal(uploader, job_id)
    assert status.state == messages.State.STATE_FAILED
    assert status.reason == "undecodable"
    letter = wait_dead_letter(uploader)
    assert letter.payload == payload
    assert letter.topic == uploader.topics.name("results")
    assert letter.service == "uploader"
    good, = make_results()
    uploader.topics.send("results", good)
    assert wait_terminal(uploader, good.envelope.job_id).state == messages.State.STATE_SUCCEEDED
    wait_committed(uploader)


def test_a_result_without_key_does_not_stop_the_next(uploader):
    uploader.topics.write("results", b"junk")
    good, = make_results()
    uploader.topics.send("results", good)
    assert wait_terminal(uploader, good.envelope.job_id).state == messages.State.STATE_SUCCEEDED


def test_redis_away_costs_a_warning_and_nothing_else(own_redis, make_stack, s3):
    uploader = make_uploader(make_stack, s3=s3, redis=own_redis)
    own_redis.kill()
    result, = make_results()
    result.cache_key = "ab" * 32
    uploader.topics.send("results", result)
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED
    assert uploader.uploader.is_ready()
    assert uploader.uploader.metric("crafterse_uploader_cache_writes_total", outcome="failed") == 1


def test_killed_between_store_and_commit_it_ends_the_job_once_more(make_stack, s3):
    uploader = make_uploader(make_stack, s3=s3)
    s3.delay = 1.5
    results = make_results(2)
    for result in results:
        uploader.topics.send("results", result)
    wait_until(lambda: s3.count("PUT", 200) == 1, 20)
    uploader.uploader.kill()
    s3.delay = 0
    uploader.restart("uploader").wait_ready()
    status = wait_terminal(uploader, results[0].envelope.job_id, timeout=40)
    assert status.state == messages.State.STATE_SUCCEEDED
    wait_committed(uploader)
    assert len(s3.objects()) == 2


def test_sigterm_finishes_what_is_in_hand(make_stack, s3):
    uploader = make_uploader(make_stack, s3=s3)
    s3.delay = 1
    result, = make_results()
    uploader.topics.send("results", result)
    wait_until(lambda: uploader.uploader.metric("crafterse_uploader_in_hand") == 1, 20)
    uploader.uploader.stop_cleanly()
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED
    assert uploader.topics.lag("results", "uploader") == 0


def test_sigterm_does_not_wait_for_ever_for_a_store_that_is_away(make_stack, s3):
    uploader = make_uploader(make_stack, s3=s3, settings={"DRAIN_LIMIT": "1s"})
    s3.fault = "down"
    result, = make_results()
    uploader.topics.send("results", result)
    wait_until(lambda: not uploader.uploader.is_ready(), 20)
    uploader.uploader.stop_cleanly(timeout=15)
    assert uploader.topics.lag("results", "uploader") == 1
    s3.fault = None
    uploader.restart("uploader")
    assert wait_terminal(uploader, result.envelope.job_id).state == messages.State.STATE_SUCCEEDED


def test_the_folder_store_keeps_pictures_as_files(make_stack):
    uploader = make_uploader(make_stack, settings={"OBJECT_PREFIX": "pictures/"})
    results = make_results(2)
    for result in results:
        uploader.topics.send("results", result)
    status = wait_terminal(uploader, results[0].envelope.job_id)
    for image, result in zip(status.images, results):
        assert image.object_key.startswith("pictures/")
        path = uploader.objects_folder / image.object_key
        assert path.read_bytes() == result.png
        assert path.stat().st_mode & 0o777 == 0o644


def test_a_job_that_the_store_fails_with_holds_up_no_other(make_stack):
    uploader = make_uploader(make_stack, settings={"UPLOADS": "1"})
    obstacle = uploader.objects_folder / "aa"
    obstacle.write_text("where a folder should be")
    stubborn = make_results(3)
    for result in stubborn:
        result.images[0].content_hash = "aa" * 32
        result.image.content_hash = result.images[result.image.index].content_hash
        uploader.topics.send("results", result)
    others = [make_results()[0] for _ in range(6)]
    for result in others:
        result.image.content_hash = result.images[0].content_hash = "bb" + secrets.token_hex(31)
        uploader.topics.send("results", result)
    for result in others:
        status = wait_terminal(uploader, result.envelope.job_id)
        assert status.state == messages.State.STATE_SUCCEEDED
    assert uploader.topics.statuses(stubborn[0].envelope.job_id) == []
    obstacle.unlink()


def test_a_picture_of_many_megabytes_arrives(uploader, s3):
    big = png() + secrets.token_bytes(12 * 1024 * 1024)
    result, = make_results(1, [big])
    uploader.topics.send("results", result)
    status = wait_terminal(uploader, result.envelope.job_id)
    assert s3.objects()[status.images[0].object_key].body == big


@pytest.mark.parametrize("settings, expected", [
    ({"STORE": "s3"}, "S3_ENDPOINT"),
    ({"STORE": "s3", "S3_ENDPOINT": "nowhere", "S3_BUCKET": "b", "S3_ACCESS_KEY_ID": "i",
      "S3_SECRET_ACCESS_KEY": "s"}, "nowhere"),
    ({"STORE": "tape"}, "tape"),
    ({"OBJECT_PREFIX": "../up"}, "../up"),
    ({"UPLOADS": "many"}, "many"),
    ({"STORE_FOLDER": ""}, "STORE_FOLDER")])
def test_wrong_settings_are_named_before_anything_starts(make_stack, settings, expected):
    stack = make_stack(start=False, services=SERVICES, service_settings={"uploader": settings})
    service = stack.uploader.start()
    assert service.child.wait(10) == 1
    assert expected in service.log()
