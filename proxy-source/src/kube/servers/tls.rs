//! A certificate as API servers have it: their name among the pods, and no word of the address that they are asked at.

use std::sync::Arc;

use prometheus::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

/// Answers everything with an empty object. Returns its port, and the certificate that its own is verified by.
async fn tls_server(names: &[&str]) -> (u16, Vec<u8>) {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let der = made.cert.der().to_vec();
    let key = PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not like the certificate goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (port, der)
}

async fn ask(url: &str, named: &[String], root: Vec<u8>) -> Result<String, Error> {
    let mut config = Config::new(url.parse().unwrap());
    config.root_cert = Some(vec![root]);
    let named: Vec<Uri> = named.iter().map(|url| url.parse().unwrap()).collect();
    let servers = Servers::new(
        config,
        &named,
        false,
        0,
        Arc::new(Metrics::new(&Registry::new()).unwrap()),
    )
    .unwrap();
    let request = Request::get("/version").body(Vec::new()).unwrap();
    servers.client().request_text(request).await
}

#[tokio::test]
async fn an_address_that_is_not_in_the_certificate_is_verified_by_name() {
    let (port, root) = tls_server(&[NAME]).await;
    let url = format!("https://127.0.0.1:{port}");
    assert_eq!(
        ask("https://10.96.0.1", std::slice::from_ref(&url), root.clone())
            .await
            .unwrap(),
        "{}"
    );
    // The address of the configuration itself is verified as it stands there.
    let refused = ask(&url, &[], root.clone()).await.unwrap_err();
    assert!(chain(&refused).contains("certificate"), "{}", chain(&refused));
    // A name that is not in it, and another authority.
    let refused = ask("https://10.96.0.1", &[format!("https://localhost:{port}")], root).await;
    assert!(refused.is_err());
    let (_, other) = tls_server(&[NAME]).await;
    let refused = ask("https://10.96.0.1", &[url], other).await;
    assert!(refused.is_err());
}
