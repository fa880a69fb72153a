//! Commands that run the process, or check what it would run with.

use super::{CommandFailure, FileArguments, print};
use crate::app::admin_service::AdminService;
use crate::app::{App, StartError, Stop};
use crate::config::{self, Config, Host, PolicySource, SinkKind, check_config, read_text};
use crate::demo;
use crate::diagnostic;
use crate::doctor::{self, SinkProtocol};
use crate::identity::World;
use crate::receive::descriptors;
use crate::telemetry::{LogFormat, log, start_log};
use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A thread that a disk or a pipe holds up does not hold up the end.
const LAST_READS: Duration = Duration::from_millis(200);

/// The demo's store, beside the user's own; bytes that it may have.
const DEMO_STORE: &str = "demo.db";
const DEMO_STORE_SIZE: u64 = 64 << 20;

/// Reads the configuration; without a file the defaults.
pub(super) fn load(file: Option<&Path>) -> Result<Config, CommandFailure> {
    let (name, text) = match file {
        Some(path) => {
            let text = read_text(path)
                .map_err(|error| CommandFailure::Usage(format!("cannot read {}: {error}", path.display())))?;
            (path.to_owned(), text)
        }
        None => (PathBuf::from("the built-in configuration"), String::new()),
    };
    let environment = |name: &str| std::env::var(name).ok();
    let (config, diagnostics) = Config::parse(&name, &text, environment, &Host::here());
    let color = std::io::stderr().is_terminal();
    match config {
        Some(config) => {
            if !diagnostics.is_empty() {
                log::say(&diagnostic::render(&diagnostics, &config::drawable(&text), color));
            }
            Ok(config)
        }
        None => {
            let count = diagnostic::count_line(&diagnostics, &name.display().to_string()).unwrap_or_default();
            let report = diagnostic::render(&diagnostics, &config::drawable(&text), color);
            Err(CommandFailure::Usage(format!("{report}{count}; nothing was started")))
        }
    }
}

/// The file of the store sink in a configuration.
pub(super) fn store_of(config: Option<&Path>) -> Result<PathBuf, CommandFailure> {
    let config = load(config)?;
    let store = config.sinks.into_iter().find_map(|sink| match sink.kind {
        SinkKind::Store(settings) => Some(settings.path),
        _ => None,
    });
    store.ok_or_else(|| {
        CommandFailure::Usage("the configuration has no `store` sink: name its file with --store".to_owned())
    })
}

pub(super) fn check(files: &FileArguments) -> Result<(), CommandFailure> {
    let environment = |name: &str| std::env::var(name).ok();
    let color = std::io::stdout().is_terminal();
    let report = check_config(files.config.as_deref(), files.policy.as_deref(), environment, &Host::here(), color);
    print(&report.text);
    if report.exit_code == 0 { Ok(()) } else { Err(CommandFailure::Usage(String::new())) }
}

pub(super) fn doctor(file: Option<&Path>) -> Result<(), CommandFailure> {
    let Some(file) = file else {
        // The built-in configuration stores here alone: probing it would find all well.
        let text = "nothing was probed: name the configuration whose sinks are to be probed with --config FILE";
        return Err(CommandFailure::Usage(text.to_owned()));
    };
    let config = load(Some(file))?;
    let world = World::system();
    let findings = block_on(async {
        let mut findings = Vec::new();
        for sink in &config.sinks {
            match &sink.kind {
                SinkKind::Sls(settings) => {
                    findings.extend(doctor::examine_sls(&sink.name, (**settings).clone(), world.clone()).await);
                }
                SinkKind::Otlp(_) | SinkKind::Arms(_) => {
                    let kind =
                        if matches!(sink.kind, SinkKind::Arms(_)) { SinkProtocol::Arms } else { SinkProtocol::Otlp };
                    let mut built = sink.build(&world).map_err(CommandFailure::Usage)?;
                    findings.extend(doctor::examine_otlp(&sink.name, kind, built.as_mut()).await);
                }
                // Local: the log says at the first batch what is wrong with the disk.
                SinkKind::Store(_) | SinkKind::File(_) => {}
            }
        }
        Ok(findings)
    })?;
    print(&doctor::render(&findings));
    // The report has said what failed.
    if findings.iter().any(doctor::ProbeFinding::is_failed) {
        Err(CommandFailure::Running(String::new()))
    } else {
        Ok(())
    }
}

