//! The row types of `proxy-common`: structs, the enums behind their bytes, and constants.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::Result;
use syn::visit::Visit;
use syn::{
    BinOp, Expr, ImplItem, ItemConst, ItemEnum, ItemImpl, ItemMacro, ItemMod, ItemStruct, Lit, Stmt, Type,
};

use super::layout::{self, Layout};
use crate::source;

/// What was read.
#[derive(Default)]
pub(crate) struct Rows {
    structs: BTreeMap<String, Struct>,
    enums: BTreeMap<String, Enum>,
    constants: BTreeMap<String, Expr>,
}

struct Struct {
    doc: String,
    fields: Vec<Field>,
}

struct Field {
    name: String,
    ty: Type,
    doc: String,
}

struct Enum {
    doc: String,
    /// Value, name, what it means.
    variants: Vec<(String, String, String)>,
}

impl Rows {
    /// Reads a source file.
    pub(crate) fn read(&mut self, text: &str) -> Result<()> {
        let file = syn::parse_file(text)?;
        Reader {
            rows: self,
            scope: String::new(),
        }
        .visit_file(&file);
        Ok(())
    }

    /// The value of a constant expression.
    pub(crate) fn value(&self, expr: &Expr) -> Option<u64> {
        match expr {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(int) => int.base10_parse().ok(),
                _ => None,
            },
            Expr::Paren(inner) => self.value(&inner.expr),
            Expr::Cast(inner) => self.value(&inner.expr),
            Expr::Block(block) => match block.block.stmts.as_slice() {
                [Stmt::Expr(inner, None)] => self.value(inner),
                _ => None,
            },
            Expr::Path(path) => {
                let name = path.path.segments.last()?.ident.to_string();
                let of = path
                    .path
                    .segments
                    .iter()
                    .nth_back(1)
                    .map(|segment| segment.ident.to_string());
                let full = of.map_or_else(|| name.clone(), |of| format!("{of}::{name}"));
                // Inside `limits`, a constant names its neighbours without a path.
                let found = self
                    .constants
                    .get(&full)
                    .or_else(|| self.constants.get(&format!("limits::{name}")));
                self.value(found?)
            }
            Expr::Binary(binary) => {
                let (left, right) = (self.value(&binary.left)?, self.value(&binary.right)?);
                match binary.op {
                    BinOp::Add(_) => left.checked_add(right),
                    BinOp::Sub(_) => left.checked_sub(right),
                    BinOp::Mul(_) => left.checked_mul(right),
                    BinOp::Shl(_) => left.checked_shl(u32::try_from(right).ok()?),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// Size and alignment of a type, if it is made of known parts.
    pub(crate) fn layout(&self, ty: &Type) -> Option<Layout> {
        match ty {
            Type::Array(array) => Some(self.layout(&array.elem)?.times(self.value(&array.len)?)),
            Type::Path(path) => {
                let name = path.path.segments.last()?.ident.to_string();
                if let Some(number) = layout::number(&name) {
                    return Some(number);
                }
                let fields = self.structs.get(&name)?.fields.iter();
                Some(layout::in_order(fields.map(|field| self.layout(&field.ty)))?.1)
            }
            _ => None,
        }
    }

    /// A key or value, and of which numbers it speaks.
    pub(crate) fn row(&self, page: &mut String, role: &str, ty: &Type, names: &mut BTreeSet<String>) {
        let name = layout::written(ty);
        let bytes = self
            .layout(ty)
            .map(|layout| format!(", {} bytes", layout.size))
            .unwrap_or_default();
        let Some(row) = self.structs.get(&name) else {
            let _ = writeln!(page, "\n{role}: `{name}`{bytes}.");
            return;
        };
        let summary = row
            .doc
            .split_inclusive(". ")
            .next()
            .unwrap_or_default()
            .trim_end();
        let _ = writeln!(
            page,
            "\n{role}: `{name}`{bytes}. {summary}\n\n| offset | field | type | |\n|---|---|---|---|"
        );
        let layouts = row.fields.iter().map(|field| self.layout(&field.ty));
        let offsets = layout::in_order(layouts)
            .map(|(offsets, _)| offsets)
            .unwrap_or_default();
        let mut offsets = offsets.into_iter();
        for field in &row.fields {
            let offset = offsets
                .next()
                .map(|offset| offset.to_string())
                .unwrap_or_default();
            let ty = layout::written(&field.ty);
            let _ = writeln!(page, "| {offset} | `{}` | `{ty}` | {} |", field.name, field.doc);
            names.extend(
                self.enums
                    .keys()
                    .filter(|name| field.doc.contains(&format!("`{name}`")))
                    .cloned(),
            );
        }
    }

    /// What the values of an enum mean.
    pub(crate) fn numbers(&self, page: &mut String, name: &str) {
        let Some(numbers) = self.enums.get(name) else {
            return;
        };
        let _ = writeln!(
            page,
            "\n## {name}\n\n{}\n\n| value | name | |\n|---|---|---|",
            numbers.doc
        );
        for (value, name, doc) in &numbers.variants {
            let _ = writeln!(page, "| {value} | `{name}` | {doc} |");
        }
    }

    fn add_enum(&mut self, item: &ItemEnum) {
        let variants = item.variants.iter().map(|variant| {
            let value = variant
                .discriminant
                .as_ref()
                .and_then(|(_, value)| self.value(value));
            let value = value.map(|value| value.to_string()).unwrap_or_default();
            (
                value,
                variant.ident.to_string(),
                prose(&source::doc(&variant.attrs)),
            )
        });
        let doc = prose(&source::doc(&item.attrs));
        self.enums.insert(
            item.ident.to_string(),
            Enum {
                doc,
                variants: variants.collect(),
            },
        );
    }
}

struct Reader<'a> {
    rows: &'a mut Rows,
    /// Module or type that the constants at hand belong to.
    scope: String,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        let fields = item.fields.iter().filter_map(|field| {
            let name = field.ident.as_ref()?.to_string();
            Some(Field {
                name,
                ty: field.ty.clone(),
                doc: prose(&source::doc(&field.attrs)),
            })
        });
        let row = Struct {
            doc: prose(&source::doc(&item.attrs)),
            fields: fields.collect(),
        };
        self.rows.structs.insert(item.ident.to_string(), row);
    }

    fn visit_item_macro(&mut self, item: &'ast ItemMacro) {
        if item.mac.path.is_ident("byte_enum")
            && let Ok(inner) = item.mac.parse_body::<ItemEnum>()
        {
            self.rows.add_enum(&inner);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let outer = std::mem::replace(&mut self.scope, item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.scope = outer;
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        for constant in &item.items {
            if let ImplItem::Const(constant) = constant {
                let name = format!("{}::{}", layout::written(&item.self_ty), constant.ident);
                self.rows.constants.insert(name, constant.expr.clone());
            }
        }
    }

    fn visit_item_const(&mut self, item: &'ast ItemConst) {
        let name = match self.scope.as_str() {
            "" => item.ident.to_string(),
            scope => format!("{scope}::{}", item.ident),
        };
        self.rows.constants.insert(name, (*item.expr).clone());
    }
}

/// A comment as one line for a table: up to its first drawing, links as plain code.
fn prose(doc: &str) -> String {
    let text = doc.split("```").next().unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace("[`crate::", "`")
        .replace("[`", "`")
        .replace("`]", "`")
        .replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r"
        /// A key.
        pub struct Key { /// Who.
            pub ip: Ip, /// A [`Scope`].
            pub scope: u8, pub reserved: [u8; 3], pub next: u64 }
        pub struct Ip { pub bytes: [u8; 16] }
        byte_enum! { /// Which.
            pub enum Scope { /// One.
                Address = 0, /// Many.
                NodePort = 4, } }
        pub mod limits { pub const A: usize = 1 << 4; pub const B: usize = A * 2; }
        impl Reason { pub const COUNT: usize = 64; }
    ";

    fn rows() -> Rows {
        let mut rows = Rows::default();
        rows.read(SOURCE).unwrap();
        rows
    }

    #[test]
    fn sizes_are_computed() {
        let value = |text| rows().value(&syn::parse_str(text).unwrap());
        assert_eq!(value("{ limits::B }"), Some(32));
        assert_eq!(value("Reason::COUNT"), Some(64));
        assert_eq!(value("limits::NONE"), None);
    }

    #[test]
    fn a_row_shows_offsets_and_leads_to_its_numbers() {
        let (mut page, mut names) = (String::new(), BTreeSet::new());
        rows().row(&mut page, "Key", &syn::parse_str("Key").unwrap(), &mut names);
        assert!(page.contains("Key: `Key`, 32 bytes. A key."), "{page}");
        assert!(page.contains("| 16 | `scope` | `u8` | A `Scope`. |"), "{page}");
        assert!(page.contains("| 24 | `next` | `u64` |"), "{page}");
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["Scope"]);
    }

    #[test]
    fn numbers_have_names() {
        let mut page = String::new();
        rows().numbers(&mut page, "Scope");
        assert!(page.contains("| 4 | `NodePort` | Many. |"), "{page}");
    }
}
