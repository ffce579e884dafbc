//! Flags, and mistakes in them.

use super::*;
use crate::model;
use crate::route::path::PathOptions;

fn flags(words: &[&str]) -> Result<ServeFlags, String> {
    let words = ["weir-ingress", "serve"].iter().chain(words);
    let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
    match cli.command {
        Command::Serve(flags) => Ok(*flags),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn only_the_delay_may_be_nothing() {
    for zero in ["0", "0s", "0ms"] {
        let flags = flags(&["--shutdown-delay", zero]).unwrap();
        assert_eq!(flags.doors.shutdown_delay, Duration::ZERO);
    }
    assert!(flags(&["--drain-timeout", "0s"]).is_err());
    let flags = flags(&["--shutdown-delay", "100ms"]).unwrap();
    assert_eq!(flags.doors.shutdown_delay, Duration::from_millis(100));
}

#[test]
fn without_flags_it_is_an_ordinary_ingress() {
    let flags = flags(&[]).unwrap();
    let doors: Vec<String> = flags
        .doors()
        .iter()
        .map(|door| door.address.to_string())
        .collect();
    assert_eq!(doors, ["[::]:80", "[::]:443"]);
    assert_eq!(flags.model(), model::Options::default());
    assert_eq!(flags.paths(), PathOptions::default());
    assert!(flags.workers() >= 1);
    let settings = flags.settings();
    assert_eq!(
        (settings.https_port, settings.drain),
        (443, Duration::from_secs(240))
    );
}

#[test]
fn doors_are_closed_and_moved() {
    let flags = flags(&["--http=", "--https", ":8443,127.0.0.1:9443"]).unwrap();
    let doors: Vec<String> = flags
        .doors()
        .iter()
        .map(|door| door.address.to_string())
        .collect();
    assert_eq!(doors, ["[::]:8443", "127.0.0.1:9443"]);
}

#[test]
fn mistakes_say_what_to_write() {
    for (words, expected) in [
        (["--http", "80"], "write ADDRESS:PORT"),
        (["--default-certificate", "cert"], "write NAMESPACE/NAME"),
        (["--drain-timeout", "soon"], "write a number of seconds"),
        (["--api-server", "http://10.0.0.1"], "https"),
        (["--workers", "0"], "zero"),
    ] {
        let error = flags(&words).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
