//! `weir cleanup`: no trace left.

use anyhow::Result;

use crate::config::CleanupFlags;
use crate::kernel;

/// Removes everything, and says what it was.
pub async fn run(flags: &CleanupFlags) -> Result<()> {
    let pins = flags.bpffs.pins();
    let removed = kernel::cleanup(&pins).await?;
    if removed.is_empty() {
        return super::print(&format!(
            "nothing to remove: there is no {}\n",
            pins.root().display()
        ));
    }
    super::print(&format!("{}\n", removed.join("\n")))
}
