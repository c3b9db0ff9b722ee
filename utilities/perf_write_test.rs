//! `perf_write_test`: how fast a node takes writes, and how long one waits.
//!
//! ```text
//! perf_write_test --count 1000000 --connections 50 --pipeline 16
//! ```
//!
//! Ends with 0 only if every request was answered as it should be, with 1 if not,
//! with 2 for wrong flags.

use std::io::IsTerminal;
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;
use datastore_utilities::load::{
    Data, Interrupt, JsonLines, KEYS_MAX, Order, Outcome, Plan, Until, Values, run,
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Percentiles that are shown: name and share.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Sends writes to a node, checks every reply, and shows throughput and latency.
#[derive(Parser)]
#[command(version)]
struct Flags {
    /// Name or address of the node
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// TCP port of the node
    #[arg(long, default_value_t = 9000)]
    port: u16,
    /// Requests to send in all
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Connections that send at the same time
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Requests that a connection sends before it waits for their replies
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pipeline: u32,
    /// Bytes of a value
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(0..=8_000_000))]
    value_bytes: u32,
    /// Write values of so many words instead, chosen anew at every write
    #[arg(long, conflicts_with = "value_bytes", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    words: Option<u32>,
    /// Share of the requests that read a key instead of writing it, 0 to 1; keys that an
    /// earlier run with the same flags wrote are found, others are counted as not found
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    reads: f64,
    /// Number of keys, from which each request takes one at random
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=KEYS_MAX))]
    keys: u64,
    /// What the keys begin with; keys of yours with this beginning are overwritten
    #[arg(long, default_value = "perf:")]
    prefix: String,
    /// Repeats a run's random choices; chosen and shown when left out
    #[arg(long)]
    seed: Option<u64>,
    /// Show the result as one JSON object
    #[arg(long)]
    json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err("it must be between 0 and 1".into()) }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    match measure(&flags) {
        Ok(is_good) if is_good => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

/// Runs and shows the result; whether it was a good one.
fn measure(flags: &Flags) -> Result<bool, String> {
    let address = resolve(&flags.host, flags.port)?;
    let values = match flags.words {
        Some(words) => Values::Words { words: words as usize },
        None => Values::Letters { value_bytes: flags.value_bytes as usize },
    };
    let data = Data::new(&flags.prefix, values)?;
    let seed = flags.seed.unwrap_or_else(seed_of_now);
    let plan = Plan {
        data: &data,
        connections: usize::from(flags.connections),
        pipeline: flags.pipeline as usize,
        keys: flags.keys,
        order: Order::Random,
        reads: flags.reads,
        until: Until::Count(flags.count),
        seed,
    };
    let interrupt = Interrupt::watch().map_err(|error| format!("cannot watch for signals: {error}"))?;
    let bar = progress_bar(flags.count);
    let outcome = run(address, &JsonLines, &plan, &mut |answered| {
        bar.set_position(answered);
        !interrupt.is_asked()
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    if flags.json {
        println!("{}", as_json(flags, seed, &outcome));
    } else {
        show(flags, seed, &outcome);
    }
    Ok(outcome.failure().is_none())
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, String> {
    let mut addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    addresses.next().ok_or_else(|| format!("{host} has no address"))
}

fn seed_of_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(since.subsec_nanos()) ^ since.as_secs()
}

/// A bar on a terminal, nothing in a pipe.
fn progress_bar(count: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len}  {per_sec}  {eta} left");
    ProgressBar::new(count).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Requests of the count that were never sent.
fn unsent(flags: &Flags, outcome: &Outcome) -> u64 {
    flags.count - outcome.answered - outcome.unanswered
}

fn generator_us(outcome: &Outcome) -> f64 {
    outcome.generator_cpu.as_secs_f64() * 1e6 / outcome.answered.max(1) as f64
}

fn generator_share(outcome: &Outcome) -> f64 {
    outcome.generator_cpu.as_secs_f64() / outcome.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

fn show(flags: &Flags, seed: u64, outcome: &Outcome) {
    let seconds = outcome.elapsed.as_secs_f64();
    println!("answered    {} of {} in {seconds:.2} s", outcome.answered, flags.count);
    println!("throughput  {:.0} a second", outcome.per_second());
    let latencies =
        PERCENTILES.map(|(name, share)| format!("{name} {:.3} ms", outcome.latency_us(share) / 1_000.0));
    println!("latency     {}", latencies.join("   "));
    println!(
        "sent by     {} connections, {} requests at a time each, seed {seed}",
        flags.connections, flags.pipeline
    );
    println!(
        "generator   {:.2} us a request, {:.0} % of a core",
        generator_us(outcome),
        generator_share(outcome) * 100.0
    );
    if outcome.misses > 0 {
        println!("not found   {} reads", outcome.misses);
    }
    for (refusal, count) in &outcome.refused {
        println!("error       {count} x {} (outcome: {})", refusal.code, refusal.outcome);
    }
    if outcome.wrong > 0 {
        println!("wrong       {} replies", outcome.wrong);
    }
    if outcome.unanswered > 0 {
        println!("no answer   {} requests (outcome: unknown)", outcome.unanswered);
    }
    if unsent(flags, outcome) > 0 {
        println!("not sent    {} requests", unsent(flags, outcome));
    }
    for fault in &outcome.faults {
        println!("fault       {fault}");
    }
    if outcome.is_interrupted {
        println!("interrupted");
    }
}

fn as_json(flags: &Flags, seed: u64, outcome: &Outcome) -> Value {
    let errors: Vec<Value> = outcome
        .refused
        .iter()
        .map(|(refusal, count)| json!({"code": refusal.code, "outcome": refusal.outcome, "count": count}))
        .collect();
    let latency_us: serde_json::Map<String, Value> = PERCENTILES
        .iter()
        .map(|(name, share)| (name.to_string(), json!(outcome.latency_us(*share))))
        .collect();
    json!({
        "ok": outcome.failure().is_none(),
        "count": flags.count,
        "connections": flags.connections,
        "pipeline": flags.pipeline,
        "reads": flags.reads,
        "seed": seed,
        "answered": outcome.answered,
        "not_found": outcome.misses,
        "errors": errors,
        "wrong": outcome.wrong,
        "unanswered": outcome.unanswered,
        "unsent": unsent(flags, outcome),
        "faults": outcome.faults,
        "interrupted": outcome.is_interrupted,
        "elapsed_s": outcome.elapsed.as_secs_f64(),
        "per_second": outcome.per_second(),
        "latency_us": latency_us,
        "generator_us": generator_us(outcome),
    })
}
