//! Process 1 of a node: sees to its mounts and its name, starts containerd and the kubelet, and buries its orphans.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::process::{Pid, WaitOptions};
use serde::{Deserialize, Serialize};
use weir_lab::clock;

use super::cgroups;
use super::wait::tail;

/// Folders of which a node has its own. They are made on the machine too if it lacks them, and stay empty there.
const OWN: [&str; 9] = [
    "/etc/cni/net.d",
    "/opt/cni",
    "/run/containerd",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// What a node needs to know.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) name: String,
    /// Its folder on the disk, with its configuration.
    pub(super) folder: PathBuf,
    pub(super) bpffs: PathBuf,
    /// The node's cgroup v2 directory, if that is where its pods go.
    pub(super) cgroup: Option<PathBuf>,
    pub(super) images: Vec<PathBuf>,
    pub(super) kubelet: Vec<String>,
}

/// What the verb `node-init` is asked.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The node's setup.json
    setup: PathBuf,
}

/// Runs until it is killed.
pub(super) fn run(args: &Args) -> Result<()> {
    let text =
        fs::read_to_string(&args.setup).with_context(|| format!("cannot read {}", args.setup.display()))?;
    let setup: Setup = serde_json::from_str(&text)?;
    rustix::system::sethostname(setup.name.as_bytes()).context("cannot set the host name")?;
    if let Some(cgroup) = &setup.cgroup {
        cgroups::hand_down(cgroup)?;
    }
    mounts(&setup)?;
    fs::copy(
        setup.folder.join("podnet.conflist"),
        "/etc/cni/net.d/10-podnet.conflist",
    )?;
    let mut containerd = Service::new("containerd", containerd(&setup), &setup);
    containerd.start()?;
    wait_for("containerd answers", || {
        Ok(containerd.must_run()? && ctr(&["version"]).is_ok())
    })?;
    for image in &setup.images {
        let path = image.display().to_string();
        ctr(&["-n", "k8s.io", "images", "import", &path])?;
    }
    println!("images are there");
    wait_for("the kubelet has its credentials", || {
        Ok(containerd.must_run()? && setup.folder.join("kubeconfig").exists())
    })?;
    let mut kubelet = Service::new("kubelet", setup.kubelet.clone(), &setup);
    kubelet.start()?;
    watch(&mut [containerd, kubelet])
}

fn mounts(setup: &Setup) -> Result<()> {
    use MountPropagationFlags as Flags;
    // First nothing goes to the machine any more; then mounts of this node go to its containers.
    mount_change("/", Flags::REC | Flags::PRIVATE).context("cannot part from the machine's mounts")?;
    mount_change("/", Flags::REC | Flags::SHARED).context("cannot share mounts with containers")?;
    for path in OWN {
        let own = setup.folder.join("fs").join(path.trim_start_matches('/'));
        for folder in [Path::new(path), &own] {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        mount_bind(&own, path).with_context(|| format!("cannot mount the node's own {path}"))?;
    }
    // A bind mount begins private.
    mount_change("/", Flags::REC | Flags::SHARED)?;
    mount_bind(&setup.bpffs, "/sys/fs/bpf").context("cannot mount the node's own /sys/fs/bpf")
}

fn containerd(setup: &Setup) -> Vec<String> {
    let config = setup.folder.join("containerd.toml");
    vec![
        "containerd".to_owned(),
        "-c".to_owned(),
        config.display().to_string(),
    ]
}

fn ctr(args: &[&str]) -> Result<()> {
    let output = Command::new("ctr")
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot start ctr")?;
    if !output.status.success() {
        bail!(
            "ctr {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Waits until `done`, or until it says that there is nothing to wait for.
fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let mut error = None;
    let ended = clock::wait_until(Duration::from_secs(180), || {
        done().unwrap_or_else(|found| {
            error = Some(found);
            true
        })
    });
    if let Some(error) = error {
        return Err(error);
    }
    if !ended {
        bail!("{what}: not within three minutes");
    }
    Ok(())
}

/// A program that is started again if it ends.
struct Service {
    command: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Service {
    fn new(name: &str, command: Vec<String>, setup: &Setup) -> Self {
        Self {
            command,
            log: setup.folder.join(format!("{name}.log")),
            child: None,
        }
    }

    fn start(&mut self) -> Result<()> {
        let (program, args) = self.command.split_first().context("a service has a command")?;
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("cannot open {}", self.log.display()))?;
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// An error if it has ended, before anybody would start it again.
    fn must_run(&mut self) -> Result<bool> {
        let status = self.child.as_mut().map(Child::try_wait).transpose()?.flatten();
        match status {
            None => Ok(true),
            Some(status) => bail!(
                "{} has ended ({status}); {}",
                self.command.join(" "),
                tail(&self.log)
            ),
        }
    }

    fn is(&self, pid: Pid) -> bool {
        let own = self.child.as_ref().map(Child::id);
        own.and_then(|id| i32::try_from(id).ok()) == Some(pid.as_raw_nonzero().get())
    }
}

/// Buries who ends, the pods' orphans too, and starts the services again.
fn watch(services: &mut [Service]) -> Result<()> {
    loop {
        let Some((pid, status)) = rustix::process::wait(WaitOptions::empty())? else {
            continue;
        };
        if let Some(service) = services.iter_mut().find(|service| service.is(pid)) {
            println!("{} ended: {status:?}; again in 2 s", service.command.join(" "));
            thread::sleep(Duration::from_secs(2));
            service.start()?;
        }
    }
}
