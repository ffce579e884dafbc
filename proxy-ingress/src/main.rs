//! `weir-ingress`: flags in, one of the commands out.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use proxy_ingress::config::{Cli, Command};
use proxy_ingress::{cli, start};
use proxy_source::error;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weir-ingress: {}", error::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<()> {
    match command {
        Command::Serve(flags) => start::serve(*flags).await,
        Command::Explain(flags) => cli::explain(&flags),
        Command::Routes(flags) => cli::routes(&flags),
        Command::Certs(flags) => cli::certificates(&flags),
        Command::Conflicts(flags) => cli::conflicts(&flags),
        Command::Endpoints(flags) => cli::endpoints(&flags),
        Command::Ready(flags) => cli::ready(&flags),
    }
}
