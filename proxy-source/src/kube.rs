//! Objects from a Kubernetes API server, listed and watched; and Events about what is wrong with them back to it.
//!
//! The connection is the client's business; what it brings is judged here, object by object, so that one that cannot
//! be decoded costs itself and nothing else. While the API server is away, weir serves what it knows.

mod connection;
mod events;
mod kubeconfig;
mod servers;
mod told;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::Uri;
use kube::Config;
use kube::api::{Api, ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use proxy_model::Kind;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use servers::Servers;
use tokio::sync::{mpsc, watch};

pub use self::kubeconfig::{KubeconfigFile, NotAServer, server};

use super::raw::Raw;
use super::watch::Watch;
use super::{Changes, Source, SourceError};
use crate::Metrics;
use crate::Problems;

/// kube-proxy leaves out the same slices (KEP-2447; headless Services have nothing to balance).
const LABELS: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// A silent connection is given up after this and 5 s; the API server's bookmarks come about once a minute.
const WATCH_SECONDS: u32 = 240;
/// A request that was sent and never answered.
const READ_TIMEOUT: Duration = Duration::from_secs(250);

/// The Kubernetes source.
pub struct Kube {
    servers: Servers,
    follows: Vec<Follow>,
    controller: &'static str,
    node: String,
    metrics: Arc<Metrics>,
}

/// Where the API server is, and who asks.
#[derive(Debug)]
pub struct Options {
    /// The kubeconfig file; none means the service account of the pod.
    pub kubeconfig: Option<KubeconfigFile>,
    /// Addresses of API servers, instead of the one that the configuration names.
    pub api_servers: Vec<Uri>,
    /// Which objects are wanted.
    pub follows: Vec<Follow>,
    /// Who writes the Events.
    pub controller: &'static str,
    /// The name of the own Node.
    pub node: String,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

/// A kind that is followed.
#[derive(Clone, Debug)]
pub struct Follow {
    kind: Kind,
    config: watcher::Config,
}

impl Follow {
    /// All objects of a kind.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            config: watcher::Config::default(),
        }
    }

    /// The EndpointSlices of Services that are balanced here.
    pub fn proxied_slices() -> Self {
        Self {
            config: watcher::Config::default().labels(LABELS),
            ..Self::all(Kind::EndpointSlice)
        }
    }

    /// One object of a kind without namespaces.
    pub fn one(kind: Kind, name: &str) -> Self {
        Self {
            config: watcher::Config::default().fields(&format!("metadata.name={name}")),
            ..Self::all(kind)
        }
    }

    /// What a node's agent follows.
    pub fn of_node(node: &str) -> Vec<Self> {
        vec![
            Self::one(Kind::Node, node),
            // Also those of another proxy: their ClusterIPs are not unallocated.
            Self::all(Kind::Service),
            Self::proxied_slices(),
            Self::all(Kind::ServiceCidr),
        ]
    }
}

impl Kube {
    /// By a kubeconfig file, or by the service account of the pod that weir runs in.
    pub async fn connect(options: Options) -> Result<Self, SourceError> {
        let (config, by_cluster_ip) = match &options.kubeconfig {
            Some(file) => (kubeconfig::read(file).await?, false),
            None => in_cluster(!options.api_servers.is_empty())?,
        };
        Self::over(config, by_cluster_ip, options)
    }

    fn over(mut config: Config, by_cluster_ip: bool, options: Options) -> Result<Self, SourceError> {
        config.read_timeout = Some(READ_TIMEOUT);
        // A connection that waited in the pool must not have used up its time there.
        config.reset_reader_on_write = true;
        let Options {
            api_servers, metrics, ..
        } = options;
        let url = config.cluster_url.to_string();
        // Each node begins with another server.
        let turn = usize::from(SmallRng::from_os_rng().random::<u16>());
        let servers = Servers::new(config, &api_servers, by_cluster_ip, turn, Arc::clone(&metrics));
        let wrap = |error| SourceError::Client {
            url,
            source: Box::new(error),
        };
        Ok(Self {
            servers: servers.map_err(wrap)?,
            follows: options.follows,
            controller: options.controller,
            node: options.node,
            metrics,
        })
    }

