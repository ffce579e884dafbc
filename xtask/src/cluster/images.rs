//! The images that run in the cluster, made from the programs and from Debian's own; nothing is pulled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cache;
use super::programs::{Programs, version};
use crate::image::archive::Image;
use crate::lock::Lock;
use crate::{packages, shell, workspace};

/// Where the images claim to come from. No such registry exists, so a pull by mistake fails.
pub(crate) const REGISTRY: &str = "registry.weir.test";

/// Name and tag under which containerd knows the pause image.
pub(super) fn pause() -> String {
    format!("{REGISTRY}/pause:3.10.2")
}

/// An image of the end-to-end tests, as they call it below their registry for such.
fn e2e(name: &str) -> String {
    format!("{REGISTRY}/e2e/{name}")
}

pub(super) fn coredns() -> Result<String> {
    let version = version("coredns", "github.com/coredns/coredns")?;
    Ok(format!("{REGISTRY}/coredns:{}", version.trim_start_matches('v')))
}

/// Debian's commands that are put into the agnhost image, where upstream's has Alpine's.
const TOOLS: [&str; 16] = [
    "bash",
    "curl",
    "dash",
    "dig",
    "getent",
    "hostname",
    "ip",
    "iperf",
    "nc.openbsd",
    "ss",
    "timeout",
    "wget",
    "nslookup",
    "stat",
    "id",
    "env",
];

/// Commands whose packages are needed to build the images.
pub(super) const NEEDED: [&str; 7] = ["busybox", "cc", "curl", "dig", "iperf", "nc.openbsd", "wget"];

/// The archives, written if they are not in the cache as they should be.
pub(super) fn ensure(programs: &Programs) -> Result<Vec<PathBuf>> {
    packages::need(&NEEDED)?;
    let folder = workspace::cache()?.join("cluster/images");
    // Other work trees write here as well.
    let _lock = Lock::wait(&folder.join("lock"), "makes images of the cluster")?;
    let images = [
        ("pause", pause_image(&folder)?),
        ("agnhost", agnhost_image(programs)?),
        ("busybox", busybox_image()?),
        ("boom-server", boom_server_image(programs)),
        ("coredns", coredns_image(programs)?),
    ];
    let targets = images
        .iter()
        .map(|(name, image)| {
            let target = folder.join(format!("{name}-{:.16}.tar", image.fingerprint()?));
            if !target.exists() {
                let (result, took) = shell::timed(|| image.write(&target));
                result.with_context(|| format!("writing the image {name}"))?;
                let megabytes = fs::metadata(&target)?.len() / 1_000_000;
                eprintln!(
                    "x: made the image {name} in {:.1} s: {megabytes} MB",
                    took.as_secs_f32()
                );
            }
            Ok(target)
        })
        .collect::<Result<Vec<_>>>()?;
    cache::mark_used(&targets);
    Ok(targets)
}

/// The process that holds a pod's namespaces, as small as it gets.
fn pause_image(folder: &Path) -> Result<Image> {
    let source = workspace::root().join("tests/cluster/pause.c");
    let binary = folder.join("pause");
    let built = fs::metadata(&binary).and_then(|facts| facts.modified());
    if built.is_err() || built.ok() < fs::metadata(&source)?.modified().ok() {
        let mut cc = shell::command("cc", ["-O2", "-static", "-s", "-o"]);
        shell::output(cc.arg(&binary).arg(&source))?;
    }
    let mut image = Image::new(pause(), &["/pause"]);
    image.file("/pause", &binary);
    Ok(image)
}

fn coredns_image(programs: &Programs) -> Result<Image> {
    let mut image = Image::new(coredns()?, &["/coredns"]);
    image.file("/coredns", &programs.path("coredns"));
    Ok(image)
}

/// A program of ours for pods: servers and clients of the tests.
pub(super) fn of_program(name: &str, binary: &Path) -> Result<PathBuf> {
    let program = binary.file_name().unwrap_or_default().to_string_lossy();
    let place = format!("/{program}");
    let mut image = Image::new(format!("{REGISTRY}/{name}:dev"), &[&place]);
    image.file(&place, binary);
    add_libraries(&mut image, binary);
    let target = workspace::target().join(format!("cluster/{name}.tar"));
    fs::create_dir_all(target.with_file_name(""))?;
    image.write(&target)?;
    Ok(target)
}

