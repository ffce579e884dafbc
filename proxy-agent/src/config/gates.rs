//! Feature gates: kube-proxy's switches, as far as they switch something here.

use std::str::FromStr;

use serde_json::Value;

/// Whether `spec.externalIPs` are served (KEP-5707); on by default, as in Kubernetes 1.36.
pub(super) const EXTERNAL_IPS: &str = "AllowServiceExternalIPs";

/// One gate, as a flag has it: `NAME=true` or `NAME=false`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    name: String,
    on: bool,
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("write {EXTERNAL_IPS}=true or {EXTERNAL_IPS}=false; weir has no other gate");
        let (name, value) = text.split_once('=').ok_or_else(wrong)?;
        let on = value.parse().map_err(|_| wrong())?;
        if name != EXTERNAL_IPS {
            return Err(wrong());
        }
        Ok(Self {
            name: name.to_owned(),
            on,
        })
    }
}

impl Gate {
    /// What the last of the flags says about a gate.
    pub(super) fn last(gates: &[Self], name: &str) -> Option<bool> {
        let said = gates.iter().rev().find(|gate| gate.name == name);
        said.map(|gate| gate.on)
    }
}

/// Whether the file sets gates that switch nothing here.
pub(super) fn others(gates: &Value) -> bool {
    let names = gates.as_object().into_iter().flat_map(|gates| gates.keys());
    names.into_iter().any(|name| name != EXTERNAL_IPS)
}
