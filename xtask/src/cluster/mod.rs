//! `cluster`: a real Kubernetes on one machine, in network namespaces.
//!
//! ```text
//! up ─▶ programs, images (cached) ─▶ serve, a process that stays ─▶ lab ─▶ control plane ─▶ nodes ─▶ DNS, proxy
//! down ─▶ ends that process, with which everything goes
//! ```
//!
//! docs/cluster.md says how to use it.

mod addons;
mod archives;
mod cache;
mod cgroups;
mod control_plane;
mod end;
mod images;
mod init;
mod kubectl;
mod node;
mod options;
mod oracle;
mod pki;
mod programs;
mod running;
mod serve;
mod show;
mod signals;
mod state;
mod suites;
mod up;
mod wait;

use anyhow::Result;
use clap::Subcommand;

pub(crate) use images::REGISTRY;
pub(crate) use options::Proxy;
pub(crate) use oracle::ApiServer;
pub(crate) use pki::write as write_secret;
pub(crate) use suites::{E2ePlace, E2ePrograms, Shared, e2e_programs, kubernetes_version, state_file};
pub(crate) use up::can_start;

/// What `cluster` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Start a cluster, which stays until `down`
    Up(up::Request),
    /// End the cluster, and remove all that it made
    Down,
    /// Say what runs
    Status,
    /// Print the path of the kubeconfig: `export KUBECONFIG=$(./x cluster kubeconfig)`
    Kubeconfig,
    /// Run the kubectl that belongs to the cluster
    Kubectl {
        /// What to tell it
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run a command on a node, a shell without one
    Shell {
        /// `n1`, `n2` and so on
        node: String,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Build the programs and the images into the cache, and remove what nobody has used for two weeks
    Build {
        /// Kubernetes' end-to-end tests as well
        #[arg(long)]
        e2e: bool,
    },
    /// The process that holds a cluster
    #[command(hide = true)]
    Serve(serve::Args),
    /// Process 1 of a node
    #[command(hide = true)]
    NodeInit(init::Args),
}

/// Does what `args` ask for.
pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Up(request) => up::up(request),
        Verb::Down => end::down(),
        Verb::Status => show::status(),
        Verb::Kubeconfig => show::kubeconfig(),
        Verb::Kubectl { args } => show::kubectl(args),
        Verb::Shell { node, command } => show::shell(node, command),
        Verb::Build { e2e } => up::build(*e2e),
        Verb::Serve(args) => serve::run(args),
        Verb::NodeInit(args) => init::run(args),
    }
}
