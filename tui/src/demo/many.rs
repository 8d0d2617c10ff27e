//! Fleets of any size, made from a seed: machines over sites with the mixture of states, jobs and
//! trouble that real ones have, an hour of history, and what goes on in every second after it.
//! The same number, seed and time make the same fleet.

use std::collections::VecDeque;

use fleet_contract::machine::{Cause, Degraded, MachineState, Presence, Service};
use fleet_contract::outcome::Outcome;
use fleet_contract::projection::Fact;
use fleet_contract::record::Next;
use fleet_contract::stat::Stat;
use fleet_contract::time::Time;
use serde_json::json;

use super::{Script, before, presence};

const SITES: [&str; 24] = [
    "ams", "fra", "sin", "nyc", "lon", "par", "tyo", "syd", "sfo", "gru", "bom", "dub", "mad",
    "waw", "iad", "ord", "yyz", "hel", "zrh", "mel", "icn", "cpt", "scl", "dfw",
];

/// Fleets that a person knows by heart.
const NAMES: [&str; 8] = [
    "anvil", "forge", "lapis", "onyx", "opal", "flint", "amber", "slate",
];

/// What those are.
const SMALL: [MachineState; 8] = [
    MachineState::Up,
    MachineState::Up,
    MachineState::Degraded,
    MachineState::Lost,
    MachineState::Offline,
    MachineState::Draining,
    MachineState::Up,
    MachineState::Stale,
];

const WORK: [(&str, &str); 12] = [
    ("train-ablate", "python train.py --ablate 4"),
    ("lint-all", "just lint"),
    ("index-repo", "zoekt-index ."),
    ("unit", "cargo test --workspace"),
    ("docs-build", "mdbook build docs"),
    ("nightly-bench", "cargo bench"),
    ("sync-mirror", "git fetch --all"),
    ("render-intro", "blender -b intro.blend -a"),
    ("gpu-sweep", "python sweep.py"),
    ("", "make -j8 test"),
    ("fuzz-parser", "cargo fuzz run parser"),
    ("weekly-backup", "restic backup /srv"),
];

/// Seconds between two beats.
const BEAT: u64 = 5;
/// Jobs of the last hour that have ended, at most.
const ENDED_MAX: usize = 1500;
/// The first number of a job of these fleets.
const FIRST_JOB: u32 = 1000;

/// Numbers that look random and are the same for the same seed (splitmix64).
#[derive(Debug, Clone)]
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn seconds(&mut self, n: i64) -> i64 {
        i64::try_from(self.below(n.unsigned_abs())).unwrap_or(0)
    }
}

/// Bits of an id.
pub(super) fn bits(n: u64) -> [u8; 10] {
    let (a, b) = (Dice(n).next(), Dice(!n).next());
    let mut bits = [0; 10];
    bits[..8].copy_from_slice(&a.to_be_bytes());
    bits[8..].copy_from_slice(&b.to_be_bytes()[..2]);
    bits
}

/// What happens to a job.
enum Do {
    Dispatch { work: usize, pin: String },
    Claim { machine: String },
    End(Outcome, Next),
    Lost,
}

/// A made-up fleet of so many machines.
pub struct Many {
    script: Script,
    dice: Dice,
    machines: Vec<(MachineState, Presence)>,
    /// Jobs that run since the history ended, with the place of their machine.
    running: VecDeque<(u32, usize)>,
    next_job: u32,
    turn: u64,
}

/// The facts of a made-up fleet of `n` machines with an hour of history before `now`.
#[must_use]
pub fn fleet_of(n: usize, seed: u64, now: Time) -> Vec<Fact> {
    Many::new(n, seed).history(now)
}

impl Many {
    /// Of `n` machines.
    #[must_use]
    pub fn new(n: usize, seed: u64) -> Self {
        let mut dice = Dice(seed);
        let machines = (0..n).map(|no| machine(no, n, &mut dice)).collect();
        Self {
            script: Script::default(),
            dice,
            machines,
            running: VecDeque::new(),
            next_job: FIRST_JOB,
            turn: 0,
        }
    }

    /// The last sequence of its journal.
    #[must_use]
    pub fn journal_seq(&self) -> u64 {
        self.script.seq
    }

