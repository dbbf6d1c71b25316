//! The command line; no logic.

use std::io::Write as _;
use std::process::ExitCode;

use amazon_pay_ipn::cli::operator::{charges, permissions, quarantine, stop};
use amazon_pay_ipn::cli::{check, events, healthcheck, init, policy, schema, serve, verify};
#[cfg(feature = "sandbox")]
use amazon_pay_ipn::cli::{demo, sandbox, trigger};
use amazon_pay_ipn::config::Given;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use mimalloc::MiMalloc;

/// glibc's takes twice as long for the many small pieces of a request, under load; see `docs/RELIABILITY.md`.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Receives Amazon Pay notifications, recovers declined charges, and never charges twice.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service
    Serve(Box<serve::ServeArgs>),
    Init(Box<init::InitArgs>),
    Check(Box<check::CheckArgs>),
    Verify(verify::VerifyArgs),
    Policy(policy::PolicyArgs),
    Charges(charges::ChargesArgs),
    Permissions(permissions::PermissionsArgs),
    Quarantine(quarantine::QuarantineArgs),
    Stop(stop::StopArgs),
    Completions(CompletionsArgs),
    Schema(schema::SchemaArgs),
    Events(Box<events::EventsArgs>),
    /// Ask the running service whether it is ready
    Healthcheck(Box<Given>),
    /// Watch the whole service at work, on real parts and simulated time; needs nothing but redis-server
    #[cfg(feature = "sandbox")]
    Demo,
    #[cfg(feature = "sandbox")]
    Sandbox(Box<sandbox::SandboxArgs>),
    #[cfg(feature = "sandbox")]
    Trigger(Box<trigger::TriggerArgs>),
}

/// Print the completions of a shell
#[derive(Debug, Args)]
struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[tokio::main]
async fn main() -> ExitCode {
    // The only crypto library of this process; fails only if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Serve(args) => serve::run(*args).await,
        Command::Init(args) => init::run(*args).await,
        Command::Check(args) => check::run(*args).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Policy(args) => policy::run(&args),
        Command::Charges(args) => charges::run(args).await,
        Command::Permissions(args) => permissions::run(args).await,
        Command::Quarantine(args) => quarantine::run(args).await,
        Command::Stop(args) => stop::run(args).await,
        Command::Completions(CompletionsArgs { shell }) => {
            // It panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "amazon-pay-ipn", &mut script);
            std::io::stdout().lock().write_all(&script).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS)
        }
        Command::Schema(args) => schema::run(&args),
        Command::Events(args) => events::run(*args).await,
        Command::Healthcheck(given) => healthcheck::run(*given).await,
        #[cfg(feature = "sandbox")]
        Command::Demo => demo::run().await,
        #[cfg(feature = "sandbox")]
        Command::Sandbox(args) => sandbox::run(*args).await,
        #[cfg(feature = "sandbox")]
        Command::Trigger(args) => trigger::run(*args).await,
    }
}
