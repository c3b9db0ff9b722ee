//! The node: flags → settings → start → signals.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser;
use datastore::settings::Settings;
use datastore_node::flags::{Flags, LogFormat};
use datastore_node::{logging, server, start};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Small entries by the million: it packs them tighter and hands them out
/// faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong flags or settings, as `clap` itself says it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let flags = match Flags::try_parse() {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            logging::begin(LogFormat::Text);
            logging::say(error.to_string().trim_end());
            logging::flush();
            return ExitCode::from(EXIT_USAGE);
        }
        // What was asked for, on the standard output.
        Err(asked) => asked.exit(),
    };
    logging::begin(flags.log_format);
    logging::abort_on_any_panic();
    let ended = run_as(flags);
    // What ends the process is said by then, if anyone takes it.
    logging::flush();
    ended
}

fn run_as(flags: Flags) -> ExitCode {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut settings = match flags.into_settings().validate(cores) {
        Ok(settings) => settings,
        Err(reason) => {
            logging::say(&format!("error: {reason}"));
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
    let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;
    let accepting = actix_rt::spawn(server::serve(
        listener,
        running.node.clone(),
        running.cast.clone(),
        running.data_arbiters.clone(),
    ));
    tracing::info!(address = %bound, node_id = running.node.settings.node_id, "serving");

    let begins_anew = tokio::select! {
        _ = terminate.recv() => {
            tracing::info!("SIGTERM: stopping");
            false
        }
        _ = interrupt.recv() => {
            tracing::info!("interrupted: stopping");
            false
        }
        () = running.node.is_to_begin_anew() => {
            tracing::info!("stopping, to begin anew");
            true
        }
    };
    accepting.abort();
    running.stop().await;
    if begins_anew { Err(begin_anew(bound.port())) } else { Ok(()) }
}

/// The same program again, in this process: with the port that the system chose,
/// if it was to choose one. Gives the reason when it can't.
fn begin_anew(port: u16) -> String {
    use std::os::unix::process::CommandExt;
    // The link is right even when the program's file was replaced by a newer one.
    let program =
        if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    let program = match program {
        Ok(program) => program,
        Err(error) => return format!("the node stopped to begin anew, and can't find its program: {error}"),
    };
    logging::flush();
    let error = std::process::Command::new(program).args(arguments_with(port)).exec();
    format!("the node stopped to begin anew, and can't: {error}; start it again with the same command")
}

/// The command line as it was, but for the port.
fn arguments_with(port: u16) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = Vec::new();
    let mut given = std::env::args_os().skip(1);
    while let Some(argument) = given.next() {
        let text = argument.to_string_lossy();
        if text == "--port" {
            given.next();
        } else if !text.starts_with("--port=") {
            arguments.push(argument);
        }
    }
    arguments.extend(["--port".into(), port.to_string().into()]);
    arguments
}
