//! Attributes that the OpenTelemetry semantic conventions renamed. A policy may use either name, and
//! spans of old and new SDKs match alike.
//!
//! Source: the deprecated attributes of the semantic conventions registry ("replaced by …"), v1.0 to v1.39.
//! Left out are those that were split, removed, or became another type with other values
//! (`http.request_content_length`, `net.sock.family`, `rpc.grpc.status_code`, …).

/// Every line is one attribute: the newest name first. A name that stood for two things has two lines.
const RENAMED: &[&[&str]] = &[
    // HTTP and URL
    &["http.request.method", "http.method"],
    &["http.response.status_code", "http.status_code"],
    &["http.request.resend_count", "http.resend_count"],
    &["http.request.body.size", "http.request_content_length_uncompressed"],
    &["http.response.body.size", "http.response_content_length_uncompressed"],
    &["url.full", "http.url"],
    &["url.scheme", "http.scheme"],
    // `http.target` is the path and, where there is one, the query.
    &["url.path", "http.target"],
    &["user_agent.original", "http.user_agent"],
    &["client.address", "http.client_ip"],
    // Network
    &["server.address", "net.host.name"],
    &["server.address", "net.peer.name"],
    &["server.address", "http.server_name"],
    &["server.port", "net.host.port"],
    &["server.port", "net.peer.port"],
    &["network.protocol.name", "net.protocol.name", "net.app.protocol.name", "messaging.protocol"],
    &["network.protocol.version", "net.protocol.version", "net.app.protocol.version", "messaging.protocol_version"],
    &["network.protocol.version", "http.flavor"],
    &["network.transport", "net.transport"],
    &["network.peer.address", "net.sock.peer.addr", "net.peer.ip"],
    &["network.peer.port", "net.sock.peer.port"],
    &["network.local.address", "net.sock.host.addr", "net.host.ip"],
    &["network.local.port", "net.sock.host.port"],
    &["network.connection.type", "net.host.connection.type"],
    &["network.connection.subtype", "net.host.connection.subtype"],
    &["network.carrier.name", "net.host.carrier.name"],
    &["network.carrier.mcc", "net.host.carrier.mcc"],
    &["network.carrier.mnc", "net.host.carrier.mnc"],
    &["network.carrier.icc", "net.host.carrier.icc"],
    // Databases
    &["db.system.name", "db.system"],
    &["db.namespace", "db.name"],
    &["db.namespace", "db.cassandra.keyspace"],
    &["db.namespace", "db.hbase.namespace"],
    &["db.namespace", "db.elasticsearch.cluster.name"],
    &["db.operation.name", "db.operation"],
    &["db.query.text", "db.statement"],
    &["db.collection.name", "db.sql.table"],
    &["db.collection.name", "db.mongodb.collection"],
    &["db.collection.name", "db.cassandra.table"],
    &["db.collection.name", "db.cosmosdb.container"],
    &["db.client.connection.pool.name", "db.client.connections.pool.name", "pool.name"],
    &["db.client.connection.state", "db.client.connections.state"],
    &["elasticsearch.node.name", "db.elasticsearch.node.name"],
    &["cassandra.consistency.level", "db.cassandra.consistency_level"],
    &["cassandra.coordinator.dc", "db.cassandra.coordinator.dc"],
    &["cassandra.coordinator.id", "db.cassandra.coordinator.id"],
    &["cassandra.page.size", "db.cassandra.page_size"],
    &["cassandra.query.idempotent", "db.cassandra.idempotence"],
    &["cassandra.speculative_execution.count", "db.cassandra.speculative_execution_count"],
    &["azure.client.id", "db.cosmosdb.client_id"],
    &["azure.cosmosdb.connection.mode", "db.cosmosdb.connection_mode"],
    &["azure.cosmosdb.consistency.level", "db.cosmosdb.consistency_level"],
    &["azure.cosmosdb.operation.contacted_regions", "db.cosmosdb.regions_contacted"],
    &["azure.cosmosdb.operation.request_charge", "db.cosmosdb.request_charge"],
    &["azure.cosmosdb.request.body.size", "db.cosmosdb.request_content_length"],
    &["azure.cosmosdb.response.sub_status_code", "db.cosmosdb.sub_status_code"],
    // Messaging
    &["messaging.destination.name", "messaging.destination"],
    &["messaging.destination.temporary", "messaging.temp_destination"],
    &["messaging.destination.partition.id", "messaging.kafka.destination.partition", "messaging.kafka.partition"],
    &["messaging.destination.subscription.name", "messaging.servicebus.destination.subscription_name"],
    &["messaging.destination.subscription.name", "messaging.eventhubs.consumer.group"],
    &["messaging.operation.type", "messaging.operation"],
    &["messaging.message.id", "messaging.message_id"],
    &["messaging.message.conversation_id", "messaging.conversation_id"],
    &["messaging.message.body.size", "messaging.message.payload_size_bytes", "messaging.message_payload_size_bytes"],
    &["messaging.client.id", "messaging.client_id", "messaging.consumer.id", "messaging.consumer_id"],
    &["messaging.client.id", "messaging.kafka.client_id"],
    &["messaging.client.id", "messaging.rocketmq.client_id"],
    &["messaging.consumer.group.name", "messaging.kafka.consumer.group", "messaging.kafka.consumer_group"],
    &["messaging.consumer.group.name", "messaging.rocketmq.client_group"],
    &["messaging.kafka.offset", "messaging.kafka.message.offset"],
    &["messaging.kafka.message.key", "messaging.kafka.message_key"],
    &["messaging.kafka.message.tombstone", "messaging.kafka.tombstone"],
    &["messaging.rabbitmq.destination.routing_key", "messaging.rabbitmq.routing_key"],
    &["messaging.rocketmq.message.type", "messaging.rocketmq.message_type"],
    &["messaging.rocketmq.message.tag", "messaging.rocketmq.message_tag"],
    &["messaging.rocketmq.message.keys", "messaging.rocketmq.message_keys"],
    // RPC and peers
    &["rpc.system.name", "rpc.system"],
    &["jsonrpc.request.id", "rpc.jsonrpc.request_id"],
    &["jsonrpc.protocol.version", "rpc.jsonrpc.version"],
    &["service.peer.name", "peer.service"],
    // Where it runs
    &["deployment.environment.name", "deployment.environment"],
    &["cloud.resource_id", "faas.id"],
    &["faas.invocation_id", "faas.execution"],
    &["container.image.tags", "container.image.tag"],
    &["container.runtime.name", "container.runtime"],
    &["azure.resource_provider.namespace", "az.namespace"],
    &["azure.service.request.id", "az.service_request_id"],
    &["telemetry.distro.version", "telemetry.auto.version"],
    &["otel.scope.name", "otel.library.name"],
    &["otel.scope.version", "otel.library.version"],
    // Code
    &["code.function.name", "code.function"],
    &["code.file.path", "code.filepath"],
    &["code.line.number", "code.lineno"],
    &["code.column.number", "code.column"],
    // Feature flags, version control, users
    &["feature_flag.provider.name", "feature_flag.provider_name"],
    &["feature_flag.result.variant", "feature_flag.variant"],
    &["feature_flag.result.reason", "feature_flag.evaluation.reason"],
    &["vcs.change.id", "vcs.repository.change.id"],
    &["vcs.change.title", "vcs.repository.change.title"],
    &["vcs.ref.head.name", "vcs.repository.ref.name"],
    &["vcs.ref.head.revision", "vcs.repository.ref.revision"],
    &["vcs.ref.head.type", "vcs.repository.ref.type"],
    &["user.roles", "enduser.role"],
    // Generative AI
    &["gen_ai.provider.name", "gen_ai.system"],
    &["gen_ai.request.seed", "gen_ai.openai.request.seed"],
    &["gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"],
    &["gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"],
    &["openai.request.service_tier", "gen_ai.openai.request.service_tier"],
    &["openai.response.service_tier", "gen_ai.openai.response.service_tier"],
    &["openai.response.system_fingerprint", "gen_ai.openai.response.system_fingerprint"],
    // Mobile
    &["android.app.state", "android.state"],
    &["ios.app.state", "ios.state"],
];

