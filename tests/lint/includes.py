#!/usr/bin/python3
"""Who may include whom.

Checks every #include line of the tree against the two tables below: the direction in which our own
folders depend on each other, and the one place from which each third-party library is used. Prints
one line a violation, with the rule that it breaks; ends non-zero when there is any.
"""

import re
import subprocess
import sys

# A file may include its own folder and what is listed here. The longest matching key decides.
# "file:NAME" allows a single header.
ALLOWED = {
    "common/base": [],
    "common/bus": ["common/base", "common/obs", "proto"],
    "common/store": ["common/base", "common/bus", "common/obs", "proto"],
    "common/obs": ["common/base", "proto"],
    "common/service": ["common/base", "common/bus", "common/obs"],
    "gateway": ["common", "proto"],
    "router": ["common", "proto"],
    "uploader": ["common", "proto"],
    "worker": ["common", "proto", "file:worker/engine/engine.h", "file:worker/engine/image/png.h",
               "file:worker/engine/image/parameters.h",
               "file:worker/engine/image/png_read.h",
               "file:worker/engine/schedulers/scheduler.h"],
    "worker/cli": ["common/base", "file:worker/engine/engine.h", "file:worker/engine/image/png.h",
                   "file:worker/engine/image/parameters.h",
                   "file:worker/engine/image/png_read.h"],
    # The engine, from the ground up.
    "worker/engine/tensor": ["common/base", "file:worker/engine/kernels/simd.h"],
    "worker/engine/config": ["common/base"],
    "worker/engine/image": ["common/base", "file:worker/engine/schedulers/sampler_names.h"],
    "worker/engine/weights": ["common/base", "worker/engine/tensor", "worker/engine/config"],
    "worker/engine/kernels": ["common/base", "worker/engine/tensor"],
    "worker/engine/tokenizer": ["common/base", "worker/engine/config"],
    "worker/engine/prompt": ["common/base", "worker/engine/tensor", "worker/engine/config",
                             "worker/engine/weights", "worker/engine/tokenizer"],
    "worker/engine/schedulers": ["common/base", "worker/engine/tensor", "worker/engine/config"],
    "worker/engine/layers": ["common/base", "worker/engine/tensor", "worker/engine/kernels",
                             "worker/engine/weights", "worker/engine/config"],
    "worker/engine/models": ["common/base", "worker/engine/tensor", "worker/engine/kernels",
                             "worker/engine/weights", "worker/engine/config",
                             "worker/engine/layers"],
    "worker/engine/lora": ["common/base", "worker/engine/weights", "worker/engine/config",
                           "worker/engine/tensor", "worker/engine/layers", "worker/engine/models",
                           "file:worker/engine/engine.h"],
    "worker/engine/checkpoint": ["common/base", "worker/engine/config", "worker/engine/weights",
                                 "worker/engine/tokenizer"],
    "worker/engine/pipeline": ["common/base", "worker/engine"],
    "worker/engine": ["common/base"],
    "deploy/devbroker": ["common"],
    "deploy/admin": ["common", "proto"],
    "tests": ["common", "proto", "gateway", "router", "worker", "uploader"],
}

# Header pattern -> where it may be included from (file or folder prefixes).
THIRD_PARTY = {
    r"librdkafka/.*": ["common/bus/", "deploy/devbroker/", "tests/"],
    r"hiredis/.*": ["common/store/", "tests/"],
    r"microhttpd\.h": ["common/obs/exporter.c", "gateway/http"],
    r"uv\.h|uv/.*": ["gateway/", "tests/unit/gateway/"],
    r"curl/.*": ["common/obs/", "uploader/", "tests/"],
    r"cblas\.h|openblas.*": ["worker/engine/kernels/blas."],
    r"oneapi/.*": ["tests/"],
    r"openssl/.*": ["common/base/digest.c", "common/base/base64.c", "tests/"],
    r"png\.h": ["worker/engine/image/", "tests/"],
    r"utf8proc\.h": ["worker/engine/tokenizer/"],
    r"protobuf-c/.*": ["common/bus/", "tests/"],
    r".*\.pb-c\.h": ["common/", "gateway/", "router/", "worker/", "uploader/", "deploy/admin/",
                       "tests/"],
    r"yajl/.*": ["gateway/json_writer"],
    r"cjson/.*": ["common/", "gateway/", "router/", "worker/", "uploader/", "tests/"],
}

# The engine and what it stands on know nothing of services (architecture.md, Folders).
NEVER = {
    "worker/engine/": r"librdkafka/|hiredis/|microhttpd|uv\.h|curl/|protobuf-c|\.pb-c\.h|"
                      r"common/(bus|store|obs|service)/",
    "worker/cli/": r"librdkafka/|hiredis/|microhttpd|uv\.h|curl/|protobuf-c|\.pb-c\.h",
    "common/base/": r"librdkafka/|hiredis/|microhttpd|uv\.h|curl/|protobuf-c|\.pb-c\.h",
}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def rule_for(path):
    keys = [k for k in ALLOWED if path.startswith(k + "/")]
    return max(keys, key=len) if keys else None


def is_allowed(path, included):
    key = rule_for(path)
    if key is None:
        return False, "no rule for this folder: add one to tests/lint/includes.py"
    folder = path.rsplit("/", 1)[0]
    if included.rsplit("/", 1)[0] == folder or included.startswith(key + "/") and key != "worker":
        return True, ""
    for entry in ALLOWED[key]:
        if entry.startswith("file:"):
            if included == entry[5:]:
                return True, ""
        elif included.startswith(entry + "/"):
            return True, ""
    return False, f"{key}/ may include only itself and: {', '.join(ALLOWED[key]) or 'nothing'}"


def check_line(path, quote, included):
    for prefix, pattern in NEVER.items():
        if path.startswith(prefix) and re.search(pattern, included):
            yield f"{prefix} knows nothing of services, Kafka, Redis, HTTP or protobuf"
            return
    for pattern, places in THIRD_PARTY.items():
        if re.fullmatch(pattern, included) and not any(path.startswith(p) for p in places):
            yield f"this library is included only from {', '.join(places)}"
            return
    if quote == '"':
        if "/" not in included:
            yield "includes are rooted at the top of the tree (\"common/base/buf.h\")"
            return
        ok, reason = is_allowed(path, included)
        if not ok:
            yield reason


def main():
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "--", "*.c", "*.h"],
                             check=True, capture_output=True, text=True).stdout.split()
    problems = lines = 0
    for path in listing:
        with open(path, encoding="utf-8") as source:
            for number, line in enumerate(source, 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                lines += 1
                for reason in check_line(path, *match.groups()):
                    print(f"{path}:{number}: includes {match.group(2)}: {reason}")
                    problems += 1
    print(f"{lines} include lines of {len(listing)} files", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
