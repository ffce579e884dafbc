//! `--config FILE`: a `KubeProxyConfiguration`, such as the key `config.conf` of kubeadm's ConfigMap `kube-proxy`.
//!
//! Every field is known by name, type and what weir makes of it (`fields.rs`). What weir uses must be right; what has
//! no meaning here is named, once, so that nobody believes it had one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use proxy_daemon::http::{BindAddress, BindAddressError};
use proxy_model::{NodePortAddresses, NodePortAddressesError};
use serde_json::Value;

use super::fields::{FIELDS, Field, Form};
use super::gates;
use super::masquerade::MasqueradeFields;

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// What weir takes from the file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KubeProxyConfiguration {
    /// `hostnameOverride`
    pub hostname_override: Option<String>,
    /// `clientConnection.kubeconfig`
    pub kubeconfig: Option<PathBuf>,
    /// `bindAddress`, which decides where metrics are answered by default.
    pub bind_address: Option<BindAddress>,
    /// `healthzBindAddress`
    pub healthz_bind_address: Option<BindAddress>,
    /// `metricsBindAddress`
    pub metrics_bind_address: Option<BindAddress>,
    /// `nodePortAddresses`
    pub node_port_addresses: Option<NodePortAddresses>,
    /// `iptables.localhostNodePorts`
    pub localhost_node_ports: Option<bool>,
    /// `featureGates.AllowServiceExternalIPs`
    pub external_ips: Option<bool>,
    /// `masqueradeAll`, `detectLocalMode` and what goes with them.
    pub masquerade: MasqueradeFields,
    /// Fields that are set and have no meaning here.
    pub without_meaning: Vec<String>,
    /// Fields that nobody knows: a newer kube-proxy's, or a slip.
    pub unknown: Vec<String>,
}

/// The file is no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigurationError {
    /// Not there, not readable.
    #[error("cannot read {path}: check the file given with --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}: {mistake}; correct the file given with --config")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What.
        #[source]
        mistake: Mistake,
    },
}

/// What is wrong in a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Mistake {
    /// No YAML.
    #[error("it is no YAML: {0}")]
    Yaml(String),
    /// Some other object.
    #[error("{field} is {found}, and weir reads {wanted}{hint}")]
    Other {
        /// `apiVersion` or `kind`.
        field: &'static str,
        /// As it is.
        found: String,
        /// As it should be.
        wanted: &'static str,
        /// What may help.
        hint: &'static str,
    },
    /// A value of another type.
    #[error("{field} must be {wanted}, and is {found}")]
    Type {
        /// The field, with dots.
        field: String,
        /// A word for the type.
        wanted: &'static str,
        /// The value.
        found: String,
    },
    /// No address.
    #[error("{field} is {found:?}, which is no address: {wanted}")]
    Address {
        /// The field.
        field: &'static str,
        /// The value.
        found: String,
        /// What to write.
        wanted: &'static str,
    },
    /// No mode.
    #[error(
        "detectLocalMode is {found:?}, and must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix"
    )]
    LocalMode {
        /// The value.
        found: String,
    },
    /// No ranges.
    #[error("nodePortAddresses: {0}")]
    NodePortAddresses(#[from] NodePortAddressesError),
}

