//! Whose address endpoints see, and who is a pod of this node: kube-proxy's `masqueradeAll` and `detectLocalMode`.

use clap::{Args, ValueEnum};
use proxy_model::{Masquerade, PodRanges, PodRangesError};
use serde_json::Value;

use super::kube_proxy::{Mistake, word};
use crate::kernel::PodInterfaces;

/// A name that is longer is no interface's (`IFNAMSIZ`).
const LONGEST_NAME: usize = 15;

/// Flags about the sources of connections.
#[derive(Debug, Clone, Default, Args)]
pub struct MasqueradeFlags {
    /// Whether endpoints behind a ClusterIP see this node's address and not their client's [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub masquerade_all: Option<bool>,
    /// Whether endpoints do behind node ports, load balancers' addresses and external IPs too, where externalTrafficPolicy
    /// is Cluster: as with kube-proxy
    #[arg(long)]
    pub masquerade_external: bool,
    /// How pods of this node are told from others that come in where pods do [default: `ClusterCIDR`]
    #[arg(long, value_enum, value_name = "MODE")]
    pub detect_local_mode: Option<LocalMode>,
    /// Range of all pods' addresses, or one of IPv4 and one of IPv6; for `ClusterCIDR`
    #[arg(long, value_name = "RANGE", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// Bridge that pods are on; for `BridgeInterface`
    #[arg(long, value_name = "NAME")]
    pub pod_bridge_interface: Option<String>,
    /// What names of pods' interfaces begin with; for `InterfaceNamePrefix`
    #[arg(long, value_name = "PREFIX")]
    pub pod_interface_name_prefix: Option<String>,
}

/// How pods of this node are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LocalMode {
    /// By an address in --cluster-cidr; all are pods if there is none
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// By an address in one of the Node's podCIDRs
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// By the bridge --pod-bridge-interface
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// By an interface or bridge whose name begins with --pod-interface-name-prefix
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

/// What the file says about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MasqueradeFields {
    /// `masqueradeAll` of the mode.
    pub masquerade_all: Option<bool>,
    /// `detectLocalMode`
    pub detect_local_mode: Option<LocalMode>,
    /// `clusterCIDR`
    pub cluster_cidr: Option<String>,
    /// `detectLocal.bridgeInterface`
    pub bridge_interface: Option<String>,
    /// `detectLocal.interfaceNamePrefix`
    pub interface_name_prefix: Option<String>,
}

/// What flags and file say together.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// Whose address endpoints see.
    pub masquerade: Masquerade,
    /// Which addresses are pods'.
    pub pod_ranges: PodRanges,
    /// Which interfaces are pods'.
    pub pod_interfaces: Option<PodInterfaces>,
}

/// It cannot be told who is a pod.
#[derive(Debug, thiserror::Error)]
pub enum LocalModeError {
    /// Not ranges.
    #[error("{named_by}: {error}")]
    Ranges {
        /// The flag, or the field of the file.
        named_by: &'static str,
        /// Why.
        error: PodRangesError,
    },
    /// A mode without what it goes by.
    #[error(
        "--detect-local-mode {mode} needs {what}: give it with {flag}, or {field} in the file of --config"
    )]
    Missing {
        /// The mode.
        mode: &'static str,
        /// What is missing.
        what: &'static str,
        /// The flag.
        flag: &'static str,
        /// The field of the file.
        field: &'static str,
    },
    /// No interface has such a name.
    #[error(
        "{name:?} is longer than the 15 letters of an interface's name: correct {flag}, or {field} in the file of --config"
    )]
    TooLong {
        /// The name.
        name: String,
        /// The flag.
        flag: &'static str,
        /// The field of the file.
        field: &'static str,
    },
}

