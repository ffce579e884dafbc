//! The only place that reads a clock; everything else is told the time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since boot, without suspend: the clock of all times in the maps (`bpf_ktime_get_ns`).
pub fn monotonic() -> Duration {
    read(ClockId::Monotonic)
}

/// The way from monotonic times to what a wall clock showed then.
pub fn wall() -> WallClock {
    WallClock {
        boot: read(ClockId::Realtime).saturating_sub(read(ClockId::Monotonic)),
    }
}

fn read(id: ClockId) -> Duration {
    let now = clock_gettime(id);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

/// Tells wall clock times, in UTC.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    /// Since 1970, when the monotonic clock was 0.
    boot: Duration,
}

impl WallClock {
    /// Since 1970.
    pub fn unix(&self, monotonic: Duration) -> Duration {
        self.boot + monotonic
    }

    /// `14:03:12.345`
    pub fn time_of_day(&self, monotonic_nanoseconds: u64) -> String {
        let time = self.boot + Duration::from_nanos(monotonic_nanoseconds);
        let second = time.as_secs() % 86_400;
        format!(
            "{:02}:{:02}:{:02}.{:03}",
            second / 3600,
            second / 60 % 60,
            second % 60,
            time.subsec_millis()
        )
    }

    /// `2026-11-21T14:03:12.345Z`
    pub fn rfc3339(&self, monotonic_nanoseconds: u64) -> String {
        let time = self.boot + Duration::from_nanos(monotonic_nanoseconds);
        let (year, month, day) = date(time.as_secs() / 86_400);
        format!(
            "{year:04}-{month:02}-{day:02}T{}Z",
            self.time_of_day(monotonic_nanoseconds)
        )
    }
}

/// Year, month and day of a day since 1970-01-01, by the Gregorian calendar's 400 years of 146,097 days. Years are
/// counted from March here, so that the leap day is the last day of a year.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(19_782), (2024, 2, 29));
        assert_eq!(date(19_783), (2024, 3, 1));
        assert_eq!(date(20_819), (2027, 1, 1));
    }

    #[test]
    fn a_monotonic_time_is_shown_as_wall_clock_time() {
        let clock = WallClock {
            boot: Duration::from_secs(1_700_000_000),
        };
        assert_eq!(clock.rfc3339(1_500_000_000), "2023-11-14T22:13:21.500Z");
    }
}
