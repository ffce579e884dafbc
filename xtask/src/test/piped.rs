//! What tests say, passed on as they say it.

use std::io::{self, IsTerminal, Read, Write};
use std::process::Command;

use anyhow::Result;

use crate::shell;

/// The tests write into a pipe, and would take off their colours.
pub(super) fn color() -> &'static str {
    if io::stdout().is_terminal() {
        "always"
    } else {
        "never"
    }
}

/// Runs the command, passes on what it says as it says it, and keeps a copy.
pub(super) fn tee(command: Command) -> Result<(String, bool)> {
    let (mut child, said) = shell::piped(command)?;
    let said = copy(said, io::stdout());
    Ok((said, child.wait()?.success()))
}

/// Unbuffered: with tests that take turns, the name of the running one is half a line.
fn copy(mut from: impl Read, mut to: impl Write) -> String {
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let piece = buffer.get(..length).unwrap_or_default();
        // A reader who went away (`| head`) does not stop the tests.
        let _ = to.write_all(piece).and_then(|()| to.flush());
        kept.extend_from_slice(piece);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
