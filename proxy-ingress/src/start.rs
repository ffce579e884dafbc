//! From flags to a process that serves: everything is made here, and handed to who uses it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use prometheus::Registry;
use proxy_daemon::http::Port;
use proxy_daemon::metrics::{Adder, Process};
use proxy_daemon::{logging, panics};
use tokio::sync::{mpsc, watch};

use crate::admin::{self, socket::Asked};
use crate::certificates::Maker;
use crate::config::{STATUS, ServeFlags, VERSION, log_directives};
use crate::engine::Bound;
use crate::handover::{self, Predecessor};
use crate::memory::Budget;
use crate::metrics::Metrics;
use crate::pages::StatusPages;
use crate::privilege;
use crate::probes::Probes;
use crate::run::{self, Options};
use crate::served::{Fixed, Secrets};
use crate::status::Places;
use crate::upstream::UpstreamTls;

/// Serves until it is ended.
pub async fn serve(flags: ServeFlags) -> Result<()> {
    logging::start(flags.log_format, &flags.log, log_directives)?;
    panics::tell("the ingress");
    privilege::take_up().context("taking up the right to ports below 1024")?;
    let (doors, predecessor) = bind(&flags)?;
    privilege::put_down().context("putting down all rights")?;
    let telemetry = flags.telemetry.clone().settle()?;
    let registry = Registry::new();
    let metrics = Metrics::new(&registry)?;
    let _process = Process::new(&Adder(&registry))?;
    let (wanted, secrets) = watch::channel(BTreeSet::new());
    let source = flags.connect(secrets, &registry).await?;
    let maker = Maker::new()?;
    let probes = Arc::new(Probes::default());
    tracing::info!(version = VERSION.as_str(), "weir-ingress starts");
    let status = Port {
        what: "probes and metrics",
        flag: "--status-address",
        at: flags.status_address.socket_or(STATUS),
        rival: "another ingress controller",
        consequence: "requests are served all the same",
        pages: StatusPages {
            probes: Arc::clone(&probes),
            registry,
        },
    };
    let status = tokio::spawn(status.forever());
    let questions = listen_for_questions(&flags.admin_socket);
    run::run(Options {
        source,
        wanted,
        model: flags.model(),
        fixed: Fixed {
            settings: Arc::new(flags.settings()),
            paths: flags.paths(),
            tls: UpstreamTls::unverified()?,
            workers: doors.workers(),
            self_signed: Arc::new(maker.self_signed()?),
            default: flags.default_certificate(),
        },
        secrets: Secrets::new(maker),
        doors,
        probes,
        metrics,
        telemetry,
        places: flags.status_from().map(Places::new),
        questions,
        shutdown_delay: flags.doors.shutdown_delay,
        handover: flags.doors.handover_socket.clone(),
        predecessor,
        wait_relieved: flags.doors.wait_relieved,
        memory: Budget::find(flags.doors.memory_budget),
        status,
    })
    .await?;
    Ok(())
}

/// The ports: those of the process before, if it hands them over.
fn bind(flags: &ServeFlags) -> Result<(Bound, Option<Predecessor>)> {
    let (doors, workers) = (flags.doors(), flags.workers());
    let handed = match &flags.doors.handover_socket {
        Some(path) => handover::take(path).with_context(|| {
            format!(
                "taking the listening sockets of the process at {}: end it, or remove the file",
                path.display()
            )
        })?,
        None => None,
    };
    let Some((sockets, predecessor)) = handed else {
        return Ok((Bound::new(&doors, workers)?, None));
    };
    tracing::info!(
        "the process before hands over {} listening sockets",
        sockets.len()
    );
    Ok((Bound::adopt(&doors, workers, sockets)?, Some(predecessor)))
}

/// Without a place to be asked at, requests are served all the same.
fn listen_for_questions(path: &Path) -> mpsc::Receiver<Asked> {
    let (sender, questions) = mpsc::channel(4);
    if path.as_os_str().is_empty() {
        return questions;
    }
    if let Err(error) = admin::socket::listen(path, sender) {
        let path = path.display();
        tracing::warn!(
            "cannot answer questions at {path}: {error}; requests are served all the same; choose another place with --admin-socket"
        );
    }
    questions
}
