//! Machines: what one says about itself, and what a reader makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::envelope::WIRE_VERSION;
use crate::ids::{InstanceId, MachineId};
use crate::needs::Probed;
use crate::time::Time;

/// The kind of a presence's envelope.
pub const PRESENCE_KIND: &str = "presence";
/// Heartbeat, unless configured: 5 s.
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(5);
/// Shortest heartbeat that can be configured.
pub const HEARTBEAT_MIN: Duration = Duration::from_secs(1);
/// Longest heartbeat that can be configured.
pub const HEARTBEAT_MAX: Duration = Duration::from_secs(60);
/// A machine that missed this many beats is lost.
pub const BEATS_LOST: u32 = 3;
/// How much later than its interval a beat may come before it counts as missed.
pub const BEAT_SLACK: Duration = Duration::from_millis(1500);

/// What a machine does with work, as it or the hub said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// It takes work.
    Up,
    /// It takes no more work.
    Cordoned,
    /// It takes no more work and waits for what runs.
    Draining,
    /// It said goodbye.
    Offline,
    /// Its connection closed without goodbye: the hub said so.
    Lost,
}

/// What a machine is: changes rarely.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Specs {
    /// `linux`, `macos`.
    pub os: String,
    /// Its version, in the system's own words.
    pub os_version: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Logical processors.
    pub cores: u32,
    /// Memory, in bytes.
    pub mem_total: u64,
    /// The version of its fleet.
    pub version: String,
}

/// How busy a machine is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Load average of one minute.
    pub load: f64,
    /// Memory that can be had, in bytes.
    pub mem_free: u64,
    /// Disk that can be had where fleet keeps its files, in bytes.
    pub disk_free: u64,
    /// Size of that disk, in bytes.
    pub disk_total: u64,
    /// Slots in all.
    pub slots: u32,
    /// Slots that attempts hold.
    pub slots_used: u32,
    /// Median round trip to the hub, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// 99th percentile of the last round trips to the hub, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_p99_ms: Option<f64>,
    /// Events, results and chunks of output on the machine's disk that the hub has not confirmed yet.
    #[serde(default)]
    pub spooled: u64,
    /// Bytes of those events and chunks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub spooled_bytes: u64,
    /// When the oldest of them happened or was written, by the machine's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spooled_since: Option<Time>,
    /// Bytes of output that were dropped before the hub had them.
    #[serde(default)]
    pub dropped_log_bytes: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Why a machine is degraded. This is the whole table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its clock is more than 1 s off the hub's.
    ClockOffset,
    /// A beat is overdue.
    BeatMissed,
    /// Less than 5 % of the disk is free, or less than the spool may need.
    DiskLow,
    /// The spool has not been empty for 10 s.
    SpoolWaiting,
    /// The 99th percentile of the round trip to the hub is over 500 ms.
    RoundTrip,
    /// A probe fails or is older than three of its intervals.
    Probe,
    /// It speaks an older or newer contract.
    Contract,
    /// Bytes of output were dropped.
    DroppedLog,
    /// Events cannot be put on the disk and are lost.
    EventsDropped,
    /// The agent runs an older binary than the file on disk.
    BinaryReplaced,
    /// The executor does not answer.
    Executor,
    /// Less than 5 % of the memory is free.
    MemoryLow,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 12] = [
        Self::ClockOffset,
        Self::BeatMissed,
        Self::DiskLow,
        Self::SpoolWaiting,
        Self::RoundTrip,
        Self::Probe,
        Self::Contract,
        Self::DroppedLog,
        Self::EventsDropped,
        Self::BinaryReplaced,
        Self::Executor,
        Self::MemoryLow,
    ];

    /// The cause in words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClockOffset => "clock offset",
            Self::BeatMissed => "beat missed",
            Self::DiskLow => "disk low",
            Self::SpoolWaiting => "spool not empty",
            Self::RoundTrip => "round trip p99",
            Self::Probe => "probe failing",
            Self::Contract => "contract version",
            Self::DroppedLog => "output dropped",
            Self::EventsDropped => "events dropped",
            Self::BinaryReplaced => "binary replaced",
            Self::Executor => "executor not answering",
            Self::MemoryLow => "memory low",
        }
    }
}

/// One reason why a machine is degraded, with its value and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// Which.
    pub cause: Cause,
    /// What was measured, in words.
    pub value: String,
    /// Since when, by the machine's clock.
    pub since: Time,
}

