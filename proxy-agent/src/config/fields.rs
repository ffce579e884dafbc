//! Every field of a `KubeProxyConfiguration` (v1alpha1, Kubernetes 1.36, and the older ones that clusters still carry),
//! and what weir makes of it. docs/configuration.md has the same table.

use serde_json::Value;

/// What a field may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    Text,
    Number,
    Bool,
    /// A list of texts.
    List,
    Object,
}

impl Form {
    pub(super) fn fits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Bool => value.is_boolean(),
            Self::List => value
                .as_array()
                .is_some_and(|list| list.iter().all(Value::is_string)),
            Self::Object => value.is_object(),
        }
    }

    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Text => "a text (in quotes, if it looks like a number)",
            Self::Number => "a number",
            Self::Bool => "true or false",
            Self::List => "a list of texts",
            Self::Object => "a group of fields",
        }
    }
}

/// One field.
#[derive(Debug)]
pub(super) struct Field {
    /// With dots.
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// Whether weir acts on it.
    pub(super) used: bool,
    /// What weir does instead, or with it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the table in docs/configuration.md")
    )]
    pub(super) what: &'static str,
}

const fn used(name: &'static str, form: Form, what: &'static str) -> Field {
    Field {
        name,
        form,
        used: true,
        what,
    }
}

const fn unused(name: &'static str, form: Form, what: &'static str) -> Field {
    Field {
        name,
        form,
        used: false,
        what,
    }
}

const CONNTRACK: &str = "weir keeps its own table of connections and leaves the kernel's alone";
const MASQUERADE: &str = "weir sets no marks";
const NO_RULES: &str = "weir writes no rules: a change is one row, written at once";
const IPVS: &str = "weir is not IPVS";
const WINDOWS: &str = "weir runs on Linux";

