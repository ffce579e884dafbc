//! The maps: what their definitions say, and the page made of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;
use syn::{Expr, GenericArgument, Item, ItemStatic, PathArguments, Type};

use super::rows::Rows;
use crate::source;

/// What every map must say of itself.
pub(crate) const FACTS: [&str; 5] = ["Writer", "Reader", "Lifecycle", "Full", "Survives"];

/// A map definition.
pub(crate) struct Map {
    pub(crate) name: String,
    /// The kind, as aya calls it.
    kind: String,
    /// Key and value, where the kind has them.
    types: Vec<Type>,
    /// Rows, or bytes of a ring.
    size: Option<Expr>,
    pinned: bool,
    summary: String,
    facts: Vec<(&'static str, String)>,
}

impl Map {
    /// The facts that its comment does not state.
    pub(crate) fn missing_facts(&self) -> Vec<&'static str> {
        let stated = |fact: &&'static str| {
            self.facts
                .iter()
                .any(|(name, text)| name == fact && !text.is_empty())
        };
        FACTS.into_iter().filter(|fact| !stated(fact)).collect()
    }

    fn read(item: &ItemStatic) -> Option<Self> {
        let attribute = item
            .attrs
            .iter()
            .find(|a| a.path().is_ident("btf_map") || a.path().is_ident("map"))?;
        let mut pinned = false;
        if let syn::Meta::List(list) = &attribute.meta {
            pinned = list.tokens.to_string().contains("pin_by_name");
        }
        let (kind, types, size) = declared(&item.ty)?;
        let (summary, facts) = split(&source::doc(&item.attrs));
        Some(Self {
            name: item.ident.to_string(),
            kind,
            types,
            size,
            pinned,
            summary,
            facts,
        })
    }

    fn key_and_value(&self) -> (Option<&Type>, Option<&Type>) {
        match (self.kind.as_str(), self.types.as_slice()) {
            (_, [key, value]) => (Some(key), Some(value)),
            (_, [value]) => (None, Some(value)),
            _ => (None, None),
        }
    }
}

/// The maps that a source file defines.
pub(crate) fn maps(text: &str) -> Result<Vec<Map>> {
    let file = syn::parse_file(text)?;
    let statics = file.items.iter().filter_map(|item| match item {
        Item::Static(item) => Some(item),
        _ => None,
    });
    Ok(statics.filter_map(Map::read).collect())
}

/// Kind, row types and size of `Kind<Key, Value, { SIZE }, { FLAGS }>`.
fn declared(ty: &Type) -> Option<(String, Vec<Type>, Option<Expr>)> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let mut types = Vec::new();
    let mut size = None;
    if let PathArguments::AngleBracketed(arguments) = &last.arguments {
        for argument in &arguments.args {
            match argument {
                GenericArgument::Type(ty) => types.push(ty.clone()),
                // The first number is the size, the second the flags.
                GenericArgument::Const(expr) if size.is_none() => size = Some(expr.clone()),
                _ => {}
            }
        }
    }
    Some((last.ident.to_string(), types, size))
}

