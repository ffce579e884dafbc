//! `metadata.creationTimestamp`: who came first, when two Services want the same frontend.

/// When an object was created, in seconds since 1970; one that does not say (a manifest) is younger than all that do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Created(i64);

impl Created {
    /// An object that does not say, or says it in no way that can be read.
    pub const UNKNOWN: Self = Self(i64::MAX);

    /// Seconds since 1970; the largest number where it is not known.
    pub const fn seconds(self) -> i64 {
        self.0
    }

    /// Reads RFC 3339, the API's only format.
    pub fn read(text: Option<&str>) -> Self {
        text.and_then(seconds).map_or(Self::UNKNOWN, Self)
    }
}

fn seconds(text: &str) -> Option<i64> {
    let (date, rest) = text.split_at_checked(10)?;
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (time, rest) = rest.split_at_checked(8)?;
    let rest = match rest.strip_prefix('.') {
        Some(fraction) => fraction.trim_start_matches(|digit: char| digit.is_ascii_digit()),
        None => rest,
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let offset = match rest {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(rest.get(1..)?, ':')?;
            let offset = hours * 3600 + minutes * 60;
            if rest.starts_with('-') { -offset } else { offset }
        }
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let numbers: Option<Vec<i64>> = text
        .split(separator)
        .map(|part| part.parse::<u16>().ok().map(i64::from))
        .collect();
    numbers?.try_into().ok()
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; the year starts in March, so that the leap day is last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 1
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read() {
        let table = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2024-03-01T00:00:01Z", Some(1_709_251_201)),
            ("2024-03-01T02:00:01.25+02:00", Some(1_709_251_201)),
            ("2024-02-29T22:30:01-01:30", Some(1_709_251_201)),
            ("yesterday", None),
            ("2024-03-01", None),
            ("2024-03-01T00:00:01", None),
            ("", None),
            ("äääääääääääääääääääää", None),
        ];
        for (text, expected) in table {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert!(Created::read(Some("2024-03-01T00:00:01Z")) < Created::read(None));
    }
}
