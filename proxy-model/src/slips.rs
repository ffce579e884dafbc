//! Manifests that are none of ours, told apart: what somebody else reads, and what is a slip of the pen.

use serde_json::Value;

use crate::object::{DecodeError, Kind};

/// The kinds of group `v1`, without those that only answers have. `Config` is a kubeconfig file.
const CORE: [&str; 20] = [
    "Binding",
    "ComponentStatus",
    "Config",
    "ConfigMap",
    "Endpoints",
    "Event",
    "LimitRange",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "Secret",
    "Service",
    "ServiceAccount",
    "Status",
    "List",
];

/// The kinds of group `networking.k8s.io/v1`.
const NETWORKING: [&str; 5] = [
    "IPAddress",
    "Ingress",
    "IngressClass",
    "NetworkPolicy",
    "ServiceCIDR",
];

/// Whether a manifest that is not read was probably meant for who reads these kinds.
pub(crate) fn check(value: &Value, api_version: &str, word: &str, kinds: &[Kind]) -> Result<(), DecodeError> {
    let object = describe(value);
    let kind = kinds.iter().find(|kind| kind.to_string() == word);
    if api_version.is_empty() {
        let wanted = kind.map_or("the group and version of its kind", |kind| kind.api_version());
        return Err(DecodeError::NoApiVersion { object, wanted });
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    // Both were an Ingress's group; others have kinds of that name too.
    let ingress = matches!(kind, Some(Kind::Ingress | Kind::IngressClass))
        && matches!(group, "extensions" | "networking.k8s.io");
    let there: &[&str] = match group {
        "" => &CORE,
        "discovery.k8s.io" => &[],
        "networking.k8s.io" if api_version == "networking.k8s.io/v1" => &NETWORKING,
        _ if ingress => &[],
        _ => return Ok(()),
    };
    if let Some(kind) = kind {
        return Err(DecodeError::Version {
            object,
            found: api_version.to_owned(),
            wanted: kind.api_version(),
        });
    }
    let known = |word| there.contains(&word);
    if known(word) || word.strip_suffix("List").is_some_and(known) {
        return Ok(());
    }
    Err(DecodeError::UnknownKind {
        object,
        api_version: api_version.to_owned(),
        known: Kind::list(kinds),
    })
}

/// What weir does not read and another reader may want; or what it reads, and has no use for. One sentence for people.
pub fn remark(value: &Value) -> Option<String> {
    let word = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let label = |name: &str| value.get("metadata")?.get("labels")?.get(name)?.as_str();
    let (api_version, kind) = (word("/apiVersion"), word("/kind"));
    let what = match (Kind::from_words(api_version, kind), kind) {
        (Some(Kind::EndpointSlice), _) if word("/addressType") == "FQDN" => {
            "has addressType FQDN, and nobody is sent to a name: use IPv4 or IPv6".to_owned()
        }
        (Some(Kind::EndpointSlice), _) if label("kubernetes.io/service-name").is_none_or(str::is_empty) => {
            "has no label kubernetes.io/service-name, so it is no Service's: add it".to_owned()
        }
        (None, "Endpoints") if api_version == "v1" => {
            "is not used: weir reads EndpointSlices (discovery.k8s.io/v1)".to_owned()
        }
        (None, _) => {
            let meant = Kind::ALL.into_iter().find(|meant| meant.to_string() == kind)?;
            format!(
                "is of {api_version} and not used: weir reads {}",
                meant.api_version()
            )
        }
        (Some(_), _) => return None,
    };
    Some(format!("{} {what}", describe(value)))
}

/// Kind and name of what may be anything.
fn describe(value: &Value) -> String {
    let word = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let name = match (word("/metadata/namespace"), word("/metadata/name")) {
        (_, "") => "without a name".to_owned(),
        ("", name) => name.to_owned(),
        (namespace, name) => format!("{namespace}/{name}"),
    };
    format!("{} {name}", word("/kind")).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::Object;

    fn manifest(api_version: &str, kind: &str) -> Value {
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web", "namespace": "shop"}})
    }

    #[test]
    fn slips_are_mistakes_and_the_kinds_of_others_are_not() {
        let table = [
            ("v1", "Services", Some("Services shop/web: v1 has no such kind")),
            ("v1", "service", Some("v1 has no such kind")),
            (
                "",
                "Service",
                Some("Service shop/web has no apiVersion: write v1"),
            ),
            ("", "Deployment", Some("has no apiVersion")),
            ("v2", "Service", Some("write v1")),
            ("discovery.k8s.io/v1", "Service", Some("write v1")),
            ("v1", "EndpointSlice", Some("write discovery.k8s.io/v1")),
            (
                "discovery.k8s.io/v1beta1",
                "EndpointSlice",
                Some("has apiVersion discovery.k8s.io/v1beta1"),
            ),
            ("discovery.k8s.io/v1", "EndpointSlices", Some("no such kind")),
            (
                "networking.k8s.io/v1",
                "Ingresss",
                Some("networking.k8s.io/v1 has no such kind"),
            ),
            ("networking.k8s.io/v1", "Service", Some("write v1")),
            ("networking.k8s.io/v1", "Ingress", None),
            ("networking.k8s.io/v1", "NetworkPolicy", None),
            ("networking.k8s.io/v1beta1", "ServiceCIDR", None),
            ("v1", "Endpoints", None),
            ("v1", "PodList", None),
            ("apps/v1", "Deployment", None),
            ("serving.knative.dev/v1", "Service", None),
        ];
        for (api_version, kind, mistake) in table {
            let read = Object::from_value(manifest(api_version, kind));
            match (mistake, read) {
                (None, Ok(None)) => {}
                (Some(part), Err(error)) => assert!(error.to_string().contains(part), "{error}"),
                (_, other) => panic!("{api_version} {kind}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_ingress_of_another_version_is_a_mistake_for_who_reads_it() {
        for (api_version, wrong) in [
            ("extensions/v1beta1", true),
            ("networking.k8s.io/v1beta1", true),
            ("v1", true),
            ("", true),
            ("networking.k8s.io/v1", false),
            ("config.openshift.io/v1", false),
        ] {
            let value = manifest(api_version, "Ingress");
            let read = Object::read(value.clone(), &Kind::INGRESS);
            assert_eq!(read.is_err(), wrong, "{api_version}");
            let agent = Object::from_value(value);
            assert_eq!(agent.is_err(), matches!(api_version, "" | "v1"), "{api_version}");
        }
    }

    #[test]
    fn what_is_of_no_use_is_remarked() {
        let said = |value: &Value| remark(value).unwrap_or_default();
        let endpoints = said(&manifest("v1", "Endpoints"));
        assert!(
            endpoints.starts_with("Endpoints shop/web is not used"),
            "{endpoints}"
        );
        let knative = said(&manifest("serving.knative.dev/v1", "Service"));
        assert!(
            knative.contains("of serving.knative.dev/v1 and not used: weir reads v1"),
            "{knative}"
        );
        let mut slice = manifest("discovery.k8s.io/v1", "EndpointSlice");
        assert!(said(&slice).contains("kubernetes.io/service-name"));
        slice["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
        assert_eq!(remark(&slice), None);
        slice["addressType"] = "FQDN".into();
        assert!(said(&slice).contains("addressType FQDN"));
        for (api_version, kind) in [("apps/v1", "Deployment"), ("v1", "Service"), ("v1", "ConfigMap")] {
            assert_eq!(remark(&manifest(api_version, kind)), None);
        }
    }
}
