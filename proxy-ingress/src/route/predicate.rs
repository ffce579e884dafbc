//! What a request must have beside host and path, and which route asks for more.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::fmt;

use super::{Asked, Predicate, ValueMatch};

/// The order of routes with the same host and path, as Gateway API has it: those with a method first, then those with more
/// headers, then those with more query parameters.
pub type Rank = (Reverse<bool>, Reverse<usize>, Reverse<usize>);

/// Where a route with these predicates stands.
pub fn rank(predicates: &[Predicate]) -> Rank {
    let count = |wanted: fn(&Predicate) -> bool| predicates.iter().filter(|one| wanted(one)).count();
    (
        Reverse(count(|one| matches!(one, Predicate::Method(_))) > 0),
        Reverse(count(|one| matches!(one, Predicate::Header(..)))),
        Reverse(count(|one| matches!(one, Predicate::Query(..)))),
    )
}

/// The first of them that a request does not have.
pub(super) fn missing<'r>(predicates: &'r [Predicate], asked: &Asked<'_>) -> Option<&'r Predicate> {
    predicates.iter().find(|predicate| !predicate.fits(asked))
}

impl Predicate {
    /// Whether a request has it. A header that is there several times: one of its lines must fit. A query parameter:
    /// the first of its name counts.
    pub fn fits(&self, asked: &Asked<'_>) -> bool {
        match self {
            Self::Method(method) => method == asked.method,
            Self::Header(name, value) => {
                let mut lines = asked.headers.get_all(name).iter();
                lines.any(|line| value.fits(line.as_bytes()))
            }
            Self::Query(name, value) => parameters(asked.query.unwrap_or_default())
                .find(|(other, _)| Unescaped(other).eq(name.bytes()))
                .is_some_and(|(_, found)| value.fits_escaped(found)),
        }
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => write!(f, "method {method}"),
            Self::Header(name, value) => write!(f, "header {name} {value}"),
            Self::Query(name, value) => write!(f, "query parameter {name} {value}"),
        }
    }
}

impl ValueMatch {
    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => **wanted == *value,
            Self::Regex(expression) => expression.is_match(value),
        }
    }

    /// The same for a value with escapes. Only an expression needs it in one piece.
    fn fits_escaped(&self, value: &str) -> bool {
        match self {
            Self::Exact(wanted) => Unescaped(value).eq(wanted.iter().copied()),
            Self::Regex(expression) => expression.is_match(&Unescaped(value).whole()),
        }
    }
}

impl fmt::Display for ValueMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(value) => write!(f, "= \"{}\"", value.escape_ascii()),
            Self::Regex(expression) => write!(f, "like {:?}", expression.as_str()),
        }
    }
}

/// Names and values of a query, with their escapes.
fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts.map(|part| part.split_once('=').unwrap_or((part, "")))
}

/// A part of a query. `+` is a space there, and a percent sign without digits is itself.
struct Unescaped<'a>(&'a str);

