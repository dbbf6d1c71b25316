//! The command line; no logic.

use std::process::ExitCode;

use amazon_pay_ipn::cli::verify;
use clap::{Parser, Subcommand};

/// Receives Amazon Pay notifications, recovers declined charges, and never charges twice.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(verify::VerifyArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    // The only crypto library of this process; fails only if one is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Arguments::parse().command {
        Command::Verify(args) => verify::run(args).await,
    }
}
