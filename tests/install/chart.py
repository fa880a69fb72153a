"""The Helm chart: linted, rendered as its examples say, taken by Kubernetes and by tailkeep, and one with config/."""

import json
import re
import textwrap
import tomllib

import yaml
from manifests import (NAMESPACE, call, check_by_tailkeep, complaints, configuration, containers, differences, named,
                       of_file, one, read)
from suite.process import ROOT, TARGET

CHART = ROOT / "charts/tailkeep"
# Example: the file of config/ that it has as its configuration, and the manifests that say the same.
EXAMPLES = {
    "gateway": ("gateway", ["gateway", "balancer"]),
    "ack-sls": ("sls", ["sls", "balancer"]),
    "ack-arms": ("arms", []),
    "daemonset": ("daemonset", ["daemonset"]),
    "sidecar": ("sidecar", []),
}
# What no example has.
VARIANTS = {
    "everything switched on": ("gateway", [
        "podMonitor.enabled=true", "podMonitor.labels.release=prometheus", "prometheusRule.enabled=true",
        "dashboards.enabled=true", "networkPolicy.enabled=true", "networkPolicy.admins[0].podSelector.matchLabels.a=b",
        "pullSecrets[0]=registry", "nodeSelector.pool=observability", "priorityClassName=high",
        "tolerations[0].operator=Exists", "balancer.resolver=names"]),
    "no balancer, no disk": ("gateway", ["balancer.enabled=false", "replicas=1", "storage.size="]),
    "certificates": ("gateway", ["volumes[0].name=tls", "volumes[0].secret.secretName=tailkeep-tls",
                                 "volumeMounts[0].name=tls", "volumeMounts[0].mountPath=/tls"]),
    "restricted": ("daemonset", ["storage.hostPath=", "networkPolicy.enabled=true"]),
}
# Values that are wrong, and a word of what is said of them.
WRONG = {
    "replica=2": "replica", "mode=deployment": "mode", "replicas=0": "replicas", "resources.limits=null": "limits",
    "balancer.resources.limits.memory=1Gi": "memory", "env[0].name=SLS_SECRET,env[0].value=abc": "valueFrom",
    "config=[": "config is not YAML", "config=memory: 1GiB": "health", "podMonitor.enabled=yes-please": "boolean",
    "config=health: {listen: 0.0.0.0:13133}": "policy: /etc/tailkeep/policy.yaml",
}
# Copies in the chart, which can read nothing outside of it.
COPIES = {"config/prometheus/alerts.yaml": "files/alerts.yaml",
          "config/grafana/services.json": "files/dashboards/services.json",
          "config/grafana/tailkeep.json": "files/dashboards/tailkeep.json"}


def template(example, *settings):
    flags = [part for setting in settings for part in ("--set", setting)]
    values = CHART / "examples" / example / "values.yaml"
    return call("helm", "template", "tailkeep", CHART, "--namespace", NAMESPACE, "--values", values, *flags)


def write():
    for original, copy in COPIES.items():
        (CHART / copy).write_text((ROOT / original).read_text())
    for example, (config, _) in EXAMPLES.items():
        values = CHART / ("values.yaml" if example == "gateway" else f"examples/{example}/values.yaml")
        block = f"config: |\n{textwrap.indent(configuration(config), '  ')}\n"
        text = re.sub(r"^config: \|\n(?:(?:  .*)?\n)+", lambda _: block, values.read_text(), flags=re.MULTILINE)
        values.write_text(text)
    for example in EXAMPLES:
        (CHART / "examples" / example / "rendered.yaml").write_text(template(example))


