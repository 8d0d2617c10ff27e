//! The operator acknowledges what journals tell of superseded attempts: by compare-and-swap over
//! what was read, so that nothing is acknowledged that nobody has seen.

use fleet_contract::ids::{AttemptId, JobId, Writer};
use fleet_contract::job::{Job, Superseded};
use fleet_contract::record::Change;

use crate::bus::{Bus, BusError};
use crate::clock;
use crate::operate::ActError;

/// How often it is tried over what others append meanwhile.
const TRIES: u32 = 8;

impl Bus {
    /// Acknowledges every superseded attempt that the job's journal tells of; those that nobody had
    /// acknowledged before.
    ///
    /// # Errors
    /// `Moving` where another one was told meanwhile, `Impossible` where the job waits for a machine.
    pub async fn acknowledge(&self, id: JobId, by: &str) -> Result<Vec<Superseded>, ActError> {
        let mut seen: Option<Vec<AttemptId>> = None;
        for _ in 0..TRIES {
            let job = self.job(id).await?.ok_or(ActError::UnknownJob(id))?;
            let told = unacknowledged(&job);
            let now: Vec<AttemptId> = told.iter().map(|told| told.id).collect();
            if now.is_empty() {
                return Ok(told);
            }
            if seen.get_or_insert_with(|| now.clone()) != &now {
                return Err(ActError::Moving(id));
            }
            let (at, by) = (clock::now(), by.to_owned());
            let record = job
                .record(at, &Writer::Operator, Change::Acknowledged { by })
                .map_err(|void| ActError::Impossible { id, void })?;
            match self.append(id, &Writer::Operator, at, &record).await {
                Ok(_) => return Ok(told),
                Err(BusError::Moved(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(ActError::Moving(id))
    }
}

fn unacknowledged(job: &Job) -> Vec<Superseded> {
    let told = job.superseded.iter();
    told.filter(|told| told.acknowledged_by.is_none())
        .cloned()
        .collect()
}
