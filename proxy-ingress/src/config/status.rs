//! Flags about what the status of Ingresses says.

use clap::Args;
use proxy_model::IpOrHost;

use super::SecretName;

/// What the status of Ingresses says.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Status of Ingresses")]
pub struct StatusFlags {
    /// The Service that clients come by: its load balancer's addresses, or else its own
    #[arg(long, value_name = "NAMESPACE/NAME", group = "publish")]
    pub publish_service: Option<SecretName>,
    /// Addresses or names that clients come by; with commas, or repeated
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', group = "publish")]
    pub publish_address: Vec<IpOrHost>,
    /// The Service of weir-ingress itself: the addresses of the nodes that its pods run on
    #[arg(long, value_name = "NAMESPACE/NAME", group = "publish")]
    pub publish_nodes: Option<SecretName>,
    /// The Lease by which one of several is chosen to write it
    #[arg(long, value_name = "NAME", default_value = "weir-ingress")]
    pub lease_name: String,
    /// The namespace of the Lease
    #[arg(
        long,
        value_name = "NAMESPACE",
        env = "POD_NAMESPACE",
        default_value = "kube-system"
    )]
    pub pod_namespace: String,
    /// Who wants it, and writes Events: on a host's network, two pods have the host's name [default: the host's name]
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
}
