//! `/metrics`: what the process counts of itself, then the request metrics.

use super::plan_service::PlanOutcome;
use crate::admin::CloseReason;
use crate::deliver::{AccountRow, Discard, Holdings};
use crate::pipeline::active_policy::ActivePolicy;
use crate::pipeline::shadow_policy::{KeptVolume, ShadowPolicy};
use crate::pipeline::{IntakeCounts, Pipeline, ShardTotals};
use crate::policy::{LimitCounts, Policy};
use crate::processing::{Action, Processing};
use crate::prometheus::{MetricKind, PageReader, write_metric};
use crate::receive::{ConnectionFault, RequestOutcome, Stats};
use crate::shard::count::{Spans, VerdictKey};
use crate::telemetry::log;
use crate::trace::{RuleId, Signal, Trigger};
use MetricKind::{Counter, Gauge};
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// Everything that `/metrics` shows, read at one moment.
pub struct Snapshot {
    pub intake: IntakeCounts,
    pub shards: ShardTotals,
    pub limits: BTreeMap<RuleId, LimitCounts>,
    pub services: Vec<Arc<str>>,
    pub active_policy: Arc<ActivePolicy>,
    pub sinks: Vec<AccountRow>,
    pub queue: Holdings,
    pub receiver: Stats,
    pub policy_refusals: u64,
    pub policy_set_aside: bool,
    /// Connections of health and admin, by [`CloseReason`].
    pub connections_closed: [u64; CloseReason::ALL.len()],
    /// Requests for plans, by [`PlanOutcome`].
    pub plans: [u64; 3],
}

impl Snapshot {
    fn rule(&self, id: RuleId) -> &str {
        self.active_policy.rules.name(id)
    }

    /// Their counters are there before they count, so that the first trace is a step, and stay: a counter that
    /// goes away is one that nobody can trust.
    fn rules(&self) -> impl Iterator<Item = RuleId> {
        self.active_policy.rules.iter().map(|(id, _)| id).filter(|id| *id != RuleId::OVERFLOW)
    }
}

/// What was counted, and 0 where nothing was.
fn with_zeros<K: Ord>(zeros: impl Iterator<Item = K>, counted: impl Iterator<Item = (K, u64)>) -> BTreeMap<K, u64> {
    zeros.map(|key| (key, 0)).chain(counted).collect()
}

type LabelPairs<'a> = Vec<(&'a str, &'a str)>;

/// Writes the whole page.
///
/// # Errors
/// Those of the writer.
pub fn write_page(out: &mut impl Write, reader: PageReader, snapshot: &Snapshot, pipeline: &Pipeline) -> fmt::Result {
    write_intake(out, snapshot)?;
    write_spans(out, snapshot)?;
    write_verdicts(out, snapshot)?;
    write_ring(out, snapshot)?;
    write_processing(out, &pipeline.processing)?;
    write_sinks(out, snapshot)?;
    write_queue(out, snapshot)?;
    write_receiver(out, snapshot)?;
    write_policy(out, snapshot)?;
    if let Some(meter) = &pipeline.meter {
        let totals = meter.totals();
        let mut one = |name, kind, help, value: f64| write_metric(out, name, kind, help, [(vec![], value)]);
        one(
            "tailkeep_series",
            Gauge,
            "Series of the request metrics that have counted something.",
            totals.series as f64,
        )?;
        one("tailkeep_series_bytes", Gauge, "Memory of the request metrics.", totals.bytes as f64)?;
        let help = "Spans counted in an overflow series: raise measure.series_max.";
        one("tailkeep_series_overflow_spans_total", Counter, help, totals.overflow_spans as f64)?;
        let help = "Operations whose percentiles are estimates from buckets.";
        one("tailkeep_series_approximate", Gauge, help, totals.approximate as f64)?;
        one("tailkeep_series_retired_total", Counter, "Series retired after being idle.", totals.retired as f64)?;
        let help = "Spans of which a sampler upstream had dropped a part: request metrics count what arrived.";
        one("tailkeep_spans_head_sampled_total", Counter, help, totals.head_sampled as f64)?;
        meter.prometheus(reader, pipeline.now_ms(), out)?;
    }
    Ok(())
}

