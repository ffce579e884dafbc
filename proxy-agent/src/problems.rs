//! What is wrong now, from the agent to `weir status`, on a socket without a file.
//!
//! Its name follows from the pins, so that each agent of a machine has its own, whatever the path to the pins is from
//! where somebody asks; it belongs to a network namespace, as the agent does. Only root, or who the agent runs as, is
//! answered, and believed.

use std::fs;
use std::io::{self, Read};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{self, SocketAddr};
use std::time::Duration;

use proxy_source::Sentences;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::kernel::Pins;

/// Whoever takes longer is left.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read.
const MOST: u64 = 16 << 20;

fn name(pins: &Pins) -> io::Result<SocketAddr> {
    let root = fs::metadata(pins.root())?;
    SocketAddr::from_abstract_name(format!("weir problems {:x}:{:x}", root.dev(), root.ino()))
}

/// Answers until the runtime ends.
pub fn answer(pins: &Pins, sentences: watch::Receiver<Sentences>) -> io::Result<()> {
    let listener = net::UnixListener::bind_addr(&name(pins)?)?;
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // One after the other: people ask.
                Ok((stream, _)) => drop(timeout(PATIENCE, converse(stream, &sentences)).await),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

async fn converse(mut stream: UnixStream, sentences: &watch::Receiver<Sentences>) -> io::Result<()> {
    if !may(stream.peer_cred()?.uid()) {
        return Ok(());
    }
    let text = serde_json::to_vec(&*sentences.borrow())?;
    stream.write_all(&text).await?;
    stream.shutdown().await
}

fn may(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

/// What an agent of these pins says; `None` if none answers in this network namespace.
pub fn ask(pins: &Pins) -> Option<Sentences> {
    let stream = net::UnixStream::connect_addr(&name(pins).ok()?).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    if !may(socket_peercred(&stream).ok()?.uid.as_raw()) {
        return None;
    }
    let mut text = Vec::new();
    stream.take(MOST).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_says_what_is_wrong_now() {
        let folder = std::env::temp_dir().join(format!("weir-problems-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let pins = Pins::new(&folder);
        fs::create_dir_all(pins.root()).unwrap();
        assert_eq!(ask(&pins), None, "no agent");
        let (wrong, sentences) = watch::channel(Sentences::new());
        answer(&pins, sentences).unwrap();
        let ask = || {
            let pins = pins.clone();
            tokio::task::spawn_blocking(move || ask(&pins))
        };
        assert_eq!(ask().await.unwrap(), Some(Sentences::new()));
        let odd = Sentences::from(["Service shop/web: is odd".to_owned()]);
        wrong.send_replace(odd.clone());
        assert_eq!(ask().await.unwrap(), Some(odd.clone()));
        assert!(answer(&pins, wrong.subscribe()).is_err(), "one at a time");
        // Who connects and does nothing holds nobody up for long.
        let silent = net::UnixStream::connect_addr(&name(&pins).unwrap()).unwrap();
        assert_eq!(ask().await.unwrap(), Some(odd));
        drop(silent);
        fs::remove_dir_all(&folder).unwrap();
    }
}
