//! Scenes 1 to 3: connections from a pod, from a host process, and from outside, spread in turn.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use weir_lab::peer::Report;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Client, Host};

use super::Stage;
use super::bars::{Bar, bars};
use super::screen::Style;
use super::world::{NODE_PORT, PORT, WEB, node_port};

/// Connections of a run: a multiple of the number of backends, so that the shares are exact.
const CONNECTIONS: u64 = 3000;

/// First source port of UDP, outside of the range that the kernel picks from.
const FIRST_PORT: u16 = 20000;

/// After so many failures and no answer, a run is given up.
const HOPELESS: u64 = 60;

/// Who connects where, and which node's weir chooses.
struct Run {
    from: Host,
    place: String,
    target: SocketAddr,
    node: String,
    udp: bool,
}

impl Run {
    fn route(&self) -> String {
        let protocol = if self.udp { " UDP" } else { "" };
        format!("{} → {}{protocol}", self.place, self.target)
    }
}

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    let [v4, v6] = WEB;
    let n1 = stage.world.n1().clone();
    let n2 = stage.world.n2().clone();
    let client_1 = stage.world.client_1().host().clone();
    let client_2 = stage.world.client_2().host().clone();
    let outside = stage.world.outside.clone();
    let run = |from: &Host, place: &str, target: SocketAddr, node: &str| Run {
        from: from.clone(),
        place: place.to_owned(),
        target,
        node: node.to_owned(),
        udp: false,
    };
    let service = |address: IpAddr| SocketAddr::new(address, PORT);

    stage.screen.scene(
        1,
        "A pod connects to the Service",
        "connect() is given a backend's address before the first packet exists: nothing is paid per packet.",
    );
    stage.show(&run(&client_1, "pod client-1", service(v4), "n1"))?;
    stage.show_short(&run(&client_1, "pod client-1", service(v6), "n1"))?;
    stage.show_short(&run(&client_2, "pod client-2", service(v4), "n2"))?;
    let udp = Run {
        udp: true,
        ..run(&client_1, "pod client-1", service(v4), "n1")
    };
    stage.show_short(&udp)?;

    stage.screen.scene(
        2,
        "A process of the host connects to the Service",
        "The same hook on the node itself: the first packet already carries a backend's address.",
    );
    stage.show(&run(n2.host(), "host process on n2", service(v4), "n2"))?;
    stage.show_short(&run(n1.host(), "host process on n1", service(v6), "n1"))?;

    stage.screen.scene(
        3,
        "Somebody outside connects to a node's port",
        "Here weir translates packets, at the uplink; backends on the other node are one redirect away.",
    );
    let port = |address: IpAddr| node_port(address, NODE_PORT);
    stage.show(&run(&outside, "client outside", port(n1.v4().into()), "n1"))?;
    stage.show_short(&run(&outside, "client outside", port(n1.v6().into()), "n1"))?;
    stage.show_short(&run(&outside, "client outside", port(n2.v4().into()), "n2"))
}

impl Stage {
    /// Shows a run as bars that grow.
    fn show(&mut self, run: &Run) -> Result<()> {
        self.announce(run);
        let report = self.carry_out(run, true)?;
        for line in self.draw(&report) {
            self.screen.line(&line);
        }
        self.judge(run, &report);
        Ok(())
    }

    /// Shows a further run in one line.
    fn show_short(&mut self, run: &Run) -> Result<()> {
        let report = self.carry_out(run, false)?;
        let good = self.check(run, &report);
        let shares: Vec<_> = self
            .world
            .backend_names()
            .iter()
            .enumerate()
            .map(|(number, (name, _))| {
                let share = format!("{name} {}", report.backend(name));
                self.screen.paint(Style::Backend(number), &share)
            })
            .collect();
        let mark = self.screen.mark(good);
        let route = run.route();
        self.screen
            .line(&format!("   {route:<46} {}  {mark}", shares.join("  ")));
        self.say_errors(&report);
        Ok(())
    }

    fn announce(&mut self, run: &Run) {
        let text = format!("   {}, {CONNECTIONS} connections", run.route());
        self.screen.line(&text);
    }

    fn carry_out(&mut self, run: &Run, watched: bool) -> Result<Report> {
        let options = ConnectOptions {
            rate: if watched { self.pace.rate } else { 0 },
            progress: Duration::from_millis(40),
            timeout: Duration::from_secs(3),
            udp: run.udp,
            // A resolver's socket; of pods, weir translates the packets of such sockets. A port that is used again
            // is the same flow, and stays with its backend: one port each, then.
            connected: run.udp,
            source: run.udp.then(|| SocketAddr::new(run.from.v4().into(), FIRST_PORT)),
            consecutive: run.udp,
            ..ConnectOptions::new(run.target, CONNECTIONS, 32)
        };
        let client = run.from.start_client(&options)?;
        let report = self.follow(client).with_context(|| run.route())?;
        self.world.remember(&run.node, &report.backends);
        Ok(report)
    }

    fn follow(&mut self, mut client: Client) -> Result<Report> {
        while client.is_running() {
            if let Some(report) = client.snapshot() {
                let lines = self.draw(&report);
                self.screen.live(&lines);
                // Where nobody answers, waiting for each one of thousands tells nothing more.
                if report.ok == 0 && report.errors.total() >= HOPELESS {
                    return client.stop();
                }
            }
            thread::sleep(Duration::from_millis(40));
        }
        client.wait(Duration::from_secs(10))
    }

    fn draw(&self, report: &Report) -> Vec<String> {
        let names = self.world.backend_names();
        let full = CONNECTIONS / u64::try_from(names.len()).unwrap_or(1).max(1);
        let all: Vec<_> = names
            .into_iter()
            .map(|(name, node)| Bar {
                count: report.backend(&name),
                note: self.screen.paint(Style::Quiet, &format!("on {node}")),
                name,
            })
            .collect();
        bars(&self.screen, &all, full)
    }

    /// The line under the bars.
    fn judge(&mut self, run: &Run, report: &Report) {
        let good = self.check(run, report);
        let mark = self.screen.mark(good);
        self.screen.line(&format!(
            "   {mark} {} answered, {} failed; first answer after {} (median), {} (slowest)",
            report.ok,
            report.errors.total(),
            millis_text(report.latency.p50),
            millis_text(report.latency.max)
        ));
        self.say_errors(report);
    }

    /// Exactly one in turn each, and none failed.
    fn check(&mut self, run: &Run, report: &Report) -> bool {
        let names = self.world.backend_names();
        let share = CONNECTIONS / u64::try_from(names.len()).unwrap_or(1).max(1);
        let even = names.iter().all(|(name, _)| report.backend(name) == share);
        let claim = format!(
            "{}: {share} connections to each backend, none failed; it was {:?}, {} failed",
            run.route(),
            report.counts(),
            report.errors.total()
        );
        let good = even && report.is_clean();
        self.checks.note(good, &claim);
        good
    }

    /// What went wrong, in the clients' words.
    pub(super) fn say_errors(&mut self, report: &Report) {
        if let Some(text) = report.error_texts.first() {
            let text = self.screen.paint(Style::Bad, text);
            self.screen.line(&format!("     {text}"));
        }
    }
}

/// Microseconds as people read them.
pub(super) fn millis_text(micros: u64) -> String {
    format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
}