def is_right(checks):
    for original, copy in COPIES.items():
        same = (CHART / copy).read_text() == (ROOT / original).read_text()
        checks.check(f"the chart's {copy} is {original}", same, "tests/install/run --write copies it")
    folders = sorted(folder.name for folder in (CHART / "examples").iterdir())
    checks.equal("every example of the chart is known here", folders, sorted(EXAMPLES))
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    installed = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    checks.equal("the chart installs this version", installed, version)
    for example in EXAMPLES:
        example_is_right(checks, example)
    for name, (example, settings) in VARIANTS.items():
        documents = read(template(example, *settings))
        checks.equal(f"{name}: Kubernetes takes it", complaints(documents), [])
        checks.check(f"{name}: tailkeep takes it", check_by_tailkeep(documents).count("no problem") == 2,
                     check_by_tailkeep(documents))
    restricted, settings = VARIANTS["restricted"]
    pod = one(read(template(restricted, *settings)), "DaemonSet")["spec"]["template"]["spec"]
    checks.check("restricted: nothing of the node, and nothing as root",
                 "initContainers" not in pod and all("hostPath" not in volume for volume in pod["volumes"]), str(pod))
    schemas_refuse(checks)
    policy_needs_no_restart(checks)
    monitoring_is_whole(checks)
    network_is_closed(checks)
    for setting, word in WRONG.items():
        checks.check(f"{setting} is refused", word in complaint(setting), complaint(setting))