impl<'a> Unescaped<'a> {
    fn bytes(&self) -> impl Iterator<Item = u8> + use<'a> {
        let mut rest = self.0.as_bytes();
        std::iter::from_fn(move || {
            let (first, tail) = rest.split_first()?;
            rest = tail;
            match (first, tail) {
                (b'+', _) => Some(b' '),
                (b'%', [high, low, tail @ ..]) => {
                    let digit = |byte: &u8| char::from(*byte).to_digit(16);
                    let Some((high, low)) = digit(high).zip(digit(low)) else {
                        return Some(b'%');
                    };
                    rest = tail;
                    u8::try_from(high << 4 | low).ok()
                }
                (plain, _) => Some(*plain),
            }
        })
    }

    fn eq(&self, wanted: impl Iterator<Item = u8>) -> bool {
        self.bytes().eq(wanted)
    }

    fn whole(&self) -> Cow<'a, [u8]> {
        if self.0.contains(['+', '%']) {
            Cow::Owned(self.bytes().collect())
        } else {
            Cow::Borrowed(self.0.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue, Method};

    use super::*;

    fn exact(value: &str) -> ValueMatch {
        ValueMatch::Exact(value.as_bytes().into())
    }

    fn regex(text: &str) -> ValueMatch {
        ValueMatch::Regex(regex::bytes::Regex::new(text).unwrap())
    }

    fn fits(predicate: &Predicate, headers: &HeaderMap, query: Option<&str>) -> bool {
        predicate.fits(&Asked {
            host: None,
            path: "/",
            method: &Method::GET,
            headers,
            query,
        })
    }

    #[test]
    fn a_method_is_compared_with_case() {
        let none = HeaderMap::new();
        assert!(fits(&Predicate::Method(Method::GET), &none, None));
        let lower = Method::from_bytes(b"get").unwrap();
        assert!(!fits(&Predicate::Method(lower), &none, None));
    }

    #[test]
    fn l12_an_expression_takes_no_longer_than_its_text_and_a_huge_one_is_refused() {
        // 2^100,000 steps for whoever tries one way after the other.
        let evil = Predicate::Query("x".into(), regex("^(a+)+$"));
        let query = format!("x={}b", "a".repeat(100_000));
        assert!(!fits(&evil, &HeaderMap::new(), Some(&query)));
        assert!(regex::bytes::Regex::new("((a{1000}){1000}){1000}").is_err());
    }

    #[test]
    fn one_line_of_a_header_must_fit() {
        let mut headers = HeaderMap::new();
        headers.append("x-tier", HeaderValue::from_static("gold"));
        headers.append("x-tier", HeaderValue::from_bytes(b"sil\xffver").unwrap());
        let header = |value| Predicate::Header(HeaderName::from_static("x-tier"), value);
        for (value, expected) in [
            (exact("gold"), true),
            (exact("Gold"), false),
            (exact("gol"), false),
            (regex("^g"), true),
            (regex(r"(?-u)\xff"), true),
            (regex("^x"), false),
        ] {
            assert_eq!(fits(&header(value.clone()), &headers, None), expected, "{value}");
        }
        let other = Predicate::Header(HeaderName::from_static("x-other"), regex(""));
        assert!(!fits(&other, &headers, None));
    }

    #[test]
    fn the_first_query_parameter_of_a_name_counts() {
        let none = HeaderMap::new();
        let query = |name: &str, value| Predicate::Query(name.into(), value);
        let table = [
            (query("a", exact("1")), "a=1", true),
            (query("a", exact("2")), "a=1&a=2", false),
            (query("a", exact("")), "b=1&a", true),
            (query("a", exact("b c")), "a=b+c", true),
            (query("a", exact("b c")), "%61=b%20c", true),
            (query("a", exact("50%")), "a=50%", true),
            (query("a", exact("x=y")), "a=x=y", true),
            (query("A", exact("1")), "a=1", false),
            (query("a", regex("^b c$")), "a=b+c", true),
            (query("a", regex("")), "", false),
        ];
        for (predicate, text, expected) in table {
            assert_eq!(
                fits(&predicate, &none, Some(text)),
                expected,
                "{predicate} in {text}"
            );
        }
        assert!(!fits(&query("a", exact("")), &none, None));
    }

    #[test]
    fn a_method_weighs_more_than_headers_and_those_more_than_queries() {
        let method = || Predicate::Method(Method::GET);
        let header = || Predicate::Header(HeaderName::from_static("x"), exact("1"));
        let query = || Predicate::Query("q".into(), exact("1"));
        let falling = [
            vec![method(), header()],
            vec![method()],
            vec![header(), header()],
            vec![header(), query(), query()],
            vec![header()],
            vec![query(), query()],
            vec![query()],
            vec![],
        ];
        assert!(falling.is_sorted_by(|a, b| rank(a) < rank(b)));
    }
}
