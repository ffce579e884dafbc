//! A node: a machine of the lab with mounts, processes and a name of its own, in which containerd and a kubelet run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_lab::{Lab, Node};

use super::control_plane::ControlPlane;
use super::images;
use super::init::Setup;
use super::options::{DNS_SERVICE, Options, node_name};
use super::programs::Programs;
use super::wait::{Part, tail};

/// A node of the cluster.
pub(super) struct ClusterNode {
    pub(super) node: Node,
    pub(super) init: Part,
    pub(super) folder: PathBuf,
}

/// What all nodes are made from.
pub(super) struct Ingredients<'a> {
    pub(super) lab: &'a Lab,
    pub(super) programs: &'a Programs,
    pub(super) images: &'a [PathBuf],
    pub(super) options: Options,
}

impl ClusterNode {
    /// Starts the node's containerd; its kubelet follows when [`ClusterNode::join`] has brought what it needs.
    pub(super) fn start(from: &Ingredients, node: Node) -> Result<Self> {
        let name = node_name(node.number());
        let folder = from.lab.disk()?.join(&name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let old_cgroups = from.lab.make_cgroups1(&node)?;
        write(&folder, "containerd.toml", &containerd())?;
        write(
            &folder,
            "podnet.conflist",
            &cni(from.options, node.number()).to_string(),
        )?;
        write(&folder, "resolv.conf", &format!("nameserver {DNS_SERVICE}\n"))?;
        let kubelet = kubelet(&folder, &from.lab.cgroup_path(&node)?);
        write(&folder, "kubelet.yaml", &kubelet.to_string())?;
        let setup = Setup {
            name: name.clone(),
            folder: folder.clone(),
            bpffs: node.bpffs().to_owned(),
            // With version 1 in use the kubelet makes its own directories there.
            cgroup: (!old_cgroups).then(|| node.cgroup().to_owned()),
            images: from.images.to_vec(),
            kubelet: kubelet_command(from, &node, &folder),
        };
        let path = write(&folder, "setup.json", &serde_json::to_string_pretty(&setup)?)?;
        let init = Part::start(&name, &node, begin_in(setup.cgroup.as_deref(), unshare(&path)?)?)?;
        Ok(Self { node, init, folder })
    }

    /// Brings the credentials, for which the kubelet has been waiting.
    pub(super) fn join(&self, control_plane: &ControlPlane) -> Result<()> {
        let name = node_name(self.node.number());
        let authority = fs::read(control_plane.pki.cluster.certificate())?;
        fs::write(self.folder.join("ca.crt"), authority)?;
        let user = format!("system:node:{name}");
        let kubeconfig = control_plane.pki.kubeconfig(&name, &user, Some("system:nodes"))?;
        // Whole at once: the node waits for the file to be there.
        let draft = self.folder.join("kubeconfig.new");
        fs::copy(kubeconfig, &draft)?;
        Ok(fs::rename(draft, self.folder.join("kubeconfig"))?)
    }

    /// The node's process 1, as the machine numbers it.
    pub(super) fn init_pid(&self) -> Result<u32> {
        let parent = self.init.id();
        let path = format!("/proc/{parent}/task/{parent}/children");
        let children = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let first = children.split_whitespace().next();
        first
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("the node {} has no process", self.node.name()))
    }

    /// Waits until `done`, which is given the node's name; an error at once if the node's own processes end before.
    pub(super) fn wait(&mut self, what: &str, limit: Duration, done: impl Fn(&str) -> bool) -> Result<()> {
        let name = self.node.name().to_owned();
        let kubelet = self.folder.join("kubelet.log");
        self.init
            .wait(&format!("the node {name} {what}"), limit, || done(&name))
            .with_context(|| tail(&kubelet))
    }

    /// A command that runs on this node, among its mounts and processes.
    pub(super) fn command(&self, program: &Path) -> Result<Command> {
        let mut command = enter(self.init_pid()?);
        command.arg("--").arg(program);
        Ok(command)
    }
}

/// `nsenter` into all that is a node's own.
pub(super) fn enter(init: u32) -> Command {
    let mut command = Command::new("nsenter");
    command.args([
        "--target",
        &init.to_string(),
        "--mount",
        "--pid",
        "--net",
        "--uts",
    ]);
    command
}

/// The same command, and all its processes, below the node's cgroup: with version 2 a directory that hands controllers to
/// its directories has no processes itself, and `unshare` stays where it begins.
fn begin_in(cgroup: Option<&Path>, command: Command) -> Result<Command> {
    let Some(cgroup) = cgroup else {
        return Ok(command);
    };
    let own = cgroup.join("system");
    fs::create_dir_all(&own).with_context(|| format!("cannot create {}", own.display()))?;
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"echo 0 >"$0" && exec "$@""#])
        .arg(own.join("cgroup.procs"))
        .arg(command.get_program())
        .args(command.get_args());
    Ok(shell)
}

/// This program, as process 1 of namespaces that end with it.
fn unshare(setup: &Path) -> Result<Command> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--uts",
        "--fork",
        "--mount-proc",
        "--kill-child=KILL",
    ]);
    command.arg(own).args(["cluster", "node-init"]).arg(setup);
    Ok(command)
}

fn write(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn containerd() -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{}"
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE nobody can be made less likely to be killed than his parent.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
"#,
        images::pause()
    )
}

/// A veth pair for each pod, and addresses out of the node's networks; the routes between nodes are the lab's.
fn cni(options: Options, number: u8) -> Value {
    let networks = options.pod_networks_of(number).into_iter();
    let ranges: Vec<_> = networks.map(|network| json!([{ "subnet": network }])).collect();
    let mut routes = vec![json!({ "dst": "0.0.0.0/0" })];
    if options.dual_stack {
        routes.push(json!({ "dst": "::/0" }));
    }
    let addresses = json!({ "type": "host-local", "ranges": ranges, "routes": routes });
    json!({
        "cniVersion": "0.4.0",
        "name": "podnet",
        "plugins": [
            { "type": "ptp", "mtu": 1500, "ipMasq": false, "ipam": addresses },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    })
}

fn kubelet(folder: &Path, cgroup: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": { "enabled": false },
            "webhook": { "enabled": true },
            "x509": { "clientCAFile": folder.join("ca.crt") },
        },
        "authorization": { "mode": "Webhook" },
        "clusterDNS": [DNS_SERVICE],
        "clusterDomain": "cluster.local",
        "resolvConf": folder.join("resolv.conf"),
        "failSwapOn": false,
        // The disk is the machine's, and how full it is no matter of the cluster.
        "evictionHard": {
            "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "memory.available": "50Mi",
        },
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
        "serializeImagePulls": false,
    })
}

/// Three zones, in turn.
fn labels(number: u8) -> String {
    let zone = match number % 3 {
        1 => "a",
        2 => "b",
        _ => "c",
    };
    format!("topology.kubernetes.io/region=lab,topology.kubernetes.io/zone=lab-{zone}")
}

fn kubelet_command(from: &Ingredients, node: &Node, folder: &Path) -> Vec<String> {
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    vec![
        from.programs.path("kubelet").display().to_string(),
        flag("kubeconfig", &folder.join("kubeconfig")),
        flag("config", &folder.join("kubelet.yaml")),
        flag("cert-dir", &folder.join("pki")),
        format!("--hostname-override={}", node_name(node.number())),
        format!("--node-ip={}", from.options.node_addresses(node)),
        format!("--node-labels={}", labels(node.number())),
        "-v=2".to_owned(),
    ]
}
