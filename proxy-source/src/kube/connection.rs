//! Connections to one API server, made so that a machine that is switched off is noticed.
//!
//! The library's own stack knows time-outs for whole answers only. A watch is an answer that lasts for minutes, and a
//! server that vanishes without a word would go unnoticed as long.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt};
use kube::{Client, Config, Error};
use tokio_rustls::rustls::crypto::ring;
use tower::{BoxError, ServiceBuilder};

/// With TLS. A server that is switched off does not answer at all, and another one may be waiting.
const CONNECTS_WITHIN: Duration = Duration::from_secs(5);
/// A silent connection is asked whether it lives,
const QUIET: Duration = Duration::from_secs(15);
/// again and again,
const ASK_EVERY: Duration = Duration::from_secs(5);
/// and given up after so many questions; Go's client, by HTTP/2 pings, takes as long (30 s and 15 s).
const QUESTIONS: u32 = 3;
/// What was sent and never acknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// A client of the server in the configuration.
pub(super) fn client(config: &Config) -> Result<Client, Error> {
    // rustls chooses by itself only where one provider is built in, and the ingress brings another into the workspace.
    // It is there already for all clients but the first.
    let _there = ring::default_provider().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_keepalive(Some(QUIET));
    tcp.set_keepalive_interval(Some(ASK_EVERY));
    tcp.set_keepalive_retries(Some(QUESTIONS));
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp)?);
    connector.set_connect_timeout(Some(CONNECTS_WITHIN));
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let http: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
