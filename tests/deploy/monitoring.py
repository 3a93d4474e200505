"""A real Prometheus with the rules of deploy/monitoring and a real Alertmanager with its routing,
in which time runs faster: every `for`, interval, range and pause is divided by one factor, and
nothing else is changed. Limits in seconds (a latency of 120 s) are those of the rules."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests
import yaml

from support.nodes import free_port
from support.processes import TREE, Process, wait_until

RULES = TREE / "deploy/monitoring/rules"
# As deploy/compose/prometheus.yml loads them.
RULE_FILES = ("sli.yml", "slo-option1.yml", "slo.yml", "migration.yml", "operation.yml")
DASHBOARDS = TREE / "deploy/monitoring/grafana/dashboards"
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
RANGE = re.compile(r"\[([0-9a-z]+)(:[0-9a-z]+)?\]")


def milliseconds(duration):
    return sum(int(number) * UNITS[unit]
               for number, unit in re.findall(r"(\d+)(ms|[smhd])", duration))


def faster(duration, factor):
    return f"{max(1, milliseconds(duration) // factor)}ms"


def faster_query(query, factor):
    """The same question with shorter ranges and finer subqueries."""
    def shorter(found):
        step = f":{faster(found.group(2)[1:], factor)}" if found.group(2) else ""
        return f"[{faster(found.group(1), factor)}{step}]"
    return RANGE.sub(shorter, query)


def rule_groups():
    for name in RULE_FILES:
        yield from yaml.safe_load((RULES / name).read_text())["groups"]


def alert_rules():
    """name -> rule of every alert."""
    return {rule["alert"]: rule for group in rule_groups() for rule in group["rules"]
            if "alert" in rule}


def longest_range(query):
    """The longest time that the query looks back, through the recording rules that it names."""
    recorded = {rule["record"]: rule["expr"] for group in rule_groups()
                for rule in group["rules"] if "record" in rule}
    found = [text for text, _ in RANGE.findall(query)]
    for name in re.findall(r"crafterse:[\w:]+", query):
        found += [longest_range(recorded[name])] if recorded.get(name) else []
    return max(filter(None, found), key=milliseconds, default="")


def fast_rules(factor):
    groups = []
    for group in rule_groups():
        if "interval" in group:
            group["interval"] = faster(group["interval"], factor)
        for rule in group["rules"]:
            rule["expr"] = faster_query(rule["expr"], factor)
            if "for" in rule:
                rule["for"] = faster(rule["for"], factor)
        groups.append(group)
    return yaml.safe_dump({"groups": groups})


class Receivers:
    """The webhooks of alertmanager.yml: what came to whom."""

    def __init__(self):
        self.told = {}  # alert -> receivers
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                size = int(self.headers["Content-Length"])
                for alert in json.loads(self.rfile.read(size))["alerts"]:
                    if alert["status"] == "firing":
                        outer.told.setdefault(alert["labels"]["alertname"], set()).add(
                            self.path.strip("/"))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def port(self):
        return self.http.server_address[1]


class Alertmanager(Process):
    def __init__(self, folder, factor, receivers):
        text = (TREE / "deploy/monitoring/alertmanager.yml").read_text()
        text = re.sub(r"((?:group_wait|group_interval|repeat_interval): )(\w+)",
                      lambda found: found.group(1) + faster(found.group(2), factor), text)
        config = Path(folder) / "alertmanager.yml"
        config.write_text(text.replace("127.0.0.1:9999", f"127.0.0.1:{receivers.port}"))
        self.listen = f"127.0.0.1:{free_port()}"
        super().__init__("alertmanager", [
            "prometheus-alertmanager", f"--config.file={config}",
            f"--storage.path={folder}/alertmanager", f"--web.listen-address={self.listen}",
            "--cluster.listen-address="], folder)


class Prometheus(Process):
    """Scrapes targets (name -> port of its metrics) once a second."""

    def __init__(self, folder, factor, targets, alertmanager):
        rules, config = Path(folder) / "rules.yml", Path(folder) / "prometheus.yml"
        rules.write_text(fast_rules(factor))
        config.write_text(yaml.safe_dump({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s",
                       "evaluation_interval": "1s"},
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": [{"static_configs": [{
                "targets": [alertmanager.listen]}]}]},
            "scrape_configs": [{"job_name": "crafterse", "static_configs": [
                {"targets": [f"127.0.0.1:{port}"],
                 "labels": {"service": name.rstrip("0123456789")}}
                for name, port in targets.items()]}]}))
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__("prometheus", [
            "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            f"--query.lookback-delta={faster('5m', factor)}"], folder)

    def ask(self, path, **parameters):
        answer = requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10).json()
        assert answer["status"] == "success", f"{path} {parameters}: {answer.get('error')}"
        return answer["data"]

    def wait_ready(self):
        def scraped():
            """every target is up"""
            try:
                targets = self.ask("targets")["activeTargets"]
            except (requests.exceptions.RequestException, AssertionError):
                return False
            return targets and all(target["health"] == "up" for target in targets)
        wait_until(scraped, 60, interval=0.3)


class Watch:
    """Follows which alerts fire."""

    def __init__(self, prometheus):
        self.prometheus = prometheus
        self.firing = {}  # name -> its first summary, while it fires
        self.since = {}   # name -> when it last began to
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping.wait(0.3):
            try:
                alerts = self.prometheus.ask("alerts")["alerts"]
            except (requests.exceptions.RequestException, AssertionError):
                continue
            now = {}
            for alert in alerts:
                if alert["state"] == "firing":
                    name = alert["labels"]["alertname"]
                    now.setdefault(name, alert["annotations"]["summary"])
                    if name not in self.firing:
                        self.since[name] = time.monotonic()
            self.firing = now

    def stop(self):
        self.stopping.set()
        self.thread.join(20)


def panels():
    """(dashboard, panel title, unit, kind, query, legend) of every query of every dashboard."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield (path.stem, panel["title"], panel["fieldConfig"]["defaults"]["unit"],
                       panel["type"], target["expr"], target["legendFormat"])


def ask_panels(prometheus, begin, end, step=2):
    """Each panel's query over the time of the run: what a person would see, as numbers."""
    found = []
    for board, title, unit, kind, query, legend in panels():
        data = prometheus.ask("query_range", start=begin, end=end, step=step,
                              query=query.replace("$__rate_interval", "15s"))
        series = [{"labels": one["metric"],
                   "values": [(when, float(value)) for when, value in one["values"]
                              if value != "NaN"]} for one in data["result"]]
        found.append({"dashboard": board, "panel": title, "unit": unit, "kind": kind,
                      "query": query, "legend": legend,
                      "series": [one for one in series if one["values"]]})
    return found
