//! The flags, and the file that they may name: what they mean is in the modules that get them.

mod fields;
mod gates;
mod kube_proxy;
mod masquerade;
mod settings;

pub use kube_proxy::{ConfigurationError, KubeProxyConfiguration, Mistake};
pub use masquerade::{LocalMode, LocalModeError, MasqueradeFields, MasqueradeFlags, Sources};
pub use settings::{Settings, SettingsError};

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::Uri;
use proxy_daemon::http::BindAddress;
use proxy_daemon::logging::LogFormat;
use proxy_model::source_ports::{NotAPortRange, PortRange};

use crate::kernel::{DEFAULT_BPFFS, KernelLog, Pins};
use proxy_source::kube::secure_server;

/// Version, ABI of the pinned maps, and the commit if the build knew it.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("WEIR_GIT_COMMIT").map_or(String::new(), |id| format!(", commit {id}"));
    let abi = proxy_common::ABI_VERSION;
    format!("{} (ABI {abi}{commit})", env!("CARGO_PKG_VERSION"))
});

/// The command line of `weir`.
#[derive(Debug, Parser)]
#[command(
    name = "weir",
    version = VERSION.as_str(),
    about = "Spreads connections to Kubernetes Services over their endpoints, in the kernel",
    long_about = "weir replaces kube-proxy: `weir agent` programs the kernel of a node from Services and EndpointSlices; \
                  the other commands look at what the kernel does, whether or not an agent is running.",
    after_help = "Try it on one machine, with no cluster:\n  \
                  weir agent --node-name $(hostname) --manifests ./manifests\n  \
                  weir services\n  \
                  weir monitor",
    max_term_width = 100,
    disable_help_subcommand = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `weir` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node's agent: read Services, program the kernel, keep both in step
    #[command(
        after_help = "The agent reads a folder of manifests (--manifests), or the API server of a kubeconfig file \
                            (--kubeconfig), or, in a pod, the API server of its service account.\n\
                            When it ends, the programs in the kernel go on serving; `weir cleanup` removes them."
    )]
    Agent(Box<AgentFlags>),
    /// Show whether weir runs here: versions, programs, how full the maps are, counters
    Status(OutputFlags),
    /// List Services as the kernel serves them, and how often each endpoint was chosen
    Services(ServiceFlags),
    /// List endpoints: where they are, whether they serve, how often they were chosen
    Backends(ServiceFlags),
    /// List connections that the packet path translates
    Flows(FlowFlags),
    /// List clients that stick to an endpoint (sessionAffinity), and what their next connection does
    Affinity(FlowFlags),
    /// Show new connections, rejects and drops as they happen
    Monitor(MonitorFlags),
    /// Remove every trace of weir from this node: programs, links, maps
    #[command(after_help = "Connections through a Service end with it. Refused while an agent runs here.")]
    Cleanup(CleanupFlags),
}

/// Where the pinned maps are.
#[derive(Debug, Clone, Args)]
pub struct BpffsFlag {
    /// BPF file system that holds weir's maps and links; the variable `WEIR_BPFFS` moves the default
    #[arg(long, value_name = "PATH", default_value_os_t = default_bpffs(std::env::var_os(BPFFS_VARIABLE)))]
    pub bpffs: PathBuf,
}

const BPFFS_VARIABLE: &str = "WEIR_BPFFS";

/// An empty variable is one that nobody set: that is what scripts and manifests leave.
fn default_bpffs(variable: Option<OsString>) -> PathBuf {
    let named = variable.filter(|path| !path.is_empty());
    named.map_or_else(|| DEFAULT_BPFFS.into(), PathBuf::from)
}

impl BpffsFlag {
    /// Whether this is where weir looks if no flag says otherwise.
    pub fn is_default(&self) -> bool {
        self.bpffs == default_bpffs(std::env::var_os(BPFFS_VARIABLE))
    }

    /// The pins below it.
    pub fn pins(&self) -> Pins {
        Pins::new(&self.bpffs)
    }
}

