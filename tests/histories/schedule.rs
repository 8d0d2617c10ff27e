//! What happens when: faults, jobs and the operator's acts, all from one seed. Pure.

use std::time::Duration;

use crate::draw::Draw;
use crate::shape::{Kind, Shape};

/// The machines, by the world that each lives in.
pub(crate) const MACHINES: [&str; 5] = [PLAIN, PROXIED, CABLED, CRAMPED, SHIFTY];
/// Reaches the hub directly.
pub(crate) const PLAIN: &str = "plain";
/// Reaches the hub through a proxy of the test's own.
pub(crate) const PROXIED: &str = "proxied";
/// Is another host at the end of a cable.
pub(crate) const CABLED: &str = "cabled";
/// Has its home on a small disk.
pub(crate) const CRAMPED: &str = "cramped";
/// Has a wall clock of its own.
pub(crate) const SHIFTY: &str = "shifty";

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    ServerKilled,
    ServerFrozen,
    HubKilled,
    HubStopped,
    HubFrozen,
    AgentKilled,
    AgentStopped,
    AgentFrozen,
    ExecutorKilled,
    ExecutorFrozen,
    MachineCrashed,
    MachineFrozen,
    CableCut,
    ProxyClosed,
    ProxyReset,
    ProxyStalled,
    ProxyHalfOpen,
    ProxySlow,
    ProxyCutInMessage,
    DiskFull,
    ClockForth,
    ClockBack,
}

impl Fault {
    pub(crate) const ALL: [Self; 22] = [
        Self::ServerKilled,
        Self::ServerFrozen,
        Self::HubKilled,
        Self::HubStopped,
        Self::HubFrozen,
        Self::AgentKilled,
        Self::AgentStopped,
        Self::AgentFrozen,
        Self::ExecutorKilled,
        Self::ExecutorFrozen,
        Self::MachineCrashed,
        Self::MachineFrozen,
        Self::CableCut,
        Self::ProxyClosed,
        Self::ProxyReset,
        Self::ProxyStalled,
        Self::ProxyHalfOpen,
        Self::ProxySlow,
        Self::ProxyCutInMessage,
        Self::DiskFull,
        Self::ClockForth,
        Self::ClockBack,
    ];

    /// Its name in the report.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ServerKilled => "server killed",
            Self::ServerFrozen => "server frozen",
            Self::HubKilled => "hub and server killed",
            Self::HubStopped => "hub stopped in order",
            Self::HubFrozen => "hub process frozen",
            Self::AgentKilled => "agent killed",
            Self::AgentStopped => "agent stopped in order",
            Self::AgentFrozen => "agent frozen",
            Self::ExecutorKilled => "executor killed",
            Self::ExecutorFrozen => "executor frozen",
            Self::MachineCrashed => "machine crashed",
            Self::MachineFrozen => "machine frozen whole",
            Self::CableCut => "cable cut",
            Self::ProxyClosed => "link closed",
            Self::ProxyReset => "link reset",
            Self::ProxyStalled => "link stalled",
            Self::ProxyHalfOpen => "link half open",
            Self::ProxySlow => "link slow",
            Self::ProxyCutInMessage => "link cut in a message",
            Self::DiskFull => "disk full",
            Self::ClockForth => "clock an hour forth",
            Self::ClockBack => "clock an hour back",
        }
    }

    /// The fault of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.name() == name)
    }

    /// What it takes: one thing has one fault at a time.
    fn takes(self) -> Takes {
        match self {
            Self::ServerKilled
            | Self::ServerFrozen
            | Self::HubKilled
            | Self::HubStopped
            | Self::HubFrozen => Takes::Hub,
            Self::AgentKilled
            | Self::AgentStopped
            | Self::AgentFrozen
            | Self::ExecutorKilled
            | Self::ExecutorFrozen
            | Self::MachineCrashed
            | Self::MachineFrozen => Takes::Machine,
            Self::CableCut => Takes::Cable,
            Self::ProxyClosed
            | Self::ProxyReset
            | Self::ProxyStalled
            | Self::ProxyHalfOpen
            | Self::ProxySlow
            | Self::ProxyCutInMessage => Takes::Proxy,
            Self::DiskFull => Takes::Disk,
            Self::ClockForth | Self::ClockBack => Takes::Clock,
        }
    }

    /// The only machine that it can happen to, where there is one.
    fn where_only(self) -> Option<&'static str> {
        match self.takes() {
            Takes::Hub | Takes::Machine => None,
            Takes::Cable => Some(CABLED),
            Takes::Proxy => Some(PROXIED),
            Takes::Disk => Some(CRAMPED),
            Takes::Clock => Some(SHIFTY),
        }
    }

    /// How likely it is, and how long it lasts, in tenths of a second.
    fn habits(self) -> (u64, u64, u64) {
        match self {
            Self::ServerKilled => (4, 30, 30),
            Self::ServerFrozen => (3, 5, 120),
            Self::HubKilled => (4, 5, 100),
            Self::HubStopped => (2, 5, 80),
            Self::HubFrozen => (2, 10, 150),
            Self::AgentKilled => (5, 2, 100),
            Self::AgentStopped => (3, 30, 100),
            Self::AgentFrozen => (3, 5, 150),
            Self::ExecutorKilled => (5, 40, 40),
            Self::ExecutorFrozen => (3, 5, 80),
            Self::MachineCrashed => (5, 10, 100),
            Self::MachineFrozen => (3, 5, 120),
            Self::CableCut => (6, 10, 200),
            Self::ProxyClosed => (2, 5, 100),
            Self::ProxyReset => (2, 5, 100),
            Self::ProxyStalled => (2, 5, 200),
            Self::ProxyHalfOpen => (2, 5, 200),
            Self::ProxySlow => (2, 20, 100),
            Self::ProxyCutInMessage => (2, 5, 50),
            Self::DiskFull => (5, 20, 120),
            Self::ClockForth => (2, 20, 150),
            Self::ClockBack => (2, 20, 150),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Takes {
    Hub,
    Machine,
    Cable,
    Proxy,
    Disk,
    Clock,
}

/// What to do with an attempt whose machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnLost {
    Ask,
    Retry,
    Fail,
}

impl OnLost {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Ask => "ask",
            Self::Retry => "retry",
            Self::Fail => "fail",
        }
    }
}

