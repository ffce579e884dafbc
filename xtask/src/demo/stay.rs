//! `--keep`: the lab stays until Ctrl-C, and here is what to try.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use anyhow::{Context, Result};
use weir_lab::{Host, Node, Pod, weir_binary};

use super::Stage;
use super::building::program;
use super::inside::PINS;
use super::screen::Style;
use super::world::{NODE_PORT, PORT, WEB};

/// Prints what to try, and waits for the signal that ends the program.
pub(super) fn stay(stage: &mut Stage) -> Result<()> {
    let lines = commands(stage)?;
    stage.screen.blank();
    let heading = stage.screen.paint(
        Style::Bold,
        "The lab stays until Ctrl-C. In another terminal, as root:",
    );
    stage.screen.line(&heading);
    for (comment, command) in lines {
        stage.screen.blank();
        let comment = stage.screen.paint(Style::Quiet, &format!("# {comment}"));
        stage.screen.line(&format!("   {comment}"));
        for line in command.lines() {
            stage.screen.line(&format!("   {line}"));
        }
    }
    stage.screen.blank();
    loop {
        // The thread that waits for signals ends the process.
        thread::park();
    }
}

fn commands(stage: &Stage) -> Result<Vec<(String, String)>> {
    let enter = write_enter(stage)?;
    let mut all = of_ingress(stage, &enter)?;
    if stage.world.has_agents() {
        all.extend(of_agents(stage, &enter)?);
    }
    Ok(all)
}

/// What to ask the ingress.
fn of_ingress(stage: &Stage, enter: &str) -> Result<Vec<(String, String)>> {
    let world = &stage.world;
    if world.front.is_none() {
        return Ok(Vec::new());
    }
    let (folder, front) = (world.lab.dir().display(), world.n1().v4());
    let ingress = program("weir-ingress")?.display().to_string();
    let pairs = [
        (
            "by host and path, from outside: who answers?",
            format!(
                "{enter} outside curl --cacert {folder}/ca.pem --resolve shop.demo.test:443:{front} https://shop.demo.test/cart"
            ),
        ),
        (
            "why a request goes where it goes",
            format!("{ingress} explain https://shop.demo.test/cart --admin-socket {folder}/ingress.sock"),
        ),
        (
            "routes, certificates, endpoints as they are now",
            format!("{ingress} routes --admin-socket {folder}/ingress.sock"),
        ),
        (
            "change hosts and paths: it watches this folder",
            format!("ls {}", world.manifests.dir().display()),
        ),
    ];
    Ok(pairs
        .into_iter()
        .map(|(comment, command)| (comment.to_owned(), command))
        .collect())
}

/// What to try with weir on the nodes.
fn of_agents(stage: &Stage, enter: &str) -> Result<Vec<(String, String)>> {
    let world = &stage.world;
    let weir = weir_binary()?.display().to_string();
    let bpffs = world.n1().bpffs().display().to_string();
    let [v4, _] = WEB;
    let client = world.client_1().netns().path();
    let ask = |target: &str| format!("bash -c 'for i in 1 2 3 4 5 6; do head -1 </dev/tcp/{target}; done'");
    let pairs = [
        (
            "six connections from a pod: each answer is a backend's name and the client's address",
            format!("{enter} client-1 {}", ask(&format!("{v4}/{PORT}"))),
        ),
        (
            "the same from a host process on n1, and from outside",
            format!(
                "{enter} n1 {}\n{enter} outside {}",
                ask(&format!("{v4}/{PORT}")),
                ask(&format!("{}/{NODE_PORT}", world.n2().v4()))
            ),
        ),
        (
            "only the namespace, not the cgroup: the socket hook does not see it, and packets are translated instead",
            format!(
                "nsenter --net={} {}",
                client.display(),
                ask(&format!("{v4}/{PORT}"))
            ),
        ),
        (
            "what the kernel of n1 serves",
            format!("{weir} services --bpffs {bpffs}"),
        ),
        (
            "connections as they come; Ctrl-C ends it",
            format!("{weir} monitor --bpffs {bpffs}"),
        ),
        ("the whole state of n1", format!("{weir} status --bpffs {bpffs}")),
        (
            "the maps themselves",
            format!("bpftool map dump pinned {bpffs}/{PINS}/BACKENDS"),
        ),
        (
            "change the Services: both agents watch this folder",
            format!("ls {}", world.manifests.dir().display()),
        ),
        (
            "the logs of the agents",
            format!("tail -f {}/*weir.log", world.n1().dir().display()),
        ),
    ];
    Ok(pairs
        .into_iter()
        .map(|(comment, command)| (comment.to_owned(), command))
        .collect())
}

/// Writes the script that runs a command on a machine of the lab; its path.
fn write_enter(stage: &Stage) -> Result<String> {
    let world = &stage.world;
    let pods = world.backends.iter().chain(&world.clients).map(Pod::host);
    let machines = world.nodes.iter().map(Node::host).chain(pods);
    let mut script = "#!/bin/sh\n\
        # Runs a command (a shell if none is given) on a machine of the lab: in its cgroup and its namespace.\n\
        machine=$1; shift\n\
        case $machine in\n"
        .to_owned();
    for host in machines.chain([&world.outside]) {
        let _ = write_case(&mut script, host);
    }
    script.push_str(
        "*) echo \"usage: $0 MACHINE [COMMAND...]; there is no machine '$machine'\" >&2; exit 2;;\n\
         esac\n\
         echo $$ >\"$cgroup/cgroup.procs\"\n\
         [ $# -gt 0 ] || set -- bash\n\
         exec nsenter --net=\"$netns\" \"$@\"\n",
    );
    let path = world.lab.dir().join("on");
    fs::write(&path, script)
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path.display().to_string())
}

fn write_case(script: &mut String, host: &Host) -> std::fmt::Result {
    writeln!(
        script,
        "{}) netns={} cgroup={};;",
        host.name(),
        host.netns().path().display(),
        host.cgroup().display()
    )
}
