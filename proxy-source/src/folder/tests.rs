//! What the folder keeps, drops and says.

use super::*;
use std::fs;
use std::io::Write as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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

/// What a scan would send, in short words. Nobody writes, and all that was written is long settled.
fn told(scanner: &mut Scanner) -> Vec<String> {
    static NOW: AtomicU64 = AtomicU64::new(0);
    let now = || Duration::from_secs(NOW.fetch_add(60, Ordering::Relaxed));
    let mut words = told_at(scanner, now(), &[]);
    words.extend(told_at(scanner, now(), &[]));
    words
}

/// What a scan would send at a time, while files are being written.
fn told_at(scanner: &mut Scanner, now: Duration, writing: &[&str]) -> Vec<String> {
    let writing = writing.iter().map(OsString::from).collect();
    let scan = scanner.scan(now, &writing, Look::AtAll).unwrap();
    scan.changes.iter().map(word).collect()
}

/// A look at all, while nobody writes.
fn look(scanner: &mut Scanner, now: Duration) -> Scan {
    scanner.scan(now, &BTreeSet::new(), Look::AtAll).unwrap()
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
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
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    assert_eq!(
        told(&mut scanner),
        [
            "replace ServiceCIDR 0",
            "replace Node 0",
            "replace EndpointSlice 0",
            "replace Service 2"
        ]
    );
    assert_eq!(told(&mut scanner).len(), 0);
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("c", "10.0.0.33")));
    assert_eq!(told(&mut scanner), ["put shop/c", "delete shop/b"]);
    folder.remove("a.yaml");
    assert_eq!(told(&mut scanner), ["delete shop/a", "delete shop/c"]);
}

#[test]
fn a_broken_document_deletes_nothing_until_the_file_is_whole_again() {
    let folder = Scratch::new();
    let whole = service("a", "10.0.0.1") + &service("b", "10.0.0.2");
    folder.write("a.yaml", &whole);
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
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
fn what_a_changed_file_no_longer_has_goes_when_the_file_is_quiet() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    told_at(&mut scanner, ms(0), &[]);

    folder.write("a.yaml", "");
    assert_eq!(told_at(&mut scanner, ms(10_000), &[]).len(), 0);
    assert_eq!(look(&mut scanner, ms(10_300)).again, Some(ms(700)));
    // The second beginning counts from there, and a slip in it keeps what was before the first.
    folder.write("a.yaml", "kind: Service\nmetadata: {name");
    assert_eq!(told_at(&mut scanner, ms(10_900), &[]).len(), 0);
    assert_eq!(told_at(&mut scanner, ms(19_000), &[]).len(), 0);
    folder.write("a.yaml", &service("a", "10.0.0.11"));
    assert_eq!(told_at(&mut scanner, ms(20_000), &[]), ["put shop/a"]);
    assert_eq!(told_at(&mut scanner, ms(20_999), &[]).len(), 0);
    assert_eq!(told_at(&mut scanner, ms(21_000), &[]), ["delete shop/b"]);
    assert_eq!(look(&mut scanner, ms(21_000)).again, None);

    // So is another file in its place, and its end.
    folder.write(".b.yaml", &service("c", "10.0.0.3"));
    fs::rename(folder.0.join(".b.yaml"), folder.0.join("a.yaml")).unwrap();
    assert_eq!(
        told_at(&mut scanner, ms(21_000), &[]),
        ["delete shop/a", "put shop/c"]
    );
    folder.remove("a.yaml");
    assert_eq!(told_at(&mut scanner, ms(21_000), &[]), ["delete shop/c"]);
}

#[test]
fn a_file_that_is_never_quiet_deletes_in_the_end() {
    let folder = Scratch::new();
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    told_at(&mut scanner, ms(0), &[]);
    for round in 0..20 {
        folder.write("a.yaml", &format!("# {}", "x".repeat(round)));
        assert_eq!(told_at(&mut scanner, ms(500 * (round as u64 + 1)), &[]).len(), 0);
    }
    assert_eq!(told_at(&mut scanner, ms(10_500), &[]), ["delete shop/a"]);
}

#[test]
fn what_moves_to_another_file_is_there_once() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    told_at(&mut scanner, ms(0), &[]);
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    folder.write("b.yaml", &service("b", "10.0.0.22"));
    assert_eq!(told_at(&mut scanner, ms(0), &[]), ["put shop/b"]);
    assert!(scanner.mistakes.is_empty());
    assert_eq!(told_at(&mut scanner, ms(1000), &[]).len(), 0);
}

#[test]
fn what_is_more_counts_at_once_and_what_is_missing_when_it_is_quiet() {
    let folder = Scratch::new();
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    told_at(&mut scanner, ms(0), &[]);
    let mut first = |now| {
        scanner
            .scan(ms(now), &BTreeSet::new(), Look::AtMore)
            .map(|scan| (scan.changes.iter().map(word).collect::<Vec<_>>(), scan.again))
            .unwrap()
    };
    folder.write("b.yaml", &service("b", "10.0.0.2"));
    assert_eq!(first(100), (vec!["put shop/b".to_owned()], None));

    // Removed, and then there under another name: who looks in between says nothing, not even of a third.
    folder.remove("b.yaml");
    folder.write("c.yaml", &service("c", "10.0.0.3"));
    assert_eq!(first(200), (Vec::new(), Some(ms(20))));
    folder.write("bb.yaml", &service("b", "10.0.0.2"));
    assert_eq!(told_at(&mut scanner, ms(220), &[]), ["put shop/c"]);
}