/// One call of `fleet dispatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dispatch {
    pub(crate) shape: Shape,
    pub(crate) count: u64,
    pub(crate) on: Option<&'static str>,
    pub(crate) on_lost: OnLost,
    pub(crate) timeout: Option<Duration>,
    pub(crate) priority: &'static str,
    /// Keep it here if the hub is away.
    pub(crate) spool: bool,
    /// By somebody whose clock is wrong.
    pub(crate) shifty: bool,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A fault begins. With its machine, but for faults of the hub.
    Inject(Fault, Option<&'static str>),
    /// It is over.
    Heal(Fault, Option<&'static str>),
    Dispatch(Dispatch),
    /// The operator cancels one of the jobs that were dispatched, by this draw.
    Cancel(u64),
    /// The operator answers a question, by this draw.
    Answer(u64),
}

/// Something at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) what: What,
}

/// How long many short faults come one after another before a long one.
const BUSY: u64 = 35_000;
/// How long a long one lasts at the most, with what is around it: longer than any lease.
const LONG: u64 = 62_000;

/// Faults that are worth to last longer than a lease.
const LONG_ONES: [(u64, Fault); 6] = [
    (3, Fault::CableCut),
    (2, Fault::MachineFrozen),
    (2, Fault::MachineCrashed),
    (2, Fault::AgentFrozen),
    (2, Fault::AgentKilled),
    (2, Fault::ProxyStalled),
];

/// Makes a schedule.
struct Planner {
    draw: Draw,
    steps: Vec<Step>,
    /// Until when, in milliseconds, what has a fault.
    taken: Vec<(Takes, Option<&'static str>, u64)>,
    end: u64,
}

/// The schedule of a seed, in order, for this long. Every fault heals in it.
pub(crate) fn plan(seed: u64, length: Duration) -> Vec<Step> {
    let end = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut planner = Planner {
        draw: Draw::new(seed),
        steps: Vec::new(),
        taken: Vec::new(),
        end,
    };
    let mut at = 500;
    let mut long = seed.is_multiple_of(2);
    while at < end {
        let span = if long && at + LONG <= end {
            planner.long_fault(at);
            LONG
        } else {
            BUSY
        };
        let until = (at + span).min(end);
        let quiet_hub = long && span == LONG;
        planner.faults(at, until, quiet_hub);
        planner.acts(at, until);
        long = !long;
        at = until;
    }
    planner.steps.sort_by_key(|step| step.at);
    planner.steps
}

impl Planner {
    fn add(&mut self, at: u64, what: What) {
        let at = Duration::from_millis(at);
        self.steps.push(Step { at, what });
    }

    fn fault(&mut self, at: u64, span: u64, fault: Fault, machine: Option<&'static str>) {
        let until = (at + span).min(self.end);
        self.add(at, What::Inject(fault, machine));
        self.add(until, What::Heal(fault, machine));
        // Some time to come back before the next one.
        self.taken.push((fault.takes(), machine, until + 1500));
    }

    fn is_free(&self, at: u64, fault: Fault, machine: Option<&'static str>) -> bool {
        let mut all = self.taken.iter();
        !all.any(|(takes, of, until)| *takes == fault.takes() && *of == machine && *until > at)
    }

