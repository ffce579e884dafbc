//! Where log lines go.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The flag `--log` is no filter.
#[derive(Debug, thiserror::Error)]
#[error("--log {given} is neither a level nor a list of directives: use error, warn, info, debug or trace")]
pub struct FilterError {
    given: String,
    #[source]
    source: Option<tracing_subscriber::filter::ParseError>,
}

/// Sends log lines to standard error: those that pass [`filter`].
pub fn start(
    format: LogFormat,
    given: &str,
    directives: impl FnOnce(&str) -> String,
) -> Result<(), FilterError> {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(given, directives)?)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}

/// What `--log` asks for. A plain level is about weir: `directives` makes of it the level of each crate that is meant.
/// Libraries say little then. Directives are taken as they are.
pub fn filter(given: &str, directives: impl FnOnce(&str) -> String) -> Result<EnvFilter, FilterError> {
    let wrong = |source| FilterError {
        given: format!("{given:?}"),
        source,
    };
    // The library takes these for directives too: `weir=` would silence all others.
    if given.is_empty() || given.split(',').any(|one| one.ends_with('=')) {
        return Err(wrong(None));
    }
    let all = if given.contains([',', '=']) {
        given.to_owned()
    } else {
        let libraries = if given == "error" { "error" } else { "warn" };
        format!("{libraries},{}", directives(given))
    };
    EnvFilter::builder()
        .parse(all)
        .map_err(|source| wrong(Some(source)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(level: &str) -> String {
        format!("proxy_daemon={level}")
    }

    #[test]
    fn a_level_is_about_weir_and_directives_are_taken_as_they_are() {
        let passing = |given: &str| filter(given, own).map(|filter| filter.to_string()).unwrap();
        for (given, libraries) in [("debug", "warn"), ("off", "warn"), ("error", "error")] {
            assert_eq!(passing(given), format!("{},{libraries}", own(given)));
        }
        assert_eq!(passing("aya=debug"), "aya=debug");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for good in ["info", "off", "info,proxy_source=debug"] {
            assert!(filter(good, own).is_ok(), "{good}");
        }
        for bad in ["loud!", "bogus=", "info,bogus=", ""] {
            let told = filter(bad, own).unwrap_err().to_string();
            assert!(told.starts_with(&format!("--log {bad:?} is neither")), "{told}");
        }
    }
}
