//! `tailkeep doctor`: one harmless probe to every sink and identity source, and what to do about
//! each that fails. It writes no data: Log Service is asked for a store's settings, OTLP endpoints
//! get an empty export, STS and the metadata service are asked for keys.

use crate::{
    deliver::sink::{
        Batch, SendError, Sink,
        sls::{self, ProbeCause, ProbeError, Sls},
    },
    identity::{self, FailureCause, Identity, Utc, World},
    trace::Signal,
};
use bytes::Bytes;
use std::{fmt::Write, sync::Arc};

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeFinding {
    /// Name of the sink in the configuration.
    pub sink: String,
    /// What was probed: `keys from RRSA`, `traces to the logstore otel-traces`.
    pub probe: String,
    pub outcome: ProbeOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It works; what the other side said, such as its request id.
    Fine(String),
    /// The probe could not tell, though all may be well.
    Unsure {
        what: String,
        advice: String,
    },
    Failed {
        what: String,
        advice: String,
    },
}

impl ProbeFinding {
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, ProbeOutcome::Failed { .. })
    }
}

/// Probes keys and stores of an `sls` sink.
pub async fn examine_sls(name: &str, settings: sls::SlsSettings, world: World) -> Vec<ProbeFinding> {
    let finding = |probe: String, outcome| ProbeFinding { sink: name.to_owned(), probe, outcome };
    let mut sink = match Sls::new(settings, world) {
        Ok(sink) => sink,
        Err(what) => {
            let advice = "correct the configuration file".to_owned();
            return vec![finding("settings".to_owned(), ProbeOutcome::Failed { what, advice })];
        }
    };
    let identity = Arc::clone(sink.identity());
    let keys = examine_identity(&identity).await;
    let mut findings = vec![finding(format!("keys from {}", identity.source()), keys)];
    if findings[0].is_failed() {
        return findings;
    }
    for signal in Signal::ALL {
        let Some(store) = sink.store(signal).map(str::to_owned) else { continue };
        let outcome = match sink.probe(&store).await {
            Ok(request_id) => ProbeOutcome::Fine(format!("request id {request_id}")),
            Err(error) => explain_sls(error, &store, sink.host()),
        };
        findings.push(finding(format!("{} to the store {store}", signal.word()), outcome));
    }
    findings
}

/// A kind of sink that speaks OTLP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SinkProtocol {
    Otlp,
    Arms,
}

/// Probes a sink that speaks OTLP by an empty export of every signal that it takes.
pub async fn examine_otlp(name: &str, kind: SinkProtocol, sink: &mut dyn Sink) -> Vec<ProbeFinding> {
    let mut findings = Vec::new();
    for signal in Signal::ALL.into_iter().filter(|signal| sink.takes(*signal)).collect::<Vec<_>>() {
        let outcome = match sink.send(&Batch { signal, body: Bytes::new(), items: 0 }).await {
            Ok(sent) => {
                let id = sent.request_id.map(|id| format!(", request id {id}")).unwrap_or_default();
                ProbeOutcome::Fine(format!("an empty export was taken{id}"))
            }
            Err(error) => explain_otlp(error, kind),
        };
        findings.push(ProbeFinding { sink: name.to_owned(), probe: format!("export of {}", signal.word()), outcome });
    }
    findings
}

async fn examine_identity(identity: &Arc<Identity>) -> ProbeOutcome {
    match identity.probe().await {
        Ok((keys, request_id)) => {
            let mut said = format!("access key id {}", keys.id);
            if let Some(expires) = keys.expires {
                let _ = write!(said, ", expires {}", Utc(expires).iso());
            }
            if let Some(id) = request_id {
                let _ = write!(said, ", request id {id}");
            }
            ProbeOutcome::Fine(said)
        }
        Err(error) => ProbeOutcome::Failed { advice: advise_identity(&error).to_owned(), what: error.to_string() },
    }
}

