//! The agent under `strace`: which system calls on which maps, and death at a chosen one.

use std::collections::{BTreeMap, HashMap};

/// Calls that change a map, by the map's name, in what `strace -f -e trace=bpf,fcntl,dup,close` wrote.
///
/// A map is known by the call that gave its file descriptor: `BPF_OBJ_GET` of `…/NAME`, or `BPF_MAP_CREATE`.
pub fn map_writes(trace: &str) -> BTreeMap<String, usize> {
    const WRITES: [&str; 4] = [
        "BPF_MAP_UPDATE_ELEM",
        "BPF_MAP_DELETE_ELEM",
        "BPF_MAP_UPDATE_BATCH",
        "BPF_MAP_DELETE_BATCH",
    ];
    let mut names: HashMap<String, String> = HashMap::new();
    let mut writes = BTreeMap::new();
    for line in trace.lines() {
        let name = if line.contains("BPF_OBJ_GET,") {
            between(line, "pathname=\"", "\"").and_then(|path| path.rsplit('/').next())
        } else if line.contains("BPF_MAP_CREATE,") {
            between(line, "map_name=\"", "\"")
        } else {
            None
        };
        if let Some(name) = name
            && let Some(fd) = result(line)
        {
            names.insert(fd.to_owned(), name.to_owned());
        } else if (line.contains("F_DUPFD") || line.contains(" dup("))
            && let Some(old) = between(line, "(", ",").or_else(|| between(line, "(", ")"))
            && let Some(new) = result(line)
            && let Some(name) = names.get(old).cloned()
        {
            names.insert(new.to_owned(), name);
        } else if WRITES.iter().any(|call| line.contains(call)) {
            let fd = between(line, "map_fd=", ",").unwrap_or("?");
            let name = names.get(fd).cloned().unwrap_or_else(|| format!("fd {fd}"));
            *writes.entry(name).or_default() += 1;
        }
    }
    writes
}

/// The text between two marks.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(before)?;
    rest.split_once(after).map(|(text, _)| text)
}

/// The number that a call returned.
fn result(line: &str) -> Option<&str> {
    let number = line.rsplit(" = ").next()?.split_whitespace().next()?;
    number.parse::<u32>().is_ok().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_by_map() {
        let trace = r#"
10 bpf(BPF_OBJ_GET, {pathname="/sys/fs/bpf/weir/v1/SERVICES", bpf_fd=0, file_flags=0, path_fd=0}, 24) = 7
10 fcntl(7, F_DUPFD_CLOEXEC, 3)          = 9
10 bpf(BPF_MAP_UPDATE_ELEM, {map_fd=9, key=0x55, value=0x66, flags=BPF_ANY}, 32) = 0
11 bpf(BPF_MAP_DELETE_ELEM, {map_fd=7, key=0x55}, 32) = 0
11 bpf(BPF_MAP_LOOKUP_ELEM, {map_fd=7, key=0x55, value=0x66}, 32) = 0
11 bpf(BPF_MAP_CREATE, {map_type=BPF_MAP_TYPE_ARRAY, max_entries=1, map_name=".rodata", map_ifindex=0}, 72) = 13
11 bpf(BPF_MAP_UPDATE_ELEM, {map_fd=13, key=0x55, value=0x66, flags=BPF_ANY}, 32) = 0
11 bpf(BPF_MAP_UPDATE_ELEM, {map_fd=12, key=0x55, value=0x66, flags=BPF_ANY}, 32) = 0
"#;
        let writes = map_writes(trace);
        assert_eq!(writes.get("SERVICES"), Some(&2));
        assert_eq!(writes.get(".rodata"), Some(&1));
        assert_eq!(writes.get("fd 12"), Some(&1));
    }
}
