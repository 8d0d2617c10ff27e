//! Small pictures of what was measured over time, one cell for each stretch of it.

use std::time::Duration;

use fleet_contract::time::Time;

use crate::theme::Look;

/// An hour.
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The last hour in so many cells and rows, the upper row first.
pub(crate) fn tall(
    look: Look,
    now: Time,
    values: impl Iterator<Item = (Time, f32)>,
    cells: usize,
    rows: u8,
) -> Vec<String> {
    let most = most(now, HOUR, values, cells);
    let row = |below: u8| {
        let level = |value: Option<f32>| {
            let here =
                value.map(|value| value.clamp(0.0, 1.0) * f32::from(rows) - f32::from(below));
            // Only the lowest row shows that something was measured at all.
            look.level(here.filter(|here| below == 0 || *here > 0.0))
        };
        most.iter().copied().map(level).collect()
    };
    (0..rows).rev().map(row).collect()
}

/// The last `stretch` up to `now` in so many cells: of each part the greatest value, where 1 is full;
/// a space where nothing was measured.
pub(crate) fn over(
    look: Look,
    now: Time,
    stretch: Duration,
    values: impl Iterator<Item = (Time, f32)>,
    cells: usize,
) -> String {
    let most = most(now, stretch, values, cells);
    most.into_iter().map(|value| look.level(value)).collect()
}

/// The greatest value of each part of the stretch.
fn most(
    now: Time,
    stretch: Duration,
    values: impl Iterator<Item = (Time, f32)>,
    cells: usize,
) -> Vec<Option<f32>> {
    let mut most: Vec<Option<f32>> = vec![None; cells];
    let step = stretch.as_micros() / cells.max(1) as u128;
    for (at, value) in values {
        let back = now.since(at).as_micros() / step.max(1);
        let Ok(back) = usize::try_from(back) else {
            continue;
        };
        if let Some(cell) = cells.checked_sub(back + 1).and_then(|at| most.get_mut(at)) {
            *cell = Some(cell.map_or(value, |known| known.max(value)));
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_the_most_of_its_stretch_and_what_was_not_measured_is_empty() {
        let look = Look {
            colour: false,
            ascii: false,
        };
        let now = Time::from_micros(10_000_000_000);
        let ago = |seconds: i64| Time::from_micros(now.as_micros() - seconds * 1_000_000);
        let values = [
            (ago(3599), 0.0),
            (ago(1000), 0.2),
            (ago(900), 1.5),
            (ago(1), 0.5),
        ];
        let hour =
            |values: &[(Time, f32)], cells| over(look, now, HOUR, values.iter().copied(), cells);
        assert_eq!(hour(&values, 4), "▁ █▅");
        let at = |value| hour(&[(ago(1), value)], 1);
        assert_eq!(
            (at(1.0), at(9.0), at(0.0)),
            ("█".to_owned(), "█".to_owned(), "▁".to_owned())
        );
        assert_eq!(hour(&[], 0), "");
        let values = [(ago(3000), 0.0), (ago(2000), 0.4), (ago(1), 1.0)];
        assert_eq!(tall(look, now, values.into_iter(), 3, 2), ["  █", "▁▇█"]);
    }
}
