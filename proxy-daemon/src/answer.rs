//! What a command prints: to a reader that may leave in the middle (`weir flows | head`), which is no error.

use std::error::Error;
use std::io::{self, Write};

use serde::Serialize;

/// Writes to standard output.
pub fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

/// Writes a value as JSON for people and programs.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Whether this happened because nobody reads the answer any more.
pub fn is_closed_pipe(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("writing the answer")]
    struct Writing(#[source] io::Error);

    #[test]
    fn a_closed_pipe_is_found_below_its_context() {
        let pipe = Writing(io::ErrorKind::BrokenPipe.into());
        assert!(is_closed_pipe(&pipe));
        assert!(!is_closed_pipe(&Writing(io::ErrorKind::NotFound.into())));
    }
}