    /// One fault that lasts longer than a lease, with jobs of every policy under way before it.
    fn long_fault(&mut self, at: u64) {
        for on_lost in [OnLost::Retry, OnLost::Ask, OnLost::Fail, OnLost::Retry] {
            let dispatch = Dispatch {
                shape: Shape {
                    kind: self.draw.pick(&[Kind::Steady, Kind::Both, Kind::Forks]),
                    size: self.draw.between(60, 100),
                    exit: 0,
                },
                count: 3,
                on: None,
                on_lost,
                ..self.any_dispatch()
            };
            self.add(at, What::Dispatch(dispatch));
        }
        let fault = self.draw.weighted(&LONG_ONES);
        let machine = fault.where_only().or(Some(self.draw.pick(&MACHINES)));
        let begins = at + self.draw.between(2500, 5000);
        if self.is_free(begins, fault, machine) {
            let span = self.draw.between(50_000, 55_000);
            self.fault(begins, span, fault, machine);
        }
    }

    fn faults(&mut self, from: u64, until: u64, quiet_hub: bool) {
        let gap = if quiet_hub { (2000, 6000) } else { (600, 2800) };
        let weights = Fault::ALL.map(|fault| (fault.habits().0, fault));
        let mut at = from + self.draw.between(gap.0, gap.1);
        while at < until {
            let fault = self.draw.weighted(&weights);
            let machine = match fault.takes() {
                Takes::Hub => None,
                _ => fault.where_only().or(Some(self.draw.pick(&MACHINES))),
            };
            let (_, shortest, longest) = fault.habits();
            let span = self.draw.between(shortest, longest) * 100;
            // A restarted keeper counts leases anew: while one is to run out, the hub is left alone.
            let spared = quiet_hub && fault.takes() == Takes::Hub;
            if !spared && self.is_free(at, fault, machine) {
                self.fault(at, span, fault, machine);
            }
            at += self.draw.between(gap.0, gap.1);
        }
    }

    fn acts(&mut self, from: u64, until: u64) {
        let mut at = from + self.draw.between(100, 1000);
        while at < until {
            let act = match self.draw.between(0, 99) {
                0..=79 => What::Dispatch(self.any_dispatch()),
                80..=91 => What::Cancel(self.draw.next()),
                _ => What::Answer(self.draw.next()),
            };
            self.add(at, act);
            at += self.draw.between(300, 1300);
        }
    }

    fn any_dispatch(&mut self) -> Dispatch {
        let draw = &mut self.draw;
        let kind = draw.weighted(&[
            (5, Kind::Quick),
            (5, Kind::Steady),
            (4, Kind::Loud),
            (2, Kind::Both),
            (3, Kind::Forks),
            (1, Kind::Stubborn),
            (1, Kind::Endless),
        ]);
        let exit = if draw.chance(20) {
            draw.between(1, 40) as u8
        } else {
            0
        };
        let timeout = kind.is_endless() || draw.chance(10);
        Dispatch {
            shape: Shape {
                kind,
                size: draw.between(1, 16),
                exit,
            },
            count: draw.weighted(&[(4, 1), (2, 2), (1, 4)]),
            on: draw.chance(40).then(|| draw.pick(&MACHINES)),
            on_lost: draw.weighted(&[(2, OnLost::Ask), (3, OnLost::Retry), (2, OnLost::Fail)]),
            timeout: timeout.then(|| Duration::from_millis(draw.between(1500, 5000))),
            priority: draw.pick(&["high", "normal", "low"]),
            spool: draw.chance(50),
            shifty: draw.chance(15),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_is_always_the_same_schedule() {
        let length = Duration::from_secs(300);
        assert_eq!(plan(7, length), plan(7, length));
        assert_ne!(plan(7, length), plan(8, length));
    }

    #[test]
    fn what_begins_is_over_at_the_end_and_nothing_has_two_faults_at_once() {
        for seed in 0..200 {
            let length = Duration::from_secs(seed % 240);
            let mut open = Vec::new();
            for step in plan(seed, length) {
                assert!(step.at <= length);
                match step.what {
                    What::Inject(fault, machine) => {
                        let same =
                            |(f, m): &(Fault, _)| f.takes() == fault.takes() && *m == machine;
                        assert!(!open.iter().any(same), "{seed}: {fault:?}");
                        open.push((fault, machine));
                    }
                    What::Heal(fault, machine) => open.retain(|one| *one != (fault, machine)),
                    _ => {}
                }
            }
            assert_eq!(open, []);
        }
    }

    #[test]
    fn the_seeds_of_every_run_know_every_fault() {
        let mut seen = BTreeSet::new();
        for seed in crate::SEEDS {
            for step in plan(seed, crate::SECONDS) {
                if let What::Inject(fault, _) = step.what {
                    seen.insert(fault);
                }
            }
        }
        let missing: Vec<_> = Fault::ALL.iter().filter(|f| !seen.contains(f)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