/// Works until the end, and no longer. Threads: as many as cores, so that an idle sidecar is small.
fn block_on<T>(work: impl Future<Output = Result<T, CommandFailure>>) -> Result<T, CommandFailure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = built.map_err(|error| CommandFailure::Running(format!("cannot start threads: {error}")))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_READS);
    outcome
}

/// A file that grows beyond `ulimit -f` is an error like a full disk, instead of the end.
fn survive_limits_on_files() {
    const SIGXFSZ: i32 = 25;
    // Who listens to a signal once does not die of it any more.
    if let Err(error) = signal(SignalKind::from_raw(SIGXFSZ)) {
        tracing::debug!(%error, "a limit on the size of files will end the process");
    }
}

async fn start(config: Config) -> Result<App, CommandFailure> {
    App::start(config).await.map_err(|error| match error {
        StartError::Files(text) => CommandFailure::Usage(text),
        StartError::World(text) => CommandFailure::Running(text),
    })
}

pub(super) fn run(files: &FileArguments, log: &str, format: LogFormat) -> Result<(), CommandFailure> {
    start_log(log, format).map_err(CommandFailure::Usage)?;
    let mut config = load(files.config.as_deref())?;
    if let Some(policy) = &files.policy {
        config.policy = PolicySource::File(policy.clone());
    }
    raise_open_files();
    let connections = config.receive.connections;
    block_on(async {
        survive_limits_on_files();
        let app = start(config).await?;
        let (addresses, [health, admin]) = (app.addresses(), app.listeners());
        let shown = |address: Option<std::net::SocketAddr>| address.map_or("off".to_owned(), |a| a.to_string());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            grpc = shown(addresses.grpc),
            http = shown(addresses.http),
            connections,
            health = shown(health),
            admin = shown(admin),
            "receiving"
        );
        let admin_service = app.admin_service();
        app.run(asked_to_stop(admin_service, std::future::pending())).await.map_err(ended_early)?;
        tracing::info!("stopped");
        Ok(())
    })
}

fn ended_early(task: String) -> CommandFailure {
    CommandFailure::Running(format!("{task} ended early: the log says why; start the process again"))
}

/// The configuration counts on as many open files as the system allows.
fn raise_open_files() {
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "cannot raise the limit of open files, connections may use them up");
    }
}

/// Resolves at SIGTERM, Ctrl-C or `quit`; a signal after that ends the process at once, and says what that leaves
/// behind.
async fn asked_to_stop(admin_service: Arc<AdminService>, quit: impl Future<Output = ()>) -> Stop {
    let mut terminate = signal(SignalKind::terminate()).expect("the runtime can listen for signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("the runtime can listen for signals");
    let stop = tokio::select! {
        _ = terminate.recv() => Stop::Terminate,
        _ = interrupt.recv() => Stop::Interrupt,
        () = quit => Stop::Interrupt,
    };
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        for row in admin_service.snapshot().sinks.iter().filter(|row| row.tally.queued > 0) {
            let (sink, signal, items) = (&row.sink, row.signal.word(), row.tally.queued);
            tracing::error!(
                sink,
                signal,
                items,
                "undelivered; what the queue has on disk is sent after the next start"
            );
        }
        tracing::error!("asked again to end: the rest is not judged and not delivered");
        log::flush();
        std::process::exit(1);
    });
    stop
}

/// The demo's ports cannot be chosen: "write another" would be no help.
fn advise_on_ports(failure: CommandFailure) -> CommandFailure {
    match failure {
        CommandFailure::Running(text) if text.contains("cannot listen on") => {
            let what = text.rsplit_once("; ").map_or(text.as_str(), |(what, _)| what);
            CommandFailure::Running(format!(
                "{what}; the demo always takes this port: end the process that has it, maybe another tailkeep \
                 (`tailkeep run --config FILE` can take other ports)"
            ))
        }
        other => other,
    }
}

