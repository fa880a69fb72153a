//! The Kubernetes manifests: what they embed loads, is the same as the file beside them, and fits what
//! the pod is given.

use super::documents::{Document, path, read};
use super::process::Place;
use super::{load_config, load_policy};
use tailkeep::config::Config;
use tailkeep::yaml::{Meaning, Node, Value, parse, parse_size};

/// Seconds that an application may take to stop by default, of the grace period that it shares with a native sidecar.
const APPLICATION_STOPS: u64 = 30;

/// A value in a manifest, with its place for messages.
#[derive(Clone)]
struct Part<'n> {
    node: &'n Node,
    place: String,
}

impl<'n> Part<'n> {
    fn find(&self, key: &str) -> Option<Part<'n>> {
        let Value::Map(entries) = &self.node.value else { return None };
        let entry = entries.iter().find(|entry| entry.key == key)?;
        Some(Part { node: &entry.value, place: format!("{}.{key}", self.place) })
    }

    fn get(&self, keys: &str) -> Part<'n> {
        keys.split('/')
            .fold(self.clone(), |part, key| part.find(key).unwrap_or_else(|| panic!("{} has no `{key}`", part.place)))
    }

    fn items(&self) -> Vec<Part<'n>> {
        let Value::List(items) = &self.node.value else { panic!("{} is no list", self.place) };
        let part = |(at, node)| Part { node, place: format!("{}[{at}]", self.place) };
        items.iter().enumerate().map(part).collect()
    }

    fn text(&self) -> &'n str {
        let Value::Scalar(scalar) = &self.node.value else { panic!("{} is no text", self.place) };
        &scalar.text
    }

    /// It is told to stop when the other containers have ended.
    fn is_native_sidecar(&self) -> bool {
        self.find("restartPolicy").is_some_and(|policy| policy.text() == "Always")
    }

    fn is(&self, key: &str, wanted: bool) -> bool {
        let Some(Part { node: Node { value: Value::Scalar(scalar), .. }, .. }) = self.find(key) else { return false };
        scalar.meaning() == Meaning::Bool(wanted)
    }
}

pub fn check_all() {
    let mut names: Vec<String> = std::fs::read_dir(path("config/k8s"))
        .expect("a folder")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    // The base of `config/kustomize`, which `tests/install/run` renders.
    names.retain(|name| name != "kustomization.yaml");
    assert_eq!(names, ["balancer.yaml", "daemonset.yaml", "gateway.yaml", "sidecar.yaml", "sls.yaml"]);
    let mut secrets = Vec::new();
    for name in &names {
        let trees = trees(name);
        let documents: Vec<Part> = trees.iter().map(|node| Part { node, place: name.clone() }).collect();
        match name.as_str() {
            "balancer.yaml" => check_balancer(&documents),
            _ => secrets.extend(check_manifest(name, &documents)),
        }
    }
    // Two manifests that ask one Secret for different keys could not be applied together.
    let all = secrets.len();
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), all, "two manifests share a Secret: {secrets:?}");
}

