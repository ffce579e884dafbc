//! Scene 6: a backend leaves and comes back while connections pour in, and nobody notices.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use weir_lab::peer::Report;
use weir_lab::peer::connect::ConnectOptions;
use weir_lab::{Client, clock};

use super::Stage;
use super::bars::{Bar, bars};
use super::screen::Style;
use super::world::{NODE_PORT, PORT, WEB, node_port};

/// New connections a second, from each of two places.
const RATE: u64 = 250;
/// Long connections, from each of two places.
const LONG: u64 = 20;
/// How long a change may take until the last connection went to a backend that left.
const SETTLED: Duration = Duration::from_secs(1);

/// The traffic of the scene: socket hook and packet path, short and long.
struct Load {
    /// First the two that open short connections.
    clients: Vec<Client>,
}

impl Load {
    /// Sums of the short connections so far, per backend, and of the failures.
    fn counts(&self, names: &[(String, String)]) -> Counts {
        let short: Vec<Report> = self.clients.iter().take(2).filter_map(Client::snapshot).collect();
        let sum = |value: &dyn Fn(&Report) -> u64| short.iter().map(value).sum();
        Counts {
            backends: names
                .iter()
                .map(|(name, _)| sum(&|report| report.backend(name)))
                .collect(),
            failed: sum(&|report| report.errors.total()),
        }
    }
}

/// Connections up to a moment.
#[derive(Clone, Default)]
struct Counts {
    backends: Vec<u64>,
    failed: u64,
}

impl Counts {
    fn since(&self, before: &Self) -> Self {
        Self {
            backends: self
                .backends
                .iter()
                .enumerate()
                .map(|(number, count)| count - before.backends.get(number).copied().unwrap_or(0))
                .collect(),
            failed: self.failed - before.failed,
        }
    }

    fn last(&self) -> u64 {
        self.backends.last().copied().unwrap_or(0)
    }
}

pub(super) fn play(stage: &mut Stage) -> Result<()> {
    stage.screen.scene(
        6,
        "A backend leaves and comes back, under load",
        "Edits of the manifests; each change is published by one write, and connections that exist stay.",
    );
    let load = stage.start_load()?;
    stage.screen.line(&format!(
        "   {} new connections a second and {} long ones, from pod client-1 and, to a node port, from outside",
        2 * RATE,
        2 * LONG
    ));
    stage.screen.blank();
    let heading = stage.row_heading();
    stage.screen.line(&heading);
    let begin = clock::now();
    let all = stage.phase(&load, begin, "web-1 web-2 web-3");
    stage.expect_phase(&all, true, "all three backends get new connections");
    let left = stage.change(&load, 2)?;
    let away = stage.phase(&load, begin, "web-3 scaled away");
    stage.expect_phase(
        &away,
        false,
        "web-3 gets no new connection while it is scaled away",
    );
    stage.change(&load, 3)?;
    let back = stage.phase(&load, begin, "web-3 is back");
    stage.expect_phase(&back, true, "web-3 gets new connections again");
    stage.screen.blank();
    stage.tell_change(left);
    stage.end_load(load)
}

impl Stage {
    fn start_load(&self) -> Result<Load> {
        let [v4, _] = WEB.map(|address| SocketAddr::new(address, PORT));
        let outside = node_port(self.world.n2().v4(), NODE_PORT);
        let short = |target| ConnectOptions {
            rate: RATE,
            progress: Duration::from_millis(20),
            timeout: Duration::from_secs(3),
            ..ConnectOptions::new(target, 0, 8)
        };
        let long = |target| ConnectOptions {
            hold: Duration::from_secs(3600),
            ..ConnectOptions::new(target, LONG, LONG)
        };
        let pod = self.world.client_1();
        let clients = vec![
            pod.start_client(&short(v4))?,
            self.world.outside.start_client(&short(outside))?,
            pod.start_client(&long(v4))?,
            self.world.outside.start_client(&long(outside))?,
        ];
        Ok(Load { clients })
    }

    fn row_heading(&self) -> String {
        let names: Vec<_> = self
            .world
            .backend_names()
            .iter()
            .map(|(name, _)| format!("{name:>8}"))
            .collect();
        let text = format!(
            "   {:<9}{:<22}{}{:>9}",
            "seconds",
            "new connections",
            names.concat(),
            "failed"
        );
        self.screen.paint(Style::Quiet, &text)
    }

