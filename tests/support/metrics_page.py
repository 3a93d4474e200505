"""docs/METRICS.md, written from what running services export."""

import re

from support.processes import TREE
from support.stack import parse_metrics

PAGE = TREE / "docs/METRICS.md"

INTRODUCTION = """# Metrics

Every service answers `/metrics` in the Prometheus text format, `/healthz` and `/readyz` at
`CRAFTERSE_METRICS_LISTEN`. Names are `crafterse_<service>_<what>_<unit>`: base units (seconds,
bytes, dollars), `_total` for counters, `crafterse_kafka_` for what all Kafka clients count. Labels
are bounded: pools, classes, states, reasons, models; never a job or a client. Histograms have
buckets from milliseconds to the longest job.

Every gateway reads the end of every job, so its job metrics are the same on each replica: use
ratios, or `max`, not sums. A counter starts from nothing when its process does; jobs that ended
before that are not counted, though gateways read them.

This page is written from running services (`CRAFTERSE_WRITE_DOCS=1 tests/run integration
test_metrics`), and `make test` fails when it is stale.
"""


def families(text):
    """name -> (type, labels, help) of one service's /metrics."""
    found = {}
    for line in text.splitlines():
        kind = re.fullmatch(r"# TYPE (\S+) (\S+)", line)
        if kind:
            found[kind.group(1)] = [kind.group(2), set(), ""]
    for name, words in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        found[name][2] = words
    for name, labels, _ in parse_metrics(text):
        family = name if name in found else re.sub(r"_(bucket|sum|count)$", "", name)
        found[family][1] |= set(labels) - {"le"}
    return found


def render(expositions):
    """expositions: service -> the text of its /metrics."""
    rows = {}
    for service, text in expositions.items():
        for name, (kind, labels, words) in families(text).items():
            row = rows.setdefault(name, [kind, set(), [], words])
            row[1] |= labels
            row[2].append(service)
    lines = [INTRODUCTION]
    everywhere = {name: row for name, row in rows.items() if len(row[2]) == len(expositions)}
    tables = [("Every service", everywhere)]
    shared = {name: row for name, row in rows.items()
              if len(row[2]) > 1 and name not in everywhere}
    tables.append(("Some services", shared))
    for service in expositions:
        tables.append((service, {name: row for name, row in rows.items() if row[2] == [service]}))
    for title, table in tables:
        by = title == "Some services"
        lines += [f"## {title}", "",
                  f"| metric | kind | labels |{' by |' if by else ''} meaning |",
                  f"|---|---|---|{'---|' if by else ''}---|"]
        for name, (kind, labels, services, words) in sorted(table.items()):
            services = f" {', '.join(services)} |" if by else ""
            words = words.replace("|", "\\|").replace("<", "\\<")
            lines.append(f"| `{name}` | {kind} | {', '.join(sorted(labels))} |{services} {words} |")
        lines.append("")
    return "\n".join(lines)