/// Renamed families, whose names end in something of the user's: newest first.
const RENAMED_PREFIXES: &[[&str; 2]] = &[
    ["container.label.", "container.labels."],
    ["db.operation.parameter.", "db.elasticsearch.path_parts."],
    ["k8s.pod.annotation.", "k8s.pod.annotations."],
    ["k8s.pod.label.", "k8s.pod.labels."],
];

/// All names of the attribute `key`: itself first.
pub fn names_of(key: &str) -> Vec<String> {
    let mut names = vec![key.to_owned()];
    let lines = RENAMED.iter().filter(|line| line.contains(&key));
    for name in lines.flat_map(|line| line.iter()) {
        if !names.iter().any(|known| known == name) {
            names.push((*name).to_owned());
        }
    }
    for [new, old] in RENAMED_PREFIXES {
        for (from, to) in [(new, old), (old, new)] {
            names.extend(key.strip_prefix(from).map(|rest| format!("{to}{rest}")));
        }
    }
    names
}

/// Attributes whose value is a number by the semantic conventions; used for a warning only.
const NUMERIC: &[&str] = &[
    "client.port",
    "code.column.number",
    "code.line.number",
    "db.response.returned_rows",
    "http.request.body.size",
    "http.request.resend_count",
    "http.response.body.size",
    "http.response.status_code",
    "messaging.batch.message_count",
    "messaging.kafka.offset",
    "messaging.message.body.size",
    "network.local.port",
    "network.peer.port",
    "process.pid",
    "rpc.grpc.status_code",
    "server.port",
    "thread.id",
];

/// True if the attribute is a number, whichever of its names `key` is.
pub fn is_numeric(key: &str) -> bool {
    names_of(key).iter().any(|name| NUMERIC.contains(&name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_names_lead_to_both() {
        assert_eq!(names_of("http.response.status_code"), ["http.response.status_code", "http.status_code"]);
        assert_eq!(names_of("http.status_code"), ["http.status_code", "http.response.status_code"]);
        assert_eq!(names_of("k8s.pod.labels.app"), ["k8s.pod.labels.app", "k8s.pod.label.app"]);
        assert_eq!(names_of("app.own"), ["app.own"]);
    }

    #[test]
    fn names_of_different_things_are_not_joined() {
        let host = names_of("net.host.name");
        assert!(host.contains(&"server.address".to_owned()) && !host.contains(&"net.peer.name".to_owned()));
        assert_eq!(names_of("server.address").len(), 4);
    }

    #[test]
    fn the_table_is_well_formed() {
        let firsts: Vec<&str> = RENAMED.iter().map(|line| line[0]).collect();
        for line in RENAMED {
            assert!(line.len() >= 2, "{line:?}");
            for old in &line[1..] {
                assert!(!firsts.contains(old), "{old} is new on one line and old on another");
                assert_eq!(RENAMED.iter().filter(|other| other.contains(old)).count(), 1, "{old}");
            }
        }
    }

    #[test]
    fn numeric_attributes_are_known_by_all_names() {
        assert!(is_numeric("http.status_code") && is_numeric("net.peer.port"));
        assert!(!is_numeric("http.route"));
    }
}
