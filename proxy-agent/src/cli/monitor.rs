//! `weir monitor`: new connections, rejects and drops, as they happen.
//!
//! The programs write events only while somebody listens: the listener renews a lease in the map `MONITOR`, so one that
//! was killed leaves no cost behind.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result};
use proxy_common::{Event, EventKind, Ip, Reason, Scope, ServiceKey};
use proxy_daemon::table::escape_controls;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use super::view::Name;
use super::{protocol, socket, word};
use crate::clock::{self, WallClock};
use crate::config::{MonitorFlags, Output};
use crate::kernel::{EventReader, Maps};

const LEASE: Duration = Duration::from_secs(5);
const RENEW: Duration = Duration::from_secs(2);

/// Listens until Ctrl-C, or until nobody reads the answer.
pub async fn run(flags: &MonitorFlags) -> Result<()> {
    let pins = flags.output.bpffs.pins();
    let mut maps = Maps::open(&pins)?;
    let mut events = EventReader::open(&pins)?;
    events.discard();
    let mut lines = Lines::new(flags);
    if flags.output.output != Output::Json && !flags.output.no_headers {
        super::print(HEADER)?;
    }
    let mut renew = tokio::time::interval(RENEW);
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            stopped = &mut stop => return stopped.context("listening to Ctrl-C"),
            _ = renew.tick() => {
                if nobody_reads() {
                    return Ok(());
                }
                maps.renew_monitor(LEASE)?;
                lines.forget_names();
            }
            found = events.next() => {
                let text = lines.of(&found.context("reading the ring of events")?, &maps)?;
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing the events")?;
            }
        }
    }
}

const HEADER: &str = "TIME           EVENT    REASON                SERVICE                        \
                      PROTOCOL   CLIENT -> FRONTEND -> BACKEND\n";

/// The reader of a pipe may leave while no event comes, so that no write would tell.
fn nobody_reads() -> bool {
    let stdout = io::stdout();
    let mut ends = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
    let asked = poll(
        &mut ends,
        Some(&Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        }),
    );
    asked.is_ok() && ends.iter().any(|end| end.revents().contains(PollFlags::ERR))
}

/// An event in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    time: String,
    event: String,
    reason: String,
    namespace: String,
    service: String,
    port_name: String,
    protocol: String,
    /// Unknown at the socket hook: a socket gets its address later.
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_port: Option<u16>,
    frontend: IpAddr,
    frontend_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend_port: Option<u16>,
    interface: u32,
}

/// Events as text.
struct Lines<'f> {
    flags: &'f MonitorFlags,
    clock: WallClock,
    names: HashMap<u32, Option<Name>>,
    /// Read when it is first needed.
    frontends: Option<HashMap<ServiceKey, u32>>,
}

impl<'f> Lines<'f> {
    fn new(flags: &'f MonitorFlags) -> Self {
        Self {
            flags,
            clock: clock::wall(),
            names: HashMap::new(),
            frontends: None,
        }
    }

    /// An id may be given to another Service; and the wall clock may be set.
    fn forget_names(&mut self) {
        self.names.clear();
        self.frontends = None;
        self.clock = clock::wall();
    }

    fn of(&mut self, events: &[Event], maps: &Maps) -> Result<String> {
        let mut text = String::new();
        for event in events {
            let name = self.name(event, maps);
            if self.wanted(event, name.as_ref()) {
                self.write(&mut text, event, name)?;
            }
        }
        Ok(text)
    }

    /// The socket hook does not say which service it was, but at which frontend.
    fn name(&mut self, event: &Event, maps: &Maps) -> Option<Name> {
        let known = (event.service != u32::MAX).then_some(event.service);
        let id = known.or_else(|| self.frontend(event, maps))?;
        let find = || maps.name(id).ok().flatten().map(|row| Name::of(&row));
        self.names.entry(id).or_insert_with(find).clone()
    }

    fn frontend(&mut self, event: &Event, maps: &Maps) -> Option<u32> {
        let frontends = self.frontends.get_or_insert_with(|| {
            let rows = maps.services().unwrap_or_default();
            rows.into_iter().map(|(key, service)| (key, service.id)).collect()
        });
        let key = |address, scope: Scope| ServiceKey {
            address,
            port: event.frontend_port,
            protocol: event.protocol,
            scope: scope.code(),
        };
        let node_port = if event.frontend.is_v4() {
            Scope::NodePortV4
        } else {
            Scope::NodePortV6
        };
        let address = frontends.get(&key(event.frontend, Scope::Address));
        address
            .or_else(|| frontends.get(&key(Ip::UNSPECIFIED, node_port)))
            .copied()
    }

    fn wanted(&self, event: &Event, name: Option<&Name>) -> bool {
        let kind = EventKind::from_code(event.kind);
        let problem = !matches!(kind, Some(EventKind::Flow | EventKind::Socket));
        let namespace = name.map_or("", |name| name.namespace.as_str());
        (problem || !self.flags.problems) && self.flags.namespaces.wants(namespace)
    }

    fn write(&self, text: &mut String, event: &Event, name: Option<Name>) -> Result<()> {
        let kind = word(EventKind::from_code(event.kind).map(EventKind::name), event.kind);
        let reason = word(Reason::from_code(event.reason).map(Reason::name), event.reason);
        let answered = event.backend_port != 0;
        let seen = event.client != Ip::UNSPECIFIED;
        if self.flags.output.output == Output::Json {
            let name = name.unwrap_or_else(|| Name {
                service: String::new(),
                ..Name::unknown(event.service)
            });
            let line = Line {
                time: self.clock.rfc3339(event.time),
                event: kind,
                reason,
                namespace: name.namespace,
                service: name.service,
                port_name: name.port,
                protocol: protocol(event.protocol),
                client: seen.then(|| event.client.into()),
                client_port: seen.then_some(event.client_port),
                frontend: event.frontend.into(),
                frontend_port: event.frontend_port,
                backend: answered.then(|| event.backend.into()),
                backend_port: answered.then_some(event.backend_port),
                interface: event.interface,
            };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
            return Ok(());
        }
        let name = name.map_or("<none>".to_owned(), |name| escape_controls(name.full()));
        let client = if seen {
            socket(event.client, event.client_port)
        } else {
            "socket".to_owned()
        };
        let mut way = format!("{client} -> {}", socket(event.frontend, event.frontend_port));
        if answered {
            write!(way, " -> {}", socket(event.backend, event.backend_port))?;
        }
        writeln!(
            text,
            "{:<12}   {kind:<6}   {reason:<19}   {name:<28}   {:<8}   {way}",
            self.clock.time_of_day(event.time),
            protocol(event.protocol),
        )?;
        Ok(())
    }
}
