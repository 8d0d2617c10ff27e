//! Every subject, stream and consumer name of the wire contract, built and parsed in this one
//! place. Ids are validated before they become a token, so nothing escapes its place.

use fleet_contract::ids::{JobId, Lane, MachineId, Writer};
use fleet_contract::spec::{Priority, Target};

/// The streams' names.
pub mod stream {
    /// The journal: transitions of every job.
    pub const JOB: &str = "JOB";
    /// Tickets of lanes.
    pub const WORK: &str = "WORK";
    /// Tickets for one machine.
    pub const PIN: &str = "PIN";
    /// What each lane requires, and what the operator wants of a machine.
    pub const LANE: &str = "LANE";
    /// Presence: the registry of machines.
    pub const PRES: &str = "PRES";
    /// All other events.
    pub const FLOW: &str = "FLOW";
    /// Output.
    pub const LOG: &str = "LOG";
    /// Leases of machines.
    pub const LEASE: &str = "LEASE";
    /// All of them, in the order of a backup: what refers to another stream comes before it, so
    /// that a copy never holds a ticket whose job is not in its journal.
    pub const ALL: [&str; 8] = [WORK, PIN, LANE, PRES, LEASE, FLOW, LOG, JOB];
}

/// All records of all jobs.
pub const JOBS: &str = "fleet.job.>";
/// All presences.
pub const PRESENCES: &str = "fleet.pres.*";
/// All events.
pub const FLOWS: &str = "fleet.flow.>";
/// What all machines count.
pub const STATS: &str = "fleet.stat.*";
/// All leases.
pub const LEASES: &str = "fleet.lease.>";
/// All lanes.
pub const LANES: &str = "fleet.lane.*";
/// What the hub says of itself, in the place of what the operator wants of a machine: no machine has
/// that name.
pub const HUB_WORD: &str = "fleet.want.hub";
/// The writer token of the hub in flow and leases.
pub const HUB: &str = "hub";

/// Where `writer` appends to the job's journal.
#[must_use]
pub fn job(job: JobId, writer: &Writer) -> String {
    format!("fleet.job.{job}.{writer}")
}

/// The whole journal of a job, as a filter.
#[must_use]
pub fn job_all(job: JobId) -> String {
    format!("fleet.job.{job}.*")
}

/// The job and the writer of a journal subject.
#[must_use]
pub fn parse_job(subject: &str) -> Option<(JobId, Writer)> {
    let mut tokens = subject.strip_prefix("fleet.job.")?.split('.');
    let parsed = (tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?);
    tokens.next().is_none().then_some(parsed)
}

/// Where a ticket of a job waits. The job is in it so that an ended job's tickets can be removed.
#[must_use]
pub fn ticket(target: &Target, priority: Priority, job: JobId) -> String {
    format!("{}.{job}", queue(target, priority))
}

/// All tickets of one lane or machine and priority.
#[must_use]
pub fn tickets(target: &Target, priority: Priority) -> String {
    format!("{}.*", queue(target, priority))
}

/// All tickets of a job, and the streams they may wait in.
#[must_use]
pub fn tickets_of(job: JobId) -> [(&'static str, String); 2] {
    [
        (stream::WORK, format!("fleet.work.*.*.{job}")),
        (stream::PIN, format!("fleet.pin.*.*.{job}")),
    ]
}

fn queue(target: &Target, priority: Priority) -> String {
    let letter = priority.letter();
    match target {
        Target::Lane(lane) => format!("fleet.work.{lane}.{letter}"),
        Target::Pin(machine) => format!("fleet.pin.{machine}.{letter}"),
    }
}

/// The lane and the priority of a ticket's subject in [`stream::WORK`].
#[must_use]
pub fn parse_work(subject: &str) -> Option<(Lane, Priority)> {
    let (queue, job) = subject.strip_prefix("fleet.work.")?.rsplit_once('.')?;
    let (lane, letter) = queue.split_once('.')?;
    job.parse::<JobId>().ok()?;
    Some((lane.parse().ok()?, Priority::from_letter(letter)?))
}

/// The stream a ticket waits in.
#[must_use]
pub fn ticket_stream(target: &Target) -> &'static str {
    match target {
        Target::Lane(_) => stream::WORK,
        Target::Pin(_) => stream::PIN,
    }
}

/// The durable consumer that hands out the tickets of one lane or machine and priority.
#[must_use]
pub fn consumer(target: &Target, priority: Priority) -> String {
    let letter = priority.letter();
    match target {
        Target::Lane(lane) => format!("{lane}-{letter}"),
        Target::Pin(machine) => format!("m-{machine}-{letter}"),
    }
}

/// Where the requirements of a lane are kept.
#[must_use]
pub fn lane(lane: &Lane) -> String {
    format!("fleet.lane.{lane}")
}

/// The lane of a subject.
#[must_use]
pub fn parse_lane(subject: &str) -> Option<Lane> {
    subject.strip_prefix("fleet.lane.")?.parse().ok()
}

/// Where a machine's presence is kept.
#[must_use]
pub fn presence(machine: &MachineId) -> String {
    format!("fleet.pres.{machine}")
}

/// The machine of a presence's subject.
#[must_use]
pub fn parse_presence(subject: &str) -> Option<MachineId> {
    subject.strip_prefix("fleet.pres.")?.parse().ok()
}

/// Where `writer` (a machine, or [`HUB`]) tells an event of this kind.
#[must_use]
pub fn flow(writer: &str, kind: &str) -> String {
    format!("fleet.flow.{writer}.{kind}")
}

/// The writer and the kind of an event's subject.
#[must_use]
pub fn parse_flow(subject: &str) -> Option<(&str, &str)> {
    subject.strip_prefix("fleet.flow.")?.split_once('.')
}