fn advise_identity(error: &identity::Error) -> &'static str {
    match (error.cause, error.source) {
        (FailureCause::Settings, "RRSA") => {
            "enable RRSA on the cluster and label the namespace for ack-pod-identity-webhook, or write `role_arn`, \
             `provider_arn` and `token_file` under `auth`"
        }
        (FailureCause::Settings, _) => "correct `auth` in the configuration or the environment variables that it names",
        (FailureCause::Unreachable, "ECS role") => {
            "only machines of ECS have this service: elsewhere write another `auth.type`; a container needs a route to \
             100.100.100.200"
        }
        (FailureCause::Unreachable, _) => {
            "check that the STS endpoint resolves and is reachable from here; without a way to the internet set \
             ALIBABA_CLOUD_STS_REGION and ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED=true, or write `auth.sts`"
        }
        (FailureCause::Refused, "RRSA") => "compare the role's trust policy with config/ram/rrsa-trust.json",
        (FailureCause::Refused, "ECS role") => "attach a RAM role to the machine, or use RRSA",
        (FailureCause::Refused, "AssumeRole") => {
            "allow the base keys sts:AssumeRole as in config/ram/assume-role.json, and name them in the role's trust policy"
        }
        (FailureCause::Refused, _) => "check the keys that are configured",
        (FailureCause::Unusable, "keys" | "environment") => "write the keys as RAM's console shows them",
        (FailureCause::Unusable, _) => "something else seems to answer in its place: look for a proxy on the way",
    }
}

/// How the error of a reply ends that names no request.
const NO_REQUEST_ID: &str = " (request id none)";

fn explain_sls(mut error: ProbeError, store: &str, host: &str) -> ProbeOutcome {
    let is_named = !error.text.contains(NO_REQUEST_ID);
    error.text = error.text.replace(NO_REQUEST_ID, "");
    // The service has checked the signature before it looks at permissions.
    if error.text.contains("log:GetLogStore") {
        let advice = "keys and signature are right, but they may not read the store's settings, so whether it exists is \
                      not known: writing needs config/ram/sls-write.json alone, this probe config/ram/sls-doctor.json too";
        return ProbeOutcome::Unsure { what: error.text, advice: advice.to_owned() };
    }
    let advice = match error.cause {
        ProbeCause::Keys => "see the finding on keys".to_owned(),
        ProbeCause::Network => format!(
            "check that {host} resolves and is reachable from here; inside a VPC of the same region use the \
             -intranet endpoint"
        ),
        ProbeCause::Status(_, true) => "set this machine's clock; until then tailkeep follows log service's".to_owned(),
        ProbeCause::Status(401, _) => {
            "check that the keys are enabled, that the secret belongs to them and that `region` is right".to_owned()
        }
        ProbeCause::Status(403, _) => {
            "a quota or an access policy of the project forbids it; see its settings".to_owned()
        }
        ProbeCause::Status(404, _) => format!("create {store} in the project, or correct its name and the project's"),
        ProbeCause::Status(..) if !is_named => {
            "log service gives every answer a request id, and this one has none: look for a proxy on the way, and try \
             again"
                .to_owned()
        }
        ProbeCause::Status(500.., _) => "try again; if it stays, open a ticket with the request id".to_owned(),
        ProbeCause::Status(..) => "open an issue with the request id: the request was well meant".to_owned(),
    };
    ProbeOutcome::Failed { what: error.text, advice }
}

fn explain_otlp(error: SendError, kind: SinkProtocol) -> ProbeOutcome {
    let (is_passing, what) = match error {
        SendError::Retry { reason, .. } | SendError::Pause { reason, .. } => (true, reason),
        SendError::Denied { reason, .. } | SendError::Split { reason } | SendError::Refused { reason } => {
            (false, reason)
        }
    };
    let says = |words: &[&str]| words.iter().any(|word| what.contains(word));
    let advice = if says(&["HTTP 401", "HTTP 403", "Unauthenticated", "PermissionDenied"]) {
        match kind {
            SinkProtocol::Otlp => "check the token, or what else proves who you are, under `headers`",
            SinkProtocol::Arms => "check the token, or what else proves who you are, under `token` or `license`",
        }
    } else if says(&["frame with invalid size", "this port speaks OTLP/HTTP"]) {
        "this port speaks HTTP/1, not gRPC: write `protocol: http`, or the port of OTLP/gRPC (mostly 4317)"
    } else if says(&["received unexpected message", "this port speaks OTLP/gRPC"]) {
        "this port speaks gRPC: write `protocol: grpc`, or the port of OTLP/HTTP (mostly 4318)"
    } else if says(&["InvalidContentType"]) {
        "this port does not speak TLS: write `http://`, or the port that does"
    } else if says(&["the connection broke"]) {
        "check that the port speaks the sink's `protocol`: 4317 is mostly gRPC, 4318 HTTP"
    } else if is_passing {
        "check that the endpoint is reachable from here and up"
    } else {
        "check protocol, port and path of the endpoint"
    };
    ProbeOutcome::Failed { advice: advice.to_owned(), what }
}

