//! The table at the end.

use crate::target::{Pass, Product};
use std::fmt::Write;

/// Everything that was measured of one collector.
pub struct Figures {
    pub product: Product,
    pub speed: Speed,
    pub bytes_per_pending_span: f64,
    pub sidecar_peak: u64,
}

/// What was measured while all collectors took turns.
pub struct Speed {
    pub idle: u64,
    pub peak: u64,
    pub flat_out: Vec<Pass>,
    pub steady: Vec<Pass>,
}

/// One row: what it is, a value of each collector, and how to print one. Less is better in all.
struct Row {
    title: String,
    values: Vec<f64>,
    show: fn(f64) -> String,
}

/// `figures[0]` is tailkeep; the others are the Collector's two configurations, of which each row
/// takes the better for the ratio.
pub fn table(figures: &[Figures], rate: u64, sidecar_rate: u64, wire_bytes: f64) -> String {
    let row = |title: String, show: fn(f64) -> String, value: &dyn Fn(&Figures) -> f64| Row {
        title,
        values: figures.iter().map(value).collect(),
        show,
    };
    let cpu = |passes: &[Pass]| median(passes.iter().map(Pass::cpu_seconds_per_million));
    let rows = [
        row("CPU-seconds per million spans, flat out".into(), two_digits, &|f| cpu(&f.speed.flat_out)),
        row(format!("CPU-seconds per million spans, {rate} spans/s"), two_digits, &|f| cpu(&f.speed.steady)),
        row("microseconds of wall time per span, flat out".into(), two_digits, &|f| {
            1e6 / median(f.speed.flat_out.iter().map(Pass::spans_per_second))
        }),
        row("bytes of memory per pending span".into(), whole, &|f| f.bytes_per_pending_span),
        row("the same in wire bytes".into(), two_digits, &|f| f.bytes_per_pending_span / wire_bytes),
        row("idle memory, MiB".into(), mebibytes, &|f| f.speed.idle as f64),
        row("peak memory of all passes, MiB".into(), mebibytes, &|f| f.speed.peak as f64),
        row(format!("peak memory at {sidecar_rate} spans/s, sidecar, MiB"), mebibytes, &|f| f.sidecar_peak as f64),
    ];
    let mut text = format!("\n{:<48}", "");
    for figure in figures {
        let _ = write!(text, "{:>28}", figure.product.name());
    }
    text.push_str(if figures.len() > 1 { "  times less\n" } else { "\n" });
    for row in rows {
        let _ = write!(text, "{:<48}", row.title);
        row.values.iter().for_each(|&value| text.push_str(&format!("{:>28}", (row.show)(value))));
        if let Some(theirs) = row.values[1..].iter().copied().reduce(f64::min) {
            let _ = write!(text, "{:>10.1} x", theirs / row.values[0]);
        }
        text.push('\n');
    }
    let passes = figures.iter().flat_map(|f| f.speed.flat_out.iter().chain(&f.speed.steady));
    let kept: u64 = passes.map(|pass| pass.kept).sum();
    let _ = writeln!(text, "\nall {kept} wanted traces came out whole, and nothing else");
    text
}

/// The middle value; of an even number the mean of the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn two_digits(value: f64) -> String {
    format!("{value:.2}")
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.1}", bytes / 1024.0 / 1024.0)
}
