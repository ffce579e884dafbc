//! A container image without a container tool: one layer, written as a docker archive, which everything can read.
//!
//! The same content gives the same bytes: no times, no users, files in the order of their paths.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// What is at a path of an image.
enum Content {
    Folder(u32),
    File(PathBuf),
    /// A program that may be run with these capabilities by whoever the container lets have them.
    Capable(PathBuf, u64),
    Text(String),
    Link(String),
}

/// `CAP_NET_BIND_SERVICE`, as a mask.
pub(crate) const NET_BIND_SERVICE: u64 = 1 << 10;

/// File capabilities in a layer, as GNU tar and container runtimes know extended attributes.
const CAPABILITY: &str = "SCHILY.xattr.security.capability";

/// An image that is being put together.
pub(crate) struct Image {
    /// The first one is the image's own.
    names: Vec<String>,
    content: BTreeMap<String, Content>,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    user: Option<String>,
}

impl Image {
    /// An empty image called `NAME:TAG`.
    pub(crate) fn new(name: impl Into<String>, entrypoint: &[&str]) -> Self {
        Self {
            names: vec![name.into()],
            content: BTreeMap::new(),
            entrypoint: entrypoint.iter().map(|&word| word.to_owned()).collect(),
            cmd: Vec::new(),
            user: None,
        }
    }

    /// Another `NAME:TAG` for the same image.
    pub(crate) fn also(mut self, name: impl Into<String>) -> Self {
        self.names.push(name.into());
        self
    }

    /// Arguments if a pod gives none.
    pub(crate) fn cmd(mut self, cmd: &[&str]) -> Self {
        self.cmd = cmd.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// `UID:GID` if a pod names nobody.
    pub(crate) fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// A file that everybody may run, and that may take up these capabilities.
    pub(crate) fn capable(&mut self, path: &str, from: &Path, capabilities: u64) {
        self.put(path, Content::Capable(from.to_owned(), capabilities));
    }

    /// A file that everybody may run; its folders come by themselves.
    pub(crate) fn file(&mut self, path: &str, from: &Path) {
        self.put(path, Content::File(from.to_owned()));
    }

    /// A folder with a mode of its own.
    pub(crate) fn folder(&mut self, path: &str, mode: u32) {
        self.put(path, Content::Folder(mode));
    }

    /// A small file.
    pub(crate) fn text(&mut self, path: &str, text: &str) {
        self.put(path, Content::Text(text.to_owned()));
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, to: &str) {
        self.put(path, Content::Link(to.to_owned()));
    }

    fn put(&mut self, path: &str, content: Content) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let parent = path.get(..at).unwrap_or_default().to_owned();
            self.content.entry(parent).or_insert(Content::Folder(0o755));
        }
        self.content.insert(path.to_owned(), content);
    }

    /// Changes when anything in the image does. A file counts by its path, size and time, as for make.
    pub(crate) fn fingerprint(&self) -> Result<String> {
        let mut hash = Sha256::new();
        let starts = (&self.entrypoint, &self.cmd, &self.user);
        hash.update(format!("2 {:?} {starts:?}", self.names));
        for (path, content) in &self.content {
            let line = match content {
                Content::Folder(mode) => format!("\n{path} {mode:o}"),
                Content::Text(text) => format!("\n{path} {text:?}"),
                Content::Link(to) => format!("\n{path} -> {to}"),
                Content::File(from) => format!("\n{path} {}", facts(from)?),
                Content::Capable(from, mask) => format!("\n{path} {} {mask:x}", facts(from)?),
            };
            hash.update(line);
        }
        Ok(hex(&hash.finalize()))
    }

    /// Writes the archive; it appears at `target` when it is whole.
    pub(crate) fn write(&self, target: &Path) -> Result<()> {
        // Of this process, as another may write the same one.
        let own = std::process::id();
        let layer_file = target.with_extension(format!("layer-{own}"));
        let layer = self.write_layer(&layer_file)?;
        let config = self.config(&layer).to_string();
        let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
        let layer_name = format!("{layer}/layer.tar");
        let manifest = json!([{ "Config": config_name, "RepoTags": self.names, "Layers": [layer_name] }]);
        let draft = target.with_extension(format!("new-{own}"));
        let file = File::create(&draft).with_context(|| format!("cannot create {}", draft.display()))?;
        let mut archive = Builder::new(BufWriter::new(file));
        append(&mut archive, &config_name, config.as_bytes())?;
        append(&mut archive, "manifest.json", manifest.to_string().as_bytes())?;
        append_file(&mut archive, &layer_name, &layer_file, 0o644)?;
        archive.into_inner()?.flush()?;
        fs::remove_file(&layer_file)?;
        Ok(fs::rename(draft, target)?)
    }

    /// Writes the files as a tar, and returns its hash.
    fn write_layer(&self, path: &Path) -> Result<String> {
        let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut layer = Builder::new(Hashing {
            inner: BufWriter::new(file),
            hash: Sha256::new(),
        });
        for (path, content) in &self.content {
            match content {
                Content::Folder(mode) => {
                    let mut header = header(EntryType::Directory, 0, *mode);
                    layer.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                Content::File(from) => append_file(&mut layer, path, from, 0o755)?,
                Content::Capable(from, mask) => append_capable(&mut layer, path, from, *mask)?,
                Content::Text(text) => append(&mut layer, path, text.as_bytes())?,
                Content::Link(to) => {
                    layer.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, to)?;
                }
            }
        }
        let mut written = layer.into_inner()?;
        written.inner.flush()?;
        Ok(hex(&written.hash.finalize()))
    }

    fn config(&self, layer: &str) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "Entrypoint": self.entrypoint,
                "Cmd": self.cmd,
                "User": self.user.as_deref().unwrap_or_default(),
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        })
    }
}

