//! Sockets that go from one holder to the next, in this process.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use tokio::time::timeout;

use super::*;

fn listener() -> (TcpListener, Handed) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let handed = Handed {
        address: listener.local_addr().unwrap(),
        tls: false,
        socket: listener.try_clone().unwrap().into(),
    };
    (listener, handed)
}

fn path(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("weir-handover-{name}-{}", std::process::id()))
}

#[tokio::test]
async fn a_connection_that_waits_is_taken_by_the_next_process() {
    let path = path("waits");
    // More than fit into one message.
    let (listeners, handed): (Vec<_>, Vec<_>) = (0..70).map(|_| listener()).unzip();
    let address = handed[69].address;
    let (relieved_out, mut relieved) = mpsc::channel(1);
    let _offer = offer(&path, handed, relieved_out).unwrap();
    let _waiting = TcpStream::connect(address).unwrap();
    let there = path.clone();
    let (taken, predecessor) = tokio::task::spawn_blocking(move || take(&there))
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop(listeners);
    assert_eq!(taken.len(), 70);
    assert!(relieved.try_recv().is_err(), "it does not serve yet");
    let last = taken
        .into_iter()
        .find(|handed| handed.address == address)
        .unwrap();
    let (_stream, _) = TcpListener::from(last.socket).accept().unwrap();
    predecessor.relieve().unwrap();
    timeout(PATIENCE, relieved.recv()).await.unwrap().unwrap();
    fs::remove_file(&path).unwrap();
}

#[tokio::test]
async fn who_ends_before_it_serves_relieves_nobody() {
    let path = path("ends");
    let (_listener, handed) = listener();
    let (relieved_out, mut relieved) = mpsc::channel(1);
    let _offer = offer(&path, vec![handed], relieved_out).unwrap();
    let there = path.clone();
    let taken = tokio::task::spawn_blocking(move || take(&there))
        .await
        .unwrap()
        .unwrap();
    drop(taken);
    assert!(
        timeout(Duration::from_millis(200), relieved.recv())
            .await
            .is_err()
    );
    fs::remove_file(&path).unwrap();
}

#[test]
fn nobody_there_is_no_error() {
    assert!(take(&path("nobody")).unwrap().is_none());
    let left = path("left");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    assert!(take(&left).unwrap().is_none(), "a file that a process left");
    fs::remove_file(&left).unwrap();
}

#[tokio::test]
async fn a_name_goes_from_one_process_to_the_next() {
    let name = PathBuf::from(format!("@weir-handover-{}", std::process::id()));
    assert!(take(&name).unwrap().is_none(), "nobody is there");
    let ((_first, one), (_second, two)) = (listener(), listener());
    let addresses = [one.address, two.address];
    let (relieved, _) = mpsc::channel(1);
    let old = offer(&name, vec![one], relieved.clone()).unwrap();
    let new = offer(&name, vec![two], relieved).unwrap();
    let of = |name: PathBuf| async {
        let taken = tokio::task::spawn_blocking(move || take(&name)).await.unwrap();
        taken.unwrap().map(|(handed, _)| handed[0].address)
    };
    assert_eq!(
        of(name.clone()).await,
        Some(addresses[0]),
        "the old one has the name"
    );
    drop(old);
    let moved = async {
        while of(name.clone()).await != Some(addresses[1]) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, moved).await.unwrap();
    drop(new);
}
