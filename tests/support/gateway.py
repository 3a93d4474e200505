"""A client of the gateway's HTTP API, as a user would write one."""

import json
import time

import requests

ENDED = ("succeeded", "failed", "cancelled", "expired")


class Gateway:
    """Answers are asserted: submit() is for what should work, post() for what may not."""

    def __init__(self, url, key=None):
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = False
        if key is not None:
            self.session.headers["Authorization"] = f"Bearer {key}"

    def post(self, body, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.session.post(f"{self.url}/v1/generations", json=body, headers=headers,
                                 timeout=120)

    def submit(self, prompt="a flaming sword", **fields):
        """Orders a picture; returns the body of the 202 (200 when it is there already). A 503 (no
        worker has announced itself yet, Kafka is busy) is tried again, as its Retry-After asks."""
        deadline = time.monotonic() + 30
        answer = self.post({"prompt": prompt, **fields})
        while answer.status_code == 503 and time.monotonic() < deadline:
            time.sleep(0.2)
            answer = self.post({"prompt": prompt, **fields})
        assert answer.status_code in (200, 202), f"{answer.status_code} {answer.text}"
        return answer.json()

    def get(self, job_id):
        answer = self.session.get(f"{self.url}/v1/generations/{job_id}", timeout=30)
        assert answer.status_code == 200, f"{job_id}: {answer.status_code} {answer.text}"
        return answer.json()

    def _get_patiently(self, job_id, deadline):
        """A gateway that has just started, or whose Kafka is away, says 503: try again."""
        while True:
            answer = self.session.get(f"{self.url}/v1/generations/{job_id}", timeout=30)
            if answer.status_code != 503 or time.monotonic() >= deadline:
                assert answer.status_code == 200, f"{job_id}: {answer.status_code} {answer.text}"
                return answer.json()
            time.sleep(0.1)

    def wait(self, job_id, timeout=60):
        """Asks until the job has ended."""
        deadline = time.monotonic() + timeout
        while True:
            job = self._get_patiently(job_id, deadline)
            if job["state"] in ENDED:
                return job
            if time.monotonic() >= deadline:
                raise AssertionError(f"{job_id} has not ended within {timeout:.0f} s: {job}")
            time.sleep(0.05)

    def wait_for(self, job_id, *states, timeout=60):
        """Asks until the job is in one of the states, or past them all."""
        deadline = time.monotonic() + timeout
        while True:
            job = self.get(job_id)
            if job["state"] in states:
                return job
            assert job["state"] not in ENDED, f"{job_id} ended while waiting for {states}: {job}"
            assert time.monotonic() < deadline, f"{job_id} not {states} in {timeout} s: {job}"
            time.sleep(0.02)

    def draw(self, prompt="a flaming sword", timeout=60, **fields):
        """Orders a picture and waits until it is there."""
        job = self.wait(self.submit(prompt, **fields)["id"], timeout)
        assert job["state"] == "succeeded", json.dumps(job, indent=1)
        return job

    def draw_in_vain(self, prompt="a flaming sword", timeout=60, **fields):
        """Orders what is accepted and cannot be drawn; returns the failed job."""
        job = self.wait(self.submit(prompt, **fields)["id"], timeout)
        assert job["state"] == "failed", json.dumps(job, indent=1)
        return job

    def give(self, picture, content_type="image/png"):
        """POST /v1/inputs; the answer as it is."""
        return self.session.post(f"{self.url}/v1/inputs", data=picture,
                                 headers={"Content-Type": content_type}, timeout=30)

    def cancel(self, job_id):
        return self.session.delete(f"{self.url}/v1/generations/{job_id}", timeout=30)

    def models(self):
        answer = self.session.get(f"{self.url}/v1/models", timeout=30)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def download(self, url):
        answer = self.session.get(url, timeout=30)
        assert answer.status_code == 200, f"{url}: {answer.status_code} {answer.text[:200]}"
        return answer.content

    def events(self, job_id, last_event_id=None, timeout=60):
        """The job's server-sent events until the stream ends: (id, name, data)."""
        headers = {"Accept": "text/event-stream"}
        if last_event_id is not None:
            headers["Last-Event-ID"] = last_event_id
        with self.session.get(f"{self.url}/v1/generations/{job_id}/events", headers=headers,
                              stream=True, timeout=timeout) as answer:
            assert answer.status_code == 200, answer.text
            event = {}
            for line in answer.iter_lines(chunk_size=1, decode_unicode=True):
                if line == "":
                    if "data" in event:
                        yield event.get("id"), event.get("event"), json.loads(event["data"])
                    event = {}
                elif not line.startswith(":"):
                    name, _, value = line.partition(":")
                    event[name] = value.lstrip(" ")