fn write_intake(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let intake = &snapshot.intake;
    let received = [(vec![], intake.received[0] as f64)];
    write_metric(out, "tailkeep_spans_received_total", Counter, "Spans in requests that could be read.", received)?;
    let spans = &intake.rejected[Signal::Traces as usize];
    let reasons = [
        ("bad_id", spans.bad_id),
        ("malformed", spans.malformed),
        ("too_deep", spans.too_deep),
        ("too_large", spans.too_large),
        ("too_many", spans.too_many),
    ];
    let rejected = reasons.map(|(reason, count)| (vec![("reason", reason)], count as f64));
    let help = "Spans refused for good, told to the client as partial_success.";
    write_metric(out, "tailkeep_spans_rejected_total", Counter, help, rejected)?;
    let passed = [Signal::Metrics, Signal::Logs];
    let items = passed.map(|signal| (vec![("signal", signal.word())], intake.accepted[signal as usize] as f64));
    let help = "Data points and log records accepted, to be passed on.";
    write_metric(out, "tailkeep_items_accepted_total", Counter, help, items)?;
    let rejected = passed.into_iter().flat_map(|signal| {
        let items = &intake.rejected[signal as usize];
        [("malformed", items.malformed), ("too_deep", items.too_deep), ("too_many", items.too_many)]
            .map(|(reason, count)| (vec![("signal", signal.word()), ("reason", reason)], count as f64))
    });
    let help = "Data points and log records refused for good, told to the client as partial_success.";
    write_metric(out, "tailkeep_items_rejected_total", Counter, help, rejected)
}

fn write_spans(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    type Column = (&'static str, MetricKind, &'static str, fn(&Spans) -> u64);
    let columns: [Column; 6] = [
        ("tailkeep_spans_accepted_total", Counter, "Spans accepted.", |s| s.accepted),
        ("tailkeep_spans_kept_total", Counter, "Spans handed over to the sinks.", |s| s.kept),
        ("tailkeep_spans_dropped_total", Counter, "Spans that left the ring with a dropped trace.", |s| s.dropped),
        ("tailkeep_spans_over_limit_total", Counter, "Spans beyond their trace's part of the ring.", |s| s.over_limit),
        ("tailkeep_spans_duplicate_total", Counter, "Kept spans that were there already.", |s| s.duplicate),
        ("tailkeep_spans_held", Gauge, "Spans in the ring, waiting or provisionally decided.", |s| s.held),
    ];
    for (name, kind, help, value) in columns {
        let rows = snapshot.shards.counts.services.iter().zip(&snapshot.services);
        let rows = rows.filter(|(spans, _)| spans.accepted > 0);
        let samples = rows.map(|(spans, service)| (vec![("service", service.as_ref())], value(spans) as f64));
        write_metric(out, name, kind, help, samples)?;
    }
    Ok(())
}

fn write_verdicts(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let counts = &snapshot.shards.counts;
    let word = |keep| if keep { "keep" } else { "drop" };
    let both = || snapshot.rules().flat_map(|rule| [(rule, true), (rule, false)]);
    let all = both().flat_map(|(rule, keep)| Trigger::ALL.map(|trigger| VerdictKey { rule, keep, trigger }));
    let verdicts = with_zeros(all, counts.verdicts.iter().map(|(key, count)| (*key, *count)));
    let verdicts = verdicts.into_iter().map(|(key, count)| {
        let labels: LabelPairs =
            vec![("rule", snapshot.rule(key.rule)), ("verdict", word(key.keep)), ("trigger", key.trigger.word())];
        (labels, count as f64)
    });
    write_metric(out, "tailkeep_traces_judged_total", Counter, "Traces by their first verdict.", verdicts)?;
    let traces = with_zeros(both(), counts.traces.iter().map(|(key, count)| (*key, *count)));
    let traces = traces.into_iter().map(|((id, keep), count)| {
        let labels: LabelPairs = vec![("rule", snapshot.rule(id)), ("verdict", word(keep))];
        (labels, count as f64)
    });
    let help = "Traces that left the ring, by their last verdict.";
    write_metric(out, "tailkeep_traces_left_total", Counter, help, traces)?;
    let help = "Verdicts that late spans turned round, by the later rule.";
    let changes = counts.changes.iter().map(|(id, count)| (*id, *count));
    write_by_rule(out, "tailkeep_verdicts_changed_total", help, snapshot, changes)?;
    let listed = |list: &[u64]| -> Vec<(RuleId, u64)> {
        let counted = list.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(id, count)| (RuleId(id as u16), *count)).collect()
    };
    let help = "Spans handed over, by rule.";
    write_by_rule(out, "tailkeep_rule_spans_kept_total", help, snapshot, listed(&counts.kept).into_iter())?;
    let help = "Spans dropped, by the last verdict's rule.";
    write_by_rule(out, "tailkeep_rule_spans_dropped_total", help, snapshot, listed(&counts.dropped).into_iter())
}

