//! Objects from a Kubernetes API server: Services, EndpointSlices and the own Node, listed and watched.
//!
//! The connection is the client's business; what it brings is judged here, object by object, so that one that cannot
//! be decoded costs itself and nothing else. While the API server is away, weir serves what it knows.

use std::path::PathBuf;
use std::time::Duration;

use futures::future::BoxFuture;
use kube::api::{Api, ApiResource, GroupVersionKind};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Client, Config};
use proxy_model::Kind;
use tokio::sync::mpsc;

use super::raw::Raw;
use super::watch::Watch;
use super::{Changes, Source, SourceError};

/// kube-proxy leaves out the same objects (KEP-2447; headless Services have nothing to balance).
const LABELS: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";
/// A silent connection is given up after this and 5 s; the API server's bookmarks come about once a minute.
const WATCH_SECONDS: u32 = 240;
/// A request that was sent and never answered.
const READ_TIMEOUT: Duration = Duration::from_secs(250);

/// The Kubernetes source.
pub struct Kube {
    client: Client,
    server: String,
    node: String,
}

impl Kube {
    /// For the node of this name, by a kubeconfig file, or by the service account of the pod that weir runs in.
    pub async fn connect(kubeconfig: Option<PathBuf>, node: String) -> Result<Self, SourceError> {
        let mut config = match kubeconfig {
            Some(path) => from_file(path).await?,
            None => in_cluster()?,
        };
        config.read_timeout = Some(READ_TIMEOUT);
        // A connection that waited in the pool must not have used up its time there.
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|error| SourceError::Client {
            url: server.clone(),
            source: Box::new(error),
        })?;
        Ok(Self { client, server, node })
    }

    fn watches(&self) -> [Watch; 3] {
        let services = resource("", "Service", "services");
        let slices = resource("discovery.k8s.io", "EndpointSlice", "endpointslices");
        let nodes = resource("", "Node", "nodes");
        let own = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let proxied = watcher::Config::default().labels(LABELS);
        [
            self.watch(Kind::Node, nodes, own),
            self.watch(Kind::Service, services, proxied.clone()),
            self.watch(Kind::EndpointSlice, slices, proxied),
        ]
    }

    fn watch(&self, kind: Kind, resource: ApiResource, config: watcher::Config) -> Watch {
        let api: Api<Raw> = Api::all_with(self.client.clone(), &resource);
        Watch::new(kind, resource, api, config.timeout(WATCH_SECONDS))
    }
}

/// By the service account of the pod.
fn in_cluster() -> Result<Config, SourceError> {
    let config = Config::incluster().map_err(|error| SourceError::InCluster(Box::new(error)))?;
    let variable = |name| std::env::var(name).unwrap_or_default();
    let host = variable("KUBERNETES_SERVICE_HOST");
    if is_cluster_ip(&host, &variable("KUBERNETES_PORT")) {
        tracing::warn!(
            "the agent reaches the API server by the ClusterIP {host}, which weir itself serves: should that fail, the \
             agent never hears what would mend it; set KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT of its pod \
             to an address and port where the API server listens"
        );
    }
    Ok(config)
}

/// Whether this host is the ClusterIP of the Service `kubernetes`. The kubelet tells every pod twice: once as the host,
/// which a manifest may set to something else, and once as `tcp://ADDRESS:PORT`, which nobody touches.
fn is_cluster_ip(host: &str, told: &str) -> bool {
    let socket = told.strip_prefix("tcp://").unwrap_or_default();
    let address = socket.rsplit_once(':').map_or("", |(address, _)| address);
    !host.is_empty() && address.trim_matches(['[', ']']) == host
}

async fn from_file(path: PathBuf) -> Result<Config, SourceError> {
    let named = path.display().to_string();
    let wrap = |source| SourceError::Kubeconfig {
        path: named.clone(),
        source: Box::new(source),
    };
    let file = Kubeconfig::read_from(path).map_err(wrap)?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(wrap)
}

fn resource(group: &str, kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", kind), plural)
}

impl Source for Kube {
    fn describe(&self) -> String {
        format!("the API server {}", self.server)
    }

    fn run(self: Box<Self>, changes: mpsc::Sender<Changes>) -> BoxFuture<'static, Result<(), SourceError>> {
        Box::pin(async move {
            let [nodes, services, slices] = self.watches();
            tokio::join!(
                nodes.run(changes.clone()),
                services.run(changes.clone()),
                slices.run(changes),
            );
            Ok(())
        })
    }
}

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
