//! A kubeconfig file, and the addresses of API servers as people write them.

use std::path::PathBuf;

use hyper::Uri;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::SourceError;

/// A kubeconfig file, and who names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeconfigFile {
    /// The file.
    pub path: PathBuf,
    /// A flag, or a field of another file.
    pub named_by: String,
}

/// Not an address of an API server.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("write https://ADDRESS:PORT")]
pub struct NotAServer;

/// Reads the address of an API server. Without a scheme it is https, as it is for kubectl where a cluster has
/// certificates; without one that the client knows, its first request would panic.
pub fn server(text: &str) -> Result<Uri, NotAServer> {
    let text = text.trim();
    let url: Uri = if text.contains("://") {
        text.parse()
    } else {
        format!("https://{text}").parse()
    }
    .map_err(|_| NotAServer)?;
    let known = matches!(url.scheme_str(), Some("https" | "http"));
    (known && has_host(&url) && has_good_port(&url))
        .then_some(url)
        .ok_or(NotAServer)
}

/// The same, of a flag: a token goes there, so it is not in the clear, and whoever writes it says so.
pub fn secure_server(text: &str) -> Result<Uri, NotAServer> {
    let named = text.starts_with("https://").then_some(text);
    server(named.ok_or(NotAServer)?)
}

fn has_host(url: &Uri) -> bool {
    url.host().is_some_and(|host| !host.is_empty())
}

/// The library takes a number that is none for none at all, and would ask at port 443.
fn has_good_port(url: &Uri) -> bool {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let host = url.host().unwrap_or_default();
    let after = authority.rsplit_once(host).map_or("", |(_, after)| after);
    after.is_empty() || url.port_u16().is_some_and(|port| port != 0)
}

/// The configuration that a file's current context names.
pub(super) async fn read(file: &KubeconfigFile) -> Result<Config, SourceError> {
    let path = || file.path.display().to_string();
    let named_by = || file.named_by.clone();
    let wrap = |source| SourceError::Kubeconfig {
        path: path(),
        named_by: named_by(),
        source: Box::new(source),
    };
    let mut content = Kubeconfig::read_from(&file.path).map_err(wrap)?;
    if let Some(text) = server_of(&mut content) {
        let url = server(text).map_err(|why| SourceError::Server {
            path: path(),
            named_by: named_by(),
            found: text.clone(),
            why,
        })?;
        *text = url.to_string();
    }
    Config::from_custom_kubeconfig(content, &KubeConfigOptions::default())
        .await
        .map_err(wrap)
}

/// The address in the cluster of the current context.
fn server_of(file: &mut Kubeconfig) -> Option<&mut String> {
    let current = file.current_context.as_deref()?;
    let context = file.contexts.iter().find(|context| context.name == current)?;
    let name = context.context.as_ref()?.cluster.clone();
    let cluster = file.clusters.iter_mut().find(|cluster| cluster.name == name)?;
    cluster.cluster.as_mut()?.server.as_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_asked_by_https() {
        let table = [
            ("192.0.2.10:6443", Some("https://192.0.2.10:6443/")),
            ("localhost", Some("https://localhost/")),
            ("[fd00::1]:6443", Some("https://[fd00::1]:6443/")),
            ("api.example.org/k8s", Some("https://api.example.org/k8s")),
            ("https://h:6443", Some("https://h:6443/")),
            ("http://127.0.0.1:8001", Some("http://127.0.0.1:8001/")),
            ("https://h:99999", None),
            ("https://h:0", None),
            ("https://h:", None),
            ("ftp://h", None),
            ("https://", None),
            ("a b", None),
            ("", None),
        ];
        for (text, expected) in table {
            let read = server(text).ok().map(|url| url.to_string());
            assert_eq!(read.as_deref(), expected, "{text:?}");
        }
    }

    async fn from(server: &str) -> Result<Config, SourceError> {
        let name = format!("weir-kubeconfig-{}-{}", std::process::id(), server.len());
        let path = std::env::temp_dir().join(name);
        let text = format!(
            "current-context: c\ncontexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
             clusters: [{{name: other}}, {{name: k, cluster: {{server: '{server}'}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let file = KubeconfigFile {
            path: path.clone(),
            named_by: "--kubeconfig".to_owned(),
        };
        let config = read(&file).await;
        std::fs::remove_file(&path).unwrap();
        config
    }

    #[tokio::test]
    async fn a_file_is_read_as_kubectl_reads_it_or_refused_with_the_field() {
        let config = from("192.0.2.10:6443").await.unwrap();
        assert_eq!(config.cluster_url, "https://192.0.2.10:6443/");
        let refused = from("https://h:99999").await.unwrap_err().to_string();
        for part in [
            "weir-kubeconfig",
            "--kubeconfig",
            "clusters[].cluster.server",
            "99999",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
    }
}
