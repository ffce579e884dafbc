//! ginkgo and Kubernetes' test binary, on the control plane's machine, which has ways to all nodes and pods.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result};
use serde_json::json;

use super::E2eArgs;
use super::expected::Expected;
use super::report::{self, Report};
use crate::cluster::{self, E2ePlace, E2ePrograms, REGISTRY};
use crate::{shell, workspace};

/// After this the run is given up.
const LIMIT: &str = "90m";

/// Runs the specs whose names match `focus`, but for those that cannot run here.
pub(super) fn run(
    programs: &E2ePrograms,
    place: &E2ePlace,
    args: &E2eArgs,
    focus: &str,
    expected: &Expected,
) -> Result<Report> {
    let folder = workspace::target().join("e2e").join(args.proxy.name());
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let kubeconfig = kubeconfig(place, &folder)?;
    // The tests leave folders in it.
    let scratch = folder.join("tmp");
    fs::create_dir_all(&scratch)?;
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", place.netns.display()))
        .arg(&programs.ginkgo)
        .args(ginkgo(args.procs, focus, expected, &folder))
        .arg(&programs.tests)
        .args(["--"])
        .args(tests(programs, place.nodes, &kubeconfig))
        .current_dir(&folder)
        .env("KUBECONFIG", &kubeconfig)
        .env("TMPDIR", &scratch)
        .env("KUBE_TEST_REPO_LIST", images(&folder)?);
    let log = folder.join("log");
    eprintln!("x: what the specs say goes to {}", log.display());
    let ended = follow(command, &log)?;
    let _ = fs::remove_dir_all(&scratch);
    let report = report::read(&folder.join("report.json"), ended)
        .with_context(|| format!("the specs did not run; {} says why", log.display()))?;
    eprintln!("x: everything that they said is in {}", folder.display());
    Ok(report)
}

/// The kubeconfig of the machine's user, with the address that the API server has inside.
fn kubeconfig(place: &E2ePlace, folder: &Path) -> Result<PathBuf> {
    let text = fs::read_to_string(&place.kubeconfig)
        .with_context(|| format!("cannot read {}", place.kubeconfig.display()))?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    let server = config
        .pointer_mut("/clusters/0/cluster/server")
        .context("the kubeconfig names no server")?;
    *server = json!(format!("https://{}", place.api_server));
    let path = folder.join("kubeconfig");
    cluster::write_secret(&path, &config.to_string())?;
    Ok(path)
}

/// Tells the tests where images come from. All of them are on the nodes, so nothing is asked for there.
fn images(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("images.json");
    let registries = json!({ "gcRegistry": REGISTRY, "promoterE2eRegistry": format!("{REGISTRY}/e2e") });
    fs::write(&path, registries.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn ginkgo(procs: u8, focus: &str, expected: &Expected, folder: &Path) -> Vec<String> {
    let mut args = vec![
        "run".to_owned(),
        format!("--procs={procs}"),
        format!("--focus={focus}"),
        format!("--timeout={LIMIT}"),
        "--no-color".to_owned(),
        "--json-report=report.json".to_owned(),
        "--junit-report=junit.xml".to_owned(),
        format!("--output-dir={}", folder.display()),
    ];
    args.extend(expected.skip_expression().map(|skip| format!("--skip={skip}")));
    args
}

fn tests(programs: &E2ePrograms, nodes: u8, kubeconfig: &Path) -> Vec<String> {
    vec![
        "--provider=skeleton".to_owned(),
        format!("--num-nodes={nodes}"),
        "--allowed-not-ready-nodes=0".to_owned(),
        "--node-os-distro=custom".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--kubectl-path={}", programs.kubectl.display()),
        "--delete-namespace-on-failure=true".to_owned(),
        "--system-pods-startup-timeout=1m".to_owned(),
        "--node-schedulable-timeout=2m".to_owned(),
    ]
}

/// Runs the command; what it says goes to a file, and a dot to the terminal for each spec that ended.
fn follow(command: Command, log: &Path) -> Result<ExitStatus> {
    let (mut child, mut said) = shell::piped(command)?;
    let mut file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut buffer = [0; 8192];
    let mut bullets = Bullets::default();
    while let Ok(length @ 1..) = said.read(&mut buffer) {
        let piece = buffer.get(..length).unwrap_or_default();
        file.write_all(piece)?;
        eprint!("{}", ".".repeat(bullets.count(piece)));
    }
    eprintln!();
    Ok(child.wait()?)
}

/// Counts ginkgo's `•`, one for each spec that ran, even if it is cut in two.
#[derive(Default)]
struct Bullets {
    seen: usize,
}

impl Bullets {
    fn count(&mut self, piece: &[u8]) -> usize {
        let bullet = "•".as_bytes();
        let mut found = 0;
        for &byte in piece {
            if bullet.get(self.seen) == Some(&byte) {
                self.seen += 1;
            } else {
                self.seen = usize::from(bullet.first() == Some(&byte));
            }
            if self.seen == bullet.len() {
                found += 1;
                self.seen = 0;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bullet_that_is_cut_in_two_counts_once() {
        let text = "S•SS• [FAILED]".as_bytes();
        for at in 0..text.len() {
            let (one, two) = text.split_at(at);
            let mut bullets = Bullets::default();
            assert_eq!(bullets.count(one) + bullets.count(two), 2, "cut at {at}");
        }
    }
}
