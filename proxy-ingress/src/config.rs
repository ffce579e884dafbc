//! The flags: what they mean is in the modules that get them.

mod settle;
mod status;

pub use self::settle::log_directives;
pub use self::status::StatusFlags;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hyper::Uri;
use proxy_daemon::http::BindAddress;
use proxy_daemon::logging::LogFormat;
use proxy_model::{Kind, ObjectName, Prefix};
use proxy_source::kube::secure_server;

use crate::model::annotations::values;
use crate::model::class::{CLASS, CONTROLLER};
use crate::settings::Settings;
use crate::telemetry::TelemetryFlags;

/// Where probes and scrapes are answered, if nothing else is said: ingress-nginx's port.
pub const STATUS: BindAddress = BindAddress::At {
    ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    port: Some(10254),
};

/// Version, and the commit if the build knew it.
pub static VERSION: LazyLock<String> = LazyLock::new(|| {
    let commit = option_env!("WEIR_GIT_COMMIT").map_or(String::new(), |id| format!(" (commit {id})"));
    format!("{}{commit}", env!("CARGO_PKG_VERSION"))
});

/// The command line of `weir-ingress`.
#[derive(Debug, Parser)]
#[command(
    name = "weir-ingress",
    version = VERSION.as_str(),
    about = "Sends HTTP and HTTPS by host and path to the pods of Kubernetes Services",
    long_about = "weir-ingress serves Ingresses: `weir-ingress serve` takes requests, and sends each straight to a ready pod; \
                  the other commands ask the running process what it does, and why.",
    after_help = "Try it on one machine, with no cluster:\n  \
                  weir-ingress serve --manifests ./manifests --http 127.0.0.1:8080 --https 127.0.0.1:8443",
    max_term_width = 100,
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `weir-ingress` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve: read Ingresses, take requests, send them to pods
    #[command(
        after_help = "Ingresses, IngressClasses, Services, EndpointSlices and Secrets come from a folder of manifests \
                      (--manifests), or the API server of a kubeconfig file (--kubeconfig), or, in a pod, the API server \
                      of its service account."
    )]
    Serve(Box<ServeFlags>),
    /// Say where a request would go, and why
    Explain(ExplainFlags),
    /// List routes: hosts and paths, and the Services behind them
    Routes(AskFlags),
    /// List names with the certificates that clients are shown
    Certs(AskFlags),
    /// List what Ingresses ask for and others have
    Conflicts(AskFlags),
    /// List endpoints, and whether they get requests
    Endpoints(AskFlags),
    /// End with 0 if the running process takes clients: for probes where another one may have its port
    Ready(ReadyFlags),
}

/// The socket at which the running process answers, if nothing else is said.
pub const ADMIN_SOCKET: &str = "/run/weir/ingress.sock";

/// Flags of every command that asks.
#[derive(Debug, Clone, Args)]
pub struct AskFlags {
    /// The unix socket at which the running process answers
    #[arg(long, value_name = "PATH", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
    /// How to write the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Leave out the line with the names of the columns
    #[arg(long)]
    pub no_headers: bool,
}

/// Flags of `weir-ingress ready`.
#[derive(Debug, Clone, Args)]
pub struct ReadyFlags {
    /// The unix socket at which the running process answers
    #[arg(long, value_name = "PATH", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
}

/// Flags of `weir-ingress explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainFlags {
    /// The URL that a client would ask for
    #[arg(value_name = "URL")]
    pub url: String,
    /// The method
    #[arg(short = 'X', long, value_name = "METHOD", default_value = "GET")]
    pub request: String,
    /// A header; may be repeated
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub header: Vec<Header>,
    /// Whom to ask.
    #[command(flatten)]
    pub ask: AskFlags,
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Columns.
    #[default]
    Table,
    /// JSON, for programs.
    Json,
}

/// A header as curl takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header(pub (String, String));

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
        Ok(Self((name.trim().to_owned(), value.trim().to_owned())))
    }
}

