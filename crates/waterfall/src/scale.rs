//! Durations as people write them, and the marks above the bars.

use std::time::Duration;

/// The least number of columns between two marks.
const MARK_DISTANCE: f64 = 7.0;

/// Writes a duration with three significant digits, in at most eight columns below an hour.
pub(crate) fn duration(time: Duration) -> String {
    seconds(time.as_secs_f64())
}

/// Like [`duration`], from seconds.
pub(crate) fn seconds(seconds: f64) -> String {
    let (micros, millis) = (seconds * 1e6, seconds * 1e3);
    if micros < 999.5 {
        format!("{micros:.0} µs")
    } else if millis < 999.95 {
        format!("{millis:.1} ms")
    } else if seconds < 59.995 {
        format!("{seconds:.2} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{}m {:02}s", whole / 60, whole % 60)
    }
}

/// Returns the columns and labels of the marks for `total` time over `columns`: `0 ms      10        20`.
pub(crate) fn marks(total: Duration, columns: usize) -> Vec<(usize, String)> {
    let total = total.as_secs_f64();
    let (unit, factor) = match total {
        total if total < 999.5e-6 => ("µs", 1e6),
        total if total < 0.99995 => ("ms", 1e3),
        _ => ("s", 1.0),
    };
    let mut marks = vec![(0, format!("0 {unit}"))];
    let span = total * factor;
    let step = nice(span * MARK_DISTANCE / columns as f64);
    if step <= 0.0 {
        return marks;
    }
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    for place in 1_u32.. {
        let value = f64::from(place) * step;
        let (column, label) = ((value / span * columns as f64) as usize, format!("{value:.decimals$}"));
        if column + label.len() > columns {
            break;
        }
        marks.push((column, label));
    }
    marks
}

/// The next of 1, 2, 5, 10, 20, 50 … that is not smaller.
fn nice(value: f64) -> f64 {
    if !value.is_finite() || value <= 0.0 {
        return 0.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= value).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, marks};

    #[test]
    fn durations_read_well() {
        for (micros, text) in [
            (0, "0 µs"),
            (412, "412 µs"),
            (1_200, "1.2 ms"),
            (999_900, "999.9 ms"),
            (999_960, "1.00 s"),
            (41_800_000, "41.80 s"),
            (59_999_000, "1m 00s"),
            (125_000_000, "2m 05s"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text);
        }
    }

    #[test]
    fn marks_are_round_numbers_that_fit() {
        let marks = |micros, columns| {
            marks(Duration::from_micros(micros), columns)
                .into_iter()
                .map(|(at, label)| format!("{at}:{label}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(marks(41_800, 46), "0:0 ms 11:10 22:20 33:30 44:40");
        assert_eq!(marks(1_000_000, 30), "0:0 s 15:0.5");
        assert_eq!(marks(900, 24), "0:0 µs 13:500");
        assert_eq!(marks(0, 24), "0:0 µs");
    }
}
