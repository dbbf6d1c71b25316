//! Loads that last: `make overload`, `make soak`, and several instances side by side. They run the real program on a private Redis beside a local Amazon Pay, print what they
//! saw, and end with status 1 if a promise of `docs/RELIABILITY.md` was broken.

#![expect(unreachable_pub, reason = "a program has no outside")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints what it did")]

mod books;
mod client;
mod instances;
mod messages;
mod meters;
mod overload;
mod soak;
mod speed;
mod world;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo bench --bench load -- overload MINUTES [TIMES], or: soak MINUTES, or: instances [speed|budget|killed], \
    or: speed ROUNDS";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (kind, minutes) = match arguments.as_slice() {
        // `cargo bench` runs every bench: these are run by name.
        [] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        // What `speed` is measured against is this program again.
        [kind, certificate, topic, redis] if ["prototype", "echo"].contains(&kind.as_str()) => {
            return serve_prototype(kind, certificate, topic, redis);
        }
        [kind] if kind == "instances" => (kind.as_str(), Some(0)),
        [kind, part] if kind == "instances" && ["speed", "budget", "killed"].contains(&part.as_str()) => {
            (kind.as_str(), Some(0))
        }
        [kind, minutes] => (kind.as_str(), minutes.parse().ok()),
        [kind, minutes, times] if kind == "overload" && times.parse::<u32>().is_ok_and(|times| times > 1) => {
            ("overload", minutes.parse().ok())
        }
        _ => ("", None),
    };
    let Some(minutes) = minutes else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let done = match kind {
        "overload" => {
            let times = arguments.get(2).and_then(|times| times.parse().ok()).unwrap_or(2);
            runtime.block_on(overload::run(minutes, times))
        }
        "instances" => runtime.block_on(instances::run(arguments.get(1).map(String::as_str))),
        "soak" => runtime.block_on(soak::run(minutes)),
        "speed" => runtime.block_on(speed::run(usize::try_from(minutes).unwrap_or(3).max(1))),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve_prototype(kind: &str, certificate: &str, topic: &str, redis: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(speed::prototype::serve(kind, certificate, topic, redis)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