    /// Lets the load run for a phase and shows it; its counts.
    fn phase(&mut self, load: &Load, begin: Instant, name: &str) -> Counts {
        let names = self.world.backend_names();
        let before = load.counts(&names);
        let start = clock::now();
        let from = start.duration_since(begin).as_secs_f64();
        let length = Duration::from_secs(self.pace.phase);
        let mut recent = (start, before.clone());
        let mut rates = Counts::default();
        while start.elapsed() < length {
            thread::sleep(Duration::from_millis(40));
            let counts = load.counts(&names);
            if recent.0.elapsed() > Duration::from_millis(500) {
                rates = counts.since(&recent.1);
                recent = (clock::now(), counts.clone());
            }
            let mut lines = vec![self.row(from, name, &counts.since(&before))];
            lines.push(String::new());
            lines.extend(self.rate_bars(&rates));
            self.screen.live(&lines);
        }
        let counts = load.counts(&names).since(&before);
        let row = self.row(from, name, &counts);
        self.screen.line(&row);
        counts
    }

    fn row(&self, from: f64, name: &str, counts: &Counts) -> String {
        let cells: Vec<_> = counts
            .backends
            .iter()
            .enumerate()
            .map(|(number, count)| self.screen.paint(Style::Backend(number), &format!("{count:>8}")))
            .collect();
        let style = if counts.failed == 0 {
            Style::Good
        } else {
            Style::Bad
        };
        let failed = self.screen.paint(style, &format!("{:>9}", counts.failed));
        format!("   {from:<9.1}{name:<22}{}{failed}", cells.concat())
    }

    /// The last half second as bars, while a person watches.
    fn rate_bars(&self, rates: &Counts) -> Vec<String> {
        let names = self.world.backend_names();
        let all: Vec<_> = names
            .into_iter()
            .enumerate()
            .map(|(number, (name, node))| Bar {
                name,
                count: rates.backends.get(number).copied().unwrap_or(0) * 2,
                note: self.screen.paint(Style::Quiet, &format!("a second, on {node}")),
            })
            .collect();
        bars(&self.screen, &all, RATE)
    }

    /// Writes the manifest, and waits until the backends that left get nothing new; how long that took.
    fn change(&mut self, load: &Load, backends: usize) -> Result<Duration> {
        let names = self.world.backend_names();
        let start = clock::now();
        self.world.set_backends(backends)?;
        let mut last = load.counts(&names).last();
        let mut changed = Duration::ZERO;
        while start.elapsed() < SETTLED {
            thread::sleep(Duration::from_millis(10));
            let now = load.counts(&names).last();
            if now != last {
                last = now;
                changed = start.elapsed();
            }
        }
        Ok(changed)
    }

    fn expect_phase(&mut self, counts: &Counts, all: bool, claim: &str) {
        let served: Vec<_> = counts.backends.iter().take(if all { 3 } else { 2 }).collect();
        let even = match (served.iter().min(), served.iter().max()) {
            // Two nodes start at different places, and a phase does not end on a full turn.
            (Some(least), Some(most)) => **least > 0 && **most - **least <= **most / 10 + 8,
            _ => false,
        };
        let right = all || counts.last() == 0;
        let claim = format!("{claim}, the others their share; it was {:?}", counts.backends);
        self.checks.note(even && right, &claim);
    }

    fn tell_change(&mut self, left: Duration) {
        let good = left < SETTLED;
        let claim = format!("the last connection to web-3 came {left:?} after the manifest was written");
        let mark = self.checks.note(good, &claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} the last new connection to web-3 came {} ms after the manifest was written",
            left.as_millis()
        ));
    }

    fn end_load(&mut self, load: Load) -> Result<()> {
        let mut reports = Vec::new();
        for client in load.clients {
            let report = client.stop().context("ending the load")?;
            reports.push(report);
        }
        let (short, long) = reports.split_at(reports.len().min(2));
        self.tell_short(short);
        self.tell_long(long);
        Ok(())
    }

    fn tell_short(&mut self, reports: &[Report]) {
        let ok: u64 = reports.iter().map(|report| report.ok).sum();
        let failed: u64 = reports.iter().map(|report| report.errors.total()).sum();
        let claim = format!("no new connection failed: {failed} of {}", ok + failed);
        let mark = self.checks.note(failed == 0 && ok > 0, &claim).show(&self.screen);
        self.screen
            .line(&format!("   {mark} {ok} new connections, {failed} failed"));
        for report in reports {
            self.say_errors(report);
        }
    }

    fn tell_long(&mut self, reports: &[Report]) {
        let ok: u64 = reports.iter().map(|report| report.ok).sum();
        let lost: u64 = reports.iter().map(|report| report.errors.total()).sum();
        let wrong: u64 = reports.iter().map(|report| report.wrong_backend).sum();
        let messages: u64 = reports.iter().map(|report| report.messages).sum();
        let good = ok == 2 * LONG && lost == 0 && wrong == 0;
        let claim = format!(
            "of {} long connections {lost} were lost, {wrong} messages went astray",
            2 * LONG
        );
        let mark = self.checks.note(good, &claim).show(&self.screen);
        self.screen.line(&format!(
            "   {mark} {ok} long connections, {messages} messages, {lost} lost, {wrong} answered by another backend"
        ));
        for report in reports {
            self.say_errors(report);
        }
    }
}
