//! Measures the whole process: CPU per span, memory per waiting span, and that what comes out is
//! right, against the OpenTelemetry Collector if there is one.
//!
//! `cargo bench --bench pipeline -- --help` lists the settings. Only ratios of one run count: the
//! speed of a shared machine swings twofold. So both collectors run at the same time and their
//! passes take turns.

mod config;
mod load;
mod process;
mod report;
mod sender;
mod sink;
mod target;

use clap::Parser;
use config::Purpose;
use load::Load;
use report::{Figures, Speed};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use target::{Pace, Pass, Product, Target};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Spans of the first pass, which is not measured: they fill tailkeep's ring of 256 MiB once.
const WARM_UP: u64 = 800_000;

/// Whole-process benchmark of tailkeep.
#[derive(Parser)]
struct Settings {
    /// Also measure this OpenTelemetry Collector, built with the tail sampler and span metrics
    /// (or set TAILKEEP_BENCH_OTELCOL).
    #[arg(long, value_name = "PATH")]
    otelcol: Option<PathBuf>,
    /// Spans of a pass that is sent as fast as it is taken.
    #[arg(long, default_value_t = 2_000_000)]
    spans: u64,
    /// Seconds of a pass at a steady rate.
    #[arg(long, default_value_t = 20)]
    paced_seconds: u64,
    /// Spans per second of a pass at a steady rate.
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// Seconds of the run as a sidecar.
    #[arg(long, default_value_t = 30)]
    sidecar_seconds: u64,
    /// Spans per second of the run as a sidecar.
    #[arg(long, default_value_t = 2_000)]
    sidecar_rate: u64,
    /// Spans that wait while the memory of a waiting span is measured.
    #[arg(long, default_value_t = 400_000)]
    pending: u64,
    /// Times that every pass is repeated, collectors taking turns; the table shows medians.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small and short: shows that it works, not how fast.
    #[arg(long)]
    quick: bool,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
    /// Passed by some test runners.
    #[arg(long, hide = true)]
    test: bool,
}

fn main() -> ExitCode {
    let mut settings = Settings::parse();
    // `cargo test --benches` runs this program without `--bench`.
    if settings.test || !settings.bench {
        println!("the pipeline benchmark runs under `cargo bench --bench pipeline`");
        return ExitCode::SUCCESS;
    }
    if settings.quick {
        settings = Settings { spans: 200_000, paced_seconds: 4, sidecar_seconds: 8, rounds: 1, ..settings };
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(run(settings)) {
        Ok(table) => {
            print!("{table}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<String, Failure> {
    let load = Arc::new(Load::new());
    println!("{:.0} wire bytes a span", load.bytes_per_span());
    let products = products(&settings)?;
    let speeds = measure_speed(&settings, &products, &load).await?;
    let mut figures = Vec::new();
    for (product, speed) in products.into_iter().zip(speeds) {
        let bytes_per_pending_span = measure_pending(&settings, &product, &load).await?;
        let sidecar_peak = measure_sidecar(&settings, &product, &load).await?;
        figures.push(Figures { product, speed, bytes_per_pending_span, sidecar_peak });
    }
    Ok(report::table(&figures, settings.rate, settings.sidecar_rate, load.bytes_per_span()))
}

/// tailkeep and, if there is one, the Collector in both its configurations.
fn products(settings: &Settings) -> Result<Vec<Product>, Failure> {
    let otelcol = settings.otelcol.clone().or_else(|| std::env::var_os("TAILKEEP_BENCH_OTELCOL").map(PathBuf::from));
    let mut products = vec![Product::Tailkeep];
    if let Some(path) = otelcol {
        let program = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
        products.extend([true, false].map(|caches| Product::Collector { program: program.clone(), caches }));
    }
    Ok(products)
}

/// Starts all collectors, lets them take turns, and stops them.
async fn measure_speed(settings: &Settings, products: &[Product], load: &Arc<Load>) -> Result<Vec<Speed>, Failure> {
    let mut targets = Vec::new();
    for product in products {
        targets.push(Target::start(product, Purpose::Speed, load.clone()).await?);
    }
    for target in &mut targets {
        println!("{}: warming up", target.name);
        target.pass(WARM_UP, Pace::FlatOut).await?;
        target.process.forget_peak()?;
    }
    let flat_out = take_turns(&mut targets, settings.rounds, settings.spans, Pace::FlatOut).await?;
    let spans = settings.rate * settings.paced_seconds;
    let steady = take_turns(&mut targets, settings.rounds, spans, Pace::Steady(settings.rate)).await?;
    let passes = flat_out.into_iter().zip(steady);
    let speeds = targets.iter().zip(passes).map(|(target, (flat_out, steady))| {
        Ok(Speed { idle: target.idle, peak: target.process.peak()?, flat_out, steady })
    });
    speeds.collect()
}

/// Bytes of memory for one waiting span.
async fn measure_pending(settings: &Settings, product: &Product, load: &Arc<Load>) -> Result<f64, Failure> {
    let mut target = Target::start(product, Purpose::Pending, load.clone()).await?;
    let bytes = target.bytes_per_pending_span(settings.pending).await?;
    println!("{}: {bytes:.0} bytes for each of {} waiting spans", target.name, settings.pending);
    Ok(bytes)
}

/// Peak memory with little traffic.
async fn measure_sidecar(settings: &Settings, product: &Product, load: &Arc<Load>) -> Result<u64, Failure> {
    let mut target = Target::start(product, Purpose::Sidecar, load.clone()).await?;
    let rate = settings.sidecar_rate;
    let pass = target.pass(rate * settings.sidecar_seconds, Pace::Steady(rate)).await?;
    announce(&target, &pass);
    target.process.peak()
}

/// Passes of each target, in the order of `targets`.
async fn take_turns(targets: &mut [Target], rounds: usize, spans: u64, pace: Pace) -> Result<Vec<Vec<Pass>>, Failure> {
    let mut passes: Vec<Vec<Pass>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..rounds {
        for (target, passes) in targets.iter_mut().zip(&mut passes) {
            let pass = target.pass(spans, pace).await?;
            announce(target, &pass);
            passes.push(pass);
        }
    }
    Ok(passes)
}

fn announce(target: &Target, pass: &Pass) {
    println!(
        "{}: {} spans in {:.1} s ({:.0} spans/s), {:.2} CPU-seconds per million, {} requests refused, {} traces kept",
        target.name,
        pass.spans,
        pass.seconds,
        pass.spans_per_second(),
        pass.cpu_seconds_per_million(),
        pass.refused,
        pass.kept,
    );
}
