//! What an Ingress has to know of a Service: its ports by name and number. Headless ones have them too.

use proxy_common::Protocol;
use proxy_model::Family;
use proxy_model::address;
use proxy_model::api::{ApiService, IngressServiceBackend, ServicePort};
use proxy_model::service::{read_port_number, read_protocol};

use crate::route::UpstreamProtocol;

/// A Service, as a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// It is another name, and has no endpoints.
    pub external_name: bool,
    /// The family of its first address.
    pub family: Family,
    /// Its ports.
    pub ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Its name; empty if it has none.
    pub name: Box<str>,
    /// Its number.
    pub number: u16,
    /// Whether it is TCP.
    pub tcp: bool,
    /// What is spoken there.
    pub protocol: Option<UpstreamProtocol>,
}

/// What `appProtocol` says of what is spoken; none for a word that says nothing to us.
pub fn spoken(app_protocol: &str) -> Option<UpstreamProtocol> {
    match app_protocol.to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" | "ws" => Some(UpstreamProtocol::Http1),
        "kubernetes.io/h2c" | "h2c" | "grpc" => Some(UpstreamProtocol::H2c),
        "https" | "kubernetes.io/wss" | "wss" | "grpcs" => Some(UpstreamProtocol::Https),
        _ => None,
    }
}

impl Service {
    /// What the object says.
    pub fn read(object: &ApiService) -> Self {
        let spec = object.spec.clone().unwrap_or_default();
        let first = spec
            .ip_families
            .iter()
            .flatten()
            .next()
            .map(|word| word == "IPv6");
        let address = spec.cluster_ip.as_deref().and_then(address::parse);
        let v6 = first.or(address.map(|ip| !ip.is_v4())).unwrap_or(false);
        Self {
            external_name: spec.kind.as_deref() == Some("ExternalName"),
            family: if v6 { Family::V6 } else { Family::V4 },
            ports: spec.ports.iter().flatten().filter_map(read_port).collect(),
        }
    }

    /// The name of the port that a backend means; in words, if it means none.
    pub fn port(&self, backend: &IngressServiceBackend) -> Result<Box<str>, String> {
        let port = backend.port.clone().unwrap_or_default();
        let name = port.name.filter(|name| !name.is_empty());
        let number = port.number.filter(|number| *number != 0);
        let found = match (&name, number) {
            (Some(_), Some(_)) => {
                return Err("backend has a port name and a port number: write one".to_owned());
            }
            (None, None) => return Err("backend has no port: write service.port.number or .name".to_owned()),
            (Some(name), None) => self.ports.iter().find(|port| *port.name == **name),
            (None, Some(number)) => {
                let mut same = self.ports.iter().filter(|port| i64::from(port.number) == number);
                // A number may be there for UDP too.
                same.clone().find(|port| port.tcp).or(same.next())
            }
        };
        let asked = || {
            name.clone().map_or_else(
                || number.unwrap_or_default().to_string(),
                |name| format!("{name:?}"),
            )
        };
        match found {
            Some(port) if port.tcp => Ok(port.name.clone()),
            Some(_) => Err(format!("port {} is not TCP: choose another", asked())),
            None => Err(format!("it has no port {}: it has {}", asked(), self.list())),
        }
    }

    /// What is spoken at a port.
    pub fn protocol(&self, port: &str) -> Option<UpstreamProtocol> {
        self.ports
            .iter()
            .find(|known| *known.name == *port && known.tcp)?
            .protocol
    }

    fn list(&self) -> String {
        let port = |port: &Port| match &*port.name {
            "" => port.number.to_string(),
            name => format!("{} ({name:?})", port.number),
        };
        let ports: Vec<String> = self.ports.iter().map(port).collect();
        if ports.is_empty() {
            "none".to_owned()
        } else {
            ports.join(", ")
        }
    }
}

/// What is wrong with a port is told by who serves its ClusterIP; here it is not there.
fn read_port(port: &ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.as_deref().unwrap_or_default().into(),
        number: read_port_number(port.port)?,
        tcp: read_protocol(port.protocol.as_deref()).ok()? == Protocol::Tcp,
        protocol: port.app_protocol.as_deref().and_then(spoken),
    })
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::needless_pass_by_value,
        reason = "what json! makes is handed in as it is"
    )]

    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        Service::read(&serde_json::from_value(json!({"spec": spec})).unwrap())
    }

    fn port(service: &Service, port: Value) -> Result<Box<str>, String> {
        service.port(&serde_json::from_value(json!({"name": "web", "port": port})).unwrap())
    }

    #[test]
    fn a_port_is_found_by_name_or_number() {
        let service = service(json!({"ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53},
            {"name": "http", "port": 80, "targetPort": "web"}, {"name": "bad", "port": 99_999},
        ]}));
        let found =
            |by| port(&service, by).map_err(|words| words.split(':').next().unwrap_or_default().to_owned());
        assert_eq!(found(json!({"number": 80})), Ok("http".into()));
        assert_eq!(found(json!({"name": "http"})), Ok("http".into()));
        assert_eq!(found(json!({"number": 53})), Ok("dns-tcp".into()));
        assert_eq!(
            found(json!({"name": "dns"})),
            Err("port \"dns\" is not TCP".into())
        );
        assert_eq!(found(json!({"number": 81})), Err("it has no port 81".into()));
        assert_eq!(
            found(json!({"name": "bad"})),
            Err("it has no port \"bad\"".into())
        );
        assert_eq!(
            found(json!({"name": "http", "number": 80})),
            Err("backend has a port name and a port number".into())
        );
        assert_eq!(found(json!({})), Err("backend has no port".into()));
        let words = port(&service, json!({"number": 8080})).unwrap_err();
        assert!(
            words.ends_with("it has 53 (\"dns\"), 53 (\"dns-tcp\"), 80 (\"http\")"),
            "{words}"
        );
    }

    #[test]
    fn a_port_without_a_name_has_the_empty_one() {
        let service = service(json!({"ports": [{"port": 80}]}));
        assert_eq!(port(&service, json!({"number": 80})), Ok("".into()));
    }

    #[test]
    fn app_protocol_says_what_is_spoken() {
        let ports = json!([{"name": "a", "port": 1, "appProtocol": "kubernetes.io/h2c"},
            {"name": "b", "port": 2, "appProtocol": "HTTPS"}, {"name": "c", "port": 3, "appProtocol": "kubernetes.io/ws"},
            {"name": "d", "port": 4, "appProtocol": "example.com/x"}, {"name": "e", "port": 5}]);
        let service = service(json!({"ports": ports}));
        let spoken = ["a", "b", "c", "d", "e"].map(|name| service.protocol(name));
        let (h2c, https, http) = (
            UpstreamProtocol::H2c,
            UpstreamProtocol::Https,
            UpstreamProtocol::Http1,
        );
        assert_eq!(spoken, [Some(h2c), Some(https), Some(http), None, None]);
    }

    #[test]
    fn the_first_family_is_the_services() {
        let table = [
            (json!({}), Family::V4),
            (json!({"clusterIP": "fd00::1"}), Family::V6),
            (
                json!({"clusterIP": "None", "ipFamilies": ["IPv6", "IPv4"]}),
                Family::V6,
            ),
            (
                json!({"clusterIP": "10.0.0.1", "ipFamilies": ["IPv4", "IPv6"]}),
                Family::V4,
            ),
        ];
        for (spec, family) in table {
            assert_eq!(service(spec.clone()).family, family, "{spec}");
        }
        assert!(service(json!({"type": "ExternalName", "externalName": "x"})).external_name);
    }
}