pub(super) fn demo(log: &str, format: LogFormat) -> Result<(), CommandFailure> {
    // On a terminal the view has the screen: only errors may write across it.
    let filter = if std::io::stdout().is_terminal() && log == "info" { "error" } else { log };
    start_log(filter, format).map_err(CommandFailure::Usage)?;
    let mut config = load(None)?;
    keep_apart(&mut config);
    raise_open_files();
    block_on(async {
        let app = start(config).await.map_err(advise_on_ports)?;
        let Some(grpc) = app.addresses().grpc else {
            return Err(CommandFailure::Usage("the demo needs OTLP/gRPC".to_owned()));
        };
        let (addresses, admin_service) = (app.addresses(), app.admin_service());
        let asked_service = admin_service.clone();
        let ((stop, stopped), (quit, quitted)) = (watch::channel(false), watch::channel(false));
        let until_stopped =
            |mut stopped: watch::Receiver<bool>| async move { drop(stopped.wait_for(|stop| *stop).await) };
        let traffic = tokio::spawn(demo::traffic(grpc, crate::app::random_seed(), until_stopped(stopped.clone())));
        let view = demo::watch(view_of(admin_service, addresses), until_stopped(stopped.clone()));
        let view = tokio::spawn(async move {
            // It ends early, too, when whoever read our output has gone: that is no wish to quit.
            if !matches!(view.await, Ok(demo::Ended::Quit)) {
                until_stopped(stopped).await;
            }
            drop(quit);
        });
        app.run(async {
            let asked = asked_to_stop(asked_service, until_stopped(quitted)).await;
            stop.send_replace(true);
            let _ = traffic.await;
            let _ = view.await;
            asked
        })
        .await
        .map_err(ended_early)
    })
}

/// Invented traffic does not mix with what the user keeps: the demo has a small store of its own.
fn keep_apart(config: &mut Config) {
    for sink in &mut config.sinks {
        if let SinkKind::Store(store) = &mut sink.kind {
            (store.path, store.size) = (store.path.with_file_name(DEMO_STORE), DEMO_STORE_SIZE);
        }
    }
}

fn view_of(admin_service: Arc<AdminService>, addresses: crate::receive::LocalAddrs) -> impl FnMut() -> demo::View {
    let mut view = super::view::Viewer::new(admin_service, addresses);
    move || view.look()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SinkConfig;
    use crate::receive::BindError;
    use std::io::{Error, ErrorKind};

    #[test]
    fn the_demo_stores_beside_the_traces_of_the_user() {
        let host = Host { data_folder: Some("/home/ada/tailkeep".into()), ..Host::here() };
        let mut config = Config::parse(Path::new("x.yaml"), "", |_| None, &host).0.expect("all has defaults");
        keep_apart(&mut config);
        let stores = config.sinks.iter().map(SinkConfig::destination);
        assert_eq!(stores.collect::<Vec<_>>(), ["/home/ada/tailkeep/demo.db"]);
    }

    #[test]
    fn a_demo_without_its_port_says_what_can_be_done() {
        let error = Error::from(ErrorKind::AddrInUse);
        let advice = "another process has this port: stop it, or write another port";
        let address = "127.0.0.1:4317".parse().unwrap();
        let refused = BindError::Listen { address, protocol: "grpc", error, advice }.to_string();
        let CommandFailure::Running(text) = advise_on_ports(CommandFailure::Running(refused)) else {
            panic!("a port is no file")
        };
        assert!(text.starts_with("receive.grpc: cannot listen on 127.0.0.1:4317: "), "{text}");
        assert!(text.contains("end the process that has it") && !text.contains("another port"), "{text}");
        let other = "a certificate is missing; write one";
        let CommandFailure::Running(text) = advise_on_ports(CommandFailure::Running(other.into())) else {
            panic!("as it was")
        };
        assert_eq!(text, other);
    }
}