    /// The last hour before `now`.
    #[must_use]
    pub fn history(&mut self, now: Time) -> Vec<Fact> {
        let mut steps = Vec::new();
        self.ended(now, &mut steps);
        self.open(now, &mut steps);
        steps.sort_by_key(|(at, n, _)| (*at, *n));
        let mut facts: Vec<Fact> = Vec::new();
        for (at, n, step) in steps {
            facts.extend(self.play(at, n, step));
        }
        facts.extend(self.told(now));
        for no in 0..self.machines.len() {
            let (state, presence) = self.machines[no].clone();
            let ago = match state {
                MachineState::Lost => 60 + self.dice.seconds(600),
                MachineState::Stale => 9 + self.dice.seconds(6),
                MachineState::Offline => 900 + self.dice.seconds(80_000),
                // As the next beats continue it.
                _ => i64::try_from(no as u64 % BEAT).unwrap_or(0),
            };
            let mut presence = presence;
            if state == MachineState::Lost {
                presence.lost_at = Some(before(now, ago - 1));
            }
            for past in (1..=self.past()).rev() {
                let mut then = presence.clone();
                then.load.load *= self.dice.below(90) as f64 / 60.0;
                then.lost_at = None;
                then.service = Service::Up;
                facts.push(self.script.beat(before(now, ago + past * 10), then));
            }
            facts.push(self.script.beat(before(now, ago), presence));
        }
        facts.extend(self.counted(now));
        facts
    }

    /// How many samples of load a machine has behind it.
    fn past(&self) -> i64 {
        match self.machines.len() {
            0..=40 => 20,
            41..=400 => 6,
            _ => 1,
        }
    }

    /// What machines counted in the last second: those that run something tell it.
    fn counted(&mut self, now: Time) -> Vec<Fact> {
        let mut counted = Vec::new();
        for (state, presence) in &self.machines {
            let used = u64::from(presence.load.slots_used);
            if used == 0 || !matches!(state, MachineState::Up | MachineState::Degraded) {
                continue;
            }
            let bits = Dice(presence.load.slots_used.into()).next();
            let chunks = used * (1 + bits % 9) + self.dice.below(4);
            let stat = Stat {
                interval_ms: 1000,
                tickets: self.dice.below(used / 2 + 2),
                records: self.dice.below(used + 1),
                chunks,
                events: 0,
                bytes_out: chunks * 380,
            };
            counted.push(Fact::Stat {
                machine: presence.machine.clone(),
                stat,
                at: now,
            });
        }
        counted
    }

    fn play(&mut self, at: Time, n: u32, step: Do) -> Option<Fact> {
        match step {
            Do::Dispatch { work, pin } => {
                let (name, command) = WORK[work % WORK.len()];
                self.script.dispatch(n, at, name, command, &pin)
            }
            Do::Claim { machine } => self.script.claim(n, at, &machine),
            Do::End(outcome, next) => self.script.end(n, at, outcome, next),
            Do::Lost => self.script.lost(n, at, Next::End),
        }
    }

    fn job(&mut self) -> u32 {
        self.next_job += 1;
        self.next_job
    }

    fn dispatch(&mut self, pin: &str) -> Do {
        let work = usize::try_from(self.dice.below(WORK.len() as u64)).unwrap_or(0);
        let pin = pin.to_owned();
        Do::Dispatch { work, pin }
    }

    /// Machines that may have run something.
    fn workers(&self) -> Vec<usize> {
        (0..self.machines.len())
            .filter(|no| self.machines[*no].0 != MachineState::Offline)
            .collect()
    }

    fn name(&self, no: usize) -> String {
        self.machines[no].1.machine.to_string()
    }

    fn any_of(&mut self, places: &[usize]) -> String {
        let at = self.dice.below(places.len() as u64) as usize;
        self.name(places[at])
    }

    /// What ended within the hour, in bursts, some of it badly.
    fn ended(&mut self, now: Time, steps: &mut Vec<(Time, u32, Do)>) {
        let workers = self.workers();
        if workers.is_empty() {
            return;
        }
        let bursts: Vec<i64> = (0..5).map(|_| self.dice.seconds(3500)).collect();
        for _ in 0..(90 + self.machines.len() * 2).min(ENDED_MAX) {
            let end = match self.dice.below(3) {
                0 => {
                    let burst = bursts[self.dice.below(5) as usize];
                    (burst + self.dice.seconds(90)).min(3500) + 5
                }
                _ => 5 + self.dice.seconds(3550),
            };
            let took = 2 + self.dice.seconds(200);
            let machine = self.any_of(&workers);
            let n = self.job();
            let dispatch = self.dispatch("");
            steps.push((before(now, end + took + 1), n, dispatch));
            steps.push((before(now, end + took), n, Do::Claim { machine }));
            let ended = match self.dice.below(100) {
                0..3 => Do::End(Outcome::Exited { exit_code: 1 }, Next::End),
                3 => Do::End(Outcome::Signaled { signal: 9 }, Next::End),
                4 => Do::End(Outcome::TimedOut, Next::End),
                _ => Do::End(Outcome::Exited { exit_code: 0 }, Next::End),
            };
            steps.push((before(now, end), n, ended));
        }
    }

