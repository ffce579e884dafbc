//! Flags over file over defaults.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use proxy_daemon::http::BindAddress;
use proxy_model::{NodePortAddresses, NodePortAddressesError};

use super::AgentFlags;
use super::gates::{self, Gate};
use super::kube_proxy::{ConfigurationError, KubeProxyConfiguration};
use super::masquerade::{LocalModeError, Sources};
use crate::http;
use proxy_source::kube::KubeconfigFile;

/// What flags and file say together.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name of the own Node.
    pub node_name: String,
    /// The kubeconfig file; none means the service account of the pod.
    pub kubeconfig: Option<KubeconfigFile>,
    /// Which of the node's addresses serve node ports.
    pub node_port_addresses: NodePortAddresses,
    /// Whether node ports may be served at 127.0.0.1.
    pub localhost_node_ports: bool,
    /// Whether `externalIPs` are served.
    pub external_ips: bool,
    /// Whose address endpoints see, and who is a pod of this node.
    pub sources: Sources,
    /// Where questions are answered.
    pub http: http::Options,
    /// One line about what the file sets in vain.
    pub warning: Option<String>,
}

/// Flags and file do not make an agent.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// The name is asked for, not guessed: with a wrong one, no endpoint would be local, and nobody would notice.
    #[error(
        "which Node is this? give its name with --node-name, with the variable NODE_NAME, or with hostnameOverride in \
         the file given with --config"
    )]
    NodeName,
    /// Not ranges.
    #[error("--nodeport-addresses: {0}")]
    NodePortAddresses(#[from] NodePortAddressesError),
    /// Who is a pod.
    #[error(transparent)]
    LocalMode(#[from] LocalModeError),
}

impl AgentFlags {
    /// Reads the file, if one is named. A flag wins over the file.
    pub fn settle(&self) -> Result<Settings, SettingsError> {
        let file = match &self.config {
            Some(path) => KubeProxyConfiguration::read(path)?,
            None => KubeProxyConfiguration::default(),
        };
        let warning = self.config.as_deref().and_then(|path| file.warning(path));
        self.over(file, warning)
    }

    fn over(&self, file: KubeProxyConfiguration, warning: Option<String>) -> Result<Settings, SettingsError> {
        let from_flags = (!self.nodeport_addresses.is_empty())
            .then(|| NodePortAddresses::parse(&self.nodeport_addresses))
            .transpose()?;
        let node_name = self.node_name.clone().or(file.hostname_override);
        let sources = self.masquerade.over(file.masquerade)?;
        Ok(Settings {
            node_name: node_name
                .filter(|name| !name.is_empty())
                .ok_or(SettingsError::NodeName)?,
            kubeconfig: self.kubeconfig_file(file.kubeconfig),
            node_port_addresses: from_flags.or(file.node_port_addresses).unwrap_or_default(),
            localhost_node_ports: self
                .iptables_localhost_nodeports
                .or(file.localhost_node_ports)
                .unwrap_or(true),
            external_ips: Gate::last(&self.feature_gates, gates::EXTERNAL_IPS)
                .or(file.external_ips)
                .unwrap_or(true),
            sources,
            http: http::Options {
                healthz: self
                    .healthz_bind_address
                    .or(file.healthz_bind_address)
                    .unwrap_or(http::HEALTHZ),
                metrics: self
                    .metrics_bind_address
                    .or(file.metrics_bind_address)
                    .unwrap_or(metrics_default(file.bind_address)),
            },
            warning,
        })
    }

    /// What names the file goes with it: that is what to correct.
    fn kubeconfig_file(&self, of_file: Option<PathBuf>) -> Option<KubeconfigFile> {
        let by_flag = self.kubeconfig.clone().map(|path| KubeconfigFile {
            path,
            named_by: "--kubeconfig".to_owned(),
        });
        by_flag.or_else(|| {
            let config = self.config.as_ref().map(|config| config.display().to_string());
            of_file.map(|path| KubeconfigFile {
                path,
                named_by: format!("clientConnection.kubeconfig in {}", config.unwrap_or_default()),
            })
        })
    }
}

/// An IPv6 node listens on its IPv6 loopback address, as kube-proxy does.
fn metrics_default(bind_address: Option<BindAddress>) -> BindAddress {
    match bind_address {
        Some(BindAddress::At {
            ip: IpAddr::V6(_), ..
        }) => BindAddress::At {
            ip: Ipv6Addr::LOCALHOST.into(),
            port: None,
        },
        _ => http::METRICS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Cli, Command};
    use clap::Parser;

    fn settle(line: &str, file: &str) -> Result<Settings, SettingsError> {
        let Command::Agent(flags) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("{line}");
        };
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        flags.over(
            KubeProxyConfiguration::parse(&format!("{head}{file}")).unwrap(),
            None,
        )
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let file = "hostnameOverride: Node-B\nclientConnection: {kubeconfig: /file}\n\
                    healthzBindAddress: 192.0.2.1\nmetricsBindAddress: 192.0.2.1:99\nnodePortAddresses: [192.0.2.0/24]\n";
        let settled = settle("weir agent --config /etc/config.conf", file).unwrap();
        assert_eq!(settled.node_name, "node-b");
        assert_eq!(
            settled.kubeconfig,
            Some(KubeconfigFile {
                path: "/file".into(),
                named_by: "clientConnection.kubeconfig in /etc/config.conf".to_owned(),
            })
        );
        assert_eq!(settled.http.healthz.to_string(), "192.0.2.1");
        assert_eq!(settled.http.metrics.to_string(), "192.0.2.1:99");
        assert_ne!(settled.node_port_addresses, NodePortAddresses::Primary);
        assert!(settled.external_ips);
        let line = "weir agent --node-name node-a --kubeconfig /flag --healthz-bind-address= \
                    --metrics-bind-address [::1]:7 --nodeport-addresses primary";
        let settled = settle(line, file).unwrap();
        assert_eq!(settled.node_name, "node-a");
        assert_eq!(
            settled.kubeconfig,
            Some(KubeconfigFile {
                path: "/flag".into(),
                named_by: "--kubeconfig".to_owned(),
            })
        );
        assert_eq!(settled.http.healthz, BindAddress::Off);
        assert_eq!(settled.http.metrics.to_string(), "[::1]:7");
        assert_eq!(settled.node_port_addresses, NodePortAddresses::Primary);
    }

    #[test]
    fn without_anything_the_ports_are_those_of_kube_proxy() {
        let settled = settle("weir agent --node-name a", "").unwrap();
        assert_eq!(settled.http.healthz.to_string(), "0.0.0.0:10256");
        assert_eq!(settled.http.metrics.to_string(), "127.0.0.1:10249");
        let settled = settle("weir agent --node-name a", "bindAddress: '::'").unwrap();
        let at = settled.http.metrics.socket_or(http::METRICS);
        assert_eq!(at, Some("[::1]:10249".parse().unwrap()));
    }

    #[test]
    fn external_ips_have_the_switch_of_kube_proxy() {
        let off = "featureGates: {AllowServiceExternalIPs: false}";
        assert!(!settle("weir agent --node-name a", off).unwrap().external_ips);
        let on = "weir agent --node-name a --feature-gates AllowServiceExternalIPs=true";
        assert!(settle(on, off).unwrap().external_ips);
        let off = "weir agent --node-name a --feature-gates AllowServiceExternalIPs=false";
        assert!(!settle(off, "").unwrap().external_ips);
        for wrong in [
            "AllowServiceExternalIPs",
            "AllowServiceExternalIPs=yes",
            "Other=true",
        ] {
            let line = ["weir", "agent", "--feature-gates", wrong];
            assert!(Cli::try_parse_from(line).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_node_without_a_name_is_turned_away() {
        // NODE_NAME of the environment that tests run in would be a name.
        if std::env::var_os("NODE_NAME").is_none() {
            assert!(matches!(settle("weir agent", ""), Err(SettingsError::NodeName)));
        }
        assert!(matches!(
            settle("weir agent --node-name=", ""),
            Err(SettingsError::NodeName)
        ));
        let refused = settle("weir agent --node-name a --nodeport-addresses eth0", "").unwrap_err();
        assert!(
            refused.to_string().contains("--nodeport-addresses: \"eth0\""),
            "{refused}"
        );
    }
}