/// It sends to the Service that both gateways make.
fn check_balancer(documents: &[Part<'_>]) {
    let config = documents[0].get("data/collector.yaml");
    for gateway in ["gateway.yaml", "sls.yaml"] {
        let trees = trees(gateway);
        let mut services = trees.iter().map(|node| Part { node, place: gateway.to_owned() });
        let service = services.find(|document| document.get("kind").text() == "Service").expect("a Service");
        let [name, namespace] = ["metadata/name", "metadata/namespace"].map(|keys| service.get(keys).text().to_owned());
        let host = format!("{name}.{namespace}.svc.cluster.local");
        assert_eq!(config.text().matches(&host).count(), 3, "{}: both exporters send to {host}", config.place);
        // What it says of names instead of addresses.
        assert!(config.text().contains(&format!("{name}-0.{host}:4317")), "{}: no pod of {host}", config.place);
    }
    let collector = tree("balancer.yaml: collector.yaml", config.text());
    let collector = Part { node: &collector, place: config.place };
    for signal in ["traces", "metrics", "logs"] {
        let pipeline = collector.get(&format!("service/pipelines/{signal}"));
        for kind in ["receivers", "processors", "exporters"] {
            pipeline.get(kind).items().iter().for_each(|item| drop(collector.get(&format!("{kind}/{}", item.text()))));
        }
    }
}

/// Checks what runs tailkeep; returns the names of the Secrets that it needs.
fn check_manifest(name: &str, documents: &[Part<'_>]) -> Vec<String> {
    let of_kind = |kind: &str| documents.iter().filter(|d| d.get("kind").text() == kind).cloned().collect::<Vec<_>>();
    let embedded = of_kind("ConfigMap").into_iter().find(|map| map.get("data").find("tailkeep.yaml").is_some());
    let data = embedded.expect("a ConfigMap for tailkeep").get("data");
    load_policy(&format!("{name}: policy.yaml"), data.get("policy.yaml").text());
    let config = data.get("tailkeep.yaml").text();
    let file = read(&format!("config/{name}"));
    // Its first line is for editors, which find the schema beside it.
    let (_, file) = file.split_once('\n').expect("it has lines");
    assert_eq!(config, file, "{name} embeds config/{name}");
    let config = load_config(&format!("{name}: tailkeep.yaml"), config);
    let pods = ["Deployment", "DaemonSet", "StatefulSet"].into_iter().flat_map(of_kind);
    let pods: Vec<Part> = pods.map(|workload| workload.get("spec/template/spec")).collect();
    let ours: Vec<(Part, Part)> = pods.iter().flat_map(|pod| our_containers(pod)).collect();
    assert_eq!(ours.len(), 1, "{name} runs tailkeep");
    let (pod, container) = &ours[0];
    check_container(pod, container, &config, data.get("tailkeep.yaml").text());
    secrets(container)
}

/// Rules of Prometheus: each is complete, and asks for metrics that are documented.
pub fn check_alerts(what: &str, text: &str) {
    let tree = tree(what, text);
    let documented = Document::read("docs/operating.md").first_cells();
    let rules = Part { node: &tree, place: what.to_owned() }.get("groups").items();
    for rule in rules.iter().flat_map(|group| group.get("rules").items()) {
        let (name, expr) = (rule.get("alert").text(), rule.get("expr").text());
        assert!(name.starts_with("Tailkeep") && !rule.get("annotations/summary").text().is_empty(), "{name}");
        let words = expr.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metrics: Vec<&str> = words.filter(|word| word.starts_with("tailkeep_")).collect();
        assert!(!metrics.is_empty(), "{name} asks for none of our metrics");
        for metric in metrics {
            let is_shown = |shown: &String| shown.split('{').next() == Some(metric);
            assert!(documented.iter().any(is_shown), "{name}: there is no {metric}");
        }
    }
}

/// A part of a manifest: YAML with a kind, whose containers of ours run commands that there are.
pub fn check_snippet(what: &str, text: &str) {
    let tree = tree(what, text);
    let part = Part { node: &tree, place: what.to_owned() };
    match part.get("kind").text() {
        "Kustomization" => {
            let files = part.get("configMapGenerator").items().into_iter().flat_map(|map| map.get("files").items());
            let names: Vec<&str> = files.map(|file| file.text()).collect();
            assert!(names.contains(&"policy.yaml") && names.contains(&"policy.tests.yaml"), "{what}: {names:?}");
        }
        "Job" => {
            let (_, container) = our_containers(&part.get("spec/template/spec")).pop().expect("it runs tailkeep");
            let words: Vec<&str> = container.get("args").items().iter().map(|word| word.text()).collect();
            let here: Vec<String> = words.iter().map(|word| word.replace("/candidate/", "config/")).collect();
            let output = Place::new().run(&here);
            assert!(output.status.success(), "{what}: {words:?}: {output:?}");
        }
        kind => panic!("{what}: say here how a {kind} is checked"),
    }
}

fn secrets(container: &Part<'_>) -> Vec<String> {
    let variables = container.find("env").map_or(Vec::new(), |env| env.items());
    let references = variables.iter().filter_map(|variable| variable.find("valueFrom")?.find("secretKeyRef"));
    let mut names: Vec<String> = references.map(|reference| reference.get("name").text().to_owned()).collect();
    names.dedup();
    names
}

fn trees(name: &str) -> Vec<Node> {
    let text = read(&format!("config/k8s/{name}"));
    text.split("\n---\n").map(|document| tree(name, document)).collect()
}

fn tree(name: &str, document: &str) -> Node {
    let (tree, flaws) = parse(document);
    assert!(flaws.is_empty(), "{name}: {flaws:?}");
    tree.unwrap_or_else(|| panic!("{name}: an empty document"))
}

/// The containers that run tailkeep, with their pod.
fn our_containers<'n>(pod: &Part<'n>) -> Vec<(Part<'n>, Part<'n>)> {
    let lists = ["initContainers", "containers"].iter().filter_map(|key| pod.find(key));
    let containers = lists.flat_map(|list| list.items());
    let ours = containers.filter(|container| container.get("image").text().starts_with("tailkeep:"));
    ours.map(|container| (pod.clone(), container)).collect()
}

fn check_container(pod: &Part<'_>, container: &Part<'_>, config: &Config, text: &str) {
    let place = &container.place;
    let security = container.get("securityContext");
    assert!(security.is("readOnlyRootFilesystem", true), "{place}: the image needs no writing");
    assert!(security.is("allowPrivilegeEscalation", false), "{place}");
    let of_pod = pod.find("securityContext");
    let non_root =
        security.is("runAsNonRoot", true) || of_pod.is_some_and(|security| security.is("runAsNonRoot", true));
    assert!(non_root, "{place} does not run as root");
    let grace: u64 = pod.get("terminationGracePeriodSeconds").text().parse().expect("a number");
    let before = if container.is_native_sidecar() { APPLICATION_STOPS } else { 0 };
    assert!(grace > before + config.drain.deadline.as_secs(), "{place} is killed before it has drained");
    assert!(before == 0 || config.drain.accept.as_secs() <= 1, "{place}: nobody sends when it is told to stop");
    let limit = parse_size(&format!("{}B", container.get("resources/limits/memory").text())).expect("a size") as usize;
    assert!(limit >= config.memory + config.memory / 2, "{place}: the limit leaves room beside `memory`");
    let health = config.health.expect("probed");
    assert!(!health.ip().is_loopback(), "{place}: the kubelet reaches `health`");
    for (probe, at) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container.get(probe).get("httpGet/path").text(), at, "{place}");
    }
    check_ports(container, config);
    check_variables(container, text);
}

fn check_ports(container: &Part<'_>, config: &Config) {
    let ports = container.get("ports").items();
    let number = |name: &str| {
        let port = ports.iter().find(|port| port.get("name").text() == name)?;
        Some(port.get("containerPort").text().parse::<u16>().expect("a number"))
    };
    let place = &container.place;
    assert_eq!(number("health"), config.health.map(|address| address.port()), "{place}");
    for (name, address) in [("otlp-grpc", config.receive.grpc), ("otlp-http", config.receive.http)] {
        let reachable = address.filter(|address| !address.ip().is_loopback());
        assert_eq!(number(name), reachable.map(|address| address.port()), "{place}: {name}");
    }
}

/// Every `${env:NAME}` of the configuration is a variable of the container.
fn check_variables(container: &Part<'_>, config: &str) {
    let set: Vec<&str> = container
        .find("env")
        .map_or(Vec::new(), |env| env.items().iter().map(|variable| variable.get("name").text()).collect());
    for named in config.split("${env:").skip(1).filter_map(|rest| rest.split('}').next()) {
        assert!(set.contains(&named), "{}: {named} is not set", container.place);
    }
}