/// Flags of `weir agent`.
#[derive(Debug, Clone, Args)]
pub struct AgentFlags {
    /// Name of this node, as it stands in its Node object and in EndpointSlices
    #[arg(long, value_name = "NODE", env = "NODE_NAME")]
    pub node_name: Option<String>,
    /// kube-proxy's configuration file, as in kubeadm's ConfigMap; what a flag says wins over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Folder with Services, EndpointSlices and Nodes as YAML or JSON, watched for changes
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// kubeconfig file that names the API server; not needed in a pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of API servers, instead of the one in the kubeconfig file or of the pod; with commas, or repeated
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = secure_server, conflicts_with = "manifests")]
    pub api_server: Vec<Uri>,
    /// Where maps and links are pinned.
    #[command(flatten)]
    pub bpffs: BpffsFlag,
    /// cgroup v2 folder whose processes are served at the socket [default: the root of the v2 hierarchy]
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,
    /// Interfaces to treat as uplinks, whatever they look like; * and ? match, may be repeated
    #[arg(long, value_name = "GLOB")]
    pub uplink: Vec<String>,
    /// Interfaces to treat as leading to pods, whatever they look like; * and ? match, may be repeated
    #[arg(long, value_name = "GLOB")]
    pub pod_interface: Vec<String>,
    /// Source ports of connections that need one [default: 10000-29999, or what the node's own connections leave]
    #[arg(long, value_name = "FIRST-LAST", value_parser = snat_ports)]
    pub snat_ports: Option<PortRange>,
    /// Where to answer /healthz and /livez; empty switches it off [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub healthz_bind_address: Option<BindAddress>,
    /// Where to answer /metrics; empty switches it off [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    pub metrics_bind_address: Option<BindAddress>,
    /// Whether node ports may be served at 127.0.0.1, if the next flag has it [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub iptables_localhost_nodeports: Option<bool>,
    /// Ranges of the node's addresses that serve node ports, or words: primary (those of its Node, the default), localhost, all
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub nodeport_addresses: Vec<String>,
    /// What becomes of ports that a load balancer's address or an external IP does not have
    #[arg(long, value_enum, default_value_t)]
    pub vip_unknown_ports: UnknownPorts,
    /// Serve ClusterIPs also to who comes from outside of the cluster, as kube-proxy does
    #[arg(long)]
    pub external_cluster_ips: bool,
    /// Whose address endpoints see, and who is a pod.
    #[command(flatten)]
    pub masquerade: MasqueradeFlags,
    /// Switches with kube-proxy's names: `AllowServiceExternalIPs` [default: true]
    #[arg(long, value_name = "GATE=BOOL", value_delimiter = ',')]
    pub feature_gates: Vec<gates::Gate>,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,proxy_source=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
    /// What the programs in the kernel log; off costs nothing
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t)]
    pub kernel_log: KernelLogLevel,
    /// Attach with clsact filters, as on Linux before 6.6, even where TCX links work
    #[arg(long, hide = true)]
    pub clsact: bool,
    /// The kernel object, for a build that carries none
    #[arg(long, value_name = "FILE", env = "WEIR_BPF_OBJECT", hide = true)]
    pub bpf_object: Option<PathBuf>,
}

fn limit(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "write a number; 0 shows all")
}

/// A range by its two ends: one number alone may be a slip.
fn snat_ports(text: &str) -> Result<PortRange, NotAPortRange> {
    let two = text.contains('-').then_some(text);
    two.ok_or_else(|| NotAPortRange::new(text))?.parse()
}

/// What becomes of ports that an address does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum UnknownPorts {
    /// Left to the host, as kube-proxy does.
    #[default]
    Pass,
    /// Rejected, as at a ClusterIP.
    Reject,
}

