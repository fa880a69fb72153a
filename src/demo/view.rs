//! The live view as text: a pure function from numbers to lines that fit the terminal.

mod rank;
mod table;

use crate::terminal::columns;
use crate::trace::TraceId;
use rank::worst_first;
use std::cmp::Reverse;
use std::time::Duration;
use table::{TableRow, Tone, cells_in, fit, fit_right, table};

/// What the view shows. Rates and percentiles are over the time that the caller chose, the same for
/// all; the other numbers count from the start of the process.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Where an SDK can send to.
    pub listeners: Vec<ListenerView>,
    pub uptime: Duration,
    /// Spans received per second.
    pub spans_per_second: f64,
    /// Spans received.
    pub spans: u64,
    pub ring: RingView,
    /// In the order of the policy, `otherwise` last.
    pub rules: Vec<RuleView>,
    /// In any order: the worst are shown, as many as have room.
    pub operations: Vec<OperationView>,
    pub sinks: Vec<SinkView>,
    /// The file of kept traces, as a shell takes it.
    pub store: String,
    /// The newest first.
    pub kept: Vec<KeptView>,
}

#[derive(Clone, Debug)]
pub struct ListenerView {
    /// `gRPC` or `HTTP`.
    pub protocol: &'static str,
    /// As an SDK takes it: `http://127.0.0.1:4317`.
    pub endpoint: String,
}

/// The memory that holds recent spans.
#[derive(Clone, Debug, Default)]
pub struct RingView {
    pub bytes_used: u64,
    pub bytes: u64,
    /// Age of the oldest span in it.
    pub reaches_back: Duration,
    pub traces: u64,
}

/// Verdicts of one rule, in traces.
#[derive(Clone, Debug)]
pub struct RuleView {
    pub name: String,
    pub kept: u64,
    pub dropped: u64,
}

impl RuleView {
    fn traces(&self) -> u64 {
        self.kept + self.dropped
    }
}

/// Spans of one service and name.
#[derive(Clone, Debug)]
pub struct OperationView {
    pub service: String,
    pub name: String,
    pub per_second: f64,
    /// Share of failed spans, 0 to 1.
    pub errors: f64,
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
}

/// Spans that went to one sink, wait for it, or were given up.
#[derive(Clone, Debug)]
pub struct SinkView {
    pub name: String,
    pub delivered: u64,
    pub queued: u64,
    pub discarded: u64,
}

/// A trace that was kept.
#[derive(Clone, Debug)]
pub struct KeptView {
    pub id: TraceId,
    pub rule: String,
    pub duration: Duration,
    /// Service and name of its entry span.
    pub entry: String,
}

/// Operations with at least this share of failed spans stand out, and come first.
const MANY_ERRORS: f64 = 0.02;
/// Lines of a section above its first row.
const HEADING: usize = 2;
/// The ring's bar has this many cells.
const BAR: usize = 20;

/// The view for a terminal of `width` columns and `height` rows, with colours: at most `height`
/// lines, none wider than `width`. Control characters in names are replaced.
pub fn render(view: &View, width: usize, height: usize) -> String {
    let (head, foot) = (head(view, width), foot(view, width));
    let wanted = [view.rules.len(), view.operations.len(), view.kept.len(), view.sinks.len()];
    // Whoever looks for what became of his traces must not miss a part of it.
    let busy = view.rules.iter().rev().skip(1).filter(|rule| rule.traces() > 0).count() + 1;
    let rows = share_out(height.saturating_sub(head.len() + foot.len()), wanted, busy);
    let tables = [rules_table, operations_table, kept_table, sinks_table];
    let mut lines = head;
    for (table, rows) in tables.into_iter().zip(rows) {
        lines.extend(rows.map(|rows| table(view, width, rows)).unwrap_or_default());
    }
    lines.extend(foot);
    lines.truncate(height);
    lines.join("\n")
}

/// The view as one line, for output that is not a terminal.
pub fn summarize(view: &View) -> String {
    format!(
        "{} spans/s in, {}, ring: {} full, reaches back {}",
        grouped(view.spans_per_second.round() as u64),
        totals(view),
        percent(ring_share(&view.ring)),
        age(view.ring.reaches_back),
    )
}

