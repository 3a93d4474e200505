#!/usr/bin/python3
"""Writes schemas/*.json, which kubeconform holds the manifests to, from the projects' own sources:

    deploy/k8s/schemas.py CORE CRD...

CORE is the folder v*-local-strict of the package kubernetes-validate (PyPI); a CRD is a YAML file
with CustomResourceDefinitions. Only kinds that our manifests use are written, without descriptions.
The versions in use are in schemas/README.md.
"""

import json
import sys
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent / "schemas"
# kind -> group and version as CORE spells them
CORE_KINDS = {
    "Namespace": "v1", "ServiceAccount": "v1", "Service": "v1", "ConfigMap": "v1", "Secret": "v1",
    "PersistentVolumeClaim": "v1", "Deployment": "apps-v1", "StatefulSet": "apps-v1",
    "CronJob": "batch-v1", "PodDisruptionBudget": "policy-v1", "NetworkPolicy": "networking-v1",
    "Ingress": "networking-v1", "HorizontalPodAutoscaler": "autoscaling-v2",
}
CUSTOM_KINDS = {"ScaledObject", "TriggerAuthentication", "Kafka", "KafkaNodePool", "KafkaTopic",
                "KafkaUser", "PrometheusRule", "PodMonitor", "ExternalSecret"}


def without_descriptions(schema):
    if isinstance(schema, list):
        return [without_descriptions(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: without_descriptions(value) for key, value in schema.items()
            if not (key == "description" and isinstance(value, str))
            and not key.startswith("x-kubernetes-")}


def references(schema):
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def core_schema(folder, name, definitions):
    """The kind with all that it refers to in its own `$defs`."""
    schema = without_descriptions(json.loads((folder / f"{name}.json").read_text()))
    wanted, needed = list(references(schema)), {}
    while wanted:
        key = wanted.pop().rsplit("/", 1)[1]
        if key not in needed:
            needed[key] = without_descriptions(definitions[key])
            wanted += references(needed[key])
    text = json.dumps({**schema, "$defs": needed})
    return text.replace("/api/_definitions.json#/$defs/", "#/$defs/")


def strict(schema):
    """As the API server prunes: what is not named is not there."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    keeps = schema.get("x-kubernetes-preserve-unknown-fields")
    result = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not keeps:
        result.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return result


def custom_schemas(path):
    for crd in yaml.safe_load_all(path.read_text()):
        if not crd or crd["spec"]["names"]["kind"] not in CUSTOM_KINDS:
            continue
        group = crd["spec"]["group"].split(".")[0]
        for version in crd["spec"]["versions"]:
            if not version["served"]:
                continue
            schema = strict(version["schema"]["openAPIV3Schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            schema["properties"].setdefault("apiVersion", {"type": "string"})
            schema["properties"].setdefault("kind", {"type": "string"})
            kind = crd["spec"]["names"]["kind"].lower()
            yield f"{kind}-{group}-{version['name']}", json.dumps(without_descriptions(schema))


def main():
    core = Path(sys.argv[1])
    definitions = json.loads((core / "_definitions.json").read_text())["$defs"]
    FOLDER.mkdir(exist_ok=True)
    for kind, group in CORE_KINDS.items():
        name = f"{kind.lower()}-{group}"
        (FOLDER / f"{name}.json").write_text(core_schema(core, name, definitions) + "\n")
    for argument in sys.argv[2:]:
        for name, text in custom_schemas(Path(argument)):
            (FOLDER / f"{name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
