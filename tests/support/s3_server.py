"""An S3 server for tests: what R2 and AWS do with the requests that the uploader sends.

Signatures are checked with botocore's signer, which is not our code: the request is signed again
with the same key, date and signed headers, and must come out the same. Answers are R2's: 412 when
`If-None-Match: *` meets an object, 501 for chunked ("STREAMING-") signing, XML errors.

Faults are set as attributes while it runs:
    server.fault = "down"       connections are closed without an answer
                   "error"      every request answers 500
                   "slow_down"  every request answers 503 SlowDown
                   "denied"     every request answers 403 AccessDenied
                   "no_list"    HEAD and GET of an object that is not there answer 403, as AWS
                                does to a key without s3:ListBucket
                   "no_bucket"  every request answers 404 NoSuchBucket
                   "too_large"  every PUT answers 400 EntityTooLarge, with a text that is no UTF-8
                   "reset"      a PUT's connection is reset when half of its body is here
                   "lost_answer" a PUT is done, and its connection closed in place of an answer
                   "bad_etag"   a PUT is answered with an ETag that is not its body's
                   "garbage"    every request answers 500 with bytes that are no XML
    server.delay = 0.5          seconds before every answer
"""

import hashlib
import random
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

ACCESS_KEY_ID = "test-access-key"
SECRET_ACCESS_KEY = "test/secret+key"  # the characters that trip hand-written signers
REGION = "auto"


class StoredObject:
    def __init__(self, body, headers):
        self.body = body
        self.content_type = headers.get("Content-Type")
        self.cache_control = headers.get("Cache-Control")
        self.etag = hashlib.md5(body).hexdigest()