/// Where a machine puts the output of a job.
#[must_use]
pub fn log(job: JobId, machine: &MachineId) -> String {
    format!("fleet.log.{job}.{machine}")
}

/// All output of a job, as a filter.
#[must_use]
pub fn log_all(job: JobId) -> String {
    format!("fleet.log.{job}.*")
}

/// The job and the machine of a subject of output.
#[must_use]
pub fn parse_log(subject: &str) -> Option<(JobId, MachineId)> {
    let (job, machine) = subject.strip_prefix("fleet.log.")?.split_once('.')?;
    Some((job.parse().ok()?, machine.parse().ok()?))
}

/// Where `holder` (the machine itself, or [`HUB`]) renews a machine's lease.
#[must_use]
pub fn lease(machine: &MachineId, holder: &str) -> String {
    format!("fleet.lease.{machine}.{holder}")
}

/// All records of a machine's lease, as a filter.
#[must_use]
pub fn lease_all(machine: &MachineId) -> String {
    format!("fleet.lease.{machine}.*")
}

/// The machine of a lease's subject.
#[must_use]
pub fn parse_lease(subject: &str) -> Option<MachineId> {
    let (machine, holder) = subject.strip_prefix("fleet.lease.")?.split_once('.')?;
    (!holder.contains('.'))
        .then(|| machine.parse().ok())
        .flatten()
}

/// Who writes on a subject of a stream, as its name says: the machine whose right it is, or another
/// writer's token.
#[must_use]
pub fn owner(subject: &str) -> Option<&str> {
    let mut tokens = subject.strip_prefix("fleet.")?.split('.');
    match tokens.next()? {
        "pres" | "flow" | "stat" => tokens.next(),
        "job" | "log" | "lease" => tokens.nth(1),
        _ => None,
    }
    .filter(|token| !token.is_empty())
}

/// Where a machine tells what it counted; not stored.
#[must_use]
pub fn stat(machine: &MachineId) -> String {
    format!("fleet.stat.{machine}")
}

/// The machine of a subject of counts.
#[must_use]
pub fn parse_stat(subject: &str) -> Option<MachineId> {
    subject.strip_prefix("fleet.stat.")?.parse().ok()
}

/// Where a machine's agent takes a command.
#[must_use]
pub fn command(machine: &MachineId, verb: &str) -> String {
    format!("fleet.cmd.{machine}.{verb}")
}

/// Where all agents take a command.
#[must_use]
pub fn command_all(verb: &str) -> String {
    format!("fleet.cmd.all.{verb}")
}

/// Where the hub is asked something.
#[must_use]
pub fn command_hub(verb: &str) -> String {
    format!("fleet.cmd.{HUB}.{verb}")
}

/// What agents are asked to do at once.
pub mod verb {
    /// End an attempt: the journal holds the operator's wish.
    pub const CANCEL: &str = "cancel";
    /// Say what the machine is and how busy, now.
    pub const SPECS: &str = "specs";
    /// Look for skills now, and answer as to `specs` once that is done.
    pub const PROBE: &str = "probe";
    /// Asked of the hub by the operator: let a machine in again.
    pub const ADMIT: &str = "admit";
    /// Asked of the hub: say how it is.
    pub const STATS: &str = "stats";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_round_trip() {
        let id = JobId::from_random([3; 10]);
        let machine: MachineId = "studio".parse().unwrap();
        for writer in [
            Writer::Operator,
            Writer::Keeper,
            Writer::Machine(machine.clone()),
        ] {
            assert_eq!(parse_job(&job(id, &writer)), Some((id, writer)));
        }
        for priority in Priority::ALL {
            let target = Target::Lane(Lane::any());
            assert_eq!(
                parse_work(&ticket(&target, priority, JobId::from_key("a"))),
                Some((Lane::any(), priority))
            );
        }
        assert_eq!(parse_lane(&lane(&Lane::any())), Some(Lane::any()));
        assert_eq!(parse_presence(&presence(&machine)), Some(machine.clone()));
        assert_eq!(parse_stat(&stat(&machine)), Some(machine.clone()));
        assert_eq!(
            parse_flow(&flow("studio", "machine.up")),
            Some(("studio", "machine.up"))
        );
        assert_eq!(parse_log(&log(id, &machine)), Some((id, machine.clone())));
        for holder in ["studio", HUB] {
            assert_eq!(parse_lease(&lease(&machine, holder)), Some(machine.clone()));
        }
    }

    #[test]
    fn an_owner_is_who_may_write_there() {
        for subject in [
            "fleet.pres.studio",
            "fleet.flow.studio.machine.up",
            "fleet.stat.studio",
            "fleet.job.aaaaaaaaaaaaaaaa.studio",
            "fleet.log.aaaaaaaaaaaaaaaa.studio",
            "fleet.lease.mini.studio",
        ] {
            assert_eq!(owner(subject), Some("studio"), "{subject}");
        }
        for subject in ["fleet.work.any.n.x", "fleet.job.x", "fleet.pres.", "x"] {
            assert_eq!(owner(subject), None, "{subject}");
        }
    }

    #[test]
    fn foreign_subjects_are_none() {
        for bad in [
            "",
            "fleet.job",
            "fleet.job.x.y",
            "fleet.job.aaaaaaaaaaaaaaaa.keeper.x",
            "fleet.pres.A",
            "x.y.z",
        ] {
            assert_eq!(parse_job(bad), None);
            assert_eq!(parse_presence(bad), None);
            assert_eq!(parse_log(bad), None);
            assert_eq!(parse_stat(bad), None);
        }
    }
}
