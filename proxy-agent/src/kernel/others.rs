//! Another weir in this network namespace, with its pins elsewhere.
//!
//! Both would be attached to the same hooks, and the one that is asked second would see what the first has made of a
//! packet. Programs can be told apart only by what they read: each set has a `CONFIG` of its own, with the network
//! namespace of its node. What is pinned below our own BPF file system is ours, also in another version.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Map, MapData, MapInfo, loaded_maps};
use proxy_common::{NodeConfig, maps as names};

use super::load::LoadError;
use super::pins::Pins;
use super::table::Slots;

/// Maps go a moment after the last program that used them.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// Whether no other weir serves this node. Where both do already, a restart of one must not take its service away.
pub(super) fn check(pins: &Pins, cookie: u64, adopted: bool) -> Result<(), LoadError> {
    let Some(place) = another(pins, cookie) else {
        return Ok(());
    };
    let another = LoadError::Another { place };
    if adopted {
        tracing::warn!("{another}");
        return Ok(());
    }
    Err(another)
}

/// Where its maps are, for people; `None` if there is none, or if the kernel does not let us look (`CAP_SYS_ADMIN`).
fn another(pins: &Pins, cookie: u64) -> Option<String> {
    let mut found = find(pins, cookie)?;
    for _ in 1..LOOKS {
        std::thread::sleep(PAUSE);
        found = find(pins, cookie)?;
    }
    Some(place(found))
}

/// The id of its `CONFIG`.
fn find(pins: &Pins, cookie: u64) -> Option<u32> {
    let own = configs_below(&pins.product());
    let size = u32::try_from(size_of::<NodeConfig>()).ok()?;
    loaded_maps()
        .flatten()
        .filter(|map| map.name_as_str() == Some(names::CONFIG) && map.value_size() == size)
        .map(|map| map.id())
        .filter(|id| !own.iter().any(|(known, _)| known == id))
        .find(|id| namespace_of(*id) == Some(cookie))
}

fn namespace_of(id: u32) -> Option<u64> {
    let map = Map::from_map_data(MapData::from_id(id).ok()?).ok()?;
    let config: Slots<NodeConfig> = Slots::new(names::CONFIG, map.try_into().ok()?);
    Some(config.get(0).ok()?.host_netns_cookie)
}

/// The `CONFIG`s of all versions in a folder `weir`.
fn configs_below(product: &Path) -> BTreeSet<(u32, PathBuf)> {
    let versions = fs::read_dir(product).into_iter().flatten().flatten();
    let id = |path: PathBuf| Some((MapInfo::from_pin(path.join(names::CONFIG)).ok()?.id(), path));
    versions.filter_map(|version| id(version.path())).collect()
}

/// The BPF file system that it is pinned in, if that can be seen from here.
fn place(id: u32) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let seen = bpf_mounts(&mounts).find(|mount| {
        let configs = configs_below(&Pins::new(mount).product());
        configs.iter().any(|(known, _)| *known == id)
    });
    seen.map_or_else(
        || format!("map {id} of bpftool"),
        |mount| mount.display().to_string(),
    )
}

/// `36 24 0:31 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700`
fn bpf_mounts(mounts: &str) -> impl Iterator<Item = PathBuf> {
    mounts.lines().filter_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let point = place.split(' ').nth(4)?;
        kind.starts_with("bpf ").then(|| PathBuf::from(point))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_bpf_are_told_by_their_kind() {
        let mounts = "36 24 0:31 / /sys/fs/bpf rw,nosuid shared:9 - bpf bpf rw,mode=700\n\
                      37 24 0:32 / /sys/fs/cgroup rw - cgroup2 bpf rw\n\
                      38 24 0:33 / /run/b rw - bpf none rw\n";
        let found: Vec<PathBuf> = bpf_mounts(mounts).collect();
        assert_eq!(found, [PathBuf::from("/sys/fs/bpf"), PathBuf::from("/run/b")]);
    }
}
