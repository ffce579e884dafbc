//! W3C trace context: `traceparent` and `tracestate`, read strictly. What does not keep to the form is somebody's mistake or
//! somebody's try, and is not handed on.

use http::header::{HeaderMap, HeaderName, HeaderValue};

/// Which trace a request belongs to, and under what in it.
pub(crate) const PARENT: HeaderName = HeaderName::from_static("traceparent");
/// What others want to be carried along.
pub(crate) const STATE: HeaderName = HeaderName::from_static("tracestate");

const SAMPLED: u8 = 1;
/// The trace's id is random: of use to those who sample by it.
const RANDOM: u8 = 2;

/// Members of `tracestate`, and bytes of all of them, that are carried.
const MEMBERS: usize = 32;
const BYTES: usize = 2_048;

/// What `traceparent` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Context {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) flags: u8,
}

/// What a request's headers say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Came {
    /// Nothing.
    Nothing,
    /// Something that is no trace context.
    Nonsense,
    /// A trace.
    Of(Context),
}

impl Context {
    pub(crate) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A trace that begins here.
    pub(crate) fn begin(trace: u128, span: u64, sampled: bool) -> Self {
        let flags = if sampled { SAMPLED } else { 0 };
        Self { trace, span, flags }
    }

    /// The header, with this span as the parent.
    pub(crate) fn header(self, span: u64) -> Option<HeaderValue> {
        let text = format!("00-{:032x}-{span:016x}-{:02x}", self.trace, self.flags);
        HeaderValue::try_from(text).ok()
    }

    fn parse(value: &[u8]) -> Option<Self> {
        let version = u8::try_from(hex(value.get(..2)?)?).ok()?;
        // A later version begins like this one, and may go on.
        match (version, value.len()) {
            (0..=254, 55) => (),
            (1..=254, 56..) if value.get(55) == Some(&b'-') => (),
            _ => return None,
        }
        if [2, 35, 52].into_iter().any(|dash| value.get(dash) != Some(&b'-')) {
            return None;
        }
        let trace = hex(value.get(3..35)?)?;
        let span = u64::try_from(hex(value.get(36..52)?)?).ok()?;
        let flags = u8::try_from(hex(value.get(53..55)?)?).ok()?;
        (trace != 0 && span != 0).then_some(Self {
            trace,
            span,
            flags: flags & (SAMPLED | RANDOM),
        })
    }
}

/// In lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0_u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// What a request's headers say.
pub(crate) fn of(headers: &HeaderMap) -> Came {
    let mut values = headers.get_all(PARENT).iter();
    match (values.next(), values.next()) {
        (None, _) => Came::Nothing,
        (Some(only), None) => Context::parse(only.as_bytes()).map_or(Came::Nonsense, Came::Of),
        (Some(_), Some(_)) => Came::Nonsense,
    }
}

/// The state that belongs to the parent, in one piece; none if it is not well-formed.
pub(crate) fn state(headers: &HeaderMap) -> Option<String> {
    let values: Result<Vec<_>, _> = headers.get_all(STATE).iter().map(HeaderValue::to_str).collect();
    let all = values.ok()?.join(",");
    let members = || {
        all.split(',')
            .map(|member| member.trim_matches([' ', '\t']))
            .filter(|member| !member.is_empty())
    };
    let fits = all.len() <= BYTES && members().count() <= MEMBERS && members().all(is_member);
    (fits && members().next().is_some()).then(|| members().collect::<Vec<_>>().join(","))
}

fn is_member(member: &str) -> bool {
    let Some((key, value)) = member.split_once('=') else {
        return false;
    };
    let first = key.starts_with(|letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(&byte);
    first
        && key.len() <= 256
        && key.bytes().all(legal)
        && (1..=256).contains(&value.len())
        && value
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(lines: &[(HeaderName, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(name.clone(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn what_keeps_to_the_form_is_read_and_written_again() {
        let context = Context::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(
            (context.trace >> 64, context.span, context.is_sampled()),
            (0x4bf9_2f35_77b3_4da6, 0x00f0_67aa_0ba9_02b7, true)
        );
        assert_eq!(context.header(context.span).unwrap(), GOOD);
        let later = GOOD.replacen("00", "cc", 1);
        for fine in [
            later.clone(),
            format!("{later}-what.comes"),
            GOOD.replace("-01", "-ff"),
        ] {
            let read = Context::parse(fine.as_bytes()).unwrap();
            assert_eq!((read.trace, read.span), (context.trace, context.span), "{fine}");
        }
        assert!(
            !Context::parse(GOOD.replace("-01", "-02").as_bytes())
                .unwrap()
                .is_sampled()
        );
    }

    #[test]
    fn what_does_not_is_nonsense() {
        let zero = |range: std::ops::Range<usize>| {
            let mut text = GOOD.to_owned();
            text.replace_range(range.clone(), &"0".repeat(range.len()));
            text
        };
        let bad = [
            String::new(),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "0", 1),
            GOOD.replacen("00-", "01-", 1) + "more",
            GOOD.replacen('-', "_", 1),
            GOOD.replace("-01", "-0g"),
            zero(3..35),
            zero(36..52),
        ];
        for text in &bad {
            assert_eq!(Context::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(of(&headers(&[(PARENT, GOOD), (PARENT, GOOD)])), Came::Nonsense);
        assert_eq!(of(&HeaderMap::new()), Came::Nothing);
    }

    #[test]
    fn state_is_carried_if_it_is_well_formed() {
        let state = |values: &[&str]| {
            state(&headers(
                &values.iter().map(|value| (STATE, *value)).collect::<Vec<_>>(),
            ))
        };
        assert_eq!(
            state(&["a=1, b@c=x y", "d=2,,"]).as_deref(),
            Some("a=1,b@c=x y,d=2")
        );
        let many = vec!["a=1"; 33].join(",");
        for bad in ["", "a", "A=1", "a=", "a=b=c", many.as_str()] {
            assert_eq!(state(&[bad]), None, "{bad}");
        }
    }
}
