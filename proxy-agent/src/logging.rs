//! Which log lines come through: the agent's own, and those that the programs in the kernel write.

use proxy_daemon::logging::{self, FilterError, LogFormat};

use crate::config::KernelLogLevel;

/// Sends log lines to standard error, and so also those that the kernel programs write.
pub fn start(format: LogFormat, filter: &str, kernel: KernelLogLevel) -> Result<(), FilterError> {
    logging::start(format, filter, |level| directives(level, kernel))
}

/// What libraries would say at every try, weir says once. Lines of the kernel programs, whose crate is called `weir`, come
/// through at the level that was asked of the kernel.
fn directives(level: &str, kernel: KernelLogLevel) -> String {
    let programs = match kernel {
        KernelLogLevel::Off => level.to_owned(),
        kernel => format!("{kernel:?}").to_lowercase(),
    };
    format!(
        "kube_client=error,kube_runtime=error,proxy_agent={level},proxy_daemon={level},proxy_source={level},weir={programs}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_about_weir_and_the_kernel_has_its_own() {
        let all = directives("debug", KernelLogLevel::Trace);
        assert!(
            all.ends_with(",proxy_agent=debug,proxy_daemon=debug,proxy_source=debug,weir=trace"),
            "{all}"
        );
        assert!(directives("info", KernelLogLevel::Off).ends_with(",weir=info"));
        for (level, good) in [("debug", true), ("off", true), ("loud!", false)] {
            let filter = logging::filter(level, |level| directives(level, KernelLogLevel::Trace));
            assert_eq!(filter.is_ok(), good, "{level}");
        }
    }
}
