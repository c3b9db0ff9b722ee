//! The node: flags → settings → start → signals.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;

use datastore::settings::Settings;
use datastore_node::environment::{self, Given, Variables};
use datastore_node::flags::LogFormat;
use datastore_node::server::{self, Server};
use datastore_node::signals::Signals;
use datastore_node::{Read, StartError, logging, memory_limit, open_files, read_directory, start, starting};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Small entries by the million: it packs them tighter and hands them out
/// faster than the system's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong flags or settings, as `clap` itself says it.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let given = match environment::read() {
        Ok(given) => given,
        Err(error) if error.use_stderr() => {
            logging::begin(LogFormat::Text);
            logging::say(error.to_string().trim_end());
            logging::flush();
            return ExitCode::from(EXIT_USAGE);
        }
        // What was asked for, on the standard output.
        Err(asked) => asked.exit(),
    };
    logging::begin(given.flags.log_format);
    logging::abort_on_any_panic();
    let ended = run_as(given);
    // What ends the process is said by then, if anyone takes it.
    logging::flush();
    ended
}

fn run_as(given: Given) -> ExitCode {
    let Given { flags, variables, warnings } = given;
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut settings = match flags.into_settings().validate(cores) {
        Ok(settings) => settings,
        Err(reason) => {
            logging::say(&format!("error: {}", variables.explain(&reason, &[])));
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let ended =
        open_files::connections_allowed(settings.connections_max, settings.shards).and_then(|allowed| {
            settings.connections_max = allowed;
            actix_rt::System::new().block_on(run(settings, &variables))
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, variables: &Variables) -> Result<(), String> {
    let address = SocketAddr::new(settings.host, settings.port);
    let cannot_listen = |error: std::io::Error| {
        variables.explain(&format!("cannot listen on {address}: {error}"), &["--host", "--port"])
    };
    let listener = server::bind(address).map_err(cannot_listen)?;
    let bound = listener.local_addr().map_err(cannot_listen)?;
    if !bound.ip().is_loopback() {
        tracing::warn!(%bound, "INSECURE: anyone who reaches this address can read and write everything");
    }
    if let Some(warning) = memory_limit::warning(settings.memory_bytes_max) {
        tracing::warn!("{warning}");
    }
    if settings.drop_rate > 0.0 {
        tracing::warn!(rate = settings.drop_rate, "log syncs fail on purpose (--drop-rate)");
    }
    let mut signals = Signals::listen().map_err(|error| format!("signals can't be listened to: {error}"))?;
    let listener = TcpListener::from_std(listener).map_err(cannot_listen)?;

    let reading = read_on_a_thread(settings.clone(), bound.port());
    let (read, came) = tokio::select! {
        read = starting::serve_until(&listener, &settings, reading) => read,
        name = signals.stop() => {
            tracing::info!("{name}: stopping, before the data directory was read");
            return Ok(());
        }
    };
    let cannot_start = |error: StartError| {
        let about: &[&str] = if error.is_about_directory() { &["--data-dir"] } else { &[] };
        variables.explain(&error.to_string(), about)
    };
    let running = read.and_then(|read| start(settings, bound.port(), read)).map_err(cannot_start)?;
    let mut server = Server::new(&running);
    server.resume(came);
    let accepting = actix_rt::spawn(server.serve(listener));
    tracing::info!(address = %bound, node_id = running.node.settings.node_id, "serving");

    let begins_anew = tokio::select! {
        name = signals.stop() => {
            tracing::info!("{name}: stopping");
            false
        }
        () = running.node.is_to_begin_anew() => {
            tracing::info!("stopping, to begin anew");
            true
        }
    };
    accepting.abort();
    running.stop().await;
    // One that came meanwhile counts, too: the node doesn't begin anew.
    if begins_anew && !signals.has_come() { Err(begin_anew(bound.port())) } else { Ok(()) }
}

/// Reads the data directory beside the thread that answers clients meanwhile.
async fn read_on_a_thread(settings: Settings, port: u16) -> Result<Read, StartError> {
    let (done, is_done) = oneshot::channel();
    let reading = std::thread::Builder::new().name("recovery".into()).spawn(move || {
        // Nobody takes it where the node was stopped meanwhile.
        let _ = done.send(read_directory(&settings, port));
    });
    reading.map_err(|source| StartError::Thread { name: "recovery".into(), source })?;
    // A panic of that thread ends the process.
    is_done.await.map_err(|_| StartError::Thread {
        name: "recovery".into(),
        source: std::io::ErrorKind::Other.into(),
    })?
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
