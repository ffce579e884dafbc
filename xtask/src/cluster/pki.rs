//! The certificates of a cluster, and the kubeconfigs that carry them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use serde_json::json;

/// The group that may do everything.
const MASTERS: &str = "system:masters";

/// An authority and the folder with what it signed.
pub(super) struct Authority {
    folder: PathBuf,
    name: &'static str,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(folder: &Path, name: &'static str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let pem = params.self_signed(&key)?.pem();
        write(&folder.join(format!("{name}.crt")), &pem)?;
        write(&folder.join(format!("{name}.key")), &key.serialize_pem())?;
        Ok(Self {
            folder: folder.to_owned(),
            name,
            pem,
            issuer: Issuer::new(params, key),
        })
    }

    /// The certificate of a server, in `FILE.crt` and `FILE.key`.
    fn server(&self, file: &str, names: Vec<String>) -> Result<()> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = subject(file, None);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(file, params).map(drop)
    }

    /// The certificate of a client, in `FILE.crt` and `FILE.key`.
    fn client(&self, file: &str, user: &str, group: Option<&str>) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, group);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, params)
    }

    fn sign(&self, file: &str, mut params: CertificateParams) -> Result<Identity> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let identity = Identity {
            certificate: params.signed_by(&key, &self.issuer)?.pem(),
            key: key.serialize_pem(),
            authority: self.pem.clone(),
        };
        write(&self.folder.join(format!("{file}.crt")), &identity.certificate)?;
        write(&self.folder.join(format!("{file}.key")), &identity.key)?;
        Ok(identity)
    }

    /// The path of the authority's certificate.
    pub(super) fn certificate(&self) -> PathBuf {
        self.folder.join(format!("{}.crt", self.name))
    }
}

/// Who a client is, and whom it trusts.
struct Identity {
    certificate: String,
    key: String,
    authority: String,
}

impl Identity {
    /// Writes a kubeconfig that carries everything, so that it is one file that can be copied.
    fn write_kubeconfig(&self, path: &Path, server: &str) -> Result<()> {
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{
                "name": "weir",
                "cluster": { "server": server, "certificate-authority-data": base64(&self.authority) },
            }],
            "users": [{
                "name": "user",
                "user": { "client-certificate-data": base64(&self.certificate), "client-key-data": base64(&self.key) },
            }],
            "contexts": [{ "name": "weir", "context": { "cluster": "weir", "user": "user" } }],
            "current-context": "weir",
        });
        write(path, &serde_json::to_string_pretty(&config)?)
    }
}

/// All keys of a cluster.
pub(super) struct Pki {
    folder: PathBuf,
    server: String,
    pub(super) cluster: Authority,
    pub(super) front_proxy: Authority,
}

impl Pki {
    /// Makes the authorities and what the control plane needs; `server` is where the API server is reached inside.
    pub(super) fn create(folder: &Path, server: &str, api_server_names: Vec<String>) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let pki = Self {
            folder: folder.to_owned(),
            server: server.to_owned(),
            cluster: Authority::new(folder, "ca")?,
            front_proxy: Authority::new(folder, "front-proxy-ca")?,
        };
        pki.cluster.server("apiserver", api_server_names)?;
        pki.cluster.client(
            "apiserver-kubelet",
            "kube-apiserver-kubelet-client",
            Some(MASTERS),
        )?;
        pki.front_proxy
            .client("front-proxy", "front-proxy-client", None)?;
        // Signs the tokens of service accounts.
        let key = KeyPair::generate()?;
        write(&pki.path("sa.key"), &key.serialize_pem())?;
        write(&pki.path("sa.pub"), &key.public_key_pem())?;
        Ok(pki)
    }

    /// A file of the folder.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// A kubeconfig for a part of the cluster.
    pub(super) fn kubeconfig(&self, file: &str, user: &str, group: Option<&str>) -> Result<PathBuf> {
        let path = self.path(&format!("{file}.kubeconfig"));
        self.cluster
            .client(file, user, group)?
            .write_kubeconfig(&path, &self.server)?;
        Ok(path)
    }

    /// Kubeconfigs for the one who may do everything: one for inside the cluster's namespaces, and at `outside` one
    /// that reaches the API server at `forwarded`.
    pub(super) fn admin(&self, outside: &Path, forwarded: &str) -> Result<PathBuf> {
        let inside = self.path("admin.kubeconfig");
        let admin = self.cluster.client("admin", "admin", Some(MASTERS))?;
        admin.write_kubeconfig(&inside, &self.server)?;
        admin.write_kubeconfig(outside, forwarded)?;
        Ok(inside)
    }
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    subject
}

/// Keys are for their owner only.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| {
            bits << 8 | chunk.get(at).copied().map_or(0, usize::from)
        });
        for at in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * at) & 63).copied().unwrap_or(b'=');
            out.push(char::from(if at <= chunk.len() { digit } else { b'=' }));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_others_have_it() {
        for (text, coded) in [
            ("", ""),
            ("w", "dw=="),
            ("we", "d2U="),
            ("wei", "d2Vp"),
            ("weir", "d2Vpcg=="),
        ] {
            assert_eq!(base64(text), coded);
        }
    }

    #[test]
    fn a_kubeconfig_carries_everything() {
        let folder = std::env::temp_dir().join(format!("weir-pki-{}", std::process::id()));
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let pki = Pki::create(&folder, "https://172.30.0.100:6443", names).unwrap();
        let path = pki
            .kubeconfig("n1", "system:node:n1", Some("system:nodes"))
            .unwrap();
        let config: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            config["clusters"][0]["cluster"]["server"],
            "https://172.30.0.100:6443"
        );
        assert!(config["users"][0]["user"]["client-key-data"].is_string());
    }
}