def example_is_right(checks, example):
    folder = CHART / "examples" / example
    call("helm", "lint", "--strict", CHART, "--values", folder / "values.yaml")
    checks.check(f"{example}: helm lint takes it", True)
    text = template(example)
    documents = read(text)
    checks.check(f"{example}: rendered.yaml is what helm renders", text == (folder / "rendered.yaml").read_text(),
                 "tests/install/run --write renders it anew")
    checks.equal(f"{example}: Kubernetes takes it", complaints(documents), [])
    checks.check(f"{example}: holds no Secret", all(document["kind"] != "Secret" for document in documents))
    judged = check_by_tailkeep(documents)
    checks.check(f"{example}: tailkeep takes configuration and policy", judged.count("no problem") == 2, judged)
    config, manifests = EXAMPLES[example]
    data = data_of(documents)
    checks.equal(f"{example}: its configuration is config/{config}.yaml", data["tailkeep.yaml"], configuration(config))
    if manifests:
        theirs = [document for name in manifests for document in of_file(f"config/k8s/{name}.yaml")]
        policy = data_of(theirs)["policy.yaml"]
        checks.equal(f"{example}: its policy is that of config/k8s", data["policy.yaml"], policy)
        checks.equal(f"{example}: agrees with config/k8s/{manifests[0]}.yaml", disagreements(documents, theirs), [])
    grace = [document["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 0)
             for document in documents if document["kind"] in ("StatefulSet", "DaemonSet")]
    checks.check(f"{example}: pods have time to drain", all(seconds >= 30 for seconds in grace), str(grace))


def data_of(documents):
    [data] = [document["data"] for document in documents
              if document["kind"] == "ConfigMap" and "tailkeep.yaml" in document["data"]]
    return data


def disagreements(ours, theirs):
    """Where chart and manifests differ in what matters: ports, probes, security, memory, disks, the balancer."""
    ours, theirs = comparable(ours), comparable(theirs)
    return list(differences(ours, theirs))


# Names and labels are each side's own; ConfigMaps are compared as texts; images and classes are the cluster's.
OWN = {"metadata", "selector", "matchLabels", "serviceAccountName", "serviceName", "image", "storageClassName"}
MONITORS = ("PodMonitor", "PrometheusRule", "NetworkPolicy", "Namespace")


def comparable(documents):
    objects = {}
    for document in documents:
        if document["kind"] in MONITORS:
            continue
        component = "balancer" if "balancer" in document["metadata"]["name"] else ""
        for text in ("tailkeep.yaml", "policy.yaml"):
            document.get("data", {}).pop(text, None)
        if collector := document.get("data", {}).get("collector.yaml"):
            document["data"]["collector.yaml"] = yaml.safe_load(collector)
        objects[f"{document['kind']} {component}"] = stripped(document)
    return objects


def stripped(value):
    if isinstance(value, list):
        return [stripped(item) for item in value if item.get("name") not in ("POD_NAME", "NODE_NAME")] \
            if all(isinstance(item, dict) for item in value) else value
    if isinstance(value, dict):
        kept = {key: stripped(item) for key, item in value.items() if key not in OWN}
        if set(kept.get("configMap", {})) == {"name"}:
            del kept["configMap"]
        if isinstance(kept.get("ports"), list):
            kept["ports"].sort(key=lambda port: port["name"])
        return {key: item for key, item in kept.items() if item not in ({}, [])}
    return value


def schemas_refuse(checks):
    """The judges can say no: what they take means something."""
    [container] = containers(documents := read(template("gateway", "podMonitor.enabled=true")))
    container["readinessprobe"] = container.pop("readinessProbe")
    container["livenessProbe"]["httpGet"]["port"] = "heath"
    one(documents, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] = "nobody"
    container["volumeMounts"].append({"name": "tls", "mountPath": "/tls"})
    named(documents, "Service", "tailkeep-gateway")["spec"]["ports"].append({"name": "more", "port": 4319})
    one(documents, "PodMonitor")["spec"]["podMetricsEndpoints"][0]["prot"] = "health"
    found = " ".join(complaints(documents))
    checks.check("a misspelt field of a pod is found in every version", found.count("readinessprobe") == 3, found)
    checks.check("a misspelt field of a PodMonitor is found", "prot" in found, found)
    lost = ("heath", "'nobody'", "tls", "4319")
    checks.check("what leads nowhere is found", all(word in found for word in lost), found)


def policy_needs_no_restart(checks):
    """A changed policy leaves the pods as they are; a changed configuration does not."""
    pod = lambda *settings: one(read(template("gateway", *settings)), "StatefulSet")["spec"]["template"]  # noqa: E731
    policy = TARGET / "install" / "policy.yaml"
    policy.write_text("version: 1\notherwise: { keep: all }\n")
    config = CHART / "examples/gateway/values.yaml"
    text = call("helm", "template", "tailkeep", CHART, "--values", config, "--set-file", f"policy={policy}")
    checks.check("a policy of another file is in the ConfigMap", "{ keep: all }" in data_of(read(text))["policy.yaml"])
    checks.equal("and changes nothing of the pods", one(read(text), "StatefulSet")["spec"]["template"], pod())
    changed = yaml.safe_load((CHART / "values.yaml").read_text())["config"].replace("2GiB", "1GiB")
    policy.write_text(changed)
    text = call("helm", "template", "tailkeep", CHART, "--values", config, "--set-file", f"config={policy}")
    theirs = one(read(text), "StatefulSet")["spec"]["template"]
    lines = list(differences(theirs, pod()))
    checks.check("a changed configuration changes one annotation", len(lines) == 1 and "checksum" in lines[0], lines)
    lines = list(differences(read(template("ack-arms", "replicas=4")), read(template("ack-arms"))))
    places = " ".join(lines)
    checks.check("where the balancer names gateways, another number of them changes its list, and restarts it",
                 all(word in places for word in ("collector.yaml", "checksum", "replicas")), lines)


def monitoring_is_whole(checks):
    documents = read(template("ack-sls", "dashboards.enabled=true"))
    rules = one(documents, "PrometheusRule")["spec"]
    checks.equal("the PrometheusRule has the alerts of config/prometheus", rules,
                 yaml.safe_load((ROOT / "config/prometheus/alerts.yaml").read_text()))
    boards = named(documents, "ConfigMap", "tailkeep-gateway-dashboards")["data"]
    originals = {path.name: json.loads(path.read_text()) for path in (ROOT / "config/grafana").iterdir()}
    checks.equal("the dashboards are those of config/grafana",
                 {name: json.loads(text) for name, text in boards.items()}, originals)
    monitor = one(documents, "PodMonitor")["spec"]
    pod = one(documents, "StatefulSet")["spec"]["template"]
    selected = monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    checks.check("the PodMonitor finds the pods and their port",
                 selected and monitor["podMetricsEndpoints"][0]["port"] in ports)
    annotations = pod["metadata"]["annotations"]
    checks.check("pods that it finds are not scraped twice", "prometheus.io/scrape" not in annotations)


def network_is_closed(checks):
    documents = read(template("gateway", "networkPolicy.enabled=true"))
    rules = named(documents, "NetworkPolicy", "tailkeep-gateway")["spec"]["ingress"]
    balancer = named(documents, "Deployment", "tailkeep-balancer")["spec"]["selector"]
    checks.equal("only the balancer sends to gateways", rules[0]["from"], [{"podSelector": balancer}])
    ports = [port["port"] for rule in rules for port in rule["ports"]]
    checks.equal("nobody reaches the admin listener unless named", ports, ["otlp-grpc", "otlp-http", "health"])


def complaint(setting):
    try:
        template("gateway", setting)
    except RuntimeError as error:
        return str(error)
    return "it was taken"