    /// What runs, waits, asks, and what went away with its machine.
    fn open(&mut self, now: Time, steps: &mut Vec<(Time, u32, Do)>) {
        for no in self.workers() {
            let (state, used) = (self.machines[no].0, self.machines[no].1.load.slots_used);
            for _ in 0..used {
                let since = 4 + self.dice.seconds(3000);
                let n = self.job();
                let dispatch = self.dispatch("");
                steps.push((before(now, since + 2), n, dispatch));
                let machine = self.name(no);
                steps.push((before(now, since), n, Do::Claim { machine }));
                match state {
                    MachineState::Lost => steps.push((before(now, 50), n, Do::Lost)),
                    _ => self.running.push_back((n, no)),
                }
            }
        }
        let workers = self.workers();
        if workers.is_empty() {
            return;
        }
        for turn in 0..2 + self.machines.len() / 8 {
            let n = self.job();
            let pin = if turn % 2 == 0 {
                self.any_of(&workers)
            } else {
                String::new()
            };
            let dispatch = self.dispatch(&pin);
            steps.push((before(now, 3 + self.dice.seconds(300)), n, dispatch));
        }
        for turn in 0..1 + self.machines.len() / 200 {
            let n = self.job();
            let since = 20 + self.dice.seconds(400);
            let machine = self.any_of(&workers);
            let ask = if turn % 2 == 0 {
                "branch diverged by 3 commits: merge or rebase?"
            } else {
                "the migration drops a table: go on?"
            };
            let question = ask.to_owned();
            let dispatch = self.dispatch("");
            steps.push((before(now, since + 62), n, dispatch));
            steps.push((before(now, since + 60), n, Do::Claim { machine }));
            let outcome = Outcome::Exited { exit_code: 75 };
            let ask = Do::End(outcome, Next::Ask { question });
            steps.push((before(now, since), n, ask));
        }
    }

    fn told(&mut self, now: Time) -> Vec<Fact> {
        let mut told = Vec::new();
        for (state, presence) in self.machines.clone() {
            let name = presence.machine.as_str();
            let (kind, detail) = match state {
                MachineState::Lost => (
                    "machine.lost",
                    json!({ "reason": "its connection closed without goodbye" }),
                ),
                MachineState::Degraded => (
                    "machine.degraded",
                    json!({ "degraded": [{ "cause": "disk_low" }] }),
                ),
                _ => continue,
            };
            let at = before(now, 60 + self.dice.seconds(2000));
            told.push((at, kind, name.to_owned(), detail));
        }
        told.sort_by_key(|(at, ..)| *at);
        told.into_iter()
            .map(|(at, kind, name, detail)| self.script.tell(at, kind, &name, detail))
            .collect()
    }

    /// What goes on in the second before `now`: beats, and some jobs that end and begin.
    #[must_use]
    pub fn second(&mut self, now: Time) -> Vec<Fact> {
        let mut facts = Vec::new();
        self.turn += 1;
        for _ in 0..(self.running.len() / 12).clamp(usize::from(!self.running.is_empty()), 200) {
            let Some((old, no)) = self.running.pop_front() else {
                break;
            };
            let exit_code = u8::from(self.dice.below(40) == 0);
            let end = Do::End(Outcome::Exited { exit_code }, Next::End);
            facts.extend(self.play(now, old, end));
            let n = self.job();
            let dispatch = self.dispatch("");
            facts.extend(self.play(now, n, dispatch));
            let machine = self.name(no);
            facts.extend(self.play(now, n, Do::Claim { machine }));
            self.running.push_back((n, no));
        }
        for no in 0..self.machines.len() {
            let (state, presence) = &mut self.machines[no];
            let silent = matches!(
                state,
                MachineState::Lost | MachineState::Stale | MachineState::Offline
            );
            if silent || !(self.turn + no as u64).is_multiple_of(BEAT) {
                continue;
            }
            let load = &mut presence.load.load;
            *load = (*load + (self.dice.below(100) as f64 - 49.5) / 80.0).max(0.05);
            let presence = presence.clone();
            facts.push(self.script.beat(now, presence));
        }
        facts.extend(self.counted(now));
        facts
    }
}

