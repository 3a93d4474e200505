#!/usr/bin/python3
"""Writes the Grafana dashboards (grafana/dashboards/*.json) from the tables below.

    deploy/monitoring/dashboards.py            write them
    deploy/monitoring/dashboards.py --check    fail when a file is not what the tables say
"""

import json
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "grafana/dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
RATE = "[$__rate_interval]"


def quantiles(metric, by="", where=""):
    """P50, P95 and P99 of a histogram; one line each, and one for each value of the label `by`."""
    labels = f"le, {by}" if by else "le"
    selector = f"{{{where}}}" if where else ""
    name = f" {{{{{by}}}}}" if by else ""
    return [(f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{selector}{RATE})))",
             f"P{int(q * 100)}{name}") for q in (0.5, 0.95, 0.99)]


def each_process(metric, legend="{{service}} {{instance}}"):
    return f"sum by (service, instance) (rate({metric}{RATE}))", legend


# Dashboard -> (title, rows); a row is a title and panels (title, unit, kind, [(query, legend)]).
# Gateways all count the same jobs: their rates are averaged, not added.
DASHBOARDS = {
    "overview": ("Crafterse: overview", [
        ("Service levels", [
            ("Pictures an hour", "short", "stat",
             [("sum(rate(crafterse_worker_pictures_total[1h])) * 3600", "")]),
            ("Jobs that succeed (1 h)", "percentunit", "stat",
             [("crafterse:job_success:ratio_1h", "")]),
            ("Mean time to a picture (1 h)", "s", "stat",
             [("crafterse:job_latency_seconds:mean_1h", "")]),
            ("Available (30 d)", "percentunit", "stat", [("crafterse:available:ratio_30d", "")]),
            ("Time to a picture", "s", "lines", quantiles("crafterse_gateway_job_seconds")),
            ("Against what is promised", "s", "lines",
             [("crafterse:job_latency_seconds:1h", "{{quantile}} measured"),
              ("crafterse:slo:job_latency_seconds", "{{quantile}} promised")]),
        ]),
        ("Queues", [
            ("Waiting jobs", "short", "lines",
             [('max by (pool, class) (crafterse_router_queue_lag{class!=""})',
               "{{pool}} {{class}}")]),
            ("Age of the oldest job", "s", "lines",
             [("max by (pool, class) (crafterse_router_oldest_job_age_seconds)",
               "{{pool}} {{class}}")]),
            ("Jobs with the workers", "short", "lines",
             [("max by (pool) (crafterse_router_unfinished_jobs)", "{{pool}}")]),
            ("Live workers", "short", "lines",
             [("max by (pool) (crafterse_router_live_workers)", "{{pool}}")]),
        ]),
        ("How jobs end", [
            ("Ends", "ops", "lines",
             [(f"avg by (state) (rate(crafterse_gateway_jobs_finished_total{RATE}))",
               "{{state}}")]),
            ("Why not", "ops", "lines",
             [(f"avg by (reason) (rate(crafterse_gateway_job_failures_total{RATE})) > 0",
               "{{reason}}")]),
            ("Time in each stage (P95)", "s", "lines",
             [("histogram_quantile(0.95, sum by (le, stage) "
               f"(rate(crafterse_gateway_job_stage_seconds_bucket{RATE})))", "{{stage}}")]),
            ("Dead letters and retries", "short", "lines",
             [("sum(increase(crafterse_router_dead_letters_total[1h]))", "router"),
              ("sum(increase(crafterse_worker_dead_letters_total[1h]))", "worker"),
              ("sum(increase(crafterse_uploader_dead_letters_total[1h]))", "uploader"),
              ("sum(increase(crafterse_worker_retries_total[1h]))", "retries")]),
        ]),
    ]),
    "workers": ("Crafterse: workers", [
        ("Drawing", [
            ("Pictures a minute", "short", "lines",
             [(f"sum by (instance) (rate(crafterse_worker_pictures_total{RATE})) * 60",
               "{{instance}}")]),
            ("Busy", "percentunit", "lines",
             [("avg by (instance) (avg_over_time(crafterse_worker_busy[5m]))", "{{instance}}")]),
            ("Time of a step by model", "s", "lines",
             quantiles("crafterse_worker_step_seconds", "model")),
            ("Time of each stage (P50)", "s", "lines",
             [("histogram_quantile(0.5, sum by (le, stage) "
               f"(rate(crafterse_worker_stage_seconds_bucket{RATE})))", "{{stage}}")]),
            ("How jobs leave", "ops", "lines",
             [(f"sum by (state) (rate(crafterse_worker_jobs_total{RATE}))", "{{state}}")]),
            ("Attempts after the first", "ops", "lines",
             [(f"sum by (instance) (rate(crafterse_worker_retries_total{RATE}))",
               "{{instance}}")]),
        ]),
        ("Machines", [
            ("Resident memory", "bytes", "lines",
             [('process_resident_memory_bytes and on (instance) crafterse_worker_busy',
               "{{instance}}")]),
            ("Processors used", "short", "lines",
             [(f"rate(process_cpu_seconds_total{RATE}) and on (instance) crafterse_worker_busy",
               "{{instance}}")]),
            ("Model", "short", "table", [("crafterse_worker_model_info", "")]),
            ("Model open", "short", "lines",
             [("crafterse_worker_model_loaded", "{{instance}}")]),
        ]),
    ]),
    "kafka": ("Crafterse: Kafka", [
        ("Lag", [
            ("Lag by topic", "short", "lines",
             [("max by (topic) (crafterse_router_queue_lag)", "{{topic}}")]),
            ("Pictures that wait for the uploader", "short", "lines",
             [('max(crafterse_router_queue_lag{topic=~".*results"})', "results")]),
            ("From admitted to dispatched", "s", "lines",
             quantiles("crafterse_router_dispatch_seconds", "pool")),
            ("From accepted to admitted", "s", "lines",
             quantiles("crafterse_router_admission_seconds")),
        ]),
        ("Clients", [
            ("Records delivered", "ops", "lines",
             [each_process("crafterse_kafka_delivered_records_total")]),
            ("Deliveries that failed", "ops", "lines",
             [each_process("crafterse_kafka_undelivered_records_total")]),
            ("Commits", "ops", "lines",
             [each_process("crafterse_kafka_commits_total"),
              each_process("crafterse_kafka_commit_failures_total",
                           "{{service}} {{instance}} failed")]),
            ("Rebalances an hour", "short", "lines",
             [("sum by (service, instance) (increase(crafterse_kafka_rebalances_total[1h]))",
               "{{service}} {{instance}}")]),
            ("Records not acknowledged yet", "short", "lines",
             [("crafterse_router_in_flight_records", "{{service}} {{instance}}"),
              ("crafterse_router_failing_outputs", "{{instance}} refused")]),
            ("Brokers answer", "short", "lines",
             [("crafterse_gateway_kafka_reachable", "{{service}} {{instance}}")]),
        ]),
    ]),
    "gateway": ("Crafterse: gateway", [
        ("Requests", [
            ("Requests by status", "reqps", "lines",
             [(f"sum by (code) (rate(crafterse_gateway_requests_total{RATE}))", "{{code}}")]),
            ("Requests by endpoint", "reqps", "lines",
             [(f"sum by (endpoint) (rate(crafterse_gateway_requests_total{RATE})) > 0",
               "{{endpoint}}")]),
            ("Time of an answer (P95)", "s", "lines",
             [("histogram_quantile(0.95, sum by (le, endpoint) "
               f"(rate(crafterse_gateway_request_seconds_bucket{RATE})))", "{{endpoint}}")]),
            ("Kafka's acknowledgement", "s", "lines",
             quantiles("crafterse_gateway_accept_seconds")),
            ("Refused", "reqps", "lines",
             [(f"sum by (reason) (rate(crafterse_gateway_refused_total{RATE}))", "{{reason}}")]),
            ("Looked up in the cache", "ops", "lines",
             [(f"sum by (result) (rate(crafterse_gateway_cache_lookups_total{RATE}))",
               "{{result}}")]),
        ]),
        ("Clients", [
            ("Connections", "short", "lines", [("crafterse_gateway_connections", "{{instance}}")]),
            ("Event streams", "short", "lines",
             [("crafterse_gateway_event_streams", "{{instance}}")]),
            ("Jobs in memory", "short", "lines",
             [("max by (state) (crafterse_gateway_jobs)", "{{state}}")]),
            ("Resident memory", "bytes", "lines",
             [("process_resident_memory_bytes and on (instance) crafterse_gateway_connections",
               "{{instance}}")]),
        ]),
        ("The store", [
            ("Time of a put", "s", "lines", quantiles("crafterse_uploader_put_seconds")),
            ("Objects", "ops", "lines",
             [(f"sum by (outcome) (rate(crafterse_uploader_objects_total{RATE}))",
               "{{outcome}}")]),
            ("Failures", "ops", "lines",
             [(f"sum by (kind) (rate(crafterse_uploader_store_failures_total{RATE}))",
               "{{kind}}")]),
            ("Cache entries written", "ops", "lines",
             [(f"sum by (outcome) (rate(crafterse_uploader_cache_writes_total{RATE}))",
               "{{outcome}}")]),
        ]),
    ]),
    "cost": ("Crafterse: cost", [
        ("Dollars", [
            ("A picture (1 d)", "currencyUSD", "stat",
             [("crafterse:cost_per_picture_dollars:1d", "")]),
            ("A month at this pace", "currencyUSD", "stat",
             [("crafterse:cost_dollars_per_month", "")]),
            ("Price of all workers an hour", "currencyUSD", "stat",
             [("sum(crafterse_worker_price_dollars_per_hour)", "")]),
            ("Jobs at once (mean of 6 h)", "short", "stat",
             [("avg_over_time(crafterse:concurrent_jobs[6h])", "")]),
            ("Cost an hour by provider", "currencyUSD", "lines",
             [("sum by (provider) (rate(crafterse_worker_cost_dollars_total[1h])) * 3600",
               "{{provider}}")]),
            ("A picture over time", "currencyUSD", "lines",
             [("crafterse:cost_per_picture_dollars:1d", "measured"), ("vector(0.01)", "limit")]),
            ("Answered from the cache", "percentunit", "lines",
             [('sum(rate(crafterse_gateway_cache_lookups_total{result=~"hit.*"}[1h])) '
               "/ sum(rate(crafterse_gateway_cache_lookups_total[1h]))", "hits")]),
            ("Bytes stored a day", "bytes", "lines",
             [("sum(increase(crafterse_uploader_stored_bytes_total[1d]))", "new objects")]),
        ]),
    ]),
}