/// What an agent can measure about its machine that may degrade it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// The machine's clock less the hub's, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// Bytes free where fleet keeps its files.
    pub disk_free: u64,
    /// Size of that disk in bytes; 0 if it could not be read.
    pub disk_total: u64,
    /// Bytes the spool may still take.
    pub spool_bound: u64,
    /// How long the spool has not been empty.
    pub spool_waiting: Duration,
    /// 99th percentile of the last round trips.
    pub rtt_p99: Option<Duration>,
    /// Memory that can be had, in bytes.
    pub mem_free: u64,
    /// Memory in all, in bytes; 0 if it could not be read.
    pub mem_total: u64,
    /// Bytes of output dropped since the agent started.
    pub dropped_log_bytes: u64,
    /// Events that were lost since one could last be put on the disk.
    pub dropped_events: u64,
    /// Whether the file the agent was started from is newer now.
    pub binary_replaced: bool,
    /// How long the executor has not answered.
    pub executor_silent: Option<Duration>,
}

/// The causes that hold by these measurements, with their values. A probe's cause is added by the
/// probes, a missed beat and a foreign contract by the reader.
#[must_use]
pub fn causes(m: &Measured) -> Vec<(Cause, String)> {
    let mut found = Vec::new();
    if let Some(ms) = m.clock_offset_ms
        && ms.unsigned_abs() > 1000
    {
        found.push((Cause::ClockOffset, format!("{:+.1} s", seconds(ms))));
    }
    if m.disk_total > 0 && (m.disk_free < m.disk_total / 20 || m.disk_free < m.spool_bound) {
        found.push((Cause::DiskLow, free(m.disk_free)));
    }
    if m.spool_waiting >= Duration::from_secs(10) {
        found.push((
            Cause::SpoolWaiting,
            format!("for {} s", m.spool_waiting.as_secs()),
        ));
    }
    if let Some(p99) = m.rtt_p99
        && p99 > Duration::from_millis(500)
    {
        found.push((Cause::RoundTrip, format!("{} ms", p99.as_millis())));
    }
    if m.dropped_log_bytes > 0 {
        found.push((Cause::DroppedLog, format!("{} bytes", m.dropped_log_bytes)));
    }
    if m.dropped_events > 0 {
        found.push((Cause::EventsDropped, format!("{} so far", m.dropped_events)));
    }
    if m.binary_replaced {
        found.push((
            Cause::BinaryReplaced,
            "restart the agent to run the new one".to_owned(),
        ));
    }
    if let Some(silent) = m.executor_silent {
        found.push((Cause::Executor, format!("for {} s", silent.as_secs())));
    }
    if m.mem_total > 0 && m.mem_free < m.mem_total / 20 {
        found.push((Cause::MemoryLow, free(m.mem_free)));
    }
    found
}

fn free(bytes: u64) -> String {
    format!("{} free", crate::needs::rounded_size(bytes))
}

fn seconds(ms: i64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a clock's offset for people, to a tenth of a second"
    )]
    let seconds = ms as f64 / 1000.0;
    seconds
}

/// What a machine says about itself: its heartbeat, and its place in the registry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// The machine.
    pub machine: MachineId,
    /// Which `FLEET_HOME` speaks.
    pub instance: InstanceId,
    /// Which boot of the machine.
    pub boot: String,
    /// Its host name.
    pub host: String,
    /// The address it reaches the hub from.
    #[serde(default)]
    pub address: String,
    /// The hub's number for its connection: how the hub knows whose connection closed.
    pub connection: u64,
    /// What it does with work.
    pub service: Service,
    /// When the next beat is due at the latest, in milliseconds.
    pub interval_ms: u64,
    /// The version of the wire contract it speaks.
    pub contract: u32,
    /// What it is.
    pub specs: Specs,
    /// How busy it is.
    pub load: Load,
    /// Labels, set by the operator or probed.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Skills it probed, with their versions.
    #[serde(default)]
    pub skills: BTreeMap<String, String>,
    /// Models it has loaded.
    #[serde(default)]
    pub models: Vec<String>,
    /// What its probes found, with when, and what its jobs hold of it. `skills` and `models` say the
    /// same in short.
    #[serde(default)]
    pub probed: Probed,
    /// Why it is degraded.
    #[serde(default)]
    pub degraded: Vec<Degraded>,
    /// Since when it is lost, where the hub says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_at: Option<Time>,
}

/// The word for a machine's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MachineState {
    /// Gone: three beats missed, or its connection closed without goodbye.
    Lost,
    /// One beat missed.
    Stale,
    /// Works, but something is wrong.
    Degraded,
    /// Waits for what runs, takes nothing.
    Draining,
    /// Takes nothing.
    Cordoned,
    /// Works.
    Up,
    /// Said goodbye.
    Offline,
}

impl MachineState {
    /// Every state, worst first.
    pub const ALL: [Self; 7] = [
        Self::Lost,
        Self::Stale,
        Self::Degraded,
        Self::Draining,
        Self::Cordoned,
        Self::Up,
        Self::Offline,
    ];

    /// The word as it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Stale => "stale",
            Self::Degraded => "degraded",
            Self::Draining => "draining",
            Self::Cordoned => "cordoned",
            Self::Up => "up",
            Self::Offline => "offline",
        }
    }

    /// Whether a machine in this state takes work now.
    #[must_use]
    pub fn takes_work(self) -> bool {
        matches!(self, Self::Up | Self::Degraded | Self::Stale)
    }
}

