//! A job's journal read in no particular order: a small buffer in front of [`Job`]'s fold.
//!
//! Records that arrive before the one they follow wait for it. What the job looks like is always
//! the fold of the longest run of records without a gap, and in the end the fold in stream order,
//! whatever the order of arrival. Pure and bounded; what does not fit is counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ids::{JobId, Writer};
use crate::job::{Job, Void};
use crate::record::Record;
use crate::time::Time;

/// Most records that wait for [`Reorder::settle`].
pub const WAITING_MAX: usize = 1024;

#[derive(Debug, Clone)]
struct Item {
    time: Time,
    writer: Writer,
    record: Result<Arc<Record>, Void>,
}

/// A job's journal in no particular order.
#[derive(Debug, Clone)]
pub struct Reorder {
    id: JobId,
    /// The fold of everything up to `settled`, which is complete.
    base: Option<Job>,
    settled: u64,
    /// Records after that, as far as they have come.
    waiting: BTreeMap<u64, Item>,
    /// The fold of those of them that follow without a gap.
    view: Option<Job>,
    dropped: u64,
}

impl Reorder {
    /// A journal of which nothing has come yet.
    #[must_use]
    pub fn new(id: JobId) -> Self {
        Self {
            id,
            base: None,
            settled: 0,
            waiting: BTreeMap::new(),
            view: None,
            dropped: 0,
        }
    }

    /// The job as far as its records have come.
    #[must_use]
    pub fn job(&self) -> Option<&Job> {
        self.view.as_ref()
    }

    /// How many records were dropped because too many waited. Above zero, the journal has to be
    /// read anew.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes in a record, or why the message is none. One that has come already changes nothing.
    pub fn offer(&mut self, seq: u64, time: Time, writer: Writer, record: Result<Record, Void>) {
        if seq <= self.settled || self.waiting.contains_key(&seq) {
            return;
        }
        if self.waiting.len() >= WAITING_MAX {
            self.dropped += 1;
            return;
        }
        let item = Item {
            time,
            writer,
            record: record.map(Arc::new),
        };
        self.waiting.insert(seq, item);
        self.refresh();
    }

    /// Takes in that every record up to `upto` has come. Those whose previous record is not there
    /// are void then.
    pub fn settle(&mut self, upto: u64) {
        let later = self.waiting.split_off(&upto.saturating_add(1));
        for (seq, item) in std::mem::replace(&mut self.waiting, later) {
            fold(&mut self.base, self.id, seq, &item);
        }
        self.settled = self.settled.max(upto);
        self.refresh();
    }

    /// Folds anew what waits, up to the first gap. A record that names a previous one which is
    /// older than what is folded already is void, whatever is yet to come.
    fn refresh(&mut self) {
        let mut view = self.base.clone();
        for (&seq, item) in &self.waiting {
            let last = view.as_ref().map_or(0, |job| job.last_seq);
            match &item.record {
                Ok(record) if record.prev <= last => fold(&mut view, self.id, seq, item),
                _ => break,
            }
        }
        self.view = view;
    }
}

fn fold(job: &mut Option<Job>, id: JobId, seq: u64, item: &Item) {
    match (&mut *job, &item.record) {
        (Some(job), Ok(record)) => {
            job.apply(seq, item.time, &item.writer, record);
        }
        (Some(job), Err(_)) => job.skip(seq),
        (None, Ok(record)) => {
            *job = Job::first(id, seq, item.time, &item.writer, record).ok();
        }
        (None, Err(_)) => {}
    }
}
