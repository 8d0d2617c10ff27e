//! Machines as a table.

use fleet_contract::machine::Cause;
use fleet_contract::time::Time;
use fleet_contract::view::MachineView;
use serde::Serialize;

use super::style::Paint;
use super::table::{Cell, Column, Table};
use super::{Answer, Look};
use crate::words;

const COLUMNS: [Column; 12] = [
    Column::new("MACHINE").shrinks(8),
    Column::new("STATE").shrinks(8),
    Column::new("SEEN").right(),
    Column::new("ADDRESS").shrinks(9).may_go(7),
    Column::new("PROBE").right().may_go(5),
    Column::new("SLOTS").right(),
    Column::new("LOAD").right().may_go(3),
    Column::new("RAM-FREE").right().may_go(4),
    Column::new("OS").shrinks(6).may_go(6),
    Column::new("VERSION").may_go(8),
    Column::new("SKILLS").shrinks(6).may_go(9),
    Column::new("MODELS").shrinks(6).may_go(10),
];

/// What a machine answered when it was asked directly.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "probe")]
pub(crate) enum Probe {
    /// It answered after this long.
    Answered {
        /// Milliseconds from question to answer.
        probe_ms: f64,
    },
    /// It did not answer in time: what is shown of it is what was known last.
    Silent,
}

/// A machine, and what it answered if it was asked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct MachineRow {
    /// The machine.
    #[serde(flatten)]
    pub(crate) machine: MachineView,
    /// Its answer; none without `--deep`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) probe: Option<Probe>,
}

/// All machines.
pub(crate) struct MachineList(pub(crate) Vec<MachineRow>);

impl Answer for MachineList {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        if self.0.is_empty() {
            return "no machines yet: fleet agent run\n".to_owned();
        }
        let mut table = Table::new(&COLUMNS);
        for row in &self.0 {
            table.row(cells(row, look));
        }
        table.drop_empty(&["SKILLS", "MODELS"]);
        let mut text = table.render(look.width, look.color);
        for MachineRow { machine, .. } in &self.0 {
            if let Some(line) = spool(machine, look) {
                text.push_str(&Paint::Warn.on(&line, look.color));
                text.push('\n');
            }
            for degraded in &machine.degraded {
                let line = format!(
                    "{}: {}: {}, since {}",
                    machine.machine,
                    degraded.cause.as_str(),
                    degraded.value,
                    since(look, degraded.since)
                );
                let line = super::escape::one_line(&line);
                text.push_str(&Paint::Warn.on(&line, look.color));
                text.push('\n');
            }
        }
        text
    }
}

/// What waits there for the hub, where it does; what came and goes with every beat is not told.
fn spool(m: &MachineView, look: &Look) -> Option<String> {
    let waits = m.degraded.iter().any(|d| d.cause == Cause::SpoolWaiting);
    let oldest = m.spooled_since.map_or_else(String::new, |time| {
        format!(", the oldest of {}", look.time(time))
    });
    (waits && m.spooled > 0).then(|| {
        format!(
            "{}: {} waiting there for the hub, {}{oldest}",
            m.machine,
            words::count(m.spooled, "record"),
            words::bytes(m.spooled_bytes),
        )
    })
}

fn since(look: &Look, time: Time) -> String {
    look.time(time)
}

fn cells(row: &MachineRow, look: &Look) -> Vec<Cell> {
    let m = &row.machine;
    let silent = row.probe == Some(Probe::Silent);
    let state = match (silent, m.state.takes_work()) {
        (true, true) => format!("{}, specs?", m.state.as_str()),
        _ => m.state.as_str().to_owned(),
    };
    let probe = match &row.probe {
        Some(Probe::Answered { probe_ms }) => Some(format!("{probe_ms:.1} ms")),
        Some(Probe::Silent) => Some("specs?".to_owned()),
        None => m.rtt_ms.map(|ms| format!("{ms:.1} ms")),
    };
    let seen = if look.ages {
        words::span(std::time::Duration::from_millis(m.age_ms)) + " ago"
    } else {
        m.seen_at.to_string()
    };
    vec![
        Cell::new(m.machine.as_str()),
        Cell::painted(state, Paint::of_machine(m.state)),
        Cell::new(seen),
        Cell::maybe(text(&m.address)),
        Cell::maybe(probe),
        Cell::new(format!("{}/{}", m.slots_used, m.slots)),
        Cell::new(format!("{:.2}", m.load)),
        Cell::new(format!(
            "{}/{}",
            words::bytes(m.mem_free),
            words::bytes(m.mem_total)
        )),
        Cell::new(system(m)),
        Cell::maybe(text(&m.version)),
        Cell::maybe(text(
            &m.skills.keys().cloned().collect::<Vec<_>>().join(","),
        )),
        Cell::maybe(text(&m.models.join(","))),
    ]
}

