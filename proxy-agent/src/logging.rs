//! Where log lines go.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{KernelLogLevel, LogFormat};

/// The flag `--log` is no filter.
#[derive(Debug, thiserror::Error)]
#[error("--log {given} is neither a level nor a list of directives: use error, warn, info, debug or trace")]
pub struct FilterError {
    given: String,
    #[source]
    source: Option<tracing_subscriber::filter::ParseError>,
}

/// Sends log lines to standard error, and so also those that the kernel programs write.
pub fn start(format: LogFormat, filter: &str, kernel: KernelLogLevel) -> Result<(), FilterError> {
    let filter = parse(filter, kernel)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

fn parse(filter: &str, kernel: KernelLogLevel) -> Result<EnvFilter, FilterError> {
    let wrong = |source| FilterError {
        given: format!("{filter:?}"),
        source,
    };
    // The library takes these for directives too: `weir=` would silence all others.
    if filter.is_empty() || filter.split(',').any(|one| one.ends_with('=')) {
        return Err(wrong(None));
    }
    EnvFilter::builder()
        .parse(directives(filter, kernel))
        .map_err(|source| wrong(Some(source)))
}

/// A plain level is about weir. The libraries say little: what they would say at every try, weir says once. Lines of the
/// kernel programs, whose crate is called `weir`, come through at the level that was asked of the kernel.
fn directives(filter: &str, kernel: KernelLogLevel) -> String {
    if filter.contains([',', '=']) {
        return filter.to_owned();
    }
    let libraries = if filter == "error" { "error" } else { "warn" };
    let programs = match kernel {
        KernelLogLevel::Off => filter.to_owned(),
        level => format!("{level:?}").to_lowercase(),
    };
    format!(
        "{libraries},kube_client=error,kube_runtime=error,proxy_agent={filter},proxy_source={filter},weir={programs}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_about_weir_and_directives_are_taken_as_they_are() {
        let all = directives("debug", KernelLogLevel::Trace);
        assert!(all.starts_with("warn,"), "{all}");
        assert!(
            all.contains("proxy_agent=debug,proxy_source=debug,weir=trace"),
            "{all}"
        );
        assert_eq!(directives("aya=debug", KernelLogLevel::Off), "aya=debug");
        for good in ["info", "off", "info,proxy_source=debug"] {
            assert!(parse(good, KernelLogLevel::Off).is_ok(), "{good}");
        }
        for bad in ["loud!", "bogus=", "info,bogus=", ""] {
            assert!(parse(bad, KernelLogLevel::Off).is_err(), "{bad:?}");
        }
    }
}
