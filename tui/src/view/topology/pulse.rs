//! Traffic on lanes. A pulse is real traffic or it is not drawn: its direction is the messages',
//! its density their rate. Where it stands is a function of the time alone, and from one step to
//! the next no more than a few of them move, however many there are.

use std::time::Duration;

use fleet_contract::projection::Traffic;
use fleet_contract::time::Time;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::ink::{self, Way};
use crate::model::{Model, Phase};
use crate::theme::Role;

/// Pulses that may move in one step. Each changes two cells: the one it leaves and the one it
/// comes to.
const MOVING: usize = 24;
/// Cells that may change in one step.
#[cfg(test)]
pub(crate) const CELLS_MAX: usize = 2 * MOVING;
/// Most pulses on all lanes together, where there are fewer lanes than that.
const ALL_MAX: usize = 96;
/// Fewest cells of a lane for each pulse on it.
const SPACING: usize = 4;

/// What flows on one lane.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Flow {
    /// Messages in a second from the hub.
    pub(super) out: f64,
    /// Messages in a second to the hub.
    pub(super) back: f64,
    /// Bytes of those.
    pub(super) bytes: f64,
}

impl Flow {
    /// What a machine's summary says.
    pub(super) fn of(traffic: Traffic) -> Self {
        Self {
            out: traffic.jobs_in_per_s,
            back: traffic.messages_out_per_s,
            bytes: traffic.bytes_out_per_s,
        }
    }

    /// Both together.
    pub(super) fn add(&mut self, other: Self) {
        self.out += other.out;
        self.back += other.back;
        self.bytes += other.bytes;
    }

    pub(super) fn rate(self, way: Way) -> f64 {
        match way {
            Way::Out => self.out,
            Way::Back => self.back,
        }
    }
}

/// Time between two steps; none where nothing may move.
pub(super) fn period(model: &Model) -> Option<Duration> {
    stride(model).filter(|_| model.paused.is_none())
}

/// The same, also on a screen that stands still: there pulses stay where they were.
fn stride(model: &Model) -> Option<Duration> {
    let calm = model.phase() == Phase::Live && model.ui.focused;
    model.motion.period().filter(|_| calm)
}

/// How long until what moves has to be drawn again.
pub(super) fn next(now: Time, period: Duration) -> Duration {
    let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX).max(1);
    let left = period - now.as_micros().rem_euclid(period);
    Duration::from_micros(left.unsigned_abs())
}

/// Where the pulses on all lanes of a drawing stand.
#[derive(Debug)]
pub(super) struct Pulses {
    /// Lanes of this many cells.
    length: usize,
    /// How many are on each lane, both ways, and how many were on all before.
    lanes: Vec<([usize; 2], usize)>,
    /// The step.
    step: u64,
    /// Each moves in one of so many steps.
    turns: u64,
}

impl Pulses {
    /// Of lanes of this length; none is a lane on which nothing can flow.
    pub(super) fn of(model: &Model, length: u16, flows: &[Option<Flow>]) -> Self {
        let length = usize::from(length);
        let lit = |flow: &Flow| [flow.out, flow.back].iter().filter(|r| **r > 0.0).count();
        let lit: usize = flows.iter().flatten().map(lit).sum();
        let most = (ALL_MAX / lit.max(1)).max(1).min(length / SPACING);
        let mut before = 0;
        let lanes: Vec<_> = flows
            .iter()
            .map(|flow| {
                let flow = flow.unwrap_or_default();
                let counts = [Way::Out, Way::Back].map(|way| density(flow.rate(way)).min(most));
                let lane = (counts, before);
                before += counts[0] + counts[1];
                lane
            })
            .collect();
        // A power of two, so that what moves does not jump whenever a rate changes a little.
        let turns = before.div_ceil(MOVING).max(1).next_power_of_two() as u64;
        let step = stride(model).map_or(0, |period| {
            let period = i64::try_from(period.as_micros()).unwrap_or(i64::MAX).max(1);
            model.now.as_micros().div_euclid(period).unsigned_abs()
        });
        Self {
            length,
            lanes,
            step,
            turns,
        }
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        self.lanes.iter().any(|(counts, _)| *counts != [0, 0])
    }

    /// The cells of a lane that have a pulse this way, counted from the hub.
    fn cells(&self, lane: usize, way: Way) -> impl Iterator<Item = usize> {
        let (counts, before) = self.lanes.get(lane).copied().unwrap_or_default();
        let (count, first) = match way {
            Way::Out => (counts[0], before),
            Way::Back => (counts[1], before + counts[0]),
        };
        (0..count).map(move |at| {
            let turn = (first + at) as u64 % self.turns;
            let moved = (self.step + turn) / self.turns;
            let length = self.length.max(1) as u64;
            // Lanes side by side do not march in step.
            let start = lane * lane + lane * 7 + at * self.length / count;
            let cell = (moved + start as u64) % length;
            let cell = usize::try_from(cell).unwrap_or(0);
            match way {
                Way::Out => cell,
                Way::Back => self.length.saturating_sub(1 + cell),
            }
        })
    }

    /// Draws a lane at a place, with these ways on it.
    pub(super) fn draw(
        &self,
        model: &Model,
        lane: usize,
        broken: bool,
        ways: &[Way],
        (buf, area, at): (&mut Buffer, Rect, (u16, u16)),
    ) {
        let look = model.look;
        let rail = ink::rail(look, broken).repeat(self.length);
        ink::put(buf, area, at, &rail, look.style(Role::Dim));
        for way in ways {
            let style = ink::pulse_style(look, *way);
            for cell in self.cells(lane, *way) {
                let x = at.0.saturating_add(u16::try_from(cell).unwrap_or(u16::MAX));
                ink::put(buf, area, (x, at.1), ink::pulse(look, *way), style);
            }
        }
    }
}

/// How many pulses a rate is: one more for each doubling.
fn density(per_second: f64) -> usize {
    if !per_second.is_finite() || per_second <= 0.0 {
        return 0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a logarithm of something over 1"
    )]
    let doublings = per_second.max(1.0).log2() as usize;
    1 + doublings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn density_is_the_logarithm_of_the_rate() {
        let rates = [0.0, -1.0, f64::NAN, 0.01, 1.0, 2.0, 5.0, 1024.0];
        let densities: Vec<_> = rates.into_iter().map(density).collect();
        assert_eq!(densities, [0, 0, 0, 1, 1, 2, 3, 11]);
    }

    #[test]
    fn the_next_step_is_never_now() {
        let period = Duration::from_millis(200);
        for micros in [0, 1, 199_999, 200_000, 1_769_861_071_000_001] {
            let left = next(Time::from_micros(micros), period);
            assert!(!left.is_zero() && left <= period);
        }
    }
}
