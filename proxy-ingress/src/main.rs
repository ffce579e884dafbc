//! `weir-ingress`: flags in, one of the commands out.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use proxy_daemon::answer;
use proxy_ingress::config::{Cli, Command};
use proxy_ingress::{cli, memory, start};
use proxy_source::error;

/// Gives back to the system what is free: the budget for memory (memory.rs) counts on that, and with the allocator of the C library
/// one crowd of clients would be remembered for ever (docs/decisions/0042).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    memory::in_small_pages();
    let command = Cli::parse().command;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(command)),
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if answer::is_closed_pipe(error.as_ref()) => ExitCode::SUCCESS,
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