/// What the end-to-end tests run in their pods: agnhost, and around it the commands that upstream's image has.
fn agnhost_image(programs: &Programs) -> Result<Image> {
    let mut image = Image::new(e2e("agnhost:2.63.0"), &["/agnhost"])
        // Upstream's is Debian with dig and glibc's resolver, which are in here.
        .also(e2e("glibc-dns-testing:2.0.0"))
        .cmd(&["pause"]);
    image.file("/agnhost", &programs.path("agnhost"));
    image.link("/agnhost-2", "agnhost");
    // Specs about CoreDNS' configuration have a server of their own.
    image.file("/coredns", &programs.path("coredns"));
    for name in ["localhost.crt", "localhost.key"] {
        image.text(
            name,
            &kubernetes_file(programs, "test/images/agnhost/porter", name)?,
        );
    }
    users(&mut image);
    add_busybox(&mut image)?;
    for tool in TOOLS {
        let path = packages::find(tool).with_context(|| format!("there is no {tool} on this machine"))?;
        add_program(&mut image, tool, &path)?;
    }
    // Not busybox: its shell prefers its own applets, whose options are others.
    image.link("/bin/sh", "../usr/bin/dash");
    image.link("/usr/bin/nc", "nc.openbsd");
    image.link("/usr/local/bin/iperf", "../../bin/iperf");
    add_name_resolution(&mut image);
    Ok(image)
}

/// A server whose packets are out of window: what becomes of its connections tells of a bug that proxies have had.
fn boom_server_image(programs: &Programs) -> Image {
    let mut image = Image::new(e2e("regression-issue-74839:1.4"), &["/regression-issue-74839"]);
    image.file(
        "/regression-issue-74839",
        &programs.path("regression-issue-74839"),
    );
    image
}

/// The small commands on their own.
fn busybox_image() -> Result<Image> {
    let mut image = Image::new(e2e("busybox:1.37.0-1"), &[]).cmd(&["sh"]);
    users(&mut image);
    add_busybox(&mut image)?;
    Ok(image)
}

/// The users that specs ask for.
fn users(image: &mut Image) {
    image.text(
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n",
    );
    image.text(
        "/etc/group",
        "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n",
    );
    for (path, mode) in [
        ("/tmp", 0o1777),
        ("/root", 0o700),
        ("/uploads", 0o777),
        ("/run", 0o755),
    ] {
        image.folder(path, mode);
    }
}

fn add_busybox(image: &mut Image) -> Result<()> {
    let busybox = packages::find("busybox").context("busybox is not installed")?;
    image.file("/bin/busybox", &busybox);
    let list = shell::output(Command::new(&busybox).arg("--list"))?;
    for applet in list.lines().filter(|applet| *applet != "busybox") {
        image.link(&format!("/bin/{applet}"), "busybox");
    }
    Ok(())
}

/// A program with its libraries; busybox's applet of this name makes room.
fn add_program(image: &mut Image, name: &str, path: &Path) -> Result<()> {
    let real = path
        .canonicalize()
        .with_context(|| format!("cannot follow {}", path.display()))?;
    image.file(&format!("/usr/bin/{name}"), &real);
    image.link(&format!("/bin/{name}"), &format!("../usr/bin/{name}"));
    add_libraries(image, &real);
    Ok(())
}

/// A static program has none, and `ldd` fails for it.
fn add_libraries(image: &mut Image, program: &Path) {
    let list = shell::output(Command::new("ldd").arg(program)).unwrap_or_default();
    for library in libraries(&list) {
        image.file(library, Path::new(library));
    }
}

/// The paths in what `ldd` prints: `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`.
fn libraries(ldd: &str) -> impl Iterator<Item = &str> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

/// glibc opens these by name when a program asks for a host, so no `ldd` names them.
fn add_name_resolution(image: &mut Image) {
    image.text("/etc/nsswitch.conf", "hosts: files dns\n");
    let folder = format!("/lib/{}-linux-gnu", std::env::consts::ARCH);
    for name in ["libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2"] {
        let path = format!("{folder}/{name}");
        if Path::new(&path).exists() {
            image.file(&path, Path::new(&path));
        }
    }
}

/// A file of Kubernetes' sources, kept beside the programs: Go's own cache may be emptied.
fn kubernetes_file(programs: &Programs, folder: &str, name: &str) -> Result<String> {
    let kept = programs.path("../share").join(name);
    if !kept.exists() {
        let sources = super::programs::sources("kubernetes", "k8s.io/kubernetes")?;
        let text = fs::read(sources.join(folder).join(name))?;
        fs::create_dir_all(kept.parent().context("a file has a folder")?)?;
        fs::write(&kept, text)?;
    }
    fs::read_to_string(&kept).with_context(|| format!("cannot read {}", kept.display()))
}

#[cfg(test)]
mod tests {
    use super::libraries;

    #[test]
    fn the_loader_counts_as_a_library() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = libraries(ldd).collect();
        assert_eq!(
            found,
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]
        );
    }
}