/// Flags of `weir-ingress serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeFlags {
    /// Where objects come from.
    #[command(flatten)]
    pub source: SourceFlags,
    /// Where clients come to.
    #[command(flatten)]
    pub doors: DoorFlags,
    /// Whom it serves, and how.
    #[command(flatten)]
    pub rules: RuleFlags,
    /// How much it takes.
    #[command(flatten)]
    pub limits: LimitFlags,
    /// What the status of Ingresses says.
    #[command(flatten)]
    pub status: StatusFlags,
    /// What is told of requests.
    #[command(flatten)]
    pub telemetry: TelemetryFlags,
    /// Where to answer /livez, /readyz and /metrics; empty switches it off
    #[arg(long, value_name = "ADDRESS[:PORT]", default_value_t = STATUS)]
    pub status_address: BindAddress,
    /// The unix socket at which questions are answered (`weir-ingress explain` and others); empty switches it off
    #[arg(long, value_name = "PATH", default_value = ADMIN_SOCKET)]
    pub admin_socket: PathBuf,
    /// How log lines are written
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or directives such as `info,proxy_source=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: String,
}

/// Where objects come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where objects come from")]
pub struct SourceFlags {
    /// Folder with manifests as YAML or JSON, watched for changes
    #[arg(long, value_name = "DIR", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// kubeconfig file that names the API server; not needed in a pod
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of API servers, instead of the one in the kubeconfig file or of the pod; with commas, or repeated
    #[arg(long, value_name = "URL", value_delimiter = ',', value_parser = secure_server, conflicts_with = "manifests")]
    pub api_server: Vec<Uri>,
    /// Read these namespaces only; with commas, or repeated [default: all]
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        conflicts_with = "manifests"
    )]
    pub namespace: Vec<String>,
}

/// Where clients come to.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where clients come to")]
pub struct DoorFlags {
    /// Where to take HTTP; may be repeated; empty switches it off
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        default_value = "[::]:80"
    )]
    pub http: Vec<Door>,
    /// Where to take HTTPS; may be repeated; empty switches it off
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        value_delimiter = ',',
        default_value = "[::]:443"
    )]
    pub https: Vec<Door>,
    /// The port that clients know for HTTPS: redirects name it
    #[arg(long, value_name = "PORT", default_value_t = 443)]
    pub https_port: u16,
    /// Ranges of balancers in front, whose X-Forwarded-* and Forwarded headers are believed
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = range)]
    pub trusted: Vec<Prefix>,
    /// Ranges of balancers in front whose connections begin with a PROXY protocol header; theirs must
    #[arg(long, value_name = "RANGE", value_delimiter = ',', value_parser = range)]
    pub proxy_protocol: Vec<Prefix>,
    /// Threads that serve [default: one per CPU that the process may use]
    #[arg(long, value_name = "N")]
    pub workers: Option<NonZero<usize>>,
    /// A unix socket at which a process hands its listening sockets to the next one of the same network namespace and user:
    /// start the next one, and this one ends when that serves. @NAME is one that the network namespace has, and no folder
    #[arg(long, value_name = "PATH")]
    pub handover_socket: Option<PathBuf>,
    /// When the next process serves and all connections have ended, wait for SIGTERM: for a supervisor who would start this one
    /// again, as the kubelet does
    #[arg(long, requires = "handover_socket")]
    pub wait_relieved: bool,
    /// With so much memory in use, requests are answered 503: bytes, or a number with k, m or g [default: nine tenths of the
    /// control group's limit]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory_budget: Option<u64>,
    /// After SIGTERM, clients are still taken for this long: until balancers know that this one goes
    #[arg(long, value_name = "TIME", value_parser = delay, default_value = "5s")]
    pub shutdown_delay: Duration,
    /// Then requests and tunnels may end in this time
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "4m")]
    pub drain_timeout: Duration,
}

/// Whom it serves, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which Ingresses, and how")]
pub struct RuleFlags {
    /// The controller that our IngressClasses name
    #[arg(long, value_name = "NAME", default_value = CONTROLLER)]
    pub controller: String,
    /// The name that the annotation kubernetes.io/ingress.class may have without an IngressClass
    #[arg(long, value_name = "NAME", default_value = CLASS)]
    pub ingress_class: String,
    /// Serve Ingresses without a class too, if there is no default class
    #[arg(long)]
    pub watch_ingress_without_class: bool,
    /// Who may have paths of a host
    #[arg(long, value_enum, default_value_t)]
    pub host_ownership: HostOwnership,
    /// The Secret of the certificate for names that have none [default: a self-signed one]
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub default_certificate: Option<SecretName>,
    /// Several slashes in a row are several: paths with them match no rule of an Ingress
    #[arg(long)]
    pub keep_slashes: bool,
    /// Answer 400 to paths with %2F, %5C or \
    #[arg(long)]
    pub refuse_encoded_slashes: bool,
}

/// How much it takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct LimitFlags {
    /// Connections of clients; more wait
    #[arg(long, value_name = "N", default_value_t = Settings::default().connections)]
    pub max_connections: usize,
    /// Connections of one address; more are closed, but for --trusted ones
    #[arg(long, value_name = "N", default_value_t = Settings::default().connections_per_client)]
    pub max_connections_per_client: u32,
    /// Requests at work; more are answered with 503
    #[arg(long, value_name = "N", default_value_t = Settings::default().requests)]
    pub max_requests: usize,
    /// Until a request's head is whole
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "10s")]
    pub header_timeout: Duration,
    /// Without a request, a connection is closed after this
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "75s")]
    pub keep_alive_timeout: Duration,
    /// A client that sends nothing of a body that it promised is told 408 after this
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "30s")]
    pub body_timeout: Duration,
}

/// Who may have paths of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum HostOwnership {
    /// Ingresses of all namespaces: their paths are one list.
    #[default]
    Merge,
    /// The namespace of the oldest Ingress that names it.
    FirstNamespace,
}

/// An address to listen at; none if it is switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door(Option<SocketAddr>);

impl FromStr for Door {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        let all = || {
            Some(SocketAddr::new(
                Ipv6Addr::UNSPECIFIED.into(),
                text.strip_prefix(':')?.parse().ok()?,
            ))
        };
        let address = text.parse().ok().or_else(all);
        address
            .map(|address| Self(Some(address)))
            .ok_or("write ADDRESS:PORT, [ADDRESS]:PORT, or :PORT for all addresses")
    }
}

/// Namespace and name of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretName(pub ObjectName);

impl FromStr for SecretName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text
            .split_once('/')
            .map(|(namespace, name)| ObjectName::new(namespace, name));
        let name = name.filter(|name| !name.namespace.is_empty() && name.is_dns(Kind::Secret));
        name.map(Self).ok_or("write NAMESPACE/NAME")
    }
}

fn range(text: &str) -> Result<Prefix, &'static str> {
    text.parse().map_err(|_| "write ADDRESS/BITS")
}

/// A time that may be none.
fn delay(text: &str) -> Result<Duration, &'static str> {
    values::span(text).ok_or(TIME)
}

fn bytes(text: &str) -> Result<u64, &'static str> {
    values::bytes(text).ok_or("write a number of bytes, or one with k, m or g")
}

fn time(text: &str) -> Result<Duration, &'static str> {
    values::duration(text).ok_or(TIME)
}

const TIME: &str = "write a number of seconds, or one with ms, s, m or h";

#[cfg(test)]
mod tests;
