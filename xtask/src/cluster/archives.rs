//! Image archives that a cluster is given besides those that it is made of: which images they hold, and their bytes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::image::{Shipped, archive};

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

    /// Whether it holds this image, whatever the file is called.
    fn holds(&self, shipped: Shipped) -> bool {
        self.tags.iter().any(|tag| tag == shipped.image())
    }
}

/// Looks into all of them: a path that leads nowhere is found before anything is built.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<Archive>> {
    paths.iter().map(|path| Archive::read(path)).collect()
}

/// The one that holds the agent.
pub(super) fn weir_of(archives: &[Archive]) -> Option<&Archive> {
    archive_of(archives, Shipped::Agent)
}

/// The one that holds this image.
pub(super) fn archive_of(archives: &[Archive], shipped: Shipped) -> Option<&Archive> {
    archives.iter().find(|archive| archive.holds(shipped))
}

/// The image that `WEIR_IMAGE` or `WEIR_INGRESS_IMAGE` names, and that was built elsewhere.
pub(super) fn of_environment(shipped: Shipped) -> Result<Option<Archive>> {
    let variable = match shipped {
        Shipped::Agent => "WEIR_IMAGE",
        Shipped::Ingress => "WEIR_INGRESS_IMAGE",
    };
    let Some(path) = std::env::var_os(variable) else {
        return Ok(None);
    };
    let archive = Archive::read(Path::new(&path)).context(variable)?;
    if !archive.holds(shipped) {
        bail!(
            "{variable}: {} holds no image {}, only {}",
            archive.path.display(),
            shipped.image(),
            archive.tags.join(", ")
        );
    }
    Ok(Some(archive))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{self, archive::Image};

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
