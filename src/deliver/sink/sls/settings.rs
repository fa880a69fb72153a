//! `sls` of a sink, and what is derived from it.

use super::SignatureVersion;
use crate::{deliver::refusal::LONGEST_REFUSAL, http_client::TlsSettings, identity, trace::Signal};
use std::time::Duration;

/// Delivers spans to a logstore, samples to a metricstore and log records to a logstore of one project.
#[derive(Clone, Debug)]
pub struct SlsSettings {
    /// `cn-hangzhou-intranet.log.aliyuncs.com`, without the project. https unless it carries a scheme.
    pub endpoint: String,
    /// `HOST:PORT` to connect to instead; what is signed and verified stays the endpoint's.
    pub connect_to: Option<String>,
    pub tls: TlsSettings,
    /// Host name to use in place of `{project}.{endpoint}`: a custom domain of the project. Requests
    /// then name the project in `x-log-project`.
    pub domain: Option<String>,
    /// Region id for signature V4. Default: the endpoint's first label without `-intranet`.
    pub region: Option<String>,
    pub project: String,
    /// Logstore of spans, usually `{trace instance}-traces`. None: spans are not taken.
    pub traces: Option<String>,
    /// Metricstore. None: metrics are not taken.
    pub metrics: Option<String>,
    /// Logstore of log records. None: logs are not taken.
    pub logs: Option<String>,
    pub signature: SignatureVersion,
    pub compression: PackCompression,
    pub trace_time_unit: TimeUnit,
    pub metrics_path: MetricsPath,
    /// Any text that stays the same over restarts pins all writes to one shard, which keeps their
    /// order. A shard takes 5 MB/s; without a key the service spreads the load.
    pub shard_key: Option<String>,
    /// `__topic__` of every log. Default: the host's name, as Alibaba's exporter does.
    pub topic: Option<String>,
    /// `__source__` of every log. Default: the address of this host.
    pub source: Option<String>,
    /// From the request's first byte to the reply's last.
    pub timeout: Duration,
    /// For how long a batch is sent again that is refused by what may be corrected: a wrong secret, a proxy.
    pub longest_refusal: Duration,
    pub auth: identity::IdentitySettings,
}

impl Default for SlsSettings {
    fn default() -> Self {
        SlsSettings {
            endpoint: String::new(),
            connect_to: None,
            tls: TlsSettings::default(),
            domain: None,
            region: None,
            project: String::new(),
            traces: None,
            metrics: None,
            logs: None,
            signature: SignatureVersion::default(),
            compression: PackCompression::default(),
            trace_time_unit: TimeUnit::default(),
            metrics_path: MetricsPath::default(),
            shard_key: None,
            topic: None,
            source: None,
            timeout: Duration::from_secs(15),
            longest_refusal: LONGEST_REFUSAL,
            auth: identity::IdentitySettings::default(),
        }
    }
}

/// How bodies are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PackCompression {
    /// A raw LZ4 block: little CPU on both sides.
    #[default]
    Lz4,
    /// A zstd frame of level 1: about a third smaller, for more CPU.
    Zstd,
    None,
}

/// The unit of `start`, `end` and `duration` of a span's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TimeUnit {
    /// What Alibaba's own converters write.
    #[default]
    Microseconds,
    /// What the help page "Trace data formats" says of `start` and `end`.
    Nanoseconds,
}

impl TimeUnit {
    pub(super) fn nanos(self) -> u64 {
        match self {
            TimeUnit::Microseconds => 1000,
            TimeUnit::Nanoseconds => 1,
        }
    }
}

/// Two paths into a metricstore; the body is the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum MetricsPath {
    /// `/logstores/{metricstore}/shards/lb`.
    #[default]
    Logstore,
    /// `/prometheus/{project}/{metricstore}/api/v1/write`, as newer agents of Alibaba write.
    Prometheus,
}

impl SlsSettings {
    pub(super) fn store(&self, signal: Signal) -> Option<&str> {
        match signal {
            Signal::Traces => self.traces.as_deref(),
            Signal::Metrics => self.metrics.as_deref(),
            Signal::Logs => self.logs.as_deref(),
        }
    }

    /// Scheme, `Host` and region of all requests, or what to write instead.
    pub(super) fn place(&self) -> Result<RequestTarget, String> {
        let (scheme, authority) = self.endpoint.split_once("://").unwrap_or(("https", &self.endpoint));
        let authority = authority.trim_end_matches('/');
        if !matches!(scheme, "http" | "https") {
            return Err(format!("endpoint: the scheme {scheme:?} is not http or https"));
        }
        if authority.is_empty() || authority.contains(['/', '?', '@', ' ']) {
            let given = &self.endpoint;
            return Err(format!("endpoint: {given:?} is no host name; write cn-hangzhou.log.aliyuncs.com"));
        }
        self.check_names()?;
        let host = match &self.domain {
            Some(domain) => domain.clone(),
            None if authority.starts_with(&format!("{}.", self.project)) => {
                let without = &authority[self.project.len() + 1..];
                return Err(format!("endpoint: leave out the project, write {without}"));
            }
            None => format!("{}.{authority}", self.project),
        };
        let is_host = |authority: http::uri::Authority| {
            authority.host().len() == authority.as_str().len() || authority.port_u16().is_some()
        };
        if host.contains('@') || !http::uri::Authority::try_from(host.as_str()).is_ok_and(is_host) {
            return Err(format!("endpoint: {host:?} is no host name; write cn-hangzhou.log.aliyuncs.com"));
        }
        Ok(RequestTarget { scheme: scheme.to_owned(), host, region: self.region_of(authority)? })
    }

