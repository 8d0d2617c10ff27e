//! Skills as a matrix of machines, and one skill with how it stands with it on each. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use fleet_agent::skills::Definition;
use fleet_contract::ids::MachineId;
use fleet_contract::machine::{MachineState, Presence};
use fleet_contract::needs::Skill;
use serde::Serialize;

use super::escape::one_line;
use super::style::Paint;
use super::table::{Cell, Column, Table};
use super::{Answer, Look};
use crate::words;

/// Widest a machine's column may be.
const COLUMN_MAX: usize = 24;

/// What a machine can do.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Able {
    pub(crate) machine: MachineId,
    pub(crate) state: MachineState,
    /// Skills that are there, those that do not work with the reason.
    pub(crate) skills: BTreeMap<String, Skill>,
    pub(crate) models: Vec<String>,
    pub(crate) gpus: Vec<String>,
}

impl Able {
    /// As it says itself.
    pub(crate) fn of(presence: &Presence, state: MachineState) -> Self {
        let probed = &presence.probed;
        let gpus = probed.gpus.iter();
        Self {
            machine: presence.machine.clone(),
            state,
            skills: probed.skills.clone(),
            models: probed
                .models
                .iter()
                .map(|model| model.name.clone())
                .collect(),
            gpus: gpus
                .map(|gpu| format!("{} ({})", gpu.name, words::bytes(gpu.mem)))
                .collect(),
        }
    }
}

/// Every skill on every machine.
pub(crate) struct Matrix {
    pub(crate) machines: Vec<Able>,
    /// The only category that is shown.
    pub(crate) category: Option<String>,
}

impl Matrix {
    /// Names of skills that somebody has, with their category, ordered by it.
    fn rows(&self) -> BTreeSet<(&str, &str)> {
        let all = self.machines.iter().flat_map(|machine| &machine.skills);
        all.map(|(name, skill)| (skill.category.as_str(), name.as_str()))
            .filter(|(category, _)| self.category.as_deref().is_none_or(|c| c == *category))
            .collect()
    }
}

/// A version, or in a word why it does not work.
fn cell(skill: Option<&Skill>) -> Cell {
    match skill {
        None => Cell::painted("-", Paint::Dim),
        Some(skill) if skill.ok => {
            Cell::painted(skill.version.as_deref().unwrap_or("yes"), Paint::Good)
        }
        Some(skill) => {
            let why = skill.reason.as_deref().unwrap_or("does not work");
            Cell::painted(format!("! {why}"), Paint::Warn)
        }
    }
}

impl Answer for Matrix {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.machines)
    }

    fn text(&self, look: &Look) -> String {
        let rows = self.rows();
        if self.machines.is_empty() {
            return "no machines yet: fleet agent run\n".to_owned();
        }
        if rows.is_empty() {
            return "no machine has said what it can do: fleet skills probe\n".to_owned();
        }
        let mut text = String::new();
        for machines in blocks(&self.machines, look.width) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&block(machines, &rows, look));
        }
        for machine in &self.machines {
            for (what, all) in [("models", &machine.models), ("gpus", &machine.gpus)] {
                if !all.is_empty() {
                    let line = format!("{}: {what}: {}", machine.machine, all.join(", "));
                    let _ = writeln!(text, "{}", one_line(&line));
                }
            }
        }
        text
    }
}

/// As many machines beside each other as fit.
fn blocks(machines: &[Able], width: Option<usize>) -> impl Iterator<Item = &[Able]> {
    let room = width.map_or(usize::MAX, |width| width.saturating_sub(30));
    machines.chunks((room / 14).clamp(1, 64))
}

