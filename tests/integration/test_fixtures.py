"""The servers that the tests stand on do what they are for: without this, a green run proves
nothing."""

import hashlib
import time

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
import requests

from support import s3_server
from support.topics import Topics


def signed(server, method, key, body=b"", secret=s3_server.SECRET_ACCESS_KEY, spoil=None,
           **headers):
    """A request as botocore signs it; spoil changes it after that."""
    request = botocore.awsrequest.AWSRequest(
        method=method, url=f"{server.endpoint}/pictures/{key}", data=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()})
    credentials = botocore.credentials.Credentials(s3_server.ACCESS_KEY_ID, secret)
    botocore.auth.S3SigV4Auth(credentials, "s3", s3_server.REGION).add_auth(request)
    sent = requests.structures.CaseInsensitiveDict(request.headers.items())
    sent.setdefault("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
    spoiled = {"body": body, **(spoil or {})}
    sent.update(spoiled.get("headers", {}))
    session = requests.Session()
    session.trust_env = False
    return session.request(method, request.url, data=spoiled["body"], headers=sent)


def test_s3_takes_a_signed_object_once(s3):
    assert signed(s3, "PUT", "a%20b.png", b"one", If_None_Match="*").status_code == 200
    again = signed(s3, "PUT", "a%20b.png", b"two", If_None_Match="*")
    assert again.status_code == 412
    assert "<Code>PreconditionFailed</Code>" in again.text
    assert s3.objects()["a b.png"].body == b"one"


def test_s3_refuses_a_wrong_secret(s3):
    answer = signed(s3, "PUT", "a.png", b"one", secret="wrong")
    assert answer.status_code == 403
    assert "SignatureDoesNotMatch" in answer.text


def test_s3_refuses_a_body_that_was_not_signed(s3):
    answer = signed(s3, "PUT", "a.png", b"one", spoil={"body": b"two"})
    assert answer.status_code == 400


def test_s3_does_not_know_chunked_signing(s3):
    chunked = {"X-Amz-Content-SHA256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}
    answer = signed(s3, "PUT", "a.png", b"one", spoil={"headers": chunked})
    assert answer.status_code == 501
    assert "NotImplemented" in answer.text


@pytest.mark.parametrize("fault, status", [("error", 500), ("slow_down", 503), ("denied", 403)])
def test_s3_fails_when_told_to(s3, fault, status):
    s3.fault = fault
    assert signed(s3, "PUT", "a.png", b"one").status_code == status


def test_s3_is_down_when_told_to(s3):
    s3.fault = "down"
    with pytest.raises(requests.exceptions.ConnectionError):
        signed(s3, "PUT", "a.png", b"one")


def test_redis_keeps_what_it_is_given(redis):
    redis.client.set("tests:fixture", b"value", ex=60)
    assert redis.client.get("tests:fixture") == b"value"


def test_kafka_keeps_its_records_through_a_crash(own_kafka):
    topics = Topics(own_kafka.brokers, "tests.")
    topics.create("crash")
    topics.write("crash", b"before", key="1")
    own_kafka.kill()
    began = time.monotonic()
    own_kafka.start()
    assert time.monotonic() - began < 60
    topics.write("crash", b"after", key="1")
    assert [value for _, value in topics.records("crash")] == [b"before", b"after"]