fn write_by_rule(
    out: &mut impl Write,
    name: &str,
    help: &str,
    snapshot: &Snapshot,
    counted: impl Iterator<Item = (RuleId, u64)>,
) -> fmt::Result {
    let all = with_zeros(snapshot.rules(), counted);
    let samples = all.into_iter().map(|(id, count)| (vec![("rule", snapshot.rule(id))], count as f64));
    write_metric(out, name, Counter, help, samples)
}

fn write_ring(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let shards = &snapshot.shards;
    let gauges = [
        ("tailkeep_ring_bytes", "Memory of the ring's segments.", shards.ring_bytes as f64),
        ("tailkeep_ring_used_bytes", "Bytes of the ring in use; a full ring is normal.", shards.ring_used as f64),
        ("tailkeep_ring_traces", "Traces in the ring.", shards.traces as f64),
        (
            "tailkeep_ring_seconds",
            "Age of the oldest span in the ring: what the memory buys.",
            shards.reach_ms as f64 / 1e3,
        ),
    ];
    for (name, help, value) in gauges {
        write_metric(out, name, Gauge, help, [(vec![], value)])?;
    }
    Ok(())
}

fn write_processing(out: &mut impl Write, processing: &Processing) -> fmt::Result {
    let all = Signal::ALL.into_iter().flat_map(|signal| Action::ALL.map(|action| (signal, action)));
    let rows = all.map(|(signal, action)| {
        (vec![("signal", signal.word()), ("action", action.word())], processing.done(signal, action) as f64)
    });
    let help = "Attributes and texts that `processing` dropped, hashed, masked or added.";
    write_metric(out, "tailkeep_processed_total", Counter, help, rows)
}

fn write_sinks(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    type Column = (&'static str, MetricKind, &'static str, fn(&AccountRow) -> u64);
    let columns: [Column; 5] = [
        ("tailkeep_sink_items_total", Counter, "Items handed over to a sink's queue.", |r| {
            r.tally.pushed + r.tally.recovered
        }),
        ("tailkeep_sink_recovered_total", Counter, "Of these, items that a former process left on disk.", |r| {
            r.tally.recovered
        }),
        ("tailkeep_sink_delivered_total", Counter, "Items that the sink took.", |r| r.tally.delivered),
        ("tailkeep_sink_queued", Gauge, "Items that wait for the sink.", |r| r.tally.queued),
        ("tailkeep_sink_queued_bytes", Gauge, "Bytes that wait for the sink.", |r| r.tally.queued_bytes),
    ];
    for (name, kind, help, value) in columns {
        let samples = snapshot.sinks.iter().map(|row| (sink_labels(row), value(row) as f64));
        write_metric(out, name, kind, help, samples)?;
    }
    let discarded = snapshot.sinks.iter().flat_map(|row| {
        Discard::ALL.into_iter().map(move |why| {
            let labels = [sink_labels(row), vec![("reason", why.word())]].concat();
            (labels, row.tally.discarded(why) as f64)
        })
    });
    // What no sink takes is there before it counts, so that the first item is a step.
    let has_none = |signal: Signal| snapshot.sinks.iter().any(|row| row.sink == "none" && row.signal == signal);
    let unclaimed = Signal::ALL.into_iter().filter(|signal| !has_none(*signal));
    let zeros = unclaimed.map(|signal| {
        let reason = Discard::NoSink.word();
        (vec![("sink", "none"), ("signal", signal.word()), ("reason", reason)], 0.0)
    });
    let help = "Items given up, by reason.";
    write_metric(out, "tailkeep_sink_discarded_total", Counter, help, discarded.chain(zeros))
}

