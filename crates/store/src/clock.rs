//! The time of day in UTC, as records and locks write it.

use std::time::{SystemTime, UNIX_EPOCH};

/// Now, e.g. `2026-11-23T08:05:59Z`.
pub(crate) fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as a Gregorian date and time. Years are counted from March, so that the leap day is a year's last.
fn utc(seconds: u64) -> String {
    const DAYS_PER_ERA: u64 = 146_097; // 400 years
    let shifted = seconds / 86_400 + 719_468; // days since 0000-03-01
    let (era, day) = (shifted / DAYS_PER_ERA, shifted % DAYS_PER_ERA);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::utc;

    #[test]
    fn dates_agree_with_the_calendar() {
        // From `date --utc --date=@SECONDS`.
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_735_689_599), "2024-12-31T23:59:59Z");
        assert_eq!(utc(1_795_421_159), "2026-11-23T08:05:59Z");
        assert_eq!(utc(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
