//! Runs commands, and prints them in a form that can be pasted.

use std::ffi::OsStr;
use std::io::{self, PipeReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// A cargo command of the toolchain that runs this program, in the root of the work tree.
pub(crate) fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    command("cargo", args)
}

/// A command in the root of the work tree.
pub(crate) fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args).current_dir(workspace::root());
    // Set by the `cargo run` that started this program; a nested cargo would rebuild what looks at them.
    for (name, _) in std::env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR")
        {
            command.env_remove(name);
        }
    }
    command
}

/// Prints and runs the command; failing is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    announce(command);
    let status = command.status().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("failed ({status}): {}", line(command));
    }
    Ok(())
}

/// Prints and starts the command; all that it says comes out of one pipe, so that its two streams stay in order.
pub(crate) fn piped(mut command: Command) -> Result<(Child, PipeReader)> {
    announce(&command);
    let (said, says) = io::pipe()?;
    command
        .stdin(Stdio::null())
        .stdout(says.try_clone()?)
        .stderr(says);
    // The command holds the pipe's other end; with the end of this function only the child does.
    let child = command.spawn().with_context(|| cannot_start(&command))?;
    Ok((child, said))
}

/// Runs the command quietly and returns what it printed to its standard output.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        bail!("failed ({}): {}: {}", output.status, line(command), told.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Prints to the standard output, whose reader may have gone away (`| head`).
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// Prints the command.
pub(crate) fn announce(command: &Command) {
    eprintln!("\n$ {}", line(command));
}

pub(crate) fn cannot_start(command: &Command) -> String {
    format!("cannot start {}", command.get_program().display())
}

/// Measures how long `work` takes.
#[expect(clippy::disallowed_methods, reason = "this is the clock of xtask")]
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

/// The command as a line for a shell in the root of the work tree.
fn line(command: &Command) -> String {
    let set = command
        .get_envs()
        .filter_map(|(name, value)| Some(format!("{}={}", name.display(), word(value?))));
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    set.chain(words.map(word)).collect::<Vec<_>>().join(" ")
}

fn word(word: &OsStr) -> String {
    let text = Path::new(word)
        .strip_prefix(workspace::root())
        .map_or_else(|_| word.display().to_string(), |path| path.display().to_string());
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_command_can_be_pasted() {
        let mut command = cargo(["test", "--", "it's here"]);
        command.env("REQUIRE_ROOT", "1");
        command.arg(workspace::root().join("x"));
        assert_eq!(line(&command), "REQUIRE_ROOT=1 cargo test -- 'it'\\''s here' x");
    }
}