/// `Debian 12 x86_64`, `macos 15.1 aarch64`: the name people know it by, said once.
fn system(m: &MachineView) -> String {
    let version = m.os_version.as_str();
    let known = version
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or(version, |(inner, _)| inner)
        .replace("GNU/Linux ", "");
    if known.contains(|c: char| c.is_ascii_alphabetic()) {
        format!("{known} {}", m.arch)
    } else {
        format!("{} {known} {}", m.os, m.arch)
    }
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_contract::machine::{Degraded, MachineState};

    fn machine() -> MachineView {
        MachineView {
            machine: "studio".parse().unwrap(),
            state: MachineState::Degraded,
            seen_at: Time::from_micros(0),
            age_ms: 2_300,
            host: "studio.local".to_owned(),
            address: "192.168.1.20".to_owned(),
            slots: 8,
            slots_used: 3,
            load: 1.25,
            cores: 8,
            mem_total: 16 << 30,
            mem_free: 9 << 30,
            disk_free: 0,
            os: "macos".to_owned(),
            os_version: "15.1".to_owned(),
            arch: "aarch64".to_owned(),
            version: "0.1.0".to_owned(),
            labels: Default::default(),
            skills: Default::default(),
            models: Vec::new(),
            rtt_ms: Some(0.4),
            spooled: 0,
            spooled_bytes: 0,
            spooled_since: None,
            dropped_log_bytes: 0,
            degraded: vec![Degraded {
                cause: Cause::ClockOffset,
                value: "+1.4 s".to_owned(),
                since: Time::from_micros(0),
            }],
        }
    }

    fn look(width: usize) -> Look {
        Look {
            width: Some(width),
            color: false,
            ages: true,
            now: Time::from_micros(60_000_000),
        }
    }

    #[test]
    fn what_waits_there_is_told_once_it_waits_for_long() {
        let mut waits = machine();
        waits.spooled = 1200;
        waits.spooled_bytes = 3 << 20;
        waits.spooled_since = Some(Time::from_micros(0));
        assert_eq!(spool(&waits, &look(80)), None);
        waits.degraded[0].cause = Cause::SpoolWaiting;
        assert_eq!(
            spool(&waits, &look(80)).unwrap(),
            "studio: 1200 records waiting there for the hub, 3.0 MiB, the oldest of 1 min ago"
        );
    }

    #[test]
    fn a_machine_shows_its_age_and_why_it_is_degraded() {
        let list = MachineList(vec![MachineRow {
            machine: machine(),
            probe: None,
        }]);
        let text = list.text(&look(80));
        assert!(text.contains("2 s ago"), "{text}");
        assert!(
            text.contains("studio: clock offset: +1.4 s, since 1 min ago"),
            "{text}"
        );
        assert!(text.lines().next().unwrap().len() <= 80, "{text}");
        assert!(!list.text(&look(200)).contains("MODELS"), "{text}");
        let mut skilled = machine();
        skilled.models = vec!["llama".to_owned()];
        let list = MachineList(vec![MachineRow {
            machine: skilled,
            probe: None,
        }]);
        let text = list.text(&look(200));
        assert!(
            text.contains("MODELS") && !text.contains("SKILLS"),
            "{text}"
        );
    }

    #[test]
    fn a_system_is_called_what_people_call_it() {
        for (os, version, shown) in [
            ("linux", "Linux (Debian GNU/Linux 12)", "Debian 12 aarch64"),
            ("linux", "Linux (Ubuntu 24.04)", "Ubuntu 24.04 aarch64"),
            ("macos", "15.1", "macos 15.1 aarch64"),
        ] {
            let mut m = machine();
            (m.os, m.os_version) = (os.to_owned(), version.to_owned());
            assert_eq!(system(&m), shown);
        }
    }

    #[test]
    fn a_silent_machine_shows_that_its_values_are_old() {
        let row = MachineRow {
            machine: machine(),
            probe: Some(Probe::Silent),
        };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["probe"], "silent");
        assert_eq!(json["machine"], "studio");
        assert!(MachineList(vec![row]).text(&look(120)).contains("specs?"));
    }
}