fn block(machines: &[Able], rows: &BTreeSet<(&str, &str)>, look: &Look) -> String {
    let mut columns = vec![Column::new("").may_go(1), Column::new("")];
    columns.extend(machines.iter().map(|_| Column::new("").shrinks(12)));
    let mut table = Table::new(&columns);
    let mut names = vec![Cell::new("CATEGORY"), Cell::new("SKILL")];
    names.extend(machines.iter().map(|machine| {
        let name: String = machine.machine.as_str().chars().take(COLUMN_MAX).collect();
        Cell::painted(name, Paint::of_machine(machine.state))
    }));
    table.row(names);
    let mut last = "";
    for (category, name) in rows {
        let shown = if *category == last { "" } else { category };
        last = category;
        let mut cells = vec![Cell::painted(shown, Paint::Dim), Cell::new(name)];
        let all = machines.iter();
        cells.extend(all.map(|machine| cell(machine.skills.get(*name))));
        table.row(cells);
    }
    let text = table.render(look.width, look.color);
    // Machines' names are no fixed headings: they stand in the first row.
    text.split_once('\n')
        .map_or(text.clone(), |(_, rows)| rows.to_owned())
}

/// How it stands with a skill on a machine.
#[derive(Debug, Serialize)]
pub(crate) struct On {
    pub(crate) machine: MachineId,
    pub(crate) state: MachineState,
    /// None where it is not there, or was never looked for.
    pub(crate) skill: Option<Skill>,
}

/// One skill.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) summary: String,
    /// What it is looked for by.
    pub(crate) programs: Vec<String>,
    pub(crate) args: Vec<String>,
    pub(crate) every_ms: u64,
    pub(crate) timeout_ms: u64,
    /// How it is installed, by system.
    pub(crate) install: BTreeMap<String, String>,
    /// The file that defines it here; none where every agent has it.
    pub(crate) file: Option<String>,
    pub(crate) machines: Vec<On>,
}

impl Shown {
    /// A skill that is defined here, or only on machines that have it.
    pub(crate) fn of(name: &str, definition: Option<&Definition>, machines: Vec<On>) -> Self {
        let millis =
            |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let told = machines.iter().find_map(|on| on.skill.as_ref());
        let category = told.map(|skill| skill.category.clone());
        match definition {
            Some(d) => Self {
                name: name.to_owned(),
                category: d.category.clone(),
                summary: d.summary.clone(),
                programs: d.programs.clone(),
                args: d.args.clone(),
                every_ms: millis(d.every),
                timeout_ms: millis(d.timeout),
                install: d.install.clone(),
                file: d.file.as_ref().map(|file| file.display().to_string()),
                machines,
            },
            None => Self {
                name: name.to_owned(),
                category: category.unwrap_or_default(),
                summary: "defined on machines that have it".to_owned(),
                programs: Vec::new(),
                args: Vec::new(),
                every_ms: 0,
                timeout_ms: 0,
                install: BTreeMap::new(),
                file: None,
                machines,
            },
        }
    }
}

impl Answer for Shown {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<10}{}", one_line(value));
        };
        line("skill", &format!("{} ({})", self.name, self.category));
        line("", &self.summary);
        if !self.programs.is_empty() {
            let asked = format!("{} {}", self.programs.join(" or "), self.args.join(" "));
            line("asks", &asked);
            let every = std::time::Duration::from_millis(self.every_ms);
            let within = std::time::Duration::from_millis(self.timeout_ms);
            let often = format!(
                "{}, for at most {}",
                words::span(every),
                words::span(within)
            );
            line("every", &often);
        }
        for (os, recipe) in &self.install {
            line("install", &format!("{os}: {recipe}"));
        }
        if let Some(file) = &self.file {
            line("defined", file);
        }
        if !self.machines.is_empty() {
            let columns = [
                Column::new("MACHINE").shrinks(8),
                Column::new("STATE"),
                Column::new("SKILL").shrinks(12),
                Column::new("LOOKED").right(),
            ];
            let mut table = Table::new(&columns);
            for on in &self.machines {
                let looked = on.skill.as_ref().map(|skill| look.time(skill.checked_at));
                table.row(vec![
                    Cell::new(on.machine.as_str()),
                    Cell::painted(on.state.as_str(), Paint::of_machine(on.state)),
                    cell(on.skill.as_ref()),
                    Cell::maybe(looked),
                ]);
            }
            text.push('\n');
            text.push_str(&table.render(look.width, look.color));
        }
        text
    }
}