fn write_queue(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let Holdings { memory, disk, damaged, spool_fails } = snapshot.queue;
    let help = "Bytes on disk in which this process found no whole record when it started.";
    for (name, kind, help, bytes) in [
        ("tailkeep_queue_memory_bytes", Gauge, "Memory that holds what waits for sinks.", memory),
        ("tailkeep_queue_disk_bytes", Gauge, "What waits for sinks on disk.", disk),
        ("tailkeep_queue_damaged_bytes_total", Counter, help, damaged),
    ] {
        let samples = Signal::ALL.into_iter().zip(bytes);
        let samples = samples.map(|(signal, bytes)| (vec![("signal", signal.word())], bytes as f64));
        write_metric(out, name, kind, help, samples)?;
    }
    let help = "1 while the queue's files cannot be written: it is in memory only.";
    write_metric(out, "tailkeep_queue_disk_failing", Gauge, help, [(vec![], f64::from(u8::from(spool_fails)))])
}

fn sink_labels(row: &AccountRow) -> LabelPairs<'_> {
    vec![("sink", &row.sink), ("signal", row.signal.word())]
}

fn write_receiver(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let stats = &snapshot.receiver;
    type Column = (&'static str, &'static str, fn(&Stats, Signal, RequestOutcome) -> u64);
    let columns: [Column; 2] = [
        ("tailkeep_requests_total", "Requests by outcome.", Stats::requests),
        ("tailkeep_request_bytes_total", "Bytes of requests by outcome.", Stats::bytes),
    ];
    for (name, help, value) in columns {
        let samples = Signal::ALL.into_iter().flat_map(|signal| {
            RequestOutcome::ALL.into_iter().map(move |outcome| {
                (vec![("signal", signal.word()), ("outcome", outcome.word())], value(stats, signal, outcome) as f64)
            })
        });
        write_metric(out, name, Counter, help, samples)?;
    }
    let failed = ConnectionFault::ALL
        .into_iter()
        .map(|fault| (vec![("reason", fault.word())], stats.connections_failed(fault) as f64));
    let help = "Connections ended without, or before, a request that could be answered, by reason.";
    write_metric(out, "tailkeep_connections_failed_total", Counter, help, failed)?;
    let mut one = |name, kind, help, value: u64| write_metric(out, name, kind, help, [(vec![], value as f64)]);
    one(
        "tailkeep_requests_unrouted_total",
        Counter,
        "Requests for something that is no OTLP endpoint.",
        stats.unrouted,
    )?;
    let help = "Requests taken in which nothing was known: another dialect, or without items.";
    one("tailkeep_requests_nothing_known_total", Counter, help, stats.nothing_known)?;
    let help = "Lines of the log that nobody read in time, or that could not be written.";
    one("tailkeep_log_lines_lost_total", Counter, help, log::lines_lost())?;
    let help = "Requests that have no answer yet.";
    one("tailkeep_requests_in_flight", Gauge, help, stats.requests_in_flight)?;
    one("tailkeep_in_flight_bytes", Gauge, "Bytes of request bodies held now.", stats.in_flight_bytes)?;
    one("tailkeep_connections", Gauge, "Connections open now.", stats.connections_open)?;
    let help = "Connections closed at once: there were receive.connections of them.";
    one("tailkeep_connections_refused_total", Counter, help, stats.connections_refused)?;
    let closed =
        CloseReason::ALL.map(|why| (vec![("reason", why.word())], snapshot.connections_closed[why as usize] as f64));
    let help = "Connections of health and admin that were closed on their peers.";
    write_metric(out, "tailkeep_admin_connections_closed_total", Counter, help, closed)
}