    fn check_names(&self) -> Result<(), String> {
        let is_plain = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        let named = [
            ("project", Some(self.project.as_str())),
            ("region", self.region.as_deref()),
            ("traces", self.traces.as_deref()),
            ("metrics", self.metrics.as_deref()),
            ("logs", self.logs.as_deref()),
        ];
        for (key, name) in named {
            if let Some(name) = name.filter(|name| !is_plain(name)) {
                return Err(format!("{key}: {name:?} is no name; use letters, digits, - and _"));
            }
        }
        if self.traces.is_none() && self.metrics.is_none() && self.logs.is_none() {
            return Err("name at least one store: traces, metrics or logs".to_owned());
        }
        Ok(())
    }

    fn region_of(&self, authority: &str) -> Result<String, String> {
        if let Some(region) = &self.region {
            return Ok(region.clone());
        }
        let mut labels = authority.split('.');
        let first = labels.next().unwrap_or_default();
        let region = ["-intranet", "-internal", "-share"]
            .into_iter()
            .find_map(|network| first.strip_suffix(network))
            .unwrap_or(first);
        let is_region = labels.next() == Some("log") && region.contains('-');
        match self.signature {
            SignatureVersion::V4 if !is_region => {
                Err(format!("region: cannot be told from the endpoint {authority:?}; write it, such as cn-hangzhou"))
            }
            _ => Ok(region.to_owned()),
        }
    }
}

/// Where requests go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RequestTarget {
    pub(super) scheme: String,
    pub(super) host: String,
    pub(super) region: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(endpoint: &str) -> SlsSettings {
        SlsSettings { endpoint: endpoint.into(), project: "p".into(), traces: Some("t".into()), ..Default::default() }
    }

    #[test]
    fn host_and_region_come_from_the_endpoint() {
        for (endpoint, scheme, host, region) in [
            ("cn-hangzhou.log.aliyuncs.com", "https", "p.cn-hangzhou.log.aliyuncs.com", "cn-hangzhou"),
            ("cn-beijing-intranet.log.aliyuncs.com", "https", "p.cn-beijing-intranet.log.aliyuncs.com", "cn-beijing"),
            ("http://us-west-1.log.aliyuncs.com/", "http", "p.us-west-1.log.aliyuncs.com", "us-west-1"),
            ("http://cn-hangzhou.log.test:8080", "http", "p.cn-hangzhou.log.test:8080", "cn-hangzhou"),
        ] {
            let place = settings(endpoint).place().unwrap();
            assert_eq!((&*place.scheme, &*place.host, &*place.region), (scheme, host, region));
        }
    }

    #[test]
    fn a_region_that_cannot_be_told_must_be_written() {
        for endpoint in ["log-global.aliyuncs.com", "10.0.0.1:8080", "sls.example.com"] {
            let error = settings(endpoint).place().unwrap_err();
            assert!(error.starts_with("region: "), "{error}");
            let given = SlsSettings { region: Some("cn-shanghai".into()), ..settings(endpoint) };
            assert_eq!(given.place().unwrap().region, "cn-shanghai");
            let v1 = SlsSettings { signature: SignatureVersion::V1, ..settings(endpoint) };
            v1.place().unwrap();
        }
    }

    #[test]
    fn a_custom_domain_replaces_the_host() {
        let given = SlsSettings { domain: Some("logs.example.com".into()), ..settings("cn-hangzhou.log.aliyuncs.com") };
        assert_eq!(given.place().unwrap().host, "logs.example.com");
        let wrong = SlsSettings { domain: Some("user@logs.example.com:443".into()), ..given };
        assert!(wrong.place().unwrap_err().contains("no host name"));
    }

    #[test]
    fn wrong_settings_say_what_to_write() {
        for (endpoint, word) in [
            ("", "no host name"),
            ("ftp://cn-hangzhou.log.aliyuncs.com", "http or https"),
            ("cn-hangzhou.log.aliyuncs.com/logstores", "no host name"),
            ("p.cn-hangzhou.log.aliyuncs.com", "leave out the project"),
            ("cn-hangzhou.log.aliyuncs.com:x", "no host name"),
            ("ü.log.aliyuncs.com", "no host name"),
        ] {
            let error = settings(endpoint).place().unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let good = settings("cn-hangzhou.log.aliyuncs.com");
        for bad in ["", "a/b", "a b", "ü"] {
            assert!(SlsSettings { project: bad.into(), ..good.clone() }.place().unwrap_err().starts_with("project: "));
            assert!(SlsSettings { logs: Some(bad.into()), ..good.clone() }.place().unwrap_err().starts_with("logs: "));
        }
        assert!(SlsSettings { traces: None, ..good }.place().unwrap_err().contains("at least one store"));
    }
}
