"""References between Kubernetes objects that no schema sees: names, selectors and ports must lead somewhere."""

WORKLOADS = ("StatefulSet", "DaemonSet", "Deployment")


def dangling(documents):
    """What leads nowhere, as lines."""
    workloads = [document for document in documents if document["kind"] in WORKLOADS]
    names = {(document["kind"], document["metadata"]["name"]) for document in documents}
    for workload in workloads:
        place = f"{workload['kind']} {workload['metadata']['name']}"
        for missing in of_workload(workload, names):
            yield f"{place}: {missing}"
    for document in documents:
        place = f"{document['kind']} {document['metadata']['name']}"
        for missing in of_others(document, workloads, names):
            yield f"{place}: {missing}"


def of_workload(workload, names):
    spec = workload["spec"]
    pod, labels = spec["template"]["spec"], spec["template"]["metadata"]["labels"]
    if not spec["selector"]["matchLabels"].items() <= labels.items():
        yield "its selector finds none of its pods"
    if "serviceName" in spec and ("Service", spec["serviceName"]) not in names:
        yield f"no Service {spec['serviceName']}"
    account = pod.get("serviceAccountName")
    if account and ("ServiceAccount", account) not in names:
        yield f"no ServiceAccount {account}"
    volumes = {volume["name"]: volume for volume in pod.get("volumes", []) + spec_claims(spec)}
    for volume in volumes.values():
        if "configMap" in volume and ("ConfigMap", volume["configMap"]["name"]) not in names:
            yield f"no ConfigMap {volume['configMap']['name']}"
    for container in pod.get("initContainers", []) + pod["containers"]:
        ports = {port["name"] for port in container.get("ports", [])}
        probed = {container[probe]["httpGet"]["port"]
                  for probe in ("startupProbe", "livenessProbe", "readinessProbe") if probe in container}
        mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
        if probed - ports or mounted - volumes.keys():
            yield f"{container['name']} has no {probed - ports | mounted - volumes.keys()}"


def spec_claims(spec):
    return [{"name": claim["metadata"]["name"]} for claim in spec.get("volumeClaimTemplates", [])]


def of_others(document, workloads, names):
    spec = document.get("spec", {})
    match document["kind"]:
        case "Service":
            chosen = selected(spec["selector"], workloads)
            ports = {port["containerPort"] for workload in chosen for port in ports_of(workload)}
            if lost := {port["port"] for port in spec["ports"]} - ports:
                yield f"no pod listens on {lost}"
        case "PodDisruptionBudget":
            if not selected(spec["selector"]["matchLabels"], workloads):
                yield "selects no pod"
        case "NetworkPolicy":
            chosen = selected(spec["podSelector"]["matchLabels"], workloads)
            ports = {port["name"] for workload in chosen for port in ports_of(workload)}
            if lost := {port["port"] for rule in spec["ingress"] for port in rule["ports"]} - ports:
                yield f"no pod has a port {lost}"
        case "HorizontalPodAutoscaler":
            if (target := (spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])) not in names:
                yield f"no {target}"


def selected(labels, workloads):
    return [workload for workload in workloads
            if labels.items() <= workload["spec"]["template"]["metadata"]["labels"].items()]


def ports_of(workload):
    pod = workload["spec"]["template"]["spec"]
    return [port for container in pod.get("initContainers", []) + pod["containers"]
            for port in container.get("ports", [])]
