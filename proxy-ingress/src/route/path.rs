//! Paths in one form: the same for the match and for the backend, so that both see the same request.
//!
//! ```text
//!  /a/./%7Euser//b/%2e%2e/c  ──▶  /a/~user/c
//! ```
//!
//! RFC 3986, 6.2.2: escapes of unreserved characters are decoded, the digits of others are upper case, dot segments are
//! taken out, however they are written. Characters that no path has (RFC 3986, 3.3) are escaped. What a backend may read as
//! something else than the match did is refused: NUL, control characters, a fragment, dot segments that hide behind an
//! escaped slash or before a `;`.

use std::borrow::Cow;

/// What is a matter of taste.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathOptions {
    /// What several slashes are.
    pub slashes: Slashes,
    /// What `%2F`, `%5C` and `\` are.
    pub encoded_slashes: EncodedSlashes,
}

/// What several slashes in a row are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Slashes {
    /// One: no rule of an Ingress can have two.
    #[default]
    Merge,
    /// Empty elements.
    Keep,
}

/// What an escaped slash or backslash is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum EncodedSlashes {
    /// A character like others, and it stays escaped.
    #[default]
    Keep,
    /// A mistake.
    Refuse,
}

/// Why a path is none: status 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A control character or a space.
    #[error("the path has byte {0:#04x}, which no path has")]
    Byte(u8),
    /// A fragment or a query, which are no part of a path.
    #[error("the path has {0:?}, which ends a path")]
    Delimiter(char),
    /// A `%` without two hexadecimal digits.
    #[error("the path has a percent sign without two hexadecimal digits")]
    Escape,
    /// `%00`.
    #[error("the path has an escaped NUL")]
    Nul,
    /// `%2F`, `%5C` or `\`, where they are not wanted.
    #[error("the path has an escaped slash or a backslash")]
    EncodedSlash,
    /// `..%2f`, `..;x`: a backend that decodes or cuts them goes up.
    #[error("the path hides a dot segment from the match")]
    HiddenDotSegment,
}

/// The canonical form of a path, without query. Nothing is allocated if it has that form, or begins with it.
pub fn canonical(path: &str, options: PathOptions) -> Result<Cow<'_, str>, PathError> {
    if path.is_empty() {
        return Ok(Cow::Borrowed("/"));
    }
    if !path.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    if is_plain(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    Writer::new(path, options).run()
}

/// Whether there is nothing to look at, as in most paths: no escape, no parameters, no segment that is empty or begins with
/// a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = 0;
    path.iter().all(|byte| {
        let odd = matches!((before, byte), (b'/', b'/' | b'.')) || *byte == b';';
        before = *byte;
        !odd && is_path_char(*byte)
    })
}

/// `pchar` of RFC 3986 and the slash, without escapes.
fn is_path_char(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'/' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@'
        )
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Writes the canonical form; as long as that is what the input has at the same place, nothing is copied.
struct Writer<'a> {
    input: &'a str,
    options: PathOptions,
    /// What is written, if it is not how the input begins.
    owned: Option<String>,
    /// How much is written.
    length: usize,
}

impl<'a> Writer<'a> {
    fn new(input: &'a str, options: PathOptions) -> Self {
        Self {
            input,
            options,
            owned: None,
            length: 0,
        }
    }

