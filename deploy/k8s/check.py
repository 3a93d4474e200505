#!/usr/bin/python3
"""Renders every overlay and holds it to what tools and our own promises say:

- kustomize renders it; kubeconform finds every object strictly valid; kube-score finds no critical
- each service accepts the settings it would get (--check-config of the real binary)
- every ConfigMap, claim and secret that a pod names is there, or is a secret in SECRETS
- a worker's grace period outlasts its longest job; every budget and autoscaler has its target;
  KEDA starts no more workers than half the lanes; it watches every topic in which the pool's jobs
  are, on the services' brokers, with their authentication
- gateways know a sleeping pool for as long as routers do

    deploy/k8s/check.py            all overlays; one line a problem
    deploy/k8s/check.py OVERLAY    this one
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TREE = HERE.parents[1]
TOOLS = f"{TREE}/build/tools:{os.environ['PATH']}"
SCHEMAS = str(HERE / "schemas/{{ .ResourceKind }}{{ .KindSuffix }}.json")
# Given by an operator, by External Secrets or by Strimzi.
SECRETS = {"api-keys", "s3", "redis", "gateway-tls", "crafterse-gateway", "crafterse-router",
           "crafterse-uploader", "crafterse-worker", "crafterse-operator",
           "crafterse-cluster-ca-cert"}


def tool(name):
    return shutil.which(name, path=TOOLS)


def run(command, text=None):
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


class Overlay:
    def __init__(self, name, text):
        self.name = name
        self.text = text
        self.objects = [o for o in yaml.safe_load_all(text) if o]

    def of(self, *kinds):
        return [o for o in self.objects if o["kind"] in kinds]

    def find(self, kind, name):
        return next((o for o in self.of(kind) if o["metadata"]["name"] == name), None)

    def config(self, name):
        """The data of a ConfigMap, whose real name ends with a hash."""
        return next((o["data"] for o in self.of("ConfigMap")
                     if re.fullmatch(rf"{name}(-[0-9a-z]{{10}})?", o["metadata"]["name"])), {})

    def workloads(self):
        return self.of("Deployment", "StatefulSet")


def check_tools(overlay):
    if tool("kubeconform"):
        done = run([tool("kubeconform"), "-strict", "-output", "json", "-schema-location", SCHEMAS,
                    "-"], overlay.text)
        for found in json.loads(done.stdout).get("resources") or []:
            yield f"{found['kind']} {found['name']}: {found['msg'][:300]}"
    if tool("kube-score"):
        done = run([tool("kube-score"), "score", "--output-format", "ci", "--kubernetes-version",
                    "v1.32", "-"], overlay.text)
        yield from re.findall(r"^\[CRITICAL\] .*", done.stdout, re.MULTILINE)


def environment(overlay, container, folder):
    """What the container would see; files of secrets are made in folder, if one is given."""
    settings = {}
    for source in container.get("envFrom", []):
        config = overlay.find("ConfigMap", source["configMapRef"]["name"])
        settings.update(config["data"] if config else {})
    for one in container.get("env", []):
        settings[one["name"]] = one.get("value") or {
            "CRAFTERSE_REDIS_URL": "redis://:secret@redis:6379"}.get(one["name"], "given")
    for name, value in settings.items():
        if folder is not None and value.startswith("/secrets/"):
            path = folder / value.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("tester:" + "ab" * 32 + "\n" if "api" in name.lower() else "secret\n")
            settings[name] = str(path)
    return {name: value for name, value in settings.items() if name.startswith("CRAFTERSE_")}


def check_settings(overlay):
    """Each service is asked whether it takes what it would be given."""
    known = set(re.findall(r"`(CRAFTERSE_[A-Z0-9_]+)`", (TREE / "docs/CONFIGURATION.md")
                           .read_text()))
    for workload in overlay.workloads():
        for container in workload["spec"]["template"]["spec"]["containers"]:
            binary = TREE / "build/bin" / container["name"]
            if container["name"] not in ("gateway", "router", "uploader", "worker"):
                continue
            with tempfile.TemporaryDirectory() as folder:
                settings = environment(overlay, container, Path(folder))
                if container["name"] == "worker":
                    settings.setdefault("CRAFTERSE_MODEL_PATH", "/models/demo")
                # The certificates are not here to be read.
                settings.pop("CRAFTERSE_KAFKA_SSL_CA_LOCATION", None)
                for name in settings:
                    if name.removesuffix("_FILE") not in known and name not in known:
                        yield f"{container['name']}: there is no setting {name}"
                done = subprocess.run([binary, "--check-config"], env=settings, check=False,
                                      capture_output=True, text=True)
                if done.returncode != 0:
                    yield f"{container['name']} refuses its settings: {done.stderr.strip()}"


def check_references(overlay):
    made = {o["metadata"]["name"] for o in overlay.of("Secret")} | SECRETS
    for workload in overlay.workloads() + [
            o["spec"]["jobTemplate"] for o in overlay.of("CronJob")]:
        pod = workload["spec"]["template"]["spec"]
        name = workload.get("metadata", {}).get("name", "a CronJob")
        for container in pod.get("initContainers", []) + pod["containers"]:
            for source in container.get("envFrom", []):
                if not overlay.find("ConfigMap", source["configMapRef"]["name"]):
                    yield f"{name}: no ConfigMap {source['configMapRef']['name']}"
            for one in container.get("env", []):
                key = one.get("valueFrom", {}).get("secretKeyRef")
                if key and key["name"] not in made:
                    yield f"{name}: no secret {key['name']}"
        for volume in pod.get("volumes", []):
            if "secret" in volume and volume["secret"]["secretName"] not in made:
                yield f"{name}: no secret {volume['secret']['secretName']}"
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and not overlay.find("PersistentVolumeClaim", claim):
                yield f"{name}: no claim {claim}"


def check_targets(overlay):
    for budget in overlay.of("PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"].items()
        if not any(wanted <= w["spec"]["template"]["metadata"]["labels"].items()
                   for w in overlay.workloads()):
            yield f"PodDisruptionBudget {budget['metadata']['name']}: no pod has its labels"
    for scaler in overlay.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        if not overlay.find("Deployment", target):
            yield f"{scaler['kind']} {scaler['metadata']['name']}: no Deployment {target}"


def seconds(text):
    return int(text[:-1]) * {"s": 1, "m": 60, "h": 3600}[text[-1]]


def check_workers(overlay):
    for worker in overlay.of("Deployment"):
        if worker["metadata"]["labels"].get("app.kubernetes.io/component") != "worker":
            continue
        name, spec = worker["metadata"]["name"], worker["spec"]["template"]["spec"]
        settings = environment(overlay, spec["containers"][0], None)
        drain = seconds(settings["CRAFTERSE_DRAIN_TIMEOUT"])
        longest = seconds(settings["CRAFTERSE_JOB_TIME_LIMIT"])
        if not longest < drain < spec["terminationGracePeriodSeconds"]:
            yield f"{name}: the longest job, the drain and the grace period must rise"
        note = worker["spec"]["template"]["metadata"]["annotations"]
        if note.get("cluster-autoscaler.kubernetes.io/safe-to-evict") != "false":
            yield f"{name}: the cluster autoscaler may evict it"


def check_keda(overlay):
    topics = {t["metadata"]["name"]: t["spec"]["partitions"] for t in yaml.safe_load_all(
        (HERE / "components/strimzi/topics.yaml").read_text()) if t}
    for scaled in overlay.of("ScaledObject"):
        name, spec = scaled["metadata"]["name"], scaled["spec"]
        watched = {t["name"]: t["metadata"]["topic"] for t in spec["triggers"]}
        for topic in set(watched.values()) - set(topics):
            yield f"ScaledObject {name}: there is no topic {topic}"
        pool = watched["jobs"].rpartition(".")[2]
        holding = {t for t in topics if t.endswith((f".{pool}", f".{pool}.interactive",
                                                    f".{pool}.batch"))}
        if set(watched.values()) != holding:
            yield f"ScaledObject {name}: watches {set(watched.values())}, not {holding}"
        shared = overlay.config("crafterse")
        for trigger in spec["triggers"]:
            if trigger["metadata"]["bootstrapServers"] != shared["CRAFTERSE_KAFKA_BROKERS"]:
                yield f"ScaledObject {name}: {trigger['name']} asks other brokers"
            if ("authenticationRef" in trigger) != ("CRAFTERSE_KAFKA_SASL_MECHANISM" in shared):
                yield f"ScaledObject {name}: {trigger['name']} proves itself otherwise"
        if any(t["metadata"]["offsetResetPolicy"] != "earliest" for t in spec["triggers"]):
            yield f"ScaledObject {name}: a new group's lag counts from the earliest record"
        if spec["maxReplicaCount"] * 2 > topics.get(watched["jobs"], 0):
            yield f"ScaledObject {name}: more workers than half the lanes of {watched['jobs']}"


def check_grace(overlay):
    told = {name: overlay.config(name).get("CRAFTERSE_POOL_GRACE")
            for name in ("gateway", "router")}
    if len(set(told.values())) > 1:
        yield f"CRAFTERSE_POOL_GRACE differs: {told}"


def check(name):
    done = run(["kubectl", "kustomize", str(HERE / "overlays" / name)])
    if done.returncode != 0:
        return [f"kustomize: {done.stderr.strip()}"], 0
    overlay = Overlay(name, done.stdout)
    problems = []
    for part in (check_tools, check_settings, check_references, check_targets, check_workers,
                 check_keda, check_grace):
        problems += part(overlay)
    return problems, len(overlay.objects)


def main():
    names = sys.argv[1:] or sorted(p.name for p in (HERE / "overlays").iterdir() if p.is_dir())
    if not shutil.which("kubectl"):
        print("NOT CHECKED: no kubectl (1.28 or newer) on this machine")
        return 0
    missing = [name for name in ("kubeconform", "kube-score") if not tool(name)]
    failed, count = False, 0
    for name in names:
        problems, objects = check(name)
        count += objects
        for problem in problems:
            print(f"deploy/k8s/overlays/{name}: {problem}")
        failed |= bool(problems)
    print(f"{count} objects of {len(names)} overlays" +
          (f"; NOT by {' and '.join(missing)}: run deploy/k8s/tools.sh" if missing else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
