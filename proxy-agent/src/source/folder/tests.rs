//! What the folder keeps, drops and says.

use super::*;
use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("weir-folder-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.0.join(name)).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn service(name: &str, ip: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n"
    )
}

/// What a scan would send, in short words.
fn told(scanner: &mut Scanner) -> Vec<String> {
    let scan = scanner.scan().unwrap();
    scan.changes.iter().map(word).collect()
}

fn word(change: &Change) -> String {
    match change {
        Change::Put(object) => format!("put {}", object.name()),
        Change::Delete(_, name) => format!("delete {name}"),
        Change::Replace(kind, objects) => format!("replace {kind} {}", objects.len()),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_scan_is_complete_and_later_ones_tell_the_difference() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let mut scanner = Scanner::new(folder.0.clone());
    assert_eq!(
        told(&mut scanner),
        ["replace Node 0", "replace EndpointSlice 0", "replace Service 2"]
    );
    assert_eq!(told(&mut scanner).len(), 0);
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("c", "10.0.0.33")));
    assert_eq!(told(&mut scanner), ["delete shop/b", "put shop/c"]);
    folder.remove("a.yaml");
    assert_eq!(told(&mut scanner), ["delete shop/a", "delete shop/c"]);
}

#[test]
fn a_broken_document_deletes_nothing_until_the_file_is_whole_again() {
    let folder = Scratch::new();
    let whole = service("a", "10.0.0.1") + &service("b", "10.0.0.2");
    folder.write("a.yaml", &whole);
    let mut scanner = Scanner::new(folder.0.clone());
    told(&mut scanner);

    folder.write(
        "a.yaml",
        &(service("a", "10.0.0.11") + "---\nkind: Service\nmetadata: {name: b\n"),
    );
    assert_eq!(told(&mut scanner), ["put shop/a"]);
    assert_eq!(scanner.mistakes.len(), 1);

    // Whole again, and b is really gone.
    folder.write("a.yaml", &service("a", "10.0.0.11"));
    assert_eq!(told(&mut scanner), ["delete shop/b"]);
    assert!(scanner.mistakes.is_empty());
}

#[test]
fn a_byte_that_is_not_utf8_costs_its_document() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let mut scanner = Scanner::new(folder.0.clone());
    told(&mut scanner);
    let mut content = (service("a", "10.0.0.11") + "# coffee").into_bytes();
    content.extend(b"\xe9\n");
    content.extend(service("b", "10.0.0.22").into_bytes());
    fs::write(folder.0.join("a.yaml"), content).unwrap();
    assert_eq!(told(&mut scanner), ["put shop/b"]);
    assert_eq!(scanner.mistakes.len(), 1);
    let mistake = &scanner.files.values().next().unwrap().mistakes[0];
    assert!(
        mistake.contains("a.yaml:6: is not valid UTF-8 at line 6"),
        "{mistake}"
    );
    assert!(
        mistake.contains("kept as loaded before: Service shop/a"),
        "{mistake}"
    );
}

#[test]
fn a_pipe_is_not_waited_for() {
    let folder = Scratch::new();
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mkfifo = std::process::Command::new("mkfifo")
        .arg(folder.0.join("x.yaml"))
        .status();
    assert!(mkfifo.unwrap().success());
    let mut scanner = Scanner::new(folder.0.clone());
    assert_eq!(told(&mut scanner).last().unwrap(), "replace Service 1");
    assert_eq!(scanner.mistakes.len(), 1);
}

#[test]
fn an_object_in_two_files_is_taken_from_the_first() {
    let folder = Scratch::new();
    folder.write("b.yaml", &service("a", "10.0.0.2"));
    let mut scanner = Scanner::new(folder.0.clone());
    told(&mut scanner);
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    assert_eq!(told(&mut scanner), ["put shop/a"]);
    assert_eq!(scanner.mistakes.len(), 1);
    folder.remove("a.yaml");
    assert_eq!(told(&mut scanner), ["put shop/a"]);
    assert!(scanner.mistakes.is_empty());
}

#[test]
fn a_missing_folder_deletes_nothing() {
    let folder = Scratch::new();
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut scanner = Scanner::new(folder.0.clone());
    told(&mut scanner);
    let away = folder.0.with_extension("away");
    fs::rename(&folder.0, &away).unwrap();
    assert!(scanner.scan().is_err());
    fs::rename(&away, &folder.0).unwrap();
    assert_eq!(told(&mut scanner).len(), 0);
}

#[test]
fn the_link_swap_of_a_mounted_config_map_is_seen() {
    let folder = Scratch::new();
    let link = |from: &str, to: &str| std::os::unix::fs::symlink(from, folder.0.join(to)).unwrap();
    fs::create_dir(folder.0.join("..one")).unwrap();
    fs::create_dir(folder.0.join("..two")).unwrap();
    folder.write("..one/a.yaml", &service("a", "10.0.0.1"));
    folder.write("..two/a.yaml", &service("a", "10.0.0.2"));
    link("..one", "..data");
    link("..data/a.yaml", "a.yaml");
    let mut scanner = Scanner::new(folder.0.clone());
    assert_eq!(told(&mut scanner).last().unwrap(), "replace Service 1");
    link("..two", "..data_tmp");
    fs::rename(folder.0.join("..data_tmp"), folder.0.join("..data")).unwrap();
    assert_eq!(told(&mut scanner), ["put shop/a"]);
}

#[tokio::test]
async fn a_change_is_told_within_a_fraction_of_a_second_and_a_lost_folder_is_found_again() {
    let folder = Scratch::new();
    let path = folder.0.join("manifests");
    let (sender, mut changes) = tokio::sync::mpsc::channel(8);
    let source = Box::new(Folder::new(path.clone()));
    let task = tokio::spawn(source.run(sender));

    // Not there yet.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(changes.try_recv().is_err());
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    assert_eq!(
        next(&mut changes, 3000).await,
        ["replace Node 0", "replace EndpointSlice 0", "replace Service 1"]
    );

    fs::write(path.join("b.yaml"), service("b", "10.0.0.2")).unwrap();
    assert_eq!(next(&mut changes, 1000).await, ["put shop/b"]);

    // Another folder takes its place.
    let other = folder.0.join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("c.yaml"), service("c", "10.0.0.3")).unwrap();
    fs::rename(&path, folder.0.join("old")).unwrap();
    fs::rename(&other, &path).unwrap();
    assert_eq!(
        next(&mut changes, 3000).await,
        ["delete shop/a", "delete shop/b", "put shop/c"]
    );
    fs::write(path.join("c.yaml"), service("c", "10.0.0.33")).unwrap();
    assert_eq!(next(&mut changes, 1000).await, ["put shop/c"]);
    task.abort();
}

use std::time::Duration;

async fn next(changes: &mut tokio::sync::mpsc::Receiver<Changes>, within: u64) -> Vec<String> {
    let found = tokio::time::timeout(Duration::from_millis(within), changes.recv()).await;
    found.unwrap().unwrap().iter().map(word).collect()
}