/// Where to send, and the commands to try next, as plain lines.
pub fn invitation(view: &View) -> String {
    let listeners: String = view.listeners.iter().map(|l| format!("  {}  {}\n", l.protocol, l.endpoint)).collect();
    let traces = traces_command(view);
    format!(
        "point an SDK at\n{listeners}look at kept traces with  {traces}\nask about one with        tailkeep why TRACE_ID"
    )
}

/// What the view shows and which keys there are, in its place.
pub fn explain(view: &View, width: usize, height: usize) -> String {
    let (traces, why) = (traces_command(view), why_command(view));
    let store = format!("The traces of the demo are in {}, apart from yours.", view.store);
    let lines = [
        "q, Ctrl-C    quit",
        "?            this page, and back",
        "",
        "traces by rule: the first rule of the policy that matches a trace decides",
        "operations: of all requests, dropped or not, over the last minute, those",
        "    that fail most and the slowest first",
        "kept last: whole traces that went to the sinks",
        "spans by sink: what it took, what waits for it, what was given up",
        "ring: recent traces, dropped ones too, until their memory is needed;",
        "    until then they can still be kept",
        "",
        "In another terminal, while this runs:",
        &format!("    {traces}"),
        &format!("    {why}"),
        &store,
    ];
    let title = Tone::Strong.paint(&fit("tailkeep demo", width));
    let lines = lines.iter().map(|line| fit(line, width).trim_end().to_owned());
    let lines = [title, String::new()].into_iter().chain(lines).take(height);
    lines.collect::<Vec<_>>().join("\n")
}

fn traces_command(view: &View) -> String {
    format!("tailkeep traces --errors --store {}", view.store)
}

fn why_command(view: &View) -> String {
    format!("tailkeep why {}", view.kept.first().map_or("TRACE_ID".to_owned(), |kept| kept.id.to_string()))
}

fn head(view: &View, width: usize) -> Vec<String> {
    let totals = totals(view);
    let title = Some(format!("tailkeep demo, {totals}")).filter(|title| columns(title) <= width).unwrap_or(totals);
    let rate = grouped(view.spans_per_second.round() as u64);
    let spans = format!("up {}: {rate} spans/s in, {} so far", age(view.uptime), grouped(view.spans));
    const KEYS: &str = "q quits, ? explains";
    let free = width.saturating_sub(columns(&spans) + 2);
    let keys = if columns(KEYS) <= free { fit_right(KEYS, free + 2) } else { String::new() };
    let mut lines = vec![Tone::Strong.paint(&fit(&title, width)), fit(&(spans + &keys), width)];
    lines.extend(listeners(view, width));
    let RingView { bytes_used, bytes, reaches_back, traces } = view.ring;
    let filled = (ring_share(&view.ring) * BAR as f64).round() as usize;
    let bar = "█".repeat(filled) + &"░".repeat(BAR - filled);
    let ring = format!(
        "ring {bar} the last {}, {} traces, {} of {}",
        age(reaches_back),
        grouped(traces),
        mebibytes(bytes_used),
        mebibytes(bytes)
    );
    lines.push(fit(&ring, width));
    lines
}

/// `traces: 2,225 kept (5.2 %), 40,517 dropped`
fn totals(view: &View) -> String {
    let (kept, dropped) = view.rules.iter().fold((0, 0), |(k, d), rule| (k + rule.kept, d + rule.dropped));
    let share = match kept + dropped {
        0 => String::new(),
        all => format!(" ({})", percent(kept as f64 / all as f64)),
    };
    format!("traces: {} kept{share}, {} dropped", grouped(kept), grouped(dropped))
}

/// On one line if it is wide enough, else one each: the ports must be readable.
fn listeners(view: &View, width: usize) -> Vec<String> {
    const INTRODUCTION: &str = "point an SDK at ";
    let all: Vec<String> = view.listeners.iter().map(|l| format!(" {} ({})", l.endpoint, l.protocol)).collect();
    let line = format!("{INTRODUCTION}{}", all.join(" "));
    if columns(&line) <= width {
        return vec![fit(&line, width)];
    }
    all.iter().map(|listener| fit(&format!("{INTRODUCTION}{listener}"), width)).collect()
}

/// As many commands as fit; an id that is cut would be of no use.
fn foot(view: &View, width: usize) -> Vec<String> {
    let (traces, why) = (traces_command(view), why_command(view));
    let choices = [format!("try {traces} or {why}"), format!("try {why}"), "press ? for commands".to_owned()];
    let choice = choices.iter().find(|choice| columns(choice) <= width).unwrap_or(&choices[2]);
    vec![String::new(), fit(choice, width)]
}

