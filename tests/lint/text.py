#!/usr/bin/python3
"""Rules that can be read off the text of the tree: banned functions, header guards, line lengths,
file sizes, leftovers, links between documents, and nothing that belongs to one machine.

Prints one line a violation; ends non-zero when there is any.
"""

import os
import re
import subprocess
import sys
from urllib.parse import urlsplit

COLUMNS_MAX = 100
LINES_MAX = 1000

# Not even in tests: each has a bounded or checked replacement.
BANNED = {
    "strcpy": "snprintf or buf.h", "strcat": "snprintf or buf.h", "sprintf": "snprintf",
    "vsprintf": "vsnprintf", "strtok": "strchr, or strtok_r", "gets": "fgets", "atoi": "strtol",
    "atol": "strtol", "atof": "strtod", "system": "posix_spawn", "alloca": "an array or an arena",
}
# In the product only: abort on want of memory is decided in one place.
BANNED_IN_PRODUCT = {
    "malloc": "xmalloc", "calloc": "xcalloc", "realloc": "xrealloc", "strdup": "xstrdup",
    "strndup": "xmalloc and memcpy", "asprintf": "snprintf or buf.h", "free": "xfree",
}
MEMORY_HOME = ("common/base/panic.c",)
# Everything else speaks through log.h.
PRINTF_HOME = ("common/base/log.c", "common/base/panic.c", "common/base/config.c",
               "common/service/", "gateway/make_key.c", "worker/cli/", "deploy/devbroker/",
               "deploy/admin/",
               "tests/")
# Programs, and implementations of one shared table (scheduler.h).
HEADERLESS = ("worker/cli/", "worker/engine/schedulers/")
# Tables of words and strokes read better on long lines.
LONG_LINES = ("worker/models/train/",)
SOURCE_DIRECTORIES = ("common/", "gateway/", "router/", "worker/", "uploader/", "deploy/", "tests/")
# Made by programs, for programs.
DATA = ("tests/golden/", "worker/models/demo/", "worker/models/clip/merges.txt")
TEXT_SUFFIXES = (".c", ".h", ".proto", ".py", ".sh", ".md", ".mk", ".yml", ".yaml", ".txt", ".json",
                 ".html", ".css", ".js", ".svg", "Makefile")


def tracked():
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], check=True,
                             capture_output=True).stdout.decode()
    return [p for p in listing.split("\0") if p and os.path.isfile(p) and not os.path.islink(p)]


def without_comments_and_strings(text):
    """Blanks comments and literals, keeps every line where it was."""
    pattern = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def machine_words():
    """What only this machine knows: its proxies and package mirrors, read from its settings, so
    that this file need not name them."""
    words = set()
    for name, value in os.environ.items():
        if re.search(r"proxy|index_url|registry|mirror", name, re.I):
            host = urlsplit(value).hostname if "://" in value else None
            if host and "." in host and not re.match(r"127\.|localhost", host):
                words.add(host)
    return words


def check_c(path, text):
    code = without_comments_and_strings(text)
    raw = text.split("\n")
    product = not path.startswith("tests/")
    for number, line in enumerate(code.split("\n"), 1):
        # For memory that a library hands over: "free(nfc); /* lint: allow, utf8proc's own */".
        if "lint: allow" in raw[number - 1]:
            continue
        for name, instead in BANNED.items():
            if re.search(rf"(?<![\w.>]){name}\s*\(", line):
                yield number, f"{name} is banned: use {instead}"
        if product and path not in MEMORY_HOME:
            for name, instead in BANNED_IN_PRODUCT.items():
                if re.search(rf"(?<![\w.>]){name}\s*\(", line):
                    yield number, f"{name} is banned in the product: use {instead}"
        if not path.startswith(PRINTF_HOME) and re.search(
                r"(?<!\w)(printf|puts|putchar)\s*\(|fprintf\s*\(\s*std(out|err)", line):
            yield number, "services speak through common/base/log.h, not printf"
        if re.search(r"\btypedef\s+(struct|union|enum)\b", line):
            yield number, "no typedef for structs: write struct name"
        if path.endswith(".c") and re.match(r"\s*extern\b", line) and product:
            yield number, "no extern in a .c: include the module's header"
    if path.endswith(".h"):
        guard = re.sub(r"[^A-Za-z0-9]", "_", path).upper()
        if f"#ifndef {guard}\n#define {guard}\n" not in text:
            yield 1, f"the header guard must be {guard}"
        if code.rstrip().split("\n")[-1].strip() != "#endif":
            yield 1, "the header must end with its guard's #endif"
    alone = path.endswith(".h") or not os.path.exists(path[:-2] + ".h")
    if product and alone and not text.lstrip().startswith("/*"):
        yield 1, "a file starts with a comment: what it is, why, and its design"
    lines = text.count("\n")
    if lines > LINES_MAX:
        yield 1, f"{lines} lines; a file has at most {LINES_MAX}: split it"


def check_module_pairs(paths):
    """A module is one .c and one .h with the same stem (style.md 3.1)."""
    known = set(paths)
    for path in paths:
        if not path.endswith(".c") or path.startswith(("tests/", "deploy/")):
            continue
        alone = path.endswith("/main.c") or path.startswith(HEADERLESS)
        if not alone and path[:-2] + ".h" not in known:
            yield path, 1, "a module is one .c and one .h with the same stem: its header is missing"


def check_text(path, text, machine):
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip() and not path.endswith(".md"):
            yield number, "trailing white space"
        measured = path.endswith((".c", ".h", ".py", ".sh", ".proto"))
        if measured and len(line) > COLUMNS_MAX and not path.startswith(LONG_LINES):
            yield number, f"{len(line)} columns; at most {COLUMNS_MAX}"
        if "\u2014" in line:
            yield number, "an em dash: write a comma, a colon or a full stop"
        if path.startswith("tests/lint/"):
            continue
        if path.startswith(SOURCE_DIRECTORIES) and re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line):
            yield number, "an open end: finish it or file an issue"
        if re.search(r"(^|[\s\"'=(:])/(work|root|home/\w+)/", line):
            yield number, "a path of one machine"
        for word in machine:
            if word in line:
                yield number, "a host name of this machine's settings"
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end of the file"


def anchors(path):
    """What a page's headings are called in links."""
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"^ *```.*?^ *```", "", file.read(), flags=re.S | re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", text, re.M)}


def check_links(path, text):
    for match in re.finditer(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        target, anchor = match.groups()
        if re.match(r"[a-z]+:", target):
            continue
        there = os.path.join(os.path.dirname(path), target) if target else path
        if not os.path.exists(there) or anchor and (
                not there.endswith(".md") or anchor not in anchors(there)):
            line = text[:match.start()].count("\n") + 1
            yield line, f"the link to {match.group(0)[2:-1]} leads nowhere"


def main():
    paths = tracked()
    machine = machine_words()
    problems = list(check_module_pairs(paths))
    checked = 0
    for path in paths:
        if not path.endswith(TEXT_SUFFIXES) or path.startswith(DATA):
            continue
        with open(path, encoding="utf-8", errors="strict") as file:
            text = file.read()
        checked += 1
        problems += [(path, n, why) for n, why in check_text(path, text, machine)]
        if path.endswith((".c", ".h")):
            problems += [(path, n, why) for n, why in check_c(path, text)]
        if path.endswith(".md"):
            problems += [(path, n, why) for n, why in check_links(path, text)]
    for path, number, why in problems:
        print(f"{path}:{number}: {why}")
    print(f"{checked} files", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