    fn run(mut self) -> Result<Cow<'a, str>, PathError> {
        self.push(b'/');
        let mut segments = self
            .input
            .strip_prefix('/')
            .unwrap_or_default()
            .split('/')
            .peekable();
        while let Some(segment) = segments.next() {
            self.segment(segment, segments.peek().is_none())?;
        }
        Ok(match self.owned {
            Some(text) => Cow::Owned(text),
            None => Cow::Borrowed(self.input.get(..self.length).unwrap_or(self.input)),
        })
    }

    /// What is written ends in a slash before each segment.
    fn segment(&mut self, segment: &str, last: bool) -> Result<(), PathError> {
        let start = self.length;
        let mut cut = false;
        let mut rest = segment.as_bytes();
        while let Some((byte, tail)) = rest.split_first() {
            rest = tail;
            let (value, escaped) = match byte {
                b'%' => {
                    let (value, tail) = unescape(rest)?;
                    rest = tail;
                    (value, true)
                }
                raw => (*raw, false),
            };
            cut |= self.byte(value, escaped)?;
        }
        let written = self.written().get(start..).unwrap_or_default();
        match written {
            "." => self.truncate(start),
            ".." => {
                let parent = self.written().get(..start.saturating_sub(1)).unwrap_or_default();
                self.truncate(parent.rfind('/').map_or(1, |slash| slash + 1));
            }
            "" if last || self.options.slashes == Slashes::Merge => {}
            written if cut && hides_dots(written) => return Err(PathError::HiddenDotSegment),
            _ if last => {}
            _ => self.push(b'/'),
        }
        Ok(())
    }

    /// Writes one byte of a segment; says whether another reader may cut the segment there.
    fn byte(&mut self, value: u8, escaped: bool) -> Result<bool, PathError> {
        match value {
            0 if escaped => return Err(PathError::Nul),
            0..=b' ' | 0x7f if !escaped => return Err(PathError::Byte(value)),
            b'#' | b'?' if !escaped => return Err(PathError::Delimiter(char::from(value))),
            b'/' | b'\\' if self.options.encoded_slashes == EncodedSlashes::Refuse => {
                return Err(PathError::EncodedSlash);
            }
            _ => {}
        }
        if is_unreserved(value) || (!escaped && is_path_char(value)) {
            self.push(value);
        } else {
            for byte in [b'%', hex_digit(value >> 4), hex_digit(value & 0xf)] {
                self.push(byte);
            }
        }
        Ok(matches!(value, b'/' | b'\\' | b';'))
    }

    fn written(&self) -> &str {
        let borrowed = || self.input.get(..self.length).unwrap_or_default();
        self.owned.as_deref().unwrap_or_else(borrowed)
    }

    fn push(&mut self, byte: u8) {
        if self.owned.is_none() && self.input.as_bytes().get(self.length) != Some(&byte) {
            let mut copy = String::with_capacity(self.input.len());
            copy.push_str(self.written());
            self.owned = Some(copy);
        }
        if let Some(owned) = &mut self.owned {
            owned.push(char::from(byte));
        }
        self.length += 1;
    }

    fn truncate(&mut self, length: usize) {
        if let Some(owned) = &mut self.owned {
            owned.truncate(length);
        }
        self.length = length;
    }
}

/// The value of an escape, behind its percent sign, and what follows it.
fn unescape(rest: &[u8]) -> Result<(u8, &[u8]), PathError> {
    let ([high, low], tail) = rest.split_first_chunk().ok_or(PathError::Escape)?;
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let (high, low) = digit(*high).zip(digit(*low)).ok_or(PathError::Escape)?;
    Ok((high << 4 | low, tail))
}

fn hex_digit(nibble: u8) -> u8 {
    match nibble {
        0..=9 => b'0' + nibble,
        _ => b'A' + (nibble - 10),
    }
}