/// What the candidate would keep, and where it differs. Gauges, for it is counted anew when one of the two changes.
fn write_shadow(out: &mut impl Write, shadow: Option<&ShadowPolicy>) -> fmt::Result {
    let counted = shadow.map(|shadow| (shadow, shadow.counts()));
    let info = shadow.iter().map(|shadow| {
        let Policy { file, hash, .. } = &shadow.policy;
        (vec![("file", file.as_str()), ("hash", hash.as_str())], 1.0)
    });
    let help = "The policy that judges beside the one in force, and keeps nothing.";
    write_metric(out, "tailkeep_shadow_policy_info", Gauge, help, info)?;
    let judged = counted.iter().map(|(_, counts)| (vec![], counts.judged as f64));
    write_metric(out, "tailkeep_shadow_judged_traces", Gauge, "Traces that both policies judged.", judged)?;
    type Column = (&'static str, &'static str, fn(&KeptVolume) -> u64);
    let columns: [Column; 3] = [
        ("tailkeep_shadow_kept_traces", "Traces that a rule of the shadow would keep.", |kept| kept.traces),
        ("tailkeep_shadow_kept_spans", "Spans of traces that a rule of the shadow would keep.", |kept| kept.spans),
        ("tailkeep_shadow_kept_bytes", "Bytes of spans that a rule of the shadow would keep.", |kept| kept.bytes),
    ];
    for (name, help, column) in columns {
        let rules = counted.iter().flat_map(|(shadow, counts)| shadow.rules(counts));
        write_metric(out, name, Gauge, help, rules.map(|(rule, kept)| (vec![("rule", rule)], column(&kept) as f64)))?;
    }
    let differences = counted.iter().flat_map(|(_, counts)| {
        let said = [("newly_kept", &counts.newly_kept), ("newly_dropped", &counts.newly_dropped)];
        said.map(|(change, difference)| (vec![("change", change)], difference.volume.traces as f64))
    });
    let help = "Traces that one of the two policies keeps and the other one does not.";
    write_metric(out, "tailkeep_shadow_differing_traces", Gauge, help, differences)
}

fn write_policy(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let policy = &snapshot.active_policy.policy;
    let info = [(vec![("file", policy.file.as_str()), ("hash", policy.hash.as_str())], 1.0)];
    let help = "The policy in force; the hash is what `tailkeep policy hash` prints for its file.";
    write_metric(out, "tailkeep_policy_info", Gauge, help, info)?;
    let number = [(vec![], f64::from(policy.number))];
    write_metric(out, "tailkeep_policy_number", Gauge, "Counts the policies put in force since the start.", number)?;
    let set_aside = [(vec![], f64::from(u8::from(snapshot.policy_set_aside)))];
    let help = "1 while an earlier policy than the file's is in force, because somebody brought it back.";
    write_metric(out, "tailkeep_policy_set_aside", Gauge, help, set_aside)?;
    let refusals = [(vec![], snapshot.policy_refusals as f64)];
    write_metric(out, "tailkeep_policy_refused_total", Counter, "Reloads refused for an error in the file.", refusals)?;
    let plans =
        PlanOutcome::ALL.map(|outcome| (vec![("outcome", outcome.word())], snapshot.plans[outcome as usize] as f64));
    let help = "Requests to plan a policy on what is in the ring, by outcome.";
    write_metric(out, "tailkeep_policy_plans_total", Counter, help, plans)?;
    write_shadow(out, snapshot.active_policy.shadow.as_ref())?;
    type Column = (&'static str, &'static str, fn(&LimitCounts) -> u64);
    let columns: [Column; 2] = [
        ("tailkeep_limit_reached_total", "Traces that a rule matched beyond its limit.", |c| c.reached),
        (
            "tailkeep_limit_keys_overflowed_total",
            "Traces whose limit key shared the bucket of all keys beyond the cap.",
            |c| c.overflowed,
        ),
    ];
    for (name, help, value) in columns {
        let samples = snapshot.limits.iter();
        let samples = samples.map(|(id, counts)| (vec![("rule", snapshot.rule(*id))], value(counts) as f64));
        write_metric(out, name, Counter, help, samples)?;
    }
    Ok(())
}
