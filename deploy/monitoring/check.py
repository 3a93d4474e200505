#!/usr/bin/python3
"""Holds the monitoring together: every alert has a page, a test that it fires and one that it stays
silent; dashboards are what dashboards.py writes; PrometheusRule objects are what rules/ says; and,
where promtool and amtool are installed, the rules are valid and their tests pass.

    deploy/monitoring/check.py            check; prints one line a problem
    deploy/monitoring/check.py --write    write the links to the pages, the PrometheusRule objects
                                          and the dashboards
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TREE = HERE.parents[1]
K8S = TREE / "deploy/k8s"
OVERLAYS = {"slo-option1": "option1-free", "slo-option2": "option2-hosted",
            "slo-option3": "option3-production", "slo-option4": "option4-hybrid"}
REPOSITORY = re.search(r"^REPOSITORY_URL=(\S+)$", (TREE / "deploy/repository.env").read_text(),
                       re.M).group(1)
SEVERITIES = {"critical", "warning", "info"}


def object_path(path):
    """What an option promises belongs to its overlay; the rest is the same everywhere."""
    if path.stem in OVERLAYS:
        return K8S / "overlays" / OVERLAYS[path.stem] / f"{path.stem}.yaml"
    return K8S / "components/monitoring" / f"{path.stem}.yaml"


def rule_object(path):
    """One rules file as the object that the Prometheus operator reads."""
    text = path.read_text()
    groups = text[text.index("groups:\n"):]
    indented = "".join(f"  {line}\n" if line else "\n" for line in groups.splitlines())
    return (f"# Written by deploy/monitoring/check.py --write from rules/{path.name}.\n"
            "apiVersion: monitoring.coreos.com/v1\n"
            "kind: PrometheusRule\n"
            "metadata:\n"
            f"  name: crafterse-{path.stem}\n"
            "  labels: {prometheus: main, role: alert-rules}\n"
            f"spec:\n{indented}")


def alerts():
    for path in sorted(HERE.glob("rules/*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    yield path.name, rule


def page_url(alert):
    return f"{REPOSITORY}/blob/main/docs/runbooks/{alert}.md"


def write_page_urls():
    for path in HERE.glob("rules/*.yml"):
        text = path.read_text()
        path.write_text(re.sub(r"(runbook_url: )\S+/(\w+)\.md",
                               lambda found: found[1] + page_url(found[2]), text))


def check_alert(name, rule):
    alert = rule["alert"]
    page = TREE / f"docs/runbooks/{alert}.md"
    if rule.get("labels", {}).get("severity") not in SEVERITIES:
        yield f"{name}: {alert}: severity is one of {', '.join(sorted(SEVERITIES))}"
    if not page.exists():
        yield f"{name}: {alert}: no page {page.relative_to(TREE)}"
    if rule["annotations"].get("runbook_url", "") != page_url(alert):
        yield f"{name}: {alert}: runbook_url is not {page_url(alert)} (deploy/repository.env)"
    if not rule["annotations"].get("summary"):
        yield f"{name}: {alert}: no summary"


def check_tests(names):
    there = set()
    for path in HERE.glob("tests/*.yml"):
        there |= {test["name"] for test in yaml.safe_load(path.read_text())["tests"]}
    for name in names:
        for kind in ("fires", "silent"):
            if f"{name} {kind}" not in there:
                yield f"{name}: no test \"{name} {kind}\" in tests/"
    for page in (TREE / "docs/runbooks").glob("*.md"):
        if page.stem not in names:
            yield f"{page.relative_to(TREE)}: there is no such alert"


def check_objects(write):
    for path in sorted(HERE.glob("rules/*.yml")):
        target = object_path(path)
        if write:
            target.write_text(rule_object(path))
        elif not target.exists() or target.read_text() != rule_object(path):
            yield f"{target.relative_to(TREE)} is stale: run deploy/monitoring/check.py --write"


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        yield f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}"


def check_tools():
    if shutil.which("promtool"):
        yield from run("promtool", "check", "rules", *sorted(HERE.glob("rules/*.yml")))
        yield from run("promtool", "check", "config", "--syntax-only",
                       TREE / "deploy/compose/prometheus.yml")
        yield from run("promtool", "test", "rules", *sorted(HERE.glob("tests/*.yml")))
    else:
        yield "promtool is not installed (Debian: prometheus)"
    if shutil.which("amtool"):
        yield from run("amtool", "check-config", HERE / "alertmanager.yml")


def main():
    write = sys.argv[1:] == ["--write"]
    if write:
        write_page_urls()
    found = list(alerts())
    names = {rule["alert"] for _, rule in found}
    problems = [problem for name, rule in found for problem in check_alert(name, rule)]
    problems += check_tests(names)
    problems += check_objects(write)
    problems += run(HERE / "dashboards.py", *([] if write else ["--check"]))
    if not write:
        problems += check_tools()
    for problem in problems:
        print(problem)
    print(f"{len(names)} alerts, each with its page and tests")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
