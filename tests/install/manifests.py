"""Kubernetes objects: read, held against Kubernetes' schemas, and what they give to tailkeep judged by tailkeep."""

import os
import re
import subprocess

import kubernetes_validate
import yaml
from references import dangling
from suite.process import ROOT
from suite.tailkeep import binary, fresh_folder

# The oldest that has native sidecars, one between, and the newest.
VERSIONS = ("1.29", "1.33", "1.37")
OPERATOR = "monitoring.coreos.com/v1"
NAMESPACE = "observability"


def read(text):
    return [document for document in yaml.safe_load_all(text) if document]


def of_file(name):
    return read((ROOT / name).read_text())


def configuration(name):
    """A file of config/ without its first line, which is for editors."""
    return (ROOT / f"config/{name}.yaml").read_text().split("\n", 1)[1]


def call(*command, stdin=None):
    """What a command printed; raises with its complaint if it failed."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, text=True, input=stdin, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def complaints(documents):
    """What Kubernetes of some version, or the Prometheus Operator, would not take, and what leads nowhere."""
    found = []
    monitors = [document for document in documents if document["apiVersion"] == OPERATOR]
    for document in documents:
        if document in monitors:
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(document, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                found.append(f"{version}: {document['kind']} {document['metadata']['name']}: {error.message}")
    if monitors:
        try:
            call("operator", stdin="\n---\n".join(map(yaml.safe_dump, monitors)))
        except RuntimeError as error:
            found.append(str(error))
    return found + list(dangling(documents))


def one(documents, *kinds):
    [found] = [document for document in documents if document["kind"] in kinds]
    return found


def named(documents, kind, name):
    [found] = [document for document in documents if (document["kind"], document["metadata"]["name"]) == (kind, name)]
    return found


def containers(documents):
    """Containers that run tailkeep."""
    for document in documents:
        if document["kind"] in ("StatefulSet", "DaemonSet", "Deployment"):
            pod = document["spec"]["template"]["spec"]
            both = pod.get("initContainers", []) + pod["containers"]
            yield from (container for container in both if container["name"] == "tailkeep")


def check_by_tailkeep(documents):
    """What `tailkeep check` says of the ConfigMap, with the variables of the container and no other."""
    folder = fresh_folder("install/check")
    [data] = [document["data"] for document in documents
              if document["kind"] == "ConfigMap" and "tailkeep.yaml" in document["data"]]
    here = {"/etc/tailkeep": str(folder), "/var/lib/tailkeep": str(folder / "data")}
    (folder / "data").mkdir()
    for name in ("tailkeep.yaml", "policy.yaml"):
        (folder / name).write_text(re.sub("|".join(here), lambda found: here[found[0]], data[name]))
    variables = [variable["name"] for container in containers(documents) for variable in container.get("env", [])]
    values = {name: "https://otlp.example.com:4317" if name.endswith("ENDPOINT") else "a-value" for name in variables}
    done = subprocess.run([binary(), "check", "--config", folder / "tailkeep.yaml"], text=True, capture_output=True,
                          env=values | {"PATH": os.environ["PATH"], "HOME": str(folder)})
    return done.stdout + done.stderr


def differences(ours, theirs, place=""):
    """Where two objects differ, as lines `place: ours | theirs`."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from differences(ours.get(key), theirs.get(key), f"{place}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for at, pair in enumerate(zip(ours, theirs)):
            yield from differences(*pair, f"{place}/{at}")
    elif ours != theirs:
        yield f"{place}: {ours!r:.200} | {theirs!r:.200}"
