//! Calendar times as signatures, headers and credentials write them. UTC only, 1970 to 2106.

/// Unix seconds with the text forms that Alibaba Cloud's protocols use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Utc(pub u64);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Utc {
    /// `20261123T100000Z`, as `x-log-date` of signature V4.
    pub fn compact(self) -> String {
        let Civil { year, month, day, hour, minute, second } = self.civil();
        format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
    }

    /// `2026-11-23T10:00:00Z`, as STS writes it.
    pub fn iso(self) -> String {
        let Civil { year, month, day, hour, minute, second } = self.civil();
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }

    /// `Mon, 23 Nov 2026 10:00:00 GMT`, as the `Date` header.
    pub fn http(self) -> String {
        let Civil { year, month, day, hour, minute, second } = self.civil();
        let weekday = WEEKDAYS[(self.0 / 86_400 % 7) as usize];
        let month = MONTHS[month as usize - 1];
        format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
    }

    /// Reads what [`Utc::iso`] writes; a fraction of a second is ignored.
    pub fn parse_iso(text: &str) -> Option<Utc> {
        let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
        let mut date = date.split('-').map(|n| n.parse::<u64>().ok());
        let civil = (date.next()??, date.next()??, date.next()??);
        Utc::from_civil(civil, time)
    }

    /// Reads what [`Utc::http`] writes.
    pub fn parse_http(text: &str) -> Option<Utc> {
        let (_, rest) = text.strip_suffix(" GMT")?.split_once(", ")?;
        let mut parts = rest.split(' ');
        let day = parts.next()?.parse().ok()?;
        let month = parts.next()?;
        let month = MONTHS.iter().position(|m| *m == month)? as u64 + 1;
        let year = parts.next()?.parse().ok()?;
        Utc::from_civil((year, month, day), parts.next()?)
    }

    fn from_civil((year, month, day): (u64, u64, u64), time: &str) -> Option<Utc> {
        let mut time = time.split(['.', ':']).map(|n| n.parse::<u64>().ok());
        let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
        let in_range = (1970..=2105).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        if !in_range || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        // Years are counted from March, so that the leap day is the last of its year.
        let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
        let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
        Some(Utc(days * 86_400 + hour * 3600 + minute * 60 + second))
    }

    fn civil(self) -> Civil {
        let (days, seconds) = (self.0 / 86_400 + 719_468, self.0 % 86_400);
        let era = days / 146_097;
        let day_of_era = days % 146_097;
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Civil {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_in_three_forms() {
        let moment = Utc(1_795_428_000);
        assert_eq!(moment.compact(), "20261123T100000Z");
        assert_eq!(moment.iso(), "2026-11-23T10:00:00Z");
        assert_eq!(moment.http(), "Mon, 23 Nov 2026 10:00:00 GMT");
    }

    #[test]
    fn every_day_of_a_century_is_read_back() {
        for day in 0..36_600 {
            let moment = Utc(day * 86_400 + 86_399);
            assert_eq!(Utc::parse_iso(&moment.iso()), Some(moment));
            assert_eq!(Utc::parse_http(&moment.http()), Some(moment));
        }
        assert_eq!(Utc(951_782_400).iso(), "2000-02-29T00:00:00Z");
    }

    #[test]
    fn other_texts_are_not_times() {
        for text in ["", "2026-11-23", "2026-13-23T10:00:00Z", "2026-11-23T25:00:00Z", "yesterday", "2026-11-23T10Z"] {
            assert_eq!(Utc::parse_iso(text), None, "{text}");
        }
        assert_eq!(Utc::parse_http("Mon, 23 Nov 2026 10:00:00 CET"), None);
        assert_eq!(Utc::parse_iso("2026-11-23T10:00:00.123Z"), Some(Utc(1_795_428_000)));
    }
}
