//! Unix sockets that only their own user can open.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::UnixListener;

/// Listens at this path with mode 0600, and makes its folder. A process that starts takes the path over from the one before, in
/// one step: whoever connects finds either.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let own = path.with_extension(format!("{}.new", std::process::id()));
    // Left by a process of this number that was ended in this moment.
    let _gone = fs::remove_file(&own);
    let listener = UnixListener::bind(&own)?;
    fs::set_permissions(&own, Permissions::from_mode(0o600))?;
    fs::rename(&own, path)?;
    Ok(listener)
}