/// Whether a segment has dot segments for a reader that decodes slashes, takes backslashes for slashes, or cuts
/// parameters off.
fn hides_dots(segment: &str) -> bool {
    let mut parts = segment.split("%2F").flat_map(|part| part.split("%5C"));
    parts.any(|part| part.split(';').any(|part| matches!(part, "." | "..")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEEP: PathOptions = PathOptions {
        slashes: Slashes::Keep,
        encoded_slashes: EncodedSlashes::Keep,
    };

    #[test]
    fn a_path_has_one_form() {
        let table = [
            ("", "/"),
            ("/", "/"),
            ("/shop", "/shop"),
            ("/shop/", "/shop/"),
            // RFC 3986, 5.2.4 and 5.4.
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/../../g", "/g"),
            ("/a/...", "/a/..."),
            ("/a/.b/..c/", "/a/.b/..c/"),
            // Written otherwise.
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a/%2e/b", "/a/b"),
            ("/a/%252e%252e/b", "/a/%252e%252e/b"),
            // RFC 3986, 6.2.2.
            ("/%7Euser/%41%2d%5f", "/~user/A-_"),
            ("/a%20b%c3%a4", "/a%20b%C3%A4"),
            ("/%3b%3d%26", "/%3B%3D%26"),
            // Characters that no path has.
            ("/käse", "/k%C3%A4se"),
            ("/a|b{c}\"^`<>", "/a%7Cb%7Bc%7D%22%5E%60%3C%3E"),
            // Slashes.
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a%2fb%5Cc\\d", "/a%2Fb%5Cc%5Cd"),
            // Parameters are a part of their segment.
            ("/a;v=1/b;w", "/a;v=1/b;w"),
            // Overlong and broken UTF-8 stays bytes.
            ("/%c0%ae%c0%ae/a", "/%C0%AE%C0%AE/a"),
            ("/%ff%fe", "/%FF%FE"),
        ];
        for (path, expected) in table {
            assert_eq!(
                canonical(path, PathOptions::default()).as_deref(),
                Ok(expected),
                "{path}"
            );
        }
    }

    #[test]
    fn slashes_may_be_kept() {
        let table = [
            ("//a///b//", "//a///b//"),
            ("/a//../b", "/a/b"),
            ("//..//a", "//a"),
            ("//", "//"),
        ];
        for (path, expected) in table {
            assert_eq!(canonical(path, KEEP).as_deref(), Ok(expected), "{path}");
        }
    }

    #[test]
    fn what_no_path_is_is_refused() {
        let table = [
            ("shop", PathError::NotAbsolute),
            ("*", PathError::NotAbsolute),
            ("/a#b", PathError::Delimiter('#')),
            ("/a?b", PathError::Delimiter('?')),
            ("/a\0", PathError::Byte(0)),
            ("/a b", PathError::Byte(b' ')),
            ("/a\r\n", PathError::Byte(b'\r')),
            ("/a\u{7f}", PathError::Byte(0x7f)),
            ("/a%00", PathError::Nul),
            ("/a%", PathError::Escape),
            ("/a%2", PathError::Escape),
            ("/a%zz", PathError::Escape),
            ("/a%+1", PathError::Escape),
            ("/a/..%2fb", PathError::HiddenDotSegment),
            ("/a/b%5c..", PathError::HiddenDotSegment),
            ("/a/..\\b", PathError::HiddenDotSegment),
            ("/a/..;x=1/b", PathError::HiddenDotSegment),
            ("/a/%2e%2e;/b", PathError::HiddenDotSegment),
            ("/a/.;/b", PathError::HiddenDotSegment),
        ];
        for (path, expected) in table {
            assert_eq!(canonical(path, PathOptions::default()), Err(expected), "{path:?}");
        }
    }

    #[test]
    fn encoded_slashes_can_be_refused() {
        let options = PathOptions {
            encoded_slashes: EncodedSlashes::Refuse,
            ..PathOptions::default()
        };
        for path in ["/a%2fb", "/a%5Cb", "/a\\b"] {
            assert_eq!(canonical(path, options), Err(PathError::EncodedSlash), "{path}");
        }
        assert!(canonical("/a%20b", options).is_ok());
    }

    #[test]
    fn a_canonical_path_is_not_copied() {
        for path in [
            "/",
            "/shop/cart",
            "/.well-known/x",
            "/a%20b;v=1",
            "/a/%C3%A4/",
            "/a/b/..",
            "/a/.",
        ] {
            assert!(
                matches!(canonical(path, PathOptions::default()), Ok(Cow::Borrowed(_))),
                "{path}"
            );
        }
    }

    /// Pieces of which odd paths are made.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "a", "b", "%61", "%2f", "%5c", "\\", ";", "%25", "%c3",
            "ä", "{", "%20",
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn the_canonical_form_of_a_canonical_form_is_itself(
            pieces in prop::collection::vec(piece(), 0..12), keep: bool,
        ) {
            let path = format!("/{}", pieces.concat());
            let options = if keep { KEEP } else { PathOptions::default() };
            if let Ok(once) = canonical(&path, options) {
                let twice = canonical(&once, options);
                prop_assert_eq!(twice.as_deref(), Ok(once.as_ref()));
                prop_assert!(matches!(twice, Ok(Cow::Borrowed(_))));
                prop_assert!(once.starts_with('/') && once.is_ascii());
                prop_assert!(once.split('/').all(|segment| !matches!(segment, "." | "..")));
                prop_assert!(keep || !once.contains("//"));
            }
        }

        #[test]
        fn any_text_is_a_path_or_refused(path in any::<String>()) {
            let _ = canonical(&path, PathOptions::default());
            let _ = canonical(&format!("/{path}"), KEEP);
        }
    }
}
