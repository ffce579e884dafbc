//! `weir`: flags in, one of the commands out.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use clap::Parser;
use proxy_agent::config::{self, AgentFlags, Cli, Command};
use proxy_agent::metrics::Metrics;
use proxy_agent::{check, cli, error, kernel, logging, run, source_ports};
use proxy_daemon::{answer, panics};
use proxy_model::Kind;
use proxy_source::Source;
use proxy_source::folder::Folder;
use proxy_source::kube::{self, Follow, Kube, KubeconfigFile};

fn main() -> ExitCode {
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
            eprintln!("weir: {}", error::chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn execute(command: Command) -> Result<()> {
    match command {
        Command::Agent(flags) => agent(*flags).await,
        Command::Status(flags) => cli::status::run(&flags),
        Command::Services(flags) => cli::services::run(&flags),
        Command::Backends(flags) => cli::backends::run(&flags),
        Command::Flows(flags) => cli::flows::run(&flags),
        Command::Affinity(flags) => cli::affinity::run(&flags),
        Command::Monitor(flags) => cli::monitor::run(&flags).await,
        Command::Cleanup(flags) => cli::cleanup::run(&flags).await,
    }
}

async fn agent(flags: AgentFlags) -> Result<()> {
    logging::start(flags.log_format, &flags.log, flags.kernel_log)?;
    panics::end_the_process("the agent", "the programs in the kernel go on serving");
    let settings = flags.settle()?;
    if let Some(warning) = &settings.warning {
        tracing::warn!("{warning}");
    }
    let node_name = settings.node_name;
    let node = check::node(&flags.bpffs.bpffs, flags.cgroup.as_deref())?;
    let metrics = Arc::new(Metrics::new()?);
    let hosts = flags.api_server.iter().filter_map(|url| url.host());
    let api_servers = hosts
        .filter_map(|host| proxy_model::parse_address(host.trim_matches(['[', ']'])))
        .collect();
    let source = source(
        &flags,
        settings.kubeconfig,
        &node_name,
        Arc::clone(&metrics.sources),
    )
    .await?;
    tracing::info!(
        version = config::VERSION.as_str(),
        node = node_name,
        "weir agent starts"
    );
    run::run(run::Options {
        node_name,
        node_port_addresses: settings.node_port_addresses,
        external_ips: settings.external_ips,
        masquerade: settings.sources.masquerade,
        pod_ranges: settings.sources.pod_ranges,
        localhost_node_ports: settings.localhost_node_ports,
        api_servers,
        kernel: kernel::Options {
            pins: flags.bpffs.pins(),
            cgroup: node.cgroup,
            object: flags.bpf_object,
            log: flags.kernel_log.into(),
            no_tcx: flags.clsact,
            reject_vip_ports: flags.vip_unknown_ports == config::UnknownPorts::Reject,
            external_cluster_ips: flags.external_cluster_ips,
            snat_ports: source_ports::choose(flags.snat_ports),
        },
        rules: kernel::Rules {
            uplinks: flags.uplink,
            pods: flags.pod_interface,
            pod_interfaces: settings.sources.pod_interfaces,
        },
        source,
        http: settings.http,
        metrics,
    })
    .await?;
    Ok(())
}

/// Where objects come from.
async fn source(
    flags: &AgentFlags,
    kubeconfig: Option<KubeconfigFile>,
    node: &str,
    metrics: Arc<proxy_source::Metrics>,
) -> Result<Box<dyn Source>> {
    if let Some(directory) = &flags.manifests {
        return Ok(Box::new(Folder::new(directory.clone(), &Kind::ALL)));
    }
    let options = kube::Options {
        kubeconfig,
        api_servers: flags.api_server.clone(),
        follows: Follow::of_node(node),
        secrets: None,
        controller: "weir",
        node: node.to_owned(),
        lease: None,
        serves_cluster_ips: true,
        metrics,
    };
    Ok(Box::new(Kube::connect(options).await?))
}
