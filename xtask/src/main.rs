//! Every task of the repository behind one word: `./x VERB` on a fresh machine, `cargo xtask VERB` afterwards.
//!
//! Each verb prints the commands that it runs, so that a red pipeline is reproduced by pasting its line.

mod bench;
mod build;
mod check;
mod cluster;
mod count;
mod demo;
mod deploy;
mod docs;
mod e2e;
mod go;
mod h2spec;
mod image;
mod kernel_compiler;
mod lock;
mod packages;
mod shell;
mod source;
mod test;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The tasks of this repository.
#[derive(Parser)]
#[command(name = "x", bin_name = "./x", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build the kernel object and, around it, the `weir` binary
    Build(build::Args),
    /// Check the sources: format, lints, docs, licences, spelling, house rules
    Check(check::Args),
    /// Run the tests: all suites, or the ones named
    Test(test::Args),
    /// Build the container image, target/image/weir.tar, without Docker
    Image(image::Args),
    /// Render docs/maps.md from the map definitions, docs/parity.md from test results
    Docs(docs::Args),
    /// Show weir at work: two nodes in network namespaces, with live traffic
    Demo(demo::Args),
    /// A real Kubernetes in network namespaces, with weir or kube-proxy
    Cluster(cluster::Args),
    /// Measure, as benches/README.md describes
    Bench(bench::Args),
    /// What the pipeline runs: check, then test with nothing skipped
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("x: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Build(args) => build::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Test(args) => test::run(&args),
        Verb::Image(args) => image::run(&args),
        Verb::Docs(args) => docs::run(&args),
        Verb::Demo(args) => demo::run(&args),
        Verb::Cluster(args) => cluster::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Ci => ci(),
    }
}

/// Tests run even if a check failed: one run should tell everything.
fn ci() -> anyhow::Result<()> {
    let checked = check::run(&check::Args::default());
    if let Err(error) = &checked {
        eprintln!("x: {error:#}");
    }
    test::run(&test::Args::everything())?;
    checked
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
