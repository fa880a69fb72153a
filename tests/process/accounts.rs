//! Reads `/metrics` and holds the accounting identity at every look:
//!
//! - (a) spans received = accepted + rejected;
//! - (b) for each service, accepted = kept + dropped + over_limit + duplicate + held;
//! - (c) for each sink and signal, items + recovered = delivered + queued + discarded;
//! - what (b) kept is what (c) got, at every sink that takes traces, of all rules or of its own; log records likewise;
//! - counters only grow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// One scrape: samples by name and labels as written.
#[derive(Clone, Debug, Default)]
pub struct Accounts(BTreeMap<String, f64>);

impl Accounts {
    /// From the text of `/metrics`.
    pub fn parse(page: &str) -> Accounts {
        let lines = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("a sample has a value: {line:?}"));
            let value = value.parse().unwrap_or_else(|_| panic!("a sample's value is a number: {line:?}"));
            (name.to_owned(), value)
        };
        Accounts(lines.map(sample).collect())
    }

    /// The sum of all samples with this name that have all of these labels, each written `name="value"`.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let has_name = |sample: &str| sample.split('{').next() == Some(name);
        let has_labels = |sample: &str| labels.iter().all(|label| sample.contains(label));
        self.0.iter().filter(|(sample, _)| has_name(sample) && has_labels(sample)).map(|(_, value)| value).sum()
    }

    /// Values of one label of a metric.
    fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let of_name = self.0.keys().filter(|sample| sample.split('{').next() == Some(name));
        let value = |sample: &String| Some(sample.split_once(&format!("{label}=\""))?.1.split_once('"')?.0.to_owned());
        of_name.filter_map(value).collect()
    }

    /// What does not add up.
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut equal = |what: String, left: f64, right: f64| {
            if left != right {
                faults.push(format!("{what}: {left} is not {right}"));
            }
        };
        let (accepted, rejected) = ("tailkeep_spans_accepted_total", "tailkeep_spans_rejected_total");
        let received = self.sum("tailkeep_spans_received_total", &[]);
        equal("(a) received".into(), received, self.sum(accepted, &[]) + self.sum(rejected, &[]));
        for service in self.values(accepted, "service") {
            let of_service = |name: &str| self.sum(name, &[&format!("service=\"{service}\"")]);
            let fates = ["kept", "dropped", "over_limit", "duplicate"];
            let fates: f64 = fates.iter().map(|fate| of_service(&format!("tailkeep_spans_{fate}_total"))).sum();
            equal(format!("(b) {service}"), of_service(accepted), fates + of_service("tailkeep_spans_held"));
        }
        for sink in self.values("tailkeep_sink_items_total", "sink") {
            for signal in ["traces", "metrics", "logs"] {
                let labels = [format!("sink=\"{sink}\""), format!("signal=\"{signal}\"")];
                let of_sink = |name: &str| self.sum(&format!("tailkeep_sink_{name}"), &[&labels[0], &labels[1]]);
                let fates = of_sink("delivered_total") + of_sink("queued") + of_sink("discarded_total");
                equal(format!("(c) {sink} {signal}"), of_sink("items_total"), fates);
            }
        }
        faults.extend(self.faults_between_stages());
        faults
    }

    /// What one stage gave and the next did not get.
    fn faults_between_stages(&self) -> Vec<String> {
        let kept = self.sum("tailkeep_spans_kept_total", &[]);
        let logs = self.sum("tailkeep_items_accepted_total", &["signal=\"logs\""]);
        let pushed = self.0.iter().filter(|(sample, _)| sample.starts_with("tailkeep_sink_items_total{"));
        let differs = pushed.filter_map(|(sample, items)| {
            let recovered = sample.replace("_items_total", "_recovered_total");
            let fresh = items - self.0.get(&recovered).copied().unwrap_or(0.0);
            let given = match sample {
                sample if sample.contains("signal=\"traces\"") => match rule_of(sample) {
                    // What the admin interface keeps goes to all.
                    Some(rule) => {
                        let kept = |rule| self.sum("tailkeep_rule_spans_kept_total", &[&format!("rule=\"{rule}\"")]);
                        kept(rule) + kept("api")
                    }
                    None => kept,
                },
                sample if sample.contains("signal=\"logs\"") => logs,
                // Our own metrics come on top of those that were accepted.
                _ => return None,
            };
            (given != fresh).then(|| format!("{sample} got {fresh} of {given}"))
        });
        differs.collect()
    }

    /// Counters that went back, or away.
    fn set_back(&self, earlier: &Accounts) -> Vec<String> {
        let counters =
            earlier.0.iter().filter(|(sample, _)| sample.split('{').next().is_some_and(|n| n.ends_with("_total")));
        let set_back = counters.filter(|(sample, before)| self.0.get(*sample).is_none_or(|now| now < *before));
        set_back.map(|(sample, before)| format!("{sample} was {before} and is {:?}", self.0.get(sample))).collect()
    }
}