def panel(number, title, unit, kind, queries, x, y, width, height):
    drawn = {"lines": "timeseries", "stat": "stat", "table": "table"}[kind]
    targets = [{"datasource": DATASOURCE, "refId": chr(ord("A") + i), "expr": query,
                "legendFormat": legend or "__auto",
                **({"format": "table", "instant": True} if kind == "table" else {})}
               for i, (query, legend) in enumerate(queries)]
    return {"id": number, "type": drawn, "title": title, "datasource": DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": width, "h": height}, "targets": targets,
            "fieldConfig": {"defaults": {"unit": unit, "min": 0,
                                         **({"max": 1} if unit == "percentunit" else {})},
                            "overrides": []}}


def dashboard(name, title, rows):
    panels, y = [], 0
    for row, members in rows:
        panels.append({"id": len(panels) + 1, "type": "row", "title": row, "collapsed": False,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y, x = y + 1, 0
        for member in members:
            width, height = (6, 4) if member[2] == "stat" else (12, 8)
            if x + width > 24:
                x, y = 0, y + last_height
            panels.append(panel(len(panels) + 1, *member, x, y, width, height))
            x, last_height = x + width, height
        y += last_height
    variable = {"name": "datasource", "type": "datasource", "query": "prometheus",
                "label": "Data source"}
    return {"uid": f"crafterse-{name}", "title": title, "tags": ["crafterse"],
            "schemaVersion": 39, "version": 1, "editable": True, "refresh": "30s",
            "timezone": "browser", "time": {"from": "now-6h", "to": "now"},
            "templating": {"list": [variable]}, "annotations": {"list": []}, "links": [
                {"type": "dashboards", "title": "Crafterse", "tags": ["crafterse"],
                 "asDropdown": True, "keepTime": True, "includeVars": True, "targetBlank": False,
                 "icon": "external link", "tooltip": "the other dashboards"}],
            "panels": panels}


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for name, (title, rows) in DASHBOARDS.items():
        text = json.dumps(dashboard(name, title, rows), indent=1) + "\n"
        path = FOLDER / f"{name}.json"
        if check and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not check:
            path.write_text(text)
    if stale:
        print(f"stale: {', '.join(stale)}: run {Path(__file__).name} and commit")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