impl std::fmt::Display for MachineState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// The state of a machine that was last heard of `age` ago by the reader's clock.
#[must_use]
pub fn state(presence: &Presence, age: Duration) -> MachineState {
    match presence.service {
        Service::Offline => return MachineState::Offline,
        Service::Lost => return MachineState::Lost,
        Service::Up | Service::Cordoned | Service::Draining => {}
    }
    let interval = Duration::from_millis(presence.interval_ms.clamp(100, 600_000));
    if age >= interval * BEATS_LOST + BEAT_SLACK {
        return MachineState::Lost;
    }
    if age >= interval + BEAT_SLACK {
        return MachineState::Stale;
    }
    match presence.service {
        Service::Cordoned => MachineState::Cordoned,
        Service::Draining => MachineState::Draining,
        _ if !presence.degraded.is_empty() || presence.contract != WIRE_VERSION => {
            MachineState::Degraded
        }
        _ => MachineState::Up,
    }
}

/// How long after its last beat a machine counts as lost; none where it has said goodbye or is lost
/// already.
#[must_use]
pub fn lost_after(presence: &Presence) -> Option<Duration> {
    if matches!(presence.service, Service::Offline | Service::Lost) {
        return None;
    }
    let interval = Duration::from_millis(presence.interval_ms.clamp(100, 600_000));
    Some(interval * BEATS_LOST + BEAT_SLACK)
}

/// When, counted from the last beat, the state can next change by age alone.
#[must_use]
pub fn next_change(presence: &Presence, age: Duration) -> Option<Duration> {
    if matches!(presence.service, Service::Offline | Service::Lost) {
        return None;
    }
    let interval = Duration::from_millis(presence.interval_ms.clamp(100, 600_000));
    [interval + BEAT_SLACK, interval * BEATS_LOST + BEAT_SLACK]
        .into_iter()
        .find(|at| *at > age)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presence(service: Service) -> Presence {
        Presence {
            machine: "studio".parse().unwrap(),
            instance: InstanceId::from_random([0; 10]),
            boot: String::new(),
            host: String::new(),
            address: String::new(),
            connection: 0,
            service,
            interval_ms: 5000,
            contract: WIRE_VERSION,
            specs: Specs::default(),
            load: Load::default(),
            labels: BTreeMap::new(),
            skills: BTreeMap::new(),
            models: Vec::new(),
            probed: Probed::default(),
            degraded: Vec::new(),
            lost_at: None,
        }
    }

    #[test]
    fn age_makes_a_machine_stale_and_then_lost() {
        let p = presence(Service::Up);
        let at = |ms| state(&p, Duration::from_millis(ms));
        assert_eq!(at(0), MachineState::Up);
        assert_eq!(at(6499), MachineState::Up);
        assert_eq!(at(6500), MachineState::Stale);
        assert_eq!(at(16_500), MachineState::Lost);
        assert_eq!(
            next_change(&p, Duration::ZERO),
            Some(Duration::from_millis(6500))
        );
        assert_eq!(next_change(&p, Duration::from_secs(60)), None);
    }

    #[test]
    fn goodbye_is_offline_however_old_and_the_hubs_word_is_lost_at_once() {
        assert_eq!(
            state(&presence(Service::Offline), Duration::from_secs(9999)),
            MachineState::Offline
        );
        assert_eq!(
            state(&presence(Service::Lost), Duration::ZERO),
            MachineState::Lost
        );
        assert_eq!(
            state(&presence(Service::Cordoned), Duration::ZERO),
            MachineState::Cordoned
        );
    }

    #[test]
    fn every_measured_cause_has_its_threshold() {
        let fine = Measured {
            disk_free: 50,
            disk_total: 100,
            mem_free: 50,
            mem_total: 100,
            clock_offset_ms: Some(1000),
            rtt_p99: Some(Duration::from_millis(500)),
            spool_waiting: Duration::from_secs(9),
            ..Measured::default()
        };
        assert_eq!(causes(&fine), []);
        let bad = Measured {
            clock_offset_ms: Some(-3200),
            disk_free: 4,
            spool_waiting: Duration::from_secs(10),
            rtt_p99: Some(Duration::from_millis(501)),
            mem_free: 4,
            dropped_log_bytes: 1,
            dropped_events: 1,
            binary_replaced: true,
            executor_silent: Some(Duration::from_secs(3)),
            ..fine
        };
        let found: Vec<Cause> = causes(&bad).into_iter().map(|(cause, _)| cause).collect();
        // All but those a probe or the reader adds.
        assert_eq!(found.len(), Cause::ALL.len() - 3);
        assert_eq!(causes(&bad)[0].1, "-3.2 s");
    }
}
