//! Sizes and offsets as `repr(C)` lays rows out.

use syn::{Expr, Lit, Type};

/// Size and alignment, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Layout {
    pub(crate) size: u64,
    align: u64,
}

impl Layout {
    pub(crate) fn times(self, count: u64) -> Self {
        Self {
            size: self.size.saturating_mul(count),
            ..self
        }
    }
}

/// An unsigned number.
pub(crate) fn number(name: &str) -> Option<Layout> {
    let size = match name {
        "u8" => 1,
        "u16" => 2,
        "u32" => 4,
        "u64" => 8,
        _ => return None,
    };
    Some(Layout { size, align: size })
}

/// Offsets of the fields, and the layout of the whole.
pub(crate) fn in_order(fields: impl Iterator<Item = Option<Layout>>) -> Option<(Vec<u64>, Layout)> {
    let mut offsets = Vec::new();
    let mut whole = Layout { size: 0, align: 1 };
    for field in fields {
        let field = field?;
        let offset = whole.size.next_multiple_of(field.align);
        offsets.push(offset);
        whole = Layout {
            size: offset + field.size,
            align: whole.align.max(field.align),
        };
    }
    whole.size = whole.size.next_multiple_of(whole.align);
    Some((offsets, whole))
}

/// A type as it stands in the source.
pub(crate) fn written(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path
            .path
            .segments
            .last()
            .map(|last| last.ident.to_string())
            .unwrap_or_default(),
        Type::Array(array) => match &array.len {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(length) => format!("[{}; {length}]", written(&array.elem)),
                _ => String::new(),
            },
            _ => String::new(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_aligned() {
        let (offsets, whole) = in_order(["u8", "u32", "u16"].into_iter().map(number)).unwrap();
        assert_eq!(offsets, [0, 4, 8]);
        assert_eq!(whole, Layout { size: 12, align: 4 });
    }
}