impl KubeProxyConfiguration {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ConfigurationError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigurationError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|mistake| ConfigurationError::Wrong {
            path: path.to_owned(),
            mistake,
        })
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let root: Value = serde_saphyr::from_str(text).map_err(|error| {
            Mistake::Yaml(error.to_string().lines().next().unwrap_or_default().to_owned())
        })?;
        is_ours(&root)?;
        let mut found = Self::default();
        found.sort_fields("", &root)?;
        found.without_meaning.sort();
        found.unknown.sort();
        found.hostname_override = word(&root, "/hostnameOverride").map(|name| name.trim().to_lowercase());
        found.kubeconfig = word(&root, "/clientConnection/kubeconfig").map(PathBuf::from);
        found.bind_address = address(&root, "bindAddress", "write ADDRESS, such as 0.0.0.0 or ::")?;
        let (healthz, metrics) = (
            "write ADDRESS:PORT, such as 0.0.0.0:10256; without it, that is the default",
            "write ADDRESS:PORT, such as 127.0.0.1:10249; without it, that is the default",
        );
        found.healthz_bind_address = address(&root, "healthzBindAddress", healthz)?;
        found.metrics_bind_address = address(&root, "metricsBindAddress", metrics)?;
        found.node_port_addresses = node_port_addresses(&root)?;
        found.localhost_node_ports = root
            .pointer("/iptables/localhostNodePorts")
            .and_then(Value::as_bool);
        found.external_ips = gate(&root, gates::EXTERNAL_IPS)?;
        found.masquerade = MasqueradeFields::read(&root)?;
        Ok(found)
    }

    /// One line about what was set in vain, if anything was.
    pub fn warning(&self, path: &Path) -> Option<String> {
        let part = |what: &str, fields: &[String]| {
            (!fields.is_empty()).then(|| format!("{what}: {}", fields.join(", ")))
        };
        let parts: Vec<String> = part("no meaning for weir", &self.without_meaning)
            .into_iter()
            .chain(part("not known to weir", &self.unknown))
            .collect();
        (!parts.is_empty()).then(|| {
            let path = path.display();
            format!(
                "{path} sets fields that change nothing ({}); docs/configuration.md says why",
                parts.join("; ")
            )
        })
    }

    /// Checks the type of each field, and remembers those that were set in vain.
    fn sort_fields(&mut self, above: &str, part: &Value) -> Result<(), Mistake> {
        for (name, value) in part.as_object().into_iter().flatten() {
            let name = format!("{above}{name}");
            let below = format!("{name}.");
            match FIELDS.iter().find(|field| field.name == name) {
                Some(field) => self.judge(field, value)?,
                None if FIELDS.iter().any(|field| field.name.starts_with(&below)) => {
                    expect(&name, Form::Object, value)?;
                    self.sort_fields(&below, value)?;
                }
                None if says_nothing(value) => {}
                None => self.unknown.push(name),
            }
        }
        Ok(())
    }

    fn judge(&mut self, field: &Field, value: &Value) -> Result<(), Mistake> {
        expect(field.name, field.form, value)?;
        let in_vain = match field.name {
            "bindAddress" => !matches!(value.as_str(), Some("0.0.0.0" | "::")),
            "featureGates" => gates::others(value),
            _ => !field.used,
        };
        if in_vain && !says_nothing(value) {
            self.without_meaning.push(field.name.to_owned());
        }
        Ok(())
    }
}

/// What the file says about a gate of ours.
fn gate(root: &Value, name: &str) -> Result<Option<bool>, Mistake> {
    let Some(value) = root.get("featureGates").and_then(|gates| gates.get(name)) else {
        return Ok(None);
    };
    expect(&format!("featureGates.{name}"), Form::Bool, value)?;
    Ok(value.as_bool())
}

fn is_ours(root: &Value) -> Result<(), Mistake> {
    let Some(fields) = root.as_object() else {
        return Err(Mistake::Type {
            field: "the document".to_owned(),
            wanted: Form::Object.words(),
            found: short(root),
        });
    };
    let hint = if fields.get("kind").and_then(Value::as_str) == Some("ConfigMap") {
        ": write the text under its key config.conf into a file of its own, or mount the ConfigMap"
    } else {
        ""
    };
    for (field, wanted) in [("kind", KIND), ("apiVersion", API_VERSION)] {
        let found = fields.get(field).unwrap_or(&Value::Null);
        if found != wanted {
            return Err(Mistake::Other {
                field,
                found: short(found),
                wanted,
                hint,
            });
        }
    }
    Ok(())
}

fn expect(name: &str, form: Form, value: &Value) -> Result<(), Mistake> {
    if value.is_null() || form.fits(value) {
        return Ok(());
    }
    Err(Mistake::Type {
        field: name.to_owned(),
        wanted: form.words(),
        found: short(value),
    })
}

/// Whether a value is what Kubernetes writes for a field that nobody set.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => matches!(text.as_str(), "" | "0" | "0s"),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.values().all(says_nothing),
    }
}

/// A text that says something.
pub(super) fn word<'r>(root: &'r Value, pointer: &str) -> Option<&'r str> {
    root.pointer(pointer)?.as_str().filter(|text| !text.is_empty())
}

/// Empty means the default here, unlike in a flag: as with kube-proxy.
fn address(root: &Value, field: &'static str, wanted: &'static str) -> Result<Option<BindAddress>, Mistake> {
    let found = word(root, &format!("/{field}"));
    let read = |text: &str| {
        text.parse().map_err(|BindAddressError| Mistake::Address {
            field,
            found: text.to_owned(),
            wanted,
        })
    };
    found.map(read).transpose()
}

fn node_port_addresses(root: &Value) -> Result<Option<NodePortAddresses>, Mistake> {
    let list = root.get("nodePortAddresses").and_then(Value::as_array);
    let texts: Vec<&str> = list.into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() {
        return Ok(None);
    }
    Ok(Some(NodePortAddresses::parse(&texts)?))
}

/// A value on one short line.
fn short(value: &Value) -> String {
    match value {
        Value::Null => "not there".to_owned(),
        Value::Object(_) => "a group of fields".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