/// The `NAME:TAG`s of the images in an archive; none if it is one that says so in another way.
pub(crate) fn tags(path: &Path) -> Result<Vec<String>> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry {
        #[serde(default)]
        repo_tags: Option<Vec<String>>,
    }
    let mut archive = tar::Archive::new(BufReader::new(File::open(path)?));
    for entry in archive.entries()? {
        let entry = entry.ok().context("it is no tar")?;
        if entry.path()?.as_os_str() == "manifest.json" {
            let images: Vec<Entry> = serde_json::from_reader(entry).context("its manifest.json")?;
            return Ok(images
                .into_iter()
                .flat_map(|image| image.repo_tags.unwrap_or_default())
                .collect());
        }
    }
    Ok(Vec::new())
}

/// The first 16 digits of the SHA-256 of a file.
pub(crate) fn hash(path: &Path) -> Result<String> {
    let mut hashing = Hashing {
        inner: std::io::sink(),
        hash: Sha256::new(),
    };
    std::io::copy(&mut File::open(path)?, &mut hashing)?;
    Ok(format!("{:.16}", hex(&hashing.hash.finalize())))
}

/// A hash as people write it.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(archive: &mut Builder<impl Write>, path: &str, bytes: &[u8]) -> Result<()> {
    let size = u64::try_from(bytes.len())?;
    Ok(archive.append_data(&mut header(EntryType::Regular, size, 0o644), path, bytes)?)
}

fn append_file(archive: &mut Builder<impl Write>, path: &str, from: &Path, mode: u32) -> Result<()> {
    let (bytes, size) = open(from)?;
    Ok(archive.append_data(&mut header(EntryType::Regular, size, mode), path, bytes)?)
}

/// The same with file capabilities, which stand in a header of POSIX' format before it.
fn append_capable(archive: &mut Builder<impl Write>, path: &str, from: &Path, mask: u64) -> Result<()> {
    let (bytes, size) = open(from)?;
    archive.append_pax_extensions([(CAPABILITY, capabilities(mask).as_slice())])?;
    let mut plain = Header::new_ustar();
    plain.set_path(path)?;
    plain.set_size(size);
    plain.set_mode(0o755);
    plain.set_uid(0);
    plain.set_gid(0);
    plain.set_mtime(0);
    plain.set_cksum();
    Ok(archive.append(&plain, bytes)?)
}

fn open(from: &Path) -> Result<(impl Read, u64)> {
    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let size = file.metadata()?.len();
    // Never more than the header says, should the file grow meanwhile.
    Ok((BufReader::new(file).take(size), size))
}