pub(super) const FIELDS: &[Field] = &[
    used(
        "apiVersion",
        Form::Text,
        "must be `kubeproxy.config.k8s.io/v1alpha1`",
    ),
    used("kind", Form::Text, "must be `KubeProxyConfiguration`"),
    used(
        "bindAddress",
        Form::Text,
        "`::` moves the default of `metricsBindAddress` to `[::1]:10249`; any other address has no meaning: the Node's addresses are read from the Node",
    ),
    unused(
        "bindAddressHardFail",
        Form::Bool,
        "a taken port is a warning, and tried again: Services are served all the same",
    ),
    used("clientConnection.kubeconfig", Form::Text, "as `--kubeconfig`"),
    unused(
        "clientConnection.acceptContentTypes",
        Form::Text,
        "weir reads JSON",
    ),
    unused("clientConnection.contentType", Form::Text, "weir reads JSON"),
    unused(
        "clientConnection.qps",
        Form::Number,
        "weir makes three requests and keeps them open",
    ),
    unused(
        "clientConnection.burst",
        Form::Number,
        "weir makes three requests and keeps them open",
    ),
    used("clusterCIDR", Form::Text, "as `--cluster-cidr`"),
    unused(
        "configSyncPeriod",
        Form::Text,
        "weir never reads again what it has been told",
    ),
    unused("conntrack.max", Form::Number, CONNTRACK),
    unused("conntrack.maxPerCore", Form::Number, CONNTRACK),
    unused("conntrack.min", Form::Number, CONNTRACK),
    unused("conntrack.tcpBeLiberal", Form::Bool, CONNTRACK),
    unused("conntrack.tcpCloseWaitTimeout", Form::Text, CONNTRACK),
    unused("conntrack.tcpEstablishedTimeout", Form::Text, CONNTRACK),
    unused("conntrack.udpStreamTimeout", Form::Text, CONNTRACK),
    unused("conntrack.udpTimeout", Form::Text, CONNTRACK),
    used(
        "detectLocal.bridgeInterface",
        Form::Text,
        "as `--pod-bridge-interface`",
    ),
    used(
        "detectLocal.interfaceNamePrefix",
        Form::Text,
        "as `--pod-interface-name-prefix`",
    ),
    used("detectLocalMode", Form::Text, "as `--detect-local-mode`"),
    unused("enableProfiling", Form::Bool, "there is no profile over HTTP"),
    used(
        "featureGates",
        Form::Object,
        "`AllowServiceExternalIPs` as `--feature-gates`; the others are kube-proxy's",
    ),
    used(
        "healthzBindAddress",
        Form::Text,
        "as `--healthz-bind-address`; empty means the default",
    ),
    used("hostnameOverride", Form::Text, "as `--node-name`"),
    used(
        "iptables.localhostNodePorts",
        Form::Bool,
        "`false` as `--iptables-localhost-nodeports=false`",
    ),
    used(
        "iptables.masqueradeAll",
        Form::Bool,
        "as `--masquerade-all`, if `mode` is not `nftables`",
    ),
    unused("iptables.masqueradeBit", Form::Number, MASQUERADE),
    unused("iptables.minSyncPeriod", Form::Text, NO_RULES),
    unused("iptables.syncPeriod", Form::Text, NO_RULES),
    unused("ipvs.excludeCIDRs", Form::List, IPVS),
    unused("ipvs.minSyncPeriod", Form::Text, IPVS),
    unused("ipvs.scheduler", Form::Text, "weir balances round robin"),
    unused(
        "ipvs.strictARP",
        Form::Bool,
        "weir puts no Service address on an interface",
    ),
    unused("ipvs.syncPeriod", Form::Text, IPVS),
    unused("ipvs.tcpFinTimeout", Form::Text, IPVS),
    unused("ipvs.tcpTimeout", Form::Text, IPVS),
    unused("ipvs.udpTimeout", Form::Text, IPVS),
    unused("logging", Form::Object, "see `--log` and `--log-format`"),
    used(
        "metricsBindAddress",
        Form::Text,
        "as `--metrics-bind-address`; empty means the default",
    ),
    unused("mode", Form::Text, "weir is the mode"),
    used(
        "nftables.masqueradeAll",
        Form::Bool,
        "as `--masquerade-all`, if `mode` is `nftables`",
    ),
    unused("nftables.masqueradeBit", Form::Number, MASQUERADE),
    unused("nftables.minSyncPeriod", Form::Text, NO_RULES),
    unused("nftables.syncPeriod", Form::Text, NO_RULES),
    used("nodePortAddresses", Form::List, "as `--nodeport-addresses`"),
    unused("oomScoreAdj", Form::Number, "set it where the process is started"),
    unused("portRange", Form::Text, "kube-proxy ignores it too"),
    unused("showHiddenMetricsForVersion", Form::Text, "weir hides no metric"),
    unused("udpIdleTimeout", Form::Text, "kube-proxy ignores it too"),
    unused("windowsRunAsService", Form::Bool, WINDOWS),
    unused("winkernel", Form::Object, WINDOWS),
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn table() -> String {
        let mut table = "| field | used | what weir does |\n|---|---|---|\n".to_owned();
        for field in FIELDS {
            let used = if field.used { "yes" } else { "" };
            writeln!(table, "| `{}` | {used} | {} |", field.name, field.what).unwrap();
        }
        table
    }

    #[test]
    fn the_page_has_this_table() {
        let page = include_str!("../../../docs/configuration.md");
        let table = table();
        assert!(
            page.contains(&table),
            "put this table into docs/configuration.md:\n{table}"
        );
    }

    #[test]
    fn a_field_is_either_a_value_or_a_group() {
        for field in FIELDS {
            let below = format!("{}.", field.name);
            assert!(
                !FIELDS.iter().any(|other| other.name.starts_with(&below)),
                "{}",
                field.name
            );
            assert_eq!(
                FIELDS.iter().filter(|other| other.name == field.name).count(),
                1,
                "{}",
                field.name
            );
        }
    }
}
