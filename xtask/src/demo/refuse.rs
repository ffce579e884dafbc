//! Scene 4: a Service that nobody serves says no at once, instead of letting clients wait.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use weir_lab::Host;
use weir_lab::peer::connect::ConnectOptions;

use super::Stage;
use super::spread::millis_text;
use super::world::{EMPTY, EMPTY_NODE_PORT, PORT, node_port};

/// Attempts from each place.
const ATTEMPTS: u64 = 10;

/// What "at once" means on a busy machine, in microseconds. A lost packet costs a second at least.
const AT_ONCE: u64 = 500_000;

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    stage.screen.scene(
        4,
        "A Service without endpoints",
        "Refused, not swallowed: the caller learns it from connect() or by a reset, and need not wait.",
    );
    let [v4, v6] = EMPTY.map(|address| SocketAddr::new(address, PORT));
    let n1 = stage.world.n1().clone();
    let pod = stage.world.client_1().host().clone();
    let outside = stage.world.outside.clone();
    let port = |address: std::net::IpAddr| node_port(address, EMPTY_NODE_PORT);
    stage.refused(&pod, "pod client-1", v4)?;
    stage.refused(&pod, "pod client-1", v6)?;
    stage.refused(n1.host(), "host process on n1", v4)?;
    stage.refused(&outside, "client outside", port(n1.v4().into()))?;
    stage.refused(&outside, "client outside", port(n1.v6().into()))
}

impl Stage {
    fn refused(&mut self, from: &Host, place: &str, target: SocketAddr) -> Result<()> {
        let report = from.connect(&ConnectOptions {
            timeout: Duration::from_secs(3),
            ..ConnectOptions::new(target, ATTEMPTS, 1)
        })?;
        let slowest = report.error_latency.max;
        let good = report.errors.refused == ATTEMPTS && slowest < AT_ONCE;
        let claim = format!(
            "{place} → {target}: {ATTEMPTS} connections refused at once; it was {:?}, the slowest after {}",
            report.errors,
            millis_text(slowest)
        );
        let mark = self.checks.note(good, &claim).show(&self.screen);
        let route = format!("{place} → {target}");
        self.screen.line(&format!(
            "   {route:<46} {} of {ATTEMPTS} refused, the slowest after {}  {mark}",
            report.errors.refused,
            millis_text(slowest)
        ));
        if !good {
            self.say_errors(&report);
        }
        Ok(())
    }
}
