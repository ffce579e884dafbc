//! What operators see: answers of the running process, as tables or as JSON.

mod explain;
mod lists;

use anyhow::Result;
use proxy_daemon::table::Table;
use serde::Serialize;

pub use self::explain::explain;
pub use self::lists::{certificates, conflicts, endpoints, routes};
use crate::config::{AskFlags, Output};

/// Prints an answer.
fn show<T: Serialize>(flags: &AskFlags, rows: &[T], what: &str, table: impl FnOnce() -> Table) -> Result<()> {
    if flags.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        eprintln!("no {what}");
    }
    print!("{}", table().render(!flags.no_headers));
    Ok(())
}
