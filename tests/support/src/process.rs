//! Processes inside the lab: in a namespace and a cgroup, and never outliving us.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal};

use crate::{clock, netns::Netns};

/// A process of the lab. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` in a place; output that is not piped goes to the end of `log`.
    pub(crate) fn start(mut command: Command, netns: &Netns, cgroup: &Path, log: &Path) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        place(&mut command, netns, cgroup)?;
        let child = spawn(command).with_context(|| format!("cannot start {program} in {}", netns.name()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The log file, which holds what the process printed.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// What the process printed so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map_or_else(
            |error| format!("(no log: {error})"),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("process id {} is out of range", self.child.id()))?;
        rustix::process::kill_process(pid, signal)
            .with_context(|| format!("cannot signal process {}", self.child.id()))
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill().context("cannot kill the process")?;
        self.child.wait().context("cannot wait for the process")
    }

    /// `SIGTERM`, and waits up to `limit` for the end.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
        }
        self.wait(limit)
    }

    /// Waits up to `limit` for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut status = None;
        clock::wait_until(limit, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        });
        status.ok_or_else(|| {
            anyhow!(
                "process {} did not end within {limit:?}; its log:\n{}",
                self.child.id(),
                self.log()
            )
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// Opens a log for appending, as the two outputs of a command.
pub(crate) fn log_to(command: &mut Command, log: &Path) -> Result<()> {
    let open = || -> io::Result<File> { OpenOptions::new().create(true).append(true).open(log) };
    let context = || format!("cannot open {}", log.display());
    command
        .stdin(Stdio::null())
        .stdout(open().with_context(context)?)
        .stderr(open().with_context(context)?);
    Ok(())
}

/// Makes the command's process enter the namespace and the cgroup, and die with this process.
#[expect(unsafe_code, reason = "`pre_exec` runs between fork and exec")]
pub(crate) fn place(command: &mut Command, netns: &Netns, cgroup: &Path) -> Result<()> {
    let netns = netns
        .as_fd()
        .try_clone_to_owned()
        .context("cannot duplicate a file descriptor")?;
    let procs = cgroup.join("cgroup.procs");
    let procs = OpenOptions::new()
        .write(true)
        .open(&procs)
        .with_context(|| format!("cannot open {}", procs.display()))?;
    let parent = rustix::process::getpid();
    // A Ctrl-C in the terminal is for us; we end our processes ourselves.
    command.process_group(0);
    let enter = move || -> io::Result<()> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The signal does not come if the parent died before it was asked for.
        if rustix::process::getppid() != Some(parent) {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        rustix::io::write(&procs, b"0")?;
        rustix::thread::move_into_link_name_space(
            netns.as_fd(),
            Some(rustix::thread::LinkNameSpaceType::Network),
        )?;
        Ok(())
    };
    // SAFETY: the closure runs in the child of a fork, where only async-signal-safe work is allowed: it makes four
    // system calls through rustix, which do not allocate, lock or unwind, on descriptors that the closure owns.
    unsafe { command.pre_exec(enter) };
    Ok(())
}

type Job = (Command, Sender<io::Result<Child>>);

/// Spawns from a thread that never ends.
///
/// The death signal of `place` comes when the *thread* that forked ends, which may be a short-lived one of a test.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let gone = || io::Error::other("the thread that starts processes has ended");
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(jobs)
    });
    let (answer, result) = mpsc::channel();
    spawner
        .lock()
        .map_err(|_| gone())?
        .send((command, answer))
        .map_err(|_| gone())?;
    result.recv().map_err(|_| gone())?
}
