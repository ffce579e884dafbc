//! Questions and answers over a unix socket: one JSON value each way, and the end.
//!
//! Who may open the file (mode 0600) may ask. A process that starts takes the path over from the one before, which goes on
//! answering whoever is connected.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream as Stream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::Question;
use crate::private_socket;

/// Whoever takes longer is left.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a question.
const LONGEST: u64 = 256 * 1024;

/// A question, and where its answer goes.
pub type Asked = (Question, oneshot::Sender<Vec<u8>>);

/// Why nobody answers.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error(
        "no weir-ingress answers at {0}: is it running here? name its socket with --admin-socket, or ask in its pod with kubectl exec"
    )]
    Nobody(PathBuf, #[source] io::Error),
    /// It broke off.
    #[error("asking at {0}")]
    Broken(PathBuf, #[source] io::Error),
    /// It is of another version.
    #[error("the answer at {0} cannot be read: is it of another version than this command?")]
    Unreadable(PathBuf, #[source] serde_json::Error),
}

/// Listens at this path for as long as the process lives.
pub fn listen(path: &Path, questions: mpsc::Sender<Asked>) -> io::Result<()> {
    let listener = private_socket::bind(path)?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // One after the other: people ask.
                Ok((stream, _)) => drop(timeout(PATIENCE, converse(stream, &questions)).await),
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

async fn converse(mut stream: UnixStream, questions: &mpsc::Sender<Asked>) -> io::Result<()> {
    let mut text = Vec::new();
    (&mut stream).take(LONGEST).read_to_end(&mut text).await?;
    let question = serde_json::from_slice(&text)?;
    let (answer_out, answer) = oneshot::channel();
    if questions.send((question, answer_out)).await.is_ok()
        && let Ok(answer) = answer.await
    {
        stream.write_all(&answer).await?;
    }
    stream.shutdown().await
}

/// Asks the process at this path.
pub fn ask<T: DeserializeOwned>(path: &Path, question: &Question) -> Result<T, AskError> {
    let mut stream = Stream::connect(path).map_err(|error| AskError::Nobody(path.to_owned(), error))?;
    let answer =
        converse_with(&mut stream, question).map_err(|error| AskError::Broken(path.to_owned(), error))?;
    serde_json::from_slice(&answer).map_err(|error| AskError::Unreadable(path.to_owned(), error))
}

fn converse_with(stream: &mut Stream, question: &Question) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(2 * PATIENCE))?;
    stream.write_all(&serde_json::to_vec(question)?)?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