#[test]
fn a_file_that_is_being_written_is_not_read() {
    let folder = Scratch::new();
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    // Not even the first time something is better than nothing.
    assert_eq!(
        told_at(&mut scanner, ms(0), &["a.yaml"]).last().unwrap(),
        "replace Service 1"
    );
    folder.write("a.yaml", "");
    folder.write("b.yaml", &service("b", "10.0.0.2"));
    assert_eq!(told_at(&mut scanner, ms(0), &["a.yaml"]), ["put shop/b"]);
    assert_eq!(told_at(&mut scanner, ms(60_000), &["a.yaml"]).len(), 0);
    folder.write("a.yaml", &service("a", "10.0.0.11"));
    assert_eq!(told_at(&mut scanner, ms(60_000), &[]), ["put shop/a"]);
}

#[test]
fn a_byte_that_is_not_utf8_costs_its_document() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
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
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    assert_eq!(told(&mut scanner).last().unwrap(), "replace Service 1");
    assert_eq!(scanner.mistakes.len(), 1);
}

#[test]
fn an_object_in_two_files_is_taken_from_the_first() {
    let folder = Scratch::new();
    folder.write("b.yaml", &service("a", "10.0.0.2"));
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
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
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
    told(&mut scanner);
    let away = folder.0.with_extension("away");
    fs::rename(&folder.0, &away).unwrap();
    assert!(
        scanner
            .scan(Duration::ZERO, &BTreeSet::new(), Look::AtAll)
            .is_err()
    );
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
    let mut scanner = Scanner::new(folder.0.clone(), &Kind::ALL);
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
    let source = Box::new(Folder::new(path.clone(), &Kind::ALL));
    let task = tokio::spawn(source.run(sender));

    // Not there yet.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(changes.try_recv().is_err());
    fs::create_dir(&path).unwrap();
    fs::write(path.join("a.yaml"), service("a", "10.0.0.1")).unwrap();
    assert_eq!(
        next(&mut changes, 3000).await,
        [
            "replace ServiceCIDR 0",
            "replace Node 0",
            "replace EndpointSlice 0",
            "replace Service 1"
        ]
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

#[tokio::test]
async fn a_slow_writer_deletes_nothing() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let (sender, mut changes) = tokio::sync::mpsc::channel(8);
    let task = tokio::spawn(Box::new(Folder::new(folder.0.clone(), &Kind::ALL)).run(sender));
    assert_eq!(
        next(&mut changes, 3000).await.last().unwrap(),
        "replace Service 2"
    );

    // The shell opens the file; kubectl fills it when the API server has answered, long after it was quiet.
    let path = folder.0.join("a.yaml");
    let mut file = fs::File::create(&path).unwrap();
    tokio::time::sleep(ms(1500)).await;
    file.write_all(service("a", "10.0.0.11").as_bytes()).unwrap();
    // Somebody else's change does not have it read either.
    folder.write("c.yaml", &service("c", "10.0.0.3"));
    assert_eq!(next(&mut changes, 1000).await, ["put shop/c"]);
    tokio::time::sleep(ms(300)).await;
    file.write_all(service("b", "10.0.0.22").as_bytes()).unwrap();
    assert!(changes.try_recv().is_err());
    drop(file);
    assert_eq!(next(&mut changes, 1000).await, ["put shop/a", "put shop/b"]);

    // A new file, too, is read when it is complete.
    let mut file = fs::File::create(folder.0.join("d.yaml")).unwrap();
    tokio::time::sleep(ms(300)).await;
    file.write_all(service("d", "10.0.0.4").as_bytes()).unwrap();
    tokio::time::sleep(ms(300)).await;
    assert!(changes.try_recv().is_err());
    file.write_all(service("e", "10.0.0.5").as_bytes()).unwrap();
    drop(file);
    assert_eq!(next(&mut changes, 1000).await, ["put shop/d", "put shop/e"]);

    // An editor that keeps the old file under another name.
    fs::rename(&path, folder.0.join("a.yaml~")).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    tokio::time::sleep(ms(300)).await;
    file.write_all(service("a", "10.0.0.111").as_bytes()).unwrap();
    drop(file);
    assert_eq!(next(&mut changes, 1000).await, ["delete shop/b", "put shop/a"]);
    task.abort();
}

#[tokio::test]
async fn a_file_is_replaced_or_removed_at_once() {
    let folder = Scratch::new();
    folder.write("a.yaml", &(service("a", "10.0.0.1") + &service("b", "10.0.0.2")));
    let (sender, mut changes) = tokio::sync::mpsc::channel(8);
    let task = tokio::spawn(Box::new(Folder::new(folder.0.clone(), &Kind::ALL)).run(sender));
    assert_eq!(
        next(&mut changes, 3000).await.last().unwrap(),
        "replace Service 2"
    );

    folder.write(".a.yaml.new", &service("a", "10.0.0.11"));
    fs::rename(folder.0.join(".a.yaml.new"), folder.0.join("a.yaml")).unwrap();
    assert_eq!(next(&mut changes, 1000).await, ["delete shop/b", "put shop/a"]);

    folder.remove("a.yaml");
    assert_eq!(next(&mut changes, 1000).await, ["delete shop/a"]);

    // A link is made, and never closed.
    folder.write(".b", &service("b", "10.0.0.2"));
    fs::hard_link(folder.0.join(".b"), folder.0.join("b.yaml")).unwrap();
    assert_eq!(next(&mut changes, 1000).await, ["put shop/b"]);
    task.abort();
}

async fn next(changes: &mut tokio::sync::mpsc::Receiver<Changes>, within: u64) -> Vec<String> {
    let found = tokio::time::timeout(ms(within), changes.recv()).await;
    found.unwrap().unwrap().iter().map(word).collect()
}