fn state(no: usize, n: usize, dice: &mut Dice) -> MachineState {
    if n <= SMALL.len() {
        return SMALL[no];
    }
    // One of each is somewhere in the middle, however the dice fall.
    let planted = [
        (n / 3, MachineState::Lost),
        (n / 2, MachineState::Degraded),
        (n * 2 / 3, MachineState::Stale),
        (n * 4 / 5, MachineState::Cordoned),
    ];
    if let Some((_, state)) = planted.iter().find(|(at, _)| *at == no) {
        return *state;
    }
    match dice.below(1000) {
        0..6 => MachineState::Lost,
        6..18 => MachineState::Stale,
        18..50 => MachineState::Degraded,
        50..55 => MachineState::Draining,
        55..60 => MachineState::Cordoned,
        60..80 => MachineState::Offline,
        _ => MachineState::Up,
    }
}

fn machine(no: usize, n: usize, dice: &mut Dice) -> (MachineState, Presence) {
    let sites = n.div_ceil(38).clamp(3, SITES.len());
    let state = state(no, n, dice);
    let site = (n > NAMES.len()).then(|| SITES[no % sites]);
    let name = match site {
        Some(site) => format!("{site}-{:03}", no / sites + 1),
        None => NAMES[no].to_owned(),
    };
    let slots = [2, 4, 4, 8, 16][dice.below(5) as usize];
    // Some sites are busier than others.
    let busy = 25 + 17 * (no as u64 % sites as u64 % 4);
    let used = (0..slots).filter(|_| dice.below(100) < busy).count();
    // Thousands of machines need not run tens of thousands of jobs to be looked at.
    let used = u32::try_from(used)
        .unwrap_or(0)
        .min(if n > 1000 { 2 } else { slots });
    let used = if state == MachineState::Offline {
        0
    } else {
        used
    };
    let mut presence = presence(&name, slots, used, slots * 2, u64::from(slots) * 8);
    presence.load.rtt_ms = Some(0.4 + (no % sites * 7) as f64 + dice.below(20) as f64 / 10.0);
    presence.load.load = f64::from(used) * 1.6 + dice.below(60) as f64 / 100.0;
    // As the made-up hub says it: the first machine is the hub.
    presence.host.clone_from(&name);
    if let Some(site) = site {
        presence.labels.insert("site".to_owned(), site.to_owned());
    }
    presence.service = match state {
        MachineState::Lost => Service::Lost,
        MachineState::Offline => Service::Offline,
        MachineState::Draining => Service::Draining,
        MachineState::Cordoned => Service::Cordoned,
        _ => Service::Up,
    };
    if state == MachineState::Degraded {
        let (cause, value) = match dice.below(4) {
            0 => (Cause::ClockOffset, "+3.2 s"),
            1 => (Cause::RoundTrip, "812 ms"),
            2 => (Cause::MemoryLow, "211 MiB free"),
            _ => (Cause::DiskLow, "940 MiB free"),
        };
        presence.degraded.push(Degraded {
            cause,
            value: value.to_owned(),
            since: Time::default(),
        });
    }
    (state, presence)
}

#[cfg(test)]
mod tests {
    use fleet_contract::projection::{Fleet, Limits};

    use super::*;

    #[test]
    fn a_made_up_fleet_is_as_large_as_asked_and_the_same_each_time() {
        let now = Time::from_micros(1_769_861_071_000_000);
        for n in [0, 1, 3, 8, 9, 30, 300] {
            let facts = fleet_of(n, 7, now);
            assert_eq!(facts, fleet_of(n, 7, now));
            let mut fleet = Fleet::new(Limits::default());
            for fact in &facts {
                fleet.fold(fact);
            }
            assert_eq!(fleet.machines().len(), n);
            assert_eq!(fleet.counters().voids, 0);
            let states: Vec<_> = fleet.machines_worst_first(now);
            assert!(n < 30 || states[0].0 == MachineState::Lost);
            assert!(n < 3 || fleet.jobs().len() > 90);
        }
    }

    #[test]
    fn it_goes_on_by_the_rules() {
        let now = Time::from_micros(1_769_861_071_000_000);
        let mut many = Many::new(30, 1);
        let mut fleet = Fleet::new(Limits::default());
        for fact in many.history(now) {
            fleet.fold(&fact);
        }
        for _ in 0..20 {
            for fact in many.second(now) {
                fleet.fold(&fact);
            }
        }
        assert_eq!(fleet.counters().voids, 0);
        assert_eq!(many.journal_seq(), fleet.journal_seq());
    }
}