/// The rule whose traces a sink gets alone: such a sink is called `only.` and the rule.
fn rule_of(sample: &str) -> Option<&str> {
    sample.split_once("sink=\"only.")?.1.split('"').next()
}

/// Gets the accounts from a running process; none if it does not answer.
type Read = Arc<dyn Fn() -> Option<Accounts> + Send + Sync>;

/// Looks at the accounts again and again, in a thread of its own.
pub struct Auditor {
    read: Read,
    stop: Arc<AtomicBool>,
    findings: Arc<Mutex<Findings>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Findings {
    last: Accounts,
    looks: usize,
    faults: Vec<String>,
}

impl Findings {
    fn look(&mut self, accounts: &Accounts) {
        self.looks += 1;
        let faults = accounts.faults().into_iter().chain(accounts.set_back(&self.last));
        self.faults.extend(faults);
        self.last = accounts.clone();
    }
}

impl Auditor {
    pub fn start(read: impl Fn() -> Option<Accounts> + Send + Sync + 'static) -> Auditor {
        let read: Read = Arc::new(read);
        let (stop, findings) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Findings::default())));
        let (stopped, shared, scrape) = (stop.clone(), findings.clone(), read.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Relaxed) {
                // Read under the lock, so that scrapes are compared in the order in which they were made.
                let mut findings = shared.lock().unwrap_or_else(PoisonError::into_inner);
                // A process that ends stops answering.
                let Some(accounts) = scrape() else { return };
                findings.look(&accounts);
                drop(findings);
                std::thread::sleep(Duration::from_millis(40));
            }
        });
        Auditor { read, stop, findings, thread: Some(thread) }
    }

    /// A fresh look, audited like all others.
    pub fn look(&self) -> Accounts {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = (self.read)().expect("the health listener answers");
        findings.look(&accounts);
        assert!(findings.faults.is_empty(), "the accounts do not balance: {:#?}", findings.faults);
        accounts
    }

    /// Ends, and says what was wrong at any time; returns how often it looked.
    pub fn finish(&mut self) -> Result<usize, Vec<String>> {
        self.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if findings.faults.is_empty() { Ok(findings.looks) } else { Err(findings.faults.clone()) }
    }
}

#[test]
fn the_auditor_finds_what_does_not_add_up() {
    let page = |accepted, kept, delivered| {
        Accounts::parse(&format!(
            "# HELP x y\ntailkeep_spans_received_total 10\ntailkeep_spans_accepted_total{{service=\"a\"}} {accepted}\n\
             tailkeep_spans_kept_total{{service=\"a\"}} {kept}\ntailkeep_spans_held{{service=\"a\"}} 2\n\
             tailkeep_sink_items_total{{sink=\"s\",signal=\"traces\"}} 8\n\
             tailkeep_sink_delivered_total{{sink=\"s\",signal=\"traces\"}} {delivered}\n"
        ))
    };
    assert_eq!(page(10, 8, 8).faults(), Vec::<String>::new());
    assert_eq!(page(10, 8, 7).faults(), ["(c) s traces: 8 is not 7"]);
    assert_eq!(page(9, 7, 8).faults().len(), 2, "received is not accepted, and the sink got what nobody kept");
    assert_eq!(page(10, 7, 8).faults().len(), 2, "a service lost a span, and the sink got what nobody kept");
    assert_eq!(page(10, 8, 7).set_back(&page(10, 8, 8)).len(), 1);
}