/// `security.capability` (`vfs_cap_data` of revision 2): permitted, not inheritable, and not effective. The program takes up what it
/// is permitted; were it effective, it could not even be started where the container does not let it have that.
fn capabilities(mask: u64) -> Vec<u8> {
    let [permitted_low, permitted_high] = [mask & 0xffff_ffff, mask >> 32];
    let words = [0x0200_0000, permitted_low, 0, permitted_high, 0];
    words
        .iter()
        .filter_map(|word| u32::try_from(*word).ok())
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// What a file is known by, as for make.
fn facts(file: &Path) -> Result<String> {
    let facts = fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?;
    let modified = facts.modified()?;
    Ok(format!("{} {} {modified:?}", file.display(), facts.len()))
}

/// Hashes what passes.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::process::Command;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Paths and texts of a tar; nothing in it tells who made it, or when.
    fn read(bytes: &[u8]) -> Vec<(String, String)> {
        let mut archive = tar::Archive::new(Cursor::new(bytes));
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let owner = (entry.header().uid().unwrap(), entry.header().gid().unwrap());
            assert_eq!(
                (entry.header().mtime().unwrap(), owner),
                (0, (0, 0)),
                "{path} tells"
            );
            let mut text = Vec::new();
            entry.read_to_end(&mut text).unwrap();
            (path, String::from_utf8_lossy(&text).into_owned())
        });
        entries.collect()
    }

    fn write(binary: &Path, target: &Path) -> Vec<u8> {
        let mut image = Image::new("a.test/b:1", &["/usr/bin/b"]);
        image.file("/usr/bin/b", binary);
        image.write(target).unwrap();
        fs::read(target).unwrap()
    }

    #[test]
    fn an_archive_says_what_it_holds_and_twice_the_same() {
        let folder = std::env::temp_dir().join(format!("weir-image-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (binary, target) = (folder.join("b"), folder.join("b.tar"));
        fs::write(&binary, "program").unwrap();
        let first = write(&binary, &target);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(&binary).unwrap().set_modified(long_ago).unwrap();
        assert_eq!(first, write(&binary, &target));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "drafts stay behind");
        assert_eq!(tags(&target).unwrap(), ["a.test/b:1"]);
        let sum = Command::new("sha256sum").arg(&target).output().unwrap();
        assert!(sum.stdout.starts_with(hash(&target).unwrap().as_bytes()));
        fs::remove_dir_all(&folder).unwrap();

        let entries = read(&first);
        let manifest: Value = serde_json::from_str(&entries[1].1).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "a.test/b:1");
        assert_eq!(manifest[0]["Config"], entries[0].0.as_str());
        assert_eq!(manifest[0]["Layers"][0], entries[2].0.as_str());
        let config: Value = serde_json::from_str(&entries[0].1).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/b");
        let layer = entries[2].0.strip_suffix("/layer.tar").unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{layer}"));
        let files: Vec<_> = read(entries[2].1.as_bytes());
        let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["usr/", "usr/bin/", "usr/bin/b"]);
    }

    #[test]
    fn a_program_keeps_its_capabilities_in_the_layer() {
        let folder = std::env::temp_dir().join(format!("weir-capable-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (binary, target) = (folder.join("b"), folder.join("b.tar"));
        fs::write(&binary, "program").unwrap();
        let mut image = Image::new("a.test/b:1", &["/b"]).user("7:7");
        image.capable("/b", &binary, NET_BIND_SERVICE);
        image.write(&target).unwrap();
        let bytes = fs::read(&target).unwrap();
        fs::remove_dir_all(&folder).unwrap();

        let entries = read(&bytes);
        let config: Value = serde_json::from_str(&entries[0].1).unwrap();
        assert_eq!(config["config"]["User"], "7:7");
        let at = bytes
            .windows(CAPABILITY.len())
            .position(|some| some == CAPABILITY.as_bytes());
        let value = &bytes[at.unwrap() + CAPABILITY.len() + 1..];
        // As `setcap cap_net_bind_service=p` writes it.
        let expected = [0, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'\n'];
        assert_eq!(value[..expected.len()], expected);
        assert_eq!(
            read(entries[2].1.as_bytes()),
            [("b".to_owned(), "program".to_owned())]
        );
    }

    fn small() -> Image {
        let mut image = Image::new("a.test/b:1", &["/bin/b"]).cmd(&["c"]);
        image.text("/etc/hosts", "127.0.0.1 localhost\n");
        image.link("/bin/sh", "b");
        image.folder("/tmp", 0o1777);
        image
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let paths: Vec<_> = small().content.keys().cloned().collect();
        assert_eq!(paths, ["bin", "bin/sh", "etc", "etc/hosts", "tmp"]);
    }

    #[test]
    fn the_fingerprint_changes_with_the_content() {
        let before = small().fingerprint().unwrap();
        assert_eq!(before, small().fingerprint().unwrap());
        let mut other = small();
        other.text("/etc/hosts", "");
        assert_ne!(before, other.fingerprint().unwrap());
    }
}
