//! Builds what the demo needs, and shows how it goes: the first time takes minutes.

use std::io::{BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use weir_lab::{Group, clock, workspace_root};

use crate::{build, shell, workspace};

use super::screen::{Screen, Style};

const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];

/// How often a pipe is told that the work goes on.
const REMINDER: Duration = Duration::from_secs(20);

/// Builds the ingress, and what stands behind it and in front of it; where each is.
pub(super) fn ingress(screen: &mut Screen) -> Result<()> {
    for (name, says) in [
        ("weir-ingress", "weir-ingress built"),
        ("weir-web", "web server and client built"),
    ] {
        if std::env::var_os(variable(name)).is_none() {
            watch(screen, says, build::of_program(name))?;
        }
        program(name)?;
    }
    Ok(())
}

/// Where a program is that [`ingress`] has built, or that somebody named.
pub(super) fn program(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os(variable(name)).map(PathBuf::from);
    let path = named.unwrap_or_else(|| workspace::target().join("release").join(name));
    let place = || {
        format!(
            "{} is missing: {} may name another one",
            path.display(),
            variable(name)
        )
    };
    path.canonicalize().with_context(place)
}

fn variable(name: &str) -> String {
    format!("{}_BIN", name.replace('-', "_").to_uppercase())
}

/// Builds weir and the traffic program.
pub(super) fn all(screen: &mut Screen) -> Result<()> {
    // A weir that was named is not built.
    if std::env::var_os("WEIR_BIN").is_some() {
        weir_lab::weir_binary()?;
    } else {
        let own = std::env::current_exe().context("cannot find this program")?;
        let mut build = Command::new(own);
        build.arg("build");
        watch(screen, "kernel programs and agent built", build)?;
    }
    let arguments = [
        "build",
        "--release",
        "--package",
        "weir-lab",
        "--bin",
        "weir-lab-peer",
    ];
    let peer = shell::cargo(arguments);
    watch(screen, "server and client for the traffic built", peer)
}

/// Runs a build, showing cargo's progress in one line; its whole output if it fails.
fn watch(screen: &mut Screen, name: &str, mut command: Command) -> Result<()> {
    command
        .current_dir(workspace_root())
        // Cargo draws its bar only on terminals; we read it from a pipe.
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "120")
        .env("CARGO_TERM_COLOR", "never")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = clock::now();
    let mut group = Group::start(&mut command)?;
    let stderr = group.child().stderr.take().context("the build has no output")?;
    let (lines, received) = mpsc::channel();
    let reader = thread::spawn(move || read_lines(stderr, &lines));
    let mut said = String::new();
    let mut progress = Progress::default();
    let mut reminded = Duration::ZERO;
    for frame in 0.. {
        match received.recv_timeout(Duration::from_millis(80)) {
            Ok(line) => {
                if !progress.read(&line) {
                    said.push_str(&line);
                    said.push('\n');
                }
                // One redraw for all that came.
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let spinner = SPINNER.get(frame % SPINNER.len()).unwrap_or(&"·");
        let detail = screen.paint(Style::Quiet, &progress.to_string());
        screen.live(&[format!("{spinner} {name:<52} {detail}")]);
        if !screen.is_terminal() && start.elapsed() > reminded + REMINDER {
            reminded = start.elapsed();
            screen.line(&format!("building for {} s  {progress}", reminded.as_secs()));
        }
    }
    let status = group.child().wait().context("cannot wait for the build")?;
    let _ = reader.join();
    screen.done(name, status.success(), start.elapsed());
    if !status.success() {
        eprint!("{said}");
        bail!("the build failed ({status}); what it said is above");
    }
    Ok(())
}

/// Sends what comes, split at line ends and at the carriage returns with which a progress bar redraws itself.
fn read_lines(input: impl Read, lines: &Sender<String>) {
    let mut line = Vec::new();
    for byte in BufReader::new(input).bytes().map_while(Result::ok) {
        if byte != b'\n' && byte != b'\r' {
            line.push(byte);
            continue;
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        if !text.is_empty() && lines.send(text).is_err() {
            return;
        }
    }
}

/// How far cargo is.
#[derive(Default)]
struct Progress {
    count: String,
    package: String,
}

impl Progress {
    /// Reads a line; whether it was only about progress.
    fn read(&mut self, line: &str) -> bool {
        let line = line.trim_start();
        if let Some(rest) = line.strip_prefix("Building [") {
            // `Building [====>   ] 12/210: kube-client`
            let (_, rest) = rest.split_once("] ").unwrap_or_default();
            let (count, _) = rest.split_once(':').unwrap_or((rest, ""));
            count.replace('/', " of ").clone_into(&mut self.count);
            return true;
        }
        // What xtask and rustup say of their own work.
        for speaker in ["x: ", "info: "] {
            if let Some(rest) = line.strip_prefix(speaker) {
                self.count.clear();
                self.package = rest.chars().take(60).collect();
                return false;
            }
        }
        for verb in ["Compiling ", "Downloaded ", "Downloading ", "Installing "] {
            if let Some(rest) = line.strip_prefix(verb) {
                let package = rest.split(' ').next().unwrap_or_default();
                self.package = format!("{} {package}", verb.trim_end().to_lowercase());
                return false;
            }
        }
        false
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.count.as_str(), self.package.as_str()) {
            ("", package) => f.write_str(package),
            (count, package) => write!(f, "{count}  {package}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Progress;

    #[test]
    fn the_progress_of_cargo_is_read() {
        let mut progress = Progress::default();
        assert!(!progress.read("   Compiling kube-client v5.0.0"));
        assert!(progress.read("    Building [====>     ] 134/210: kube-client, ring"));
        assert!(!progress.read("error[E0308]: mismatched types"));
        assert_eq!(progress.to_string(), "134 of 210  compiling kube-client");
    }
}