/// The rules with the most traces, and `otherwise` as the last row.
fn rules_table(view: &View, width: usize, rows: usize) -> Vec<String> {
    let mut rules: Vec<&RuleView> = view.rules.iter().collect();
    if let Some(otherwise) = rules.pop() {
        rules.sort_by_key(|rule| Reverse(rule.traces()));
        rules.insert(rows.saturating_sub(1).min(rules.len()), otherwise);
    }
    let row = |rule: &RuleView| TableRow {
        name: rule.name.clone(),
        cells: vec![grouped(rule.kept), grouped(rule.dropped)],
        tone: Tone::Plain,
    };
    table("traces by rule", &["kept", "dropped"], rules.into_iter().map(row), rows, width)
}

fn operations_table(view: &View, width: usize, rows: usize) -> Vec<String> {
    // The slowest requests are what sampling is about: p99 is the last percentile to go.
    let shown: &[usize] = match cells_in(width) {
        5.. => &[0, 1, 2, 3, 4],
        4 => &[0, 1, 2, 4],
        _ => &[0, 1, 4],
    };
    let row = |operation: &OperationView| {
        let cells = [
            format!("{:.1}", operation.per_second),
            percent(operation.errors),
            time(operation.p50),
            time(operation.p90),
            time(operation.p99),
        ];
        TableRow {
            name: format!("{} {}", operation.service, operation.name),
            cells: shown.iter().map(|&column| cells[column].clone()).collect(),
            tone: if operation.errors >= MANY_ERRORS { Tone::Alarm } else { Tone::Plain },
        }
    };
    let heads = ["per s", "errors", "p50", "p90", "p99"];
    let heads: Vec<&str> = shown.iter().map(|&column| heads[column]).collect();
    table("operations", &heads, worst_first(&view.operations).into_iter().map(row), rows, width)
}

fn sinks_table(view: &View, width: usize, rows: usize) -> Vec<String> {
    let row = |sink: &SinkView| TableRow {
        name: sink.name.clone(),
        cells: vec![grouped(sink.delivered), grouped(sink.queued), grouped(sink.discarded)],
        tone: if sink.discarded > 0 { Tone::Alarm } else { Tone::Plain },
    };
    table("spans by sink", &["delivered", "queued", "discarded"], view.sinks.iter().map(row), rows, width)
}

fn kept_table(view: &View, width: usize, rows: usize) -> Vec<String> {
    let mut lines = vec![String::new(), Tone::Strong.paint(&fit("kept last", width))];
    for kept in view.kept.iter().take(rows) {
        let rule = fit(&kept.rule, 14.max(columns(&kept.rule)).min(24));
        lines.push(fit(&format!("{} {} {rule} {}", kept.id, fit_right(&time(kept.duration), 8), kept.entry), width));
    }
    lines
}

/// Rows for each section that has room for its heading and one row, the first sections before the
/// last: `first` for the first one if the others can have one each, then in turn one more for the
/// shortest that still wants one, until none are left.
fn share_out<const N: usize>(height: usize, wanted: [usize; N], first: usize) -> [Option<usize>; N] {
    let sections = N.min(height / (HEADING + 1));
    let mut left = height - sections * HEADING;
    let mut given = [0; N];
    if sections > 0 {
        given[0] = first.min(wanted[0]).min(left + 1 - sections);
        left -= given[0];
    }
    while left > 0
        && let Some(section) = (0..sections).filter(|&s| given[s] < wanted[s]).min_by_key(|&s| given[s])
    {
        given[section] += 1;
        left -= 1;
    }
    std::array::from_fn(|section| (section < sections).then_some(given[section]))
}

fn ring_share(ring: &RingView) -> f64 {
    if ring.bytes == 0 { 0.0 } else { (ring.bytes_used as f64 / ring.bytes as f64).min(1.0) }
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", grouped(bytes.div_ceil(1 << 20)))
}

/// Whole seconds: `5 s`, `2 min 5 s`.
fn age(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// Two or three digits: `812 µs`, `31 ms`, `1.24 s`, and whole seconds from ten on.
fn time(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        1_000_000..10_000_000 => format!("{:.2} s", duration.as_secs_f64()),
        _ => age(duration),
    }
}