/// Splits a comment into its opening and the facts, several of which may share a line.
fn split(doc: &str) -> (String, Vec<(&'static str, String)>) {
    let mut starts: Vec<(usize, &'static str)> = FACTS
        .iter()
        .filter_map(|fact| Some((doc.find(&format!("{fact}:"))?, *fact)))
        .collect();
    starts.sort_unstable();
    let ends = starts.iter().skip(1).map(|(at, _)| *at).chain([doc.len()]);
    let facts = starts.iter().zip(ends).filter_map(|((start, fact), end)| {
        let text = doc.get(start + fact.len() + 1..end)?;
        Some((*fact, one_line(text)))
    });
    let facts = facts.collect();
    let summary = doc
        .get(..starts.first().map_or(doc.len(), |(at, _)| *at))
        .unwrap_or_default();
    (one_line(summary), facts)
}

fn one_line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("[`", "`")
        .replace("`]", "`")
}

/// The page.
pub(crate) fn render(maps: &[Map], rows: &Rows) -> String {
    let mut page = String::from(OPENING);
    for map in maps {
        let _ = writeln!(
            page,
            "| [`{0}`](#{1}) | {2} | {3} |",
            map.name,
            map.name.to_lowercase(),
            map.kind,
            size(map, rows)
        );
    }
    let mut names = BTreeSet::new();
    for map in maps {
        section(&mut page, map, rows, &mut names);
    }
    page.push_str("\n# Numbers in the rows\n");
    for name in names {
        rows.numbers(&mut page, &name);
    }
    page
}

const OPENING: &str = "\
<!-- Made by `./x docs` from proxy-ebpf/src/maps.rs and proxy-common. Edit those. -->
# Maps

Everything that the kernel programs and the agent share. The pinned ones are at `/sys/fs/bpf/weir/v1/`, and
`bpftool map dump pinned /sys/fs/bpf/weir/v1/SERVICES` prints their rows with the names below. Addresses are 16 bytes
in network order, IPv4 as `::ffff:a.b.c.d`; ports and all other numbers are in host order.

| map | kind | size |
|---|---|---|
";

fn section(page: &mut String, map: &Map, rows: &Rows, names: &mut BTreeSet<String>) {
    let _ = writeln!(page, "\n## {}\n\n{}\n\n| | |\n|---|---|", map.name, map.summary);
    for (fact, text) in &map.facts {
        let _ = writeln!(page, "| {fact} | {} |", text.trim_end_matches('.'));
    }
    let _ = writeln!(page, "| Pinned | {} |", if map.pinned { "yes" } else { "no" });
    let (key, value) = map.key_and_value();
    match key {
        Some(key) => rows.row(page, "Key", key, names),
        None if map.kind.contains("Array") => page.push_str("\nKey: `u32`, the index.\n"),
        None => {}
    }
    if let Some(value) = value {
        rows.row(
            page,
            if map.kind == "RingBuf" { "Record" } else { "Value" },
            value,
            names,
        );
    }
}

fn size(map: &Map, rows: &Rows) -> String {
    let unit = if map.kind == "RingBuf" { "bytes" } else { "rows" };
    match map.size.as_ref().and_then(|size| rows.value(size)) {
        Some(1) => "1 row".to_owned(),
        Some(number) => format!("{} {unit}", grouped(number)),
        None => "one".to_owned(),
    }
}

/// `131072` → `131,072`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r"
        /// Known connections.
        ///
        /// Writer:    programs. Reader: all.
        /// Lifecycle: until the time-out.
        /// Full:      LRU.
        /// Survives:  a restart.
        #[btf_map(pin_by_name)]
        pub(crate) static FLOWS: LruHashMap<u32, u64, { 1 << 17 }, { FLAG as usize }> = LruHashMap::new();
        /// Says little.
        #[btf_map]
        static POOR: Array<u64, 1> = Array::new();
        static NO_MAP: u8 = 1;
    ";

    #[test]
    fn facts_may_share_a_line() {
        let maps = maps(SOURCE).unwrap();
        assert_eq!(maps.len(), 2);
        assert_eq!(maps[0].facts[1], ("Reader", "all.".to_owned()));
        assert!(maps[0].missing_facts().is_empty());
        assert_eq!(maps[1].missing_facts(), FACTS);
    }

    #[test]
    fn the_page_shows_sizes_and_pins() {
        let page = render(&maps(SOURCE).unwrap(), &Rows::default());
        assert!(
            page.contains("| [`FLOWS`](#flows) | LruHashMap | 131,072 rows |"),
            "{page}"
        );
        assert!(page.contains("| Reader | all |"), "{page}");
        assert!(page.contains("Key: `u32`, the index."), "{page}");
    }
}