impl MasqueradeFields {
    pub(super) fn read(root: &Value) -> Result<Self, Mistake> {
        // The mode's own field, as kube-proxy reads it.
        let all = match word(root, "/mode") {
            Some("nftables") => "/nftables/masqueradeAll",
            _ => "/iptables/masqueradeAll",
        };
        let text = |pointer| word(root, pointer).map(str::to_owned);
        let mode = word(root, "/detectLocalMode");
        let mode = mode.map(|word| {
            LocalMode::from_str(word, false).map_err(|_| Mistake::LocalMode {
                found: word.to_owned(),
            })
        });
        Ok(Self {
            masquerade_all: root.pointer(all).and_then(Value::as_bool),
            detect_local_mode: mode.transpose()?,
            cluster_cidr: text("/clusterCIDR"),
            bridge_interface: text("/detectLocal/bridgeInterface"),
            interface_name_prefix: text("/detectLocal/interfaceNamePrefix"),
        })
    }
}

impl MasqueradeFlags {
    /// A flag wins over the file. What the mode does not go by is not looked at, as with kube-proxy.
    pub(super) fn over(&self, file: MasqueradeFields) -> Result<Sources, LocalModeError> {
        let mut sources = Sources {
            masquerade: Masquerade {
                all: self.masquerade_all.or(file.masquerade_all).unwrap_or_default(),
                external: self.masquerade_external,
            },
            ..Sources::default()
        };
        match self.detect_local_mode.or(file.detect_local_mode) {
            None | Some(LocalMode::ClusterCidr) => {
                sources.pod_ranges = self.cluster_ranges(file.cluster_cidr)?;
            }
            Some(LocalMode::NodeCidr) => sources.pod_ranges = PodRanges::OfNode,
            Some(LocalMode::BridgeInterface) => {
                let wanted = Wanted {
                    mode: "BridgeInterface",
                    what: "the name of the pods' bridge",
                    flag: "--pod-bridge-interface",
                    field: "detectLocal.bridgeInterface",
                };
                let name = self.pod_bridge_interface.clone().or(file.bridge_interface);
                sources.pod_interfaces = Some(PodInterfaces::Bridge(wanted.name(name)?));
            }
            Some(LocalMode::InterfaceNamePrefix) => {
                let wanted = Wanted {
                    mode: "InterfaceNamePrefix",
                    what: "what the names of pods' interfaces begin with",
                    flag: "--pod-interface-name-prefix",
                    field: "detectLocal.interfaceNamePrefix",
                };
                let prefix = self.pod_interface_name_prefix.clone();
                let prefix = wanted.name(prefix.or(file.interface_name_prefix))?;
                sources.pod_interfaces = Some(PodInterfaces::Prefix(prefix));
            }
        }
        Ok(sources)
    }

    fn cluster_ranges(&self, of_file: Option<String>) -> Result<PodRanges, LocalModeError> {
        let of_flag = (!self.cluster_cidr.is_empty()).then(|| PodRanges::parse(&self.cluster_cidr));
        let of_file = || of_file.map(|text| PodRanges::parse(&text.split(',').collect::<Vec<_>>()));
        let (named_by, parsed) = match of_flag {
            Some(parsed) => ("--cluster-cidr", Some(parsed)),
            None => ("clusterCIDR in the file of --config", of_file()),
        };
        parsed
            .unwrap_or(Ok(PodRanges::default()))
            .map_err(|error| LocalModeError::Ranges { named_by, error })
    }
}

/// What a mode goes by.
struct Wanted {
    mode: &'static str,
    what: &'static str,
    flag: &'static str,
    field: &'static str,
}