/// Levels of the kernel programs' log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
#[expect(
    missing_docs,
    reason = "the names say it, and doc comments would become help texts"
)]
pub enum KernelLogLevel {
    #[default]
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<KernelLogLevel> for KernelLog {
    fn from(level: KernelLogLevel) -> Self {
        match level {
            KernelLogLevel::Off => Self::Off,
            KernelLogLevel::Error => Self::Error,
            KernelLogLevel::Warn => Self::Warn,
            KernelLogLevel::Info => Self::Info,
            KernelLogLevel::Debug => Self::Debug,
            KernelLogLevel::Trace => Self::Trace,
        }
    }
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// JSON, for programs.
    Json,
}

/// Flags of every command that answers.
#[derive(Debug, Clone, Args)]
pub struct OutputFlags {
    /// Where the maps are.
    #[command(flatten)]
    pub bpffs: BpffsFlag,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Leave out the line with the names of the columns
    #[arg(long)]
    pub no_headers: bool,
}

/// Flags that choose namespaces.
#[derive(Debug, Clone, Args)]
pub struct NamespaceFlags {
    /// Only this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// All namespaces, which is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

/// Flags of `weir services` and `weir backends`.
#[derive(Debug, Clone, Args)]
pub struct ServiceFlags {
    /// Only Services of this name
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// How to answer.
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Flags of `weir flows` and `weir affinity`.
#[derive(Debug, Clone, Args)]
pub struct FlowFlags {
    /// Only Services of this name
    #[arg(long, value_name = "NAME")]
    pub service: Option<String>,
    /// Only the client of this address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<std::net::IpAddr>,
    /// Show at most this many; 0 shows all [default: 100; all of them in JSON]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = limit)]
    pub limit: Option<usize>,
    /// Which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// How to answer.
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Flags of `weir monitor`.
#[derive(Debug, Clone, Args)]
pub struct MonitorFlags {
    /// Only rejects and drops
    #[arg(long)]
    pub problems: bool,
    /// Which namespaces.
    #[command(flatten)]
    pub namespaces: NamespaceFlags,
    /// How to answer; JSON is one object a line.
    #[command(flatten)]
    pub output: OutputFlags,
}

/// Flags of `weir cleanup`.
#[derive(Debug, Clone, Args)]
pub struct CleanupFlags {
    /// Where the maps are.
    #[command(flatten)]
    pub bpffs: BpffsFlag,
    /// When all is removed, wait for a signal: for a DaemonSet that cleans every node
    #[arg(long)]
    pub stay: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_empty_variable_names_no_file_system() {
        let named = |text: &str| default_bpffs(Some(text.into()));
        assert_eq!(named("/host/bpf"), PathBuf::from("/host/bpf"));
        assert_eq!(named(""), PathBuf::from(DEFAULT_BPFFS));
        assert_eq!(default_bpffs(None), PathBuf::from(DEFAULT_BPFFS));
    }

    #[test]
    fn flags_are_those_of_kubectl() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        assert!(parse("weir services web -n shop -o wide --no-headers").is_ok());
        assert!(parse("weir services -A -o json").is_ok());
        assert!(parse("weir services -A -n shop").is_err());
        assert!(parse("weir agent --node-name a --manifests d --uplink eth* --uplink wg*").is_ok());
        assert!(parse("weir agent --node-name a --manifests d --kubeconfig f").is_err());
        assert!(parse("weir agent --node-name a --manifests d --snat-ports 5000-5999").is_ok());
        for bad in ["5999-5000", "5000", "5"] {
            assert!(
                parse(&format!(
                    "weir agent --node-name a --manifests d --snat-ports {bad}"
                ))
                .is_err()
            );
        }
        assert!(parse("weir agent --api-server https://192.0.2.1:6443,https://[fd00::1]:6443").is_ok());
        for bad in [
            "192.0.2.1:6443",
            "http://192.0.2.1:6443",
            "https://192.0.2.1:99999",
            "https://",
        ] {
            assert!(parse(&format!("weir agent --api-server {bad}")).is_err(), "{bad}");
        }
        assert!(parse("weir agent --manifests d --api-server https://192.0.2.1:6443").is_err());
        assert!(parse("weir flows --client fd00::1 --limit 0").is_ok());
        let refused = parse("weir flows --limit -1").unwrap_err().to_string();
        assert!(refused.contains("write a number"), "{refused}");
    }
}
