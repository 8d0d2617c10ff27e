//! Whose a chunk of output is: a machine may write below its own name for any job, so that a chunk
//! counts only where the journal says that the attempt it names was that machine's. What does not is
//! left out and counted.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use fleet_contract::ids::{AttemptId, JobId, MachineId};
use fleet_contract::job::Job;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::clock;
use crate::output::Chunk;

/// A machine whose chunk named an attempt that was not its own is not looked up again for so long:
/// what it sends meanwhile of attempts that are not known is left out unasked.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Before the hub is asked again where it did not answer.
const PAUSE: Duration = Duration::from_millis(200);
/// Machines that are told apart; the others are counted together.
const MACHINES_MAX: usize = 256;

/// Which machine had which attempt of a job, as far as its journal was read.
#[derive(Debug)]
pub struct Owners {
    job: JobId,
    machines: HashMap<AttemptId, MachineId>,
    /// When the journal was last asked in vain.
    asked: BTreeMap<MachineId, Instant>,
    foreign: BTreeMap<MachineId, u64>,
    others: u64,
}

impl Owners {
    /// Of a job whose journal was not read yet.
    #[must_use]
    pub fn of(job: JobId) -> Self {
        Self {
            job,
            machines: HashMap::new(),
            asked: BTreeMap::new(),
            foreign: BTreeMap::new(),
            others: 0,
        }
    }

    /// Takes in what the journal says.
    pub fn learn(&mut self, job: &Job) {
        let attempts = job.attempts.iter().map(|a| (a.id, &a.machine));
        // Of those that the journal lost, the keeper's word about them is all there is.
        let told = job.superseded.iter().map(|s| (s.id, &s.machine));
        for (attempt, machine) in told.chain(attempts) {
            self.machines.insert(attempt, machine.clone());
            self.asked.remove(machine);
        }
    }

    /// Whether the chunk counts. A claim is stored before its first chunk, so that the journal is
    /// asked about an attempt that is not known, however long the hub takes; what it does not name
    /// then is counted as foreign. Whoever drops this half-way may ask again.
    pub async fn admits(&mut self, bus: &Bus, chunk: &Chunk) -> bool {
        let (attempt, machine) = (chunk.head.attempt, &chunk.machine);
        if !self.machines.contains_key(&attempt) && self.may_ask(machine) {
            if let Some(job) = self.journal(bus).await {
                self.learn(&job);
            }
            if !self.machines.contains_key(&attempt) {
                if self.asked.len() >= MACHINES_MAX {
                    self.asked.pop_first();
                }
                self.asked.insert(machine.clone(), Instant::now());
            }
        }
        let own = self.machines.get(&attempt) == Some(machine);
        if !own {
            self.count(machine);
        }
        own
    }

    async fn journal(&self, bus: &Bus) -> Option<Job> {
        loop {
            match bus.job(self.job).await {
                Ok(job) => return job,
                Err(error) => tracing::debug!(%error, "it is not known whose a chunk is"),
            }
            tokio::time::sleep(clock::jittered(PAUSE)).await;
        }
    }

    fn may_ask(&self, machine: &MachineId) -> bool {
        let last = self.asked.get(machine);
        last.is_none_or(|at| at.elapsed() >= ASK_AGAIN)
    }

    fn count(&mut self, machine: &MachineId) {
        if let Some(n) = self.foreign.get_mut(machine) {
            *n += 1;
        } else if self.foreign.len() < MACHINES_MAX {
            self.foreign.insert(machine.clone(), 1);
        } else {
            self.others += 1;
        }
    }

    /// How many chunks were left out.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign.values().sum::<u64>() + self.others
    }

    /// What was left out, in words; none where nothing was.
    #[must_use]
    pub fn left_out(&self) -> Option<String> {
        let chunks = match self.foreign() {
            0 => return None,
            1 => "1 chunk".to_owned(),
            n => format!("{n} chunks"),
        };
        let most = self.foreign.iter().max_by_key(|(_, n)| **n);
        let most = most.map_or("machines", |(machine, _)| machine.as_str());
        let others = match self.foreign.len() {
            0 | 1 if self.others == 0 => "",
            _ => " and others",
        };
        Some(format!(
            "{chunks} from {most}{others} left out: of attempts that were never theirs"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_bounded_and_named() {
        let mut owners = Owners::of(JobId::from_random([1; 10]));
        assert_eq!(owners.left_out(), None);
        owners.count(&"rogue".parse().unwrap());
        assert_eq!(
            owners.left_out().unwrap(),
            "1 chunk from rogue left out: of attempts that were never theirs"
        );
        for n in 0..1000 {
            owners.count(&format!("m{n}").parse().unwrap());
            owners.count(&"rogue".parse().unwrap());
        }
        assert_eq!(owners.foreign(), 2001);
        assert_eq!(owners.foreign.len(), MACHINES_MAX);
        let told = owners.left_out().unwrap();
        assert!(
            told.starts_with("2001 chunks from rogue and others"),
            "{told}"
        );
    }
}