/// The findings as text, grouped by sink, and a last line that counts.
pub fn render(findings: &[ProbeFinding]) -> String {
    let mut text = String::new();
    let mut sink = None;
    for finding in findings {
        if sink.replace(&finding.sink) != Some(&finding.sink) {
            let _ = writeln!(text, "{}", finding.sink);
        }
        match &finding.outcome {
            ProbeOutcome::Fine(said) => {
                let _ = writeln!(text, "  ok    {}: {said}", finding.probe);
            }
            ProbeOutcome::Unsure { what, advice } => {
                let _ = writeln!(text, "  ?     {}: {what}\n        → {advice}", finding.probe);
            }
            ProbeOutcome::Failed { what, advice } => {
                let _ = writeln!(text, "  FAIL  {}: {what}\n        → {advice}", finding.probe);
            }
        }
    }
    let failed = findings.iter().filter(|finding| finding.is_failed()).count();
    let _ = match failed {
        0 if findings.is_empty() => {
            writeln!(text, "nothing was probed: the configuration has no sink that is elsewhere")
        }
        0 if findings.len() == 1 => writeln!(text, "1 probe, none failed"),
        0 => writeln!(text, "{} probes, none failed", findings.len()),
        _ => writeln!(text, "{failed} of {} probes failed", findings.len()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(sink: &str, probe: &str, outcome: ProbeOutcome) -> ProbeFinding {
        ProbeFinding { sink: sink.into(), probe: probe.into(), outcome }
    }

    #[test]
    fn a_report_groups_by_sink_and_says_what_to_do() {
        let failed =
            ProbeOutcome::Failed { what: "404 LogStoreNotExist (request id 5F)".into(), advice: "create it".into() };
        let findings = [
            finding("logs", "keys from RRSA", ProbeOutcome::Fine("access key id STS.x, request id R".into())),
            finding("logs", "traces to the store otel", failed),
            finding("arms", "export of traces", ProbeOutcome::Fine("an empty export was taken".into())),
        ];
        let want = "\
logs
  ok    keys from RRSA: access key id STS.x, request id R
  FAIL  traces to the store otel: 404 LogStoreNotExist (request id 5F)
        → create it
arms
  ok    export of traces: an empty export was taken
1 of 3 probes failed
";
        assert_eq!(render(&findings), want);
    }

    #[test]
    fn each_failure_of_log_service_has_its_advice() {
        let advice =
            |cause, text: &str| match explain_sls(ProbeError { cause, text: text.into() }, "otel", "p.log.test") {
                ProbeOutcome::Failed { what, advice } => {
                    assert_eq!(what, text);
                    advice
                }
                ProbeOutcome::Unsure { .. } | ProbeOutcome::Fine(_) => panic!("a failure is not fine"),
            };
        for (cause, text, word) in [
            (ProbeCause::Status(404, false), "404 LogStoreNotExist", "create otel"),
            (ProbeCause::Status(401, false), "401 SignatureNotMatch", "secret belongs"),
            (ProbeCause::Status(400, true), "400 RequestTimeTooSkewed", "clock"),
            (ProbeCause::Status(403, false), "403 WriteQuotaExceed", "quota"),
            (ProbeCause::Status(503, false), "503 ServerBusy", "ticket"),
            (ProbeCause::Network, "cannot connect", "p.log.test"),
        ] {
            let advice = advice(cause, text);
            assert!(advice.contains(word), "{text}: {advice}");
        }
    }

    #[test]
    fn an_answer_without_a_request_id_is_not_to_be_named_by_one() {
        for status in [502, 405] {
            let text = format!("log service answered {status} without an error code (request id none)");
            let error = ProbeError { cause: ProbeCause::Status(status, false), text };
            let ProbeOutcome::Failed { what, advice } = explain_sls(error, "otel", "p.log.test") else {
                panic!("a failure is not fine")
            };
            assert_eq!(what, format!("log service answered {status} without an error code"));
            assert!(advice.contains("proxy") && !advice.contains("with the request id"), "{advice}");
        }
    }

    #[test]
    fn each_failure_of_an_otlp_endpoint_has_its_advice() {
        let broke = |why| format!("http://h: the connection broke before the reply was complete: {why}");
        for (kind, reason, word) in [
            (SinkProtocol::Otlp, "HTTP 401".to_owned(), "`headers`"),
            (SinkProtocol::Arms, "PermissionDenied: no".to_owned(), "`token` or `license`"),
            (SinkProtocol::Otlp, broke("connection error detected: frame with invalid size"), "`protocol: http`"),
            (
                SinkProtocol::Otlp,
                "Unimplemented: this port speaks OTLP/HTTP; look elsewhere".to_owned(),
                "`protocol: http`",
            ),
            (SinkProtocol::Otlp, broke("received unexpected message from connection"), "`protocol: grpc`"),
            (SinkProtocol::Otlp, broke("connection closed"), "the sink's `protocol`"),
            (
                SinkProtocol::Otlp,
                "TLS with h failed: received corrupt message of type InvalidContentType".to_owned(),
                "`http://`",
            ),
            (SinkProtocol::Otlp, "cannot connect to h: connection refused".to_owned(), "reachable"),
        ] {
            let error = SendError::Retry { after: None, reason: reason.clone() };
            let ProbeOutcome::Failed { what, advice } = explain_otlp(error, kind) else {
                panic!("a failure is not fine")
            };
            assert_eq!(what, reason);
            assert!(advice.contains(word), "{reason}: {advice}");
            assert!(kind == SinkProtocol::Arms || !advice.contains("license"), "{advice}");
        }
        let ProbeOutcome::Failed { advice, .. } =
            explain_otlp(SendError::Refused { reason: "HTTP 404".into() }, SinkProtocol::Otlp)
        else {
            panic!("a failure is not fine")
        };
        assert!(advice.contains("path"), "{advice}");
    }

    /// As the documented policy for writing alone makes it.
    #[test]
    fn keys_that_may_only_write_are_no_failure() {
        let text = "401 Unauthorized denied by ram, action: log:GetLogStore".to_owned();
        let outcome = explain_sls(ProbeError { cause: ProbeCause::Status(401, false), text }, "otel", "p.log.test");
        let finding = finding("logs", "traces to the store otel", outcome);
        assert!(!finding.is_failed());
        let text = render(&[finding]);
        assert!(text.contains("  ?     traces") && text.contains("signature are right"), "{text}");
        assert!(text.ends_with("1 probe, none failed\n"), "{text}");
    }

    #[test]
    fn each_failure_of_a_source_of_keys_has_its_advice() {
        for (source, cause, word) in [
            ("RRSA", FailureCause::Settings, "ack-pod-identity-webhook"),
            ("RRSA", FailureCause::Unreachable, "VPC_ENDPOINT_ENABLED"),
            ("RRSA", FailureCause::Refused, "rrsa-trust.json"),
            ("RRSA", FailureCause::Unusable, "proxy"),
            ("ECS role", FailureCause::Unreachable, "100.100.100.200"),
            ("ECS role", FailureCause::Refused, "attach a RAM role"),
            ("AssumeRole", FailureCause::Refused, "assume-role.json"),
            ("keys", FailureCause::Unusable, "as RAM's console"),
            ("environment", FailureCause::Settings, "environment variables"),
        ] {
            let error = identity::Error { source, cause, what: String::new(), request_id: None };
            assert!(advise_identity(&error).contains(word), "{source} {cause:?}");
        }
    }

    #[tokio::test]
    async fn wrong_settings_are_a_finding_of_their_own() {
        let findings = examine_sls("logs", sls::SlsSettings::default(), World::system()).await;
        assert_eq!(findings.len(), 1);
        assert!(findings[0].is_failed() && findings[0].probe == "settings");
    }

    #[test]
    fn the_policy_documents_that_advice_names_are_there_and_are_json() {
        for name in ["sls-write", "sls-doctor", "assume-role", "rrsa-trust"] {
            let path = format!("{}/config/ram/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let document: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(document["Version"], "1", "{path}");
            assert_eq!(document["Statement"][0]["Effect"], "Allow", "{path}");
        }
    }
}
