//! A panic ends the daemon, in whatever task or thread it happens.
//!
//! Half a daemon would answer its probes and do nothing; one that is gone is started again.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

/// From now on, a panic is logged and ends the process: `who` ends, and with what `consequence`.
pub fn end_the_process(who: &'static str, consequence: &'static str) {
    panic::set_hook(Box::new(move |info| {
        tracing::error!("{}", sentence(who, &format!("it ends, and {consequence}"), info));
        std::process::abort();
    }));
}

/// From now on, a panic is logged; what else it costs is for whoever runs the thread or task to say.
pub fn tell(who: &'static str) {
    panic::set_hook(Box::new(move |info| {
        tracing::error!("{}", sentence(who, "what it was doing ends", info));
    }));
}

fn sentence(who: &str, consequence: &str, info: &PanicHookInfo<'_>) -> String {
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => format!("\n{backtrace}"),
        _ => String::new(),
    };
    let what = info.to_string().replace('\n', " ");
    format!("{who} {what}: {consequence}; please report this{backtrace}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, exit};
    use std::time::Duration;

    use rustix::process::Signal;

    use super::*;
    use crate::logging::{self, LogFormat};

    const CHILD: &str = "WEIR_TEST_PANICS";

    /// What the test runs in a process of its own.
    fn panic_in_a_task() -> ! {
        logging::start(LogFormat::Text, "info", |level| format!("proxy_daemon={level}")).unwrap();
        end_the_process("the daemon", "nobody misses it");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::spawn(async { panic!("on purpose") });
            tokio::time::sleep(Duration::from_secs(5)).await;
        });
        exit(0);
    }

    #[test]
    fn a_panic_in_a_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            panic_in_a_task();
        }
        let test = "panics::tests::a_panic_in_a_task_ends_the_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--nocapture"]).env(CHILD, "1");
        let output = child.output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{log}");
        for part in [
            "the daemon panicked at ",
            "on purpose: it ends, and nobody misses it; please",
        ] {
            assert!(log.contains(part), "{part} is not in {log}");
        }
    }
}