    fn watch(&self, follow: &Follow) -> Watch {
        let resource = resource(follow.kind);
        let api: Api<Raw> = Api::all_with(self.servers.client(), &resource);
        let config = follow.config.clone().timeout(WATCH_SECONDS);
        Watch::new(follow.kind, resource, api, config, Arc::clone(&self.metrics))
    }
}

/// By the service account of the pod; and whether by a ClusterIP. The address does not matter if others are `named`.
fn in_cluster(named: bool) -> Result<(Config, bool), SourceError> {
    let wrap = |error| SourceError::InCluster(Box::new(error));
    if named {
        return Ok((Config::incluster_dns().map_err(wrap)?, false));
    }
    let config = Config::incluster_env().map_err(wrap)?;
    let variable = |name| std::env::var(name).unwrap_or_default();
    let host = variable("KUBERNETES_SERVICE_HOST");
    let by_cluster_ip = is_cluster_ip(&host, &variable("KUBERNETES_PORT"));
    if by_cluster_ip {
        tracing::warn!(
            "the agent reaches the API server by the ClusterIP {host}, which weir itself serves: on a fresh node nobody \
             does; name an address where an API server listens with --api-server https://ADDRESS:PORT"
        );
    }
    Ok((config, by_cluster_ip))
}

/// Whether this host is the ClusterIP of the Service `kubernetes`. The kubelet tells every pod twice: once as the host,
/// which a manifest may set to something else, and once as `tcp://ADDRESS:PORT`, which nobody touches.
fn is_cluster_ip(host: &str, told: &str) -> bool {
    let socket = told.strip_prefix("tcp://").unwrap_or_default();
    let address = socket.rsplit_once(':').map_or("", |(address, _)| address);
    !host.is_empty() && address.trim_matches(['[', ']']) == host
}

fn resource(kind: Kind) -> ApiResource {
    let (group, version) = kind
        .api_version()
        .split_once('/')
        .unwrap_or(("", kind.api_version()));
    let plural = match kind {
        Kind::Service => "services",
        Kind::EndpointSlice => "endpointslices",
        Kind::Node => "nodes",
        Kind::ServiceCidr => "servicecidrs",
        Kind::Ingress => "ingresses",
        Kind::IngressClass => "ingressclasses",
        Kind::Secret => "secrets",
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, &kind.to_string()), plural)
}

impl Source for Kube {
    fn describe(&self) -> String {
        format!("the API server {}", self.servers.describe())
    }

    fn tell(&self, problems: watch::Receiver<Problems>) -> BoxFuture<'static, ()> {
        Box::pin(events::tell(
            self.servers.client(),
            (self.controller, self.node.clone()),
            problems,
        ))
    }

    fn only_own_node(&self) -> bool {
        true
    }

    fn run(self: Box<Self>, changes: mpsc::Sender<Changes>) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let follow = self.follows.iter().map(|follow| {
                let watch = self.watch(follow);
                let changes = changes.clone();
                let servers = (follow.kind == Kind::EndpointSlice).then(|| self.servers.clone());
                async move {
                    match servers {
                        Some(servers) => listen(servers, watch, changes).await,
                        None => watch.run(changes).await,
                    }
                }
            });
            futures::future::join_all(follow).await;
            Ok(())
        })
    }
}

/// The slices tell also where the API servers are.
async fn listen(servers: Servers, slices: Watch, changes: mpsc::Sender<Changes>) {
    let (tap, mut tapped) = mpsc::channel::<Changes>(1);
    let pass_on = async {
        while let Some(batch) = tapped.recv().await {
            servers.learn(&batch);
            if changes.send(batch).await.is_err() {
                return;
            }
        }
    };
    // Whoever ends first, nobody listens any more.
    tokio::select! {
        () = slices.run(tap) => {}
        () = pass_on => {}
        () = changes.closed() => {}
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