class S3Server:
    """bucket -> key -> StoredObject, behind HTTP on a free port of loopback."""

    def __init__(self, buckets=("pictures",)):
        self.buckets = {name: {} for name in buckets}
        self.fault = None
        self.delay = 0
        self.requests = []  # (method, path, status, headers)
        self.arrived = 0    # requests, those that got no answer included
        self.lock = threading.Lock()
        self.http = None

    def start(self):
        server = self

        class Handler(RequestHandler):
            s3 = server
        self.http = QuietServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        self.http.shutdown()
        self.http.server_close()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def settings(self, bucket="pictures"):
        """The uploader's settings for this server."""
        return {"CRAFTERSE_STORE": "s3", "CRAFTERSE_S3_ENDPOINT": self.endpoint,
                "CRAFTERSE_S3_REGION": REGION, "CRAFTERSE_S3_BUCKET": bucket,
                "CRAFTERSE_S3_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "CRAFTERSE_S3_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY}

    def objects(self, bucket="pictures"):
        with self.lock:
            return dict(self.buckets[bucket])

    def count(self, method, status):
        with self.lock:
            return sum(1 for request in self.requests if request[0] == method and
                       request[2] == status)


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that was killed is no error of ours."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class RequestHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    s3 = None

    def log_message(self, *_):
        pass

    # ---- Answers -----------------------------------------------------------------------------

    def answer(self, status, body=b"", **headers):
        with self.s3.lock:
            self.s3.requests.append((self.command, self.path, status, dict(self.headers)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refuse(self, status, code, message):
        body = (f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
                f"<Message>{message}</Message></Error>").encode("latin-1")
        self.answer(status, body, Content_Type="application/xml")

    # ---- Checks ------------------------------------------------------------------------------

    def signature_problem(self, body):
        """None, or (status, code, message)."""
        payload = self.headers.get("x-amz-content-sha256", "")
        if payload.startswith("STREAMING-"):
            return 501, "NotImplemented", f"{payload} not implemented"
        if self.headers.get("Expect") is not None:
            return 501, "NotImplemented", "Expect not implemented"
        if payload != hashlib.sha256(body).hexdigest():
            return 400, "XAmzContentSHA256Mismatch", "the body has another SHA-256"
        given = self.headers.get("Authorization", "")
        if not given.startswith("AWS4-HMAC-SHA256 "):
            return 401, "Unauthorized", "no AWS4-HMAC-SHA256 authorization"
        fields = dict(part.strip().split("=", 1) for part in
                      given[len("AWS4-HMAC-SHA256 "):].split(","))
        names = fields["SignedHeaders"].split(";")
        unsigned = [name.lower() for name in self.headers if name.lower().startswith("x-amz-") and
                    name.lower() not in names]
        if unsigned or "host" not in names:
            return 403, "AccessDenied", f"there were headers which were not signed: {unsigned}"
        if fields["Credential"].split("/")[0] != ACCESS_KEY_ID:
            return 403, "InvalidAccessKeyId", "no such access key"
        date = self.headers.get("x-amz-date", "")
        skew = abs(time.time() - time.mktime(time.strptime(date, "%Y%m%dT%H%M%SZ")) + time.timezone)
        if skew > 900:
            return 403, "RequestTimeTooSkewed", "the clocks differ by more than 15 minutes"
        expected = self.expected_signature(fields, date)
        if fields["Signature"] != expected:
            return 403, "SignatureDoesNotMatch", "the signature does not match"
        return None

    def expected_signature(self, fields, date):
        signer = S3SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "s3", REGION)
        request = AWSRequest(method=self.command, url=f"http://{self.headers['Host']}{self.path}")
        for name in fields["SignedHeaders"].split(";"):
            if name != "host":
                request.headers[name] = self.headers[name]
        request.context["timestamp"] = date
        canonical = signer.canonical_request(request)
        return signer.signature(signer.string_to_sign(request, canonical), request)

    def fault(self):
        """True when the fault that is set has answered (or not answered) this request."""
        time.sleep(self.s3.delay)
        fault = self.s3.fault
        if fault == "down":
            self.close_connection = True
            return True
        if fault == "error":
            self.refuse(500, "InternalError", "we encountered an internal error")
        elif fault == "garbage":
            self.answer(500, random.randbytes(2000), Content_Type="application/xml")
        elif fault == "slow_down":
            self.refuse(503, "SlowDown", "reduce your request rate")
        elif fault == "denied":
            self.refuse(403, "AccessDenied", "access denied")
        elif fault == "no_bucket":
            self.refuse(404, "NoSuchBucket", "the specified bucket does not exist")
        elif fault == "too_large" and self.command == "PUT":
            self.refuse(400, "EntityTooLarge", "your upload is too large (zu gro\xdf)")
        else:
            return False
        return True

    def body(self):
        """None when the fault that is set cuts the connection in the middle of it."""
        size = int(self.headers.get("Content-Length", 0))
        if self.s3.fault != "reset" or self.command != "PUT":
            return self.rfile.read(size)
        self.rfile.read(size // 2)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
        return None

    # ---- Methods -----------------------------------------------------------------------------

    def serve(self, act):
        self.s3.arrived += 1
        body = self.body()
        if body is None or self.fault():
            return
        problem = self.signature_problem(body)
        if problem is not None:
            self.refuse(*problem)
            return
        bucket, _, key = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
        if bucket not in self.s3.buckets:
            self.refuse(404, "NoSuchBucket", "the specified bucket does not exist")
            return
        act(self.s3.buckets[bucket], key, body)

    def do_PUT(self):
        def put(objects, key, body):
            with self.s3.lock:
                exists = key in objects and self.headers.get("If-None-Match") == "*"
                if not exists:
                    objects[key] = StoredObject(body, self.headers)
            if exists:
                self.refuse(412, "PreconditionFailed", "the object is there already")
            elif self.s3.fault == "lost_answer":
                self.close_connection = True
            else:
                wrong = self.s3.fault == "bad_etag"
                self.answer(200, ETag=f'"{"0" * 32 if wrong else objects[key].etag}"')
        self.serve(put)

    def do_HEAD(self):
        def head(objects, key, _):
            if key == "":
                self.answer(200)
            elif key not in objects:
                self.answer(403 if self.s3.fault == "no_list" else 404)
            else:
                self.answer(200, ETag=f'"{objects[key].etag}"',
                            Content_Length=str(len(objects[key].body)))
        self.serve(head)

    def do_GET(self):
        def get(objects, key, _):
            if key not in objects and self.s3.fault == "no_list":
                self.refuse(403, "AccessDenied", "access denied")
            elif key not in objects:
                self.refuse(404, "NoSuchKey", "the specified key does not exist")
            else:
                self.answer(200, objects[key].body, Content_Type=objects[key].content_type)
        self.serve(get)
