//! Rules for Rust sources: sizes, where `unsafe` may be, how a file opens.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::Visit;
use syn::{Attribute, Block, ImplItemFn, Item, ItemFn, Meta, Signature, TraitItemFn};

use super::Finding;
use crate::source::{self, File};

const FUNCTION_LINES: usize = 60;
const FILE_LINES: usize = 400;

/// Where `unsafe` may be, and there only with a comment that says why it is sound (clippy asks for that).
const UNSAFE: [&str; 6] = [
    // Kernel helpers, map pointers, packet pointers.
    "proxy-ebpf/src/",
    // The promise that rows are plain bytes.
    "proxy-common/src/layout.rs",
    // bpf(2) and netlink.
    "proxy-agent/src/kernel/",
    // bpf(2).
    "tests/packet/src/kernel/sys.rs",
    // setns(2), fork and exec.
    "tests/support/src/",
    "benches/",
];

pub(super) fn check(file: &File) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !file.text.trim_start().starts_with("//!") {
        findings.push(Finding::new(
            file,
            1,
            "does not open with `//!`, saying what the file is for",
        ));
    }
    match syn::parse_file(&file.text) {
        Ok(parsed) => {
            findings.extend(sizes(file, &parsed));
        }
        Err(error) => findings.push(Finding::new(
            file,
            error.span().start().line,
            format!("cannot be read: {error}"),
        )),
    }
    if !UNSAFE.iter().any(|allowed| file.path.starts_with(allowed))
        && let Ok(tokens) = file.text.parse::<TokenStream>()
    {
        let lines = unsafe_lines(tokens);
        findings.extend(
            lines
                .into_iter()
                .map(|line| Finding::new(file, line, "`unsafe` outside its folders")),
        );
    }
    findings
}

fn sizes(file: &File, parsed: &syn::File) -> Vec<Finding> {
    let mut reader = Reader::default();
    reader.visit_file(parsed);
    let long = reader
        .functions
        .iter()
        .filter(|(.., lines)| *lines > FUNCTION_LINES);
    let mut findings: Vec<_> = long
        .map(|(name, at, lines)| {
            Finding::new(
                file,
                *at,
                format!("fn {name} has {lines} lines, more than {FUNCTION_LINES}"),
            )
        })
        .collect();
    let tests: usize = reader
        .tests
        .iter()
        .map(|lines| lines.end() - lines.start() + 1)
        .sum();
    let lines = file.text.lines().count() - tests;
    // A module of tests alone is declared with `#[cfg(test)] mod tests;` elsewhere.
    let only_tests = file.path.ends_with("/tests.rs") || file.path.contains("/src/tests/");
    if lines > FILE_LINES && !only_tests {
        findings.push(Finding::new(
            file,
            0,
            format!("{lines} lines without tests, more than {FILE_LINES}"),
        ));
    }
    findings
}

/// Lengths of functions, and which lines are tests.
#[derive(Default)]
struct Reader {
    functions: Vec<(String, usize, usize)>,
    tests: Vec<RangeInclusive<usize>>,
}

impl Reader {
    fn function(&mut self, signature: &Signature, block: &Block) {
        let lines = lines(signature.span(), block.span());
        self.functions.push((
            signature.ident.to_string(),
            *lines.start(),
            lines.end() - lines.start() + 1,
        ));
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_test(attributes(item)) {
            let span = item.span();
            let whole = lines(span, span);
            // A test inside a module of tests is counted with the module.
            if !self.tests.iter().any(|outer| outer.contains(whole.start())) {
                self.tests.push(whole);
            }
        }
        syn::visit::visit_item(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let configured = attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    });
    configured || source::has_attribute(attributes, "test")
}

fn lines(from: Span, to: Span) -> RangeInclusive<usize> {
    from.start().line..=to.end().line
}

/// Lines with the keyword; the attribute form `#[unsafe(no_mangle)]` is not meant.
fn unsafe_lines(tokens: TokenStream) -> Vec<usize> {
    let mut found = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "unsafe" => {
                let attribute = |next: &TokenTree| matches!(next, TokenTree::Group(group) if group.delimiter() == Delimiter::Parenthesis);
                if !tokens.peek().is_some_and(attribute) {
                    found.push(ident.span().start().line);
                }
            }
            TokenTree::Group(group) => found.extend(unsafe_lines(group.stream())),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(path: &str, text: &str) -> Vec<String> {
        check(&File::new(path, text))
            .into_iter()
            .map(|finding| format!("{}: {}", finding.line, finding.what))
            .collect()
    }

    fn body(lines: usize) -> String {
        "    let _ = 1;\n".repeat(lines)
    }

    #[test]
    fn a_function_of_sixty_lines_passes() {
        let text = |lines: usize| format!("//! A.\n\n/// B.\nfn f() {{\n{}}}\n", body(lines - 2));
        assert!(findings("a.rs", &text(60)).is_empty());
        assert_eq!(
            findings("a.rs", &text(61)),
            ["4: fn f has 61 lines, more than 60"]
        );
    }

    #[test]
    fn methods_count_too() {
        let text = format!("//! A.\nimpl A {{\n    fn f(&self) {{\n{}    }}\n}}\n", body(60));
        assert_eq!(findings("a.rs", &text), ["3: fn f has 62 lines, more than 60"]);
    }

    #[test]
    fn tests_do_not_make_a_file_long() {
        let rows = "const A: u8 = 1;\n".repeat(399);
        let tests = "#[cfg(test)]\nmod tests {\n    #[test]\n    fn t() {}\n}\n";
        assert!(findings("a.rs", &format!("//! A.\n{rows}{tests}")).is_empty());
        assert_eq!(
            findings("a.rs", &format!("//! A.\n{rows}{rows}{tests}")),
            ["0: 799 lines without tests, more than 400"]
        );
    }

    #[test]
    fn a_file_says_what_it_is_for() {
        assert_eq!(findings("a.rs", "fn f() {}\n").len(), 1);
    }

    #[test]
    fn unsafe_has_its_places() {
        let text = "//! A.\n#[unsafe(no_mangle)]\nfn f() {\n    unsafe { g() }\n}\n";
        assert_eq!(
            findings("proxy-model/src/a.rs", text),
            ["4: `unsafe` outside its folders"]
        );
        assert!(findings("proxy-ebpf/src/glue.rs", text).is_empty());
    }
}
