//! Image archives that a cluster is given besides those that it is made of: which images they hold, and their bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::image::{self, archive};

/// An archive, known by its content.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
pub(super) struct Archive {
    pub(super) path: PathBuf,
    /// `NAME:TAG` of each image.
    tags: Vec<String>,
    /// The first digits of the archive's SHA-256.
    pub(super) hash: String,
}

impl Archive {
    /// Looks into it.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let what = || format!("the image archive {}", path.display());
        let path = path.canonicalize().with_context(what)?;
        Ok(Self {
            tags: archive::tags(&path).with_context(what)?,
            hash: archive::hash(&path).with_context(what)?,
            path,
        })
    }

    /// Whether it holds weir, whatever the file is called.
    pub(super) fn is_weir(&self) -> bool {
        self.tags.iter().any(|tag| tag == image::NAME)
    }
}

/// Looks into all of them: a path that leads nowhere is found before anything is built.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Archive>> {
    paths.iter().map(|path| Archive::read(path)).collect()
}

/// The one that holds weir.
pub(super) fn weir_of(archives: &[Archive]) -> Option<&Archive> {
    archives.iter().find(|archive| archive.is_weir())
}

/// The image of weir that `WEIR_IMAGE` names, and that was built elsewhere.
pub(super) fn of_environment() -> Result<Option<Archive>> {
    let Some(path) = std::env::var_os("WEIR_IMAGE") else {
        return Ok(None);
    };
    let archive = Archive::read(Path::new(&path)).context("WEIR_IMAGE")?;
    if !archive.is_weir() {
        bail!(
            "WEIR_IMAGE: {} holds no image {}, only {}",
            archive.path.display(),
            image::NAME,
            archive.tags.join(", ")
        );
    }
    Ok(Some(archive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::archive::Image;

    #[test]
    fn weir_is_known_by_its_name_and_tag() {
        let folder = std::env::temp_dir().join(format!("weir-archives-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let write = |file: &str, name: &str| {
            let path = folder.join(file);
            Image::new(name, &["/a"]).write(&path).unwrap();
            path
        };
        let other = write("weir.tar", "a.test/b:1");
        let weir = write("new.tar", image::NAME);
        let archives = read(&[other, weir.clone()]).unwrap();
        assert_eq!(weir_of(&archives).unwrap().path, weir.canonicalize().unwrap());
        assert_ne!(archives[0].hash, archives[1].hash);
        std::fs::remove_dir_all(&folder).unwrap();
        let error = read(&[weir]).unwrap_err();
        assert!(format!("{error:#}").contains("new.tar"), "{error:#}");
    }
}
