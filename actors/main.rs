//! The node: flags → settings → start → signals.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use datastore::settings::Settings;
use datastore_node::flags::{Flags, LogFormat};
use datastore_node::{idle_memory, server, start};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Small entries by the million: it packs them tighter and hands them out
/// faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong flags or settings, as `clap` itself says it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = Flags::parse();
    log_to_stderr(flags.log_format);
    stop_on_any_panic();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut settings = match flags.into_settings().validate(cores) {
        Ok(settings) => settings,
        Err(reason) => {
            eprintln!("error: {reason}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    settings.connections_max = server::connections_allowed(settings.connections_max);
    let system = actix_rt::System::new();
    let ended = system.block_on(run(settings));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> Result<(), String> {
    let address = SocketAddr::new(settings.host, settings.port);
    let cannot_listen = |error: std::io::Error| format!("cannot listen on {address}: {error}");
    let listener = server::bind(address).map_err(cannot_listen)?;
    let bound = listener.local_addr().map_err(cannot_listen)?;
    if !bound.ip().is_loopback() {
        tracing::warn!(%bound, "INSECURE: anyone who reaches this address can read and write everything");
    }
    if settings.drop_rate > 0.0 {
        tracing::warn!(rate = settings.drop_rate, "log syncs fail on purpose (--drop-rate)");
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;

    let running = start(settings, bound.port()).map_err(|error| error.to_string())?;
    // Recovery reads a log segment at a time, 64 MiB that a node at rest doesn't need.
    idle_memory::give_back();
    let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;
    let accepting = actix_rt::spawn(server::serve(
        listener,
        running.node.clone(),
        running.cast.clone(),
        running.data_arbiters.clone(),
    ));
    tracing::info!(address = %bound, node_id = running.node.settings.node_id, "serving");

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
    }
    accepting.abort();
    running.stop().await;
    Ok(())
}

fn log_to_stderr(format: LogFormat) {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// A panic in the log or in a shard leaves memory and disk apart: the process
/// ends, and recovery, which trusts only the log, begins anew. The actor
/// runtime would catch the panic and go on with one actor fewer.
fn stop_on_any_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}