impl Wanted {
    /// A name of an interface, or the begin of one.
    fn name(&self, name: Option<String>) -> Result<String, LocalModeError> {
        let (flag, field) = (self.flag, self.field);
        match name.filter(|name| !name.is_empty()) {
            None => Err(LocalModeError::Missing {
                mode: self.mode,
                what: self.what,
                flag,
                field,
            }),
            Some(name) if name.len() > LONGEST_NAME => Err(LocalModeError::TooLong { name, flag, field }),
            Some(name) => Ok(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::kube_proxy::KubeProxyConfiguration;
    use crate::config::{Cli, Command};
    use clap::Parser;

    fn settle(flags: &str, file: &str) -> Result<Sources, String> {
        let line = format!("weir agent --node-name a {flags}");
        let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        let Command::Agent(flags) = cli.command else {
            panic!("{line}");
        };
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let file =
            KubeProxyConfiguration::parse(&format!("{head}{file}")).map_err(|error| error.to_string())?;
        flags
            .masquerade
            .over(file.masquerade)
            .map_err(|error| error.to_string())
    }

    fn ranges(list: &[&str]) -> PodRanges {
        PodRanges::parse(list).unwrap()
    }

    #[test]
    fn nothing_is_masqueraded_that_need_not_be_unless_somebody_says_so() {
        assert_eq!(settle("", ""), Ok(Sources::default()));
        let all = |flags, file| settle(flags, file).unwrap().masquerade.all;
        assert!(all("--masquerade-all", ""));
        assert!(all("", "iptables: {masqueradeAll: true}"));
        assert!(all("", "mode: nftables\nnftables: {masqueradeAll: true}"));
        assert!(!all("", "mode: nftables\niptables: {masqueradeAll: true}"));
        assert!(!all("--masquerade-all=false", "iptables: {masqueradeAll: true}"));
        assert!(settle("--masquerade-external", "").unwrap().masquerade.external);
    }

    #[test]
    fn pods_are_known_by_what_the_mode_goes_by() {
        let flags = "--cluster-cidr 10.244.0.0/16,fd00:10::/56";
        let both = ranges(&["10.244.0.0/16", "fd00:10::/56"]);
        assert_eq!(settle(flags, "").unwrap().pod_ranges, both);
        let file = "clusterCIDR: 10.244.0.0/16,fd00:10::/56";
        assert_eq!(settle("", file).unwrap().pod_ranges, both);
        assert_eq!(
            settle("--cluster-cidr 10.0.0.0/8", file).unwrap().pod_ranges,
            ranges(&["10.0.0.0/8"])
        );
        let node = settle("--detect-local-mode NodeCIDR", file).unwrap();
        assert_eq!((node.pod_ranges, node.pod_interfaces), (PodRanges::OfNode, None));
        let bridge = settle(
            "",
            "detectLocalMode: BridgeInterface\ndetectLocal: {bridgeInterface: cni0}",
        )
        .unwrap();
        assert_eq!(
            bridge.pod_interfaces,
            Some(PodInterfaces::Bridge("cni0".to_owned()))
        );
        assert_eq!(bridge.pod_ranges, PodRanges::Everything);
        let prefix = "--detect-local-mode InterfaceNamePrefix --pod-interface-name-prefix cali";
        let prefix = settle(prefix, "detectLocal: {interfaceNamePrefix: lxc}").unwrap();
        assert_eq!(
            prefix.pod_interfaces,
            Some(PodInterfaces::Prefix("cali".to_owned()))
        );
    }

    #[test]
    fn mistakes_say_what_to_do() {
        let prefix = "--detect-local-mode InterfaceNamePrefix";
        for (flags, file, said) in [
            (
                "--cluster-cidr 10.244.0.0",
                "",
                "--cluster-cidr: \"10.244.0.0\" is not a range such as",
            ),
            (
                "",
                "clusterCIDR: 10.0.0.0/8,10.1.0.0/16",
                "clusterCIDR in the file of --config: 10.0.0.0/8 and",
            ),
            (
                "--detect-local-mode Any",
                "",
                "possible values: ClusterCIDR, NodeCIDR, BridgeInterface",
            ),
            (
                "",
                "detectLocalMode: Any",
                "detectLocalMode is \"Any\", and must be ClusterCIDR, NodeCIDR,",
            ),
            (
                "--detect-local-mode BridgeInterface",
                "",
                "give it with --pod-bridge-interface, or detectLocal.",
            ),
            (
                prefix,
                "detectLocal: {interfaceNamePrefix: ''}",
                "give it with --pod-interface-name-prefix",
            ),
            (
                prefix,
                "detectLocal: {interfaceNamePrefix: sixteen-letters-}",
                "longer than the 15 letters",
            ),
        ] {
            let error = settle(flags, file).unwrap_err();
            assert!(error.contains(said), "{flags} {file}: {error}");
        }
    }
}
