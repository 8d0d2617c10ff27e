//! `fleet skills`: what the machines can do, and what is done about it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use clap::Parser;
use fleet_agent::skills::{self, Definition};
use fleet_contract::ids::MachineId;
use fleet_contract::machine::MachineState;
use fleet_nats::bus::Bus;
use fleet_nats::registry::Seen;
use futures_util::future::join_all;

use crate::args::skills::{Act, Skills};
use crate::args::{Cli, Verb};
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::output::Said;
use crate::output::escape::one_line;
use crate::output::skills::{Able, Matrix, On, Shown};
use crate::{ask, prefix, private_file};

/// How long machines may take to look for skills: as long as many slow tools.
const PROBED_WITHIN: Duration = Duration::from_secs(180);
/// Stands for a recipe that uses whichever package manager a machine has.
const PACKAGES: &str = "@packages ";

/// Shows skills, or does something about one.
pub(crate) async fn run(args: &Skills, cx: &mut Context) -> Outcome {
    match &args.act {
        None => matrix(args, cx).await,
        Some(Act::Show { skill }) => show(skill, cx).await,
        Some(Act::Probe { skills, on }) => probe(skills, on, cx).await,
        Some(Act::Install { skill, on, yes }) => install(skill, on, *yes, cx).await,
        Some(Act::Add { file, replace }) => add(file, *replace, cx),
        Some(Act::Create { skill }) => create(skill, cx),
    }
}

/// The machines that are named, or all.
async fn machines(bus: &Bus, on: &[MachineId]) -> Result<Vec<Seen>, Failure> {
    let (mut machines, _) = bus.machines().await?;
    let known: Vec<MachineId> = machines
        .iter()
        .map(|s| s.presence.machine.clone())
        .collect();
    if let Some(unknown) = on.iter().find(|machine| !known.contains(machine)) {
        let text = prefix::unknown_machine(unknown.as_str(), &known);
        return Err(Failure::new(Exit::TempFail, text).next("fleet machines"));
    }
    machines.retain(|seen| on.is_empty() || on.contains(&seen.presence.machine));
    Ok(machines)
}

fn state(seen: &Seen) -> MachineState {
    fleet_contract::machine::state(&seen.presence, seen.age)
}

async fn matrix(args: &Skills, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let machines = machines(&bus, &args.on).await?;
    let machines = machines
        .iter()
        .map(|seen| Able::of(&seen.presence, state(seen)));
    cx.show(&Matrix {
        machines: machines.collect(),
        category: args.category.clone(),
    })?;
    Ok(0)
}

/// What is defined here: every agent's skills, and this machine's own.
fn definitions(cx: &Context) -> Result<BTreeMap<String, Definition>, Failure> {
    let builtin = skills::builtin();
    let mut all = builtin.map_err(|e| Failure::internal(e.to_string()))?;
    let (own, errors) = skills::own(&cx.settings.home.skills_dir());
    if let Some(error) = errors.first() {
        return Err(Failure::config(one_line(&error.to_string())));
    }
    all.extend(own);
    Ok(all)
}

fn unknown(skill: &str, known: &BTreeMap<String, Definition>) -> Failure {
    let near = prefix::nearest(skill, known.keys().map(String::as_str));
    let shown: String = skill.chars().take(80).collect();
    let text = match near.first() {
        Some(near) => format!("no skill {shown:?}: the nearest is {near}"),
        None => format!("no skill {shown:?}"),
    };
    Failure::usage(text).next("fleet skills, or fleet skills create NAME for one of your own")
}

async fn show(skill: &str, cx: &mut Context) -> Outcome {
    let known = definitions(cx)?;
    let bus = cx.bus().await?;
    let machines = machines(&bus, &[]).await?;
    let on: Vec<On> = machines
        .iter()
        .map(|seen| On {
            machine: seen.presence.machine.clone(),
            state: state(seen),
            skill: seen.presence.probed.skills.get(skill).cloned(),
        })
        .collect();
    if !known.contains_key(skill) && on.iter().all(|on| on.skill.is_none()) {
        return Err(unknown(skill, &known));
    }
    cx.show(&Shown::of(skill, known.get(skill), on))?;
    Ok(0)
}

/// Has machines look now. One that does not answer is told of, and does not keep the others' answers.
async fn probe(names: &[String], on: &[MachineId], cx: &mut Context) -> Outcome {
    let bus = cx.acting_bus().await?;
    let machines = machines(&bus, on).await?;
    let (there, away): (Vec<&Seen>, Vec<&Seen>) = machines
        .iter()
        .partition(|seen| !matches!(state(seen), MachineState::Offline | MachineState::Lost));
    for seen in &away {
        let machine = &seen.presence.machine;
        let note = format!("{machine} is {}: not asked", state(seen).as_str());
        cx.output.note(&note);
    }
    if there.is_empty() {
        let text = "no machine is there to look".to_owned();
        return Err(Failure::new(Exit::TempFail, text).next("fleet machines"));
    }
    let asked = there.iter().map(|seen| {
        let bus = &bus;
        async move {
            let machine = &seen.presence.machine;
            let found = bus.ask_probe(machine, names, PROBED_WITHIN).await;
            (*seen, found)
        }
    });
    let mut found = Vec::new();
    let mut silent = 0;
    for (seen, answer) in join_all(asked).await {
        match answer {
            Ok(presence) => {
                let mut able = Able::of(&presence, state(seen));
                able.skills
                    .retain(|name, _| names.is_empty() || names.contains(name));
                found.push(able);
            }
            Err(error) => {
                silent += 1;
                cx.output
                    .note(&format!("{}: {error}", seen.presence.machine));
            }
        }
    }
    cx.show(&Matrix {
        machines: found,
        category: None,
    })?;
    Ok(match silent {
        0 => 0,
        _ => Exit::TempFail.code(),
    })
}

async fn install(skill: &str, on: &MachineId, yes: bool, cx: &mut Context) -> Outcome {
    let known = definitions(cx)?;
    let definition = known.get(skill).ok_or_else(|| unknown(skill, &known))?;
    let bus = cx.acting_bus().await?;
    let machines = machines(&bus, std::slice::from_ref(on)).await?;
    let os = machines.first().map(|seen| seen.presence.specs.os.clone());
    let os = os.unwrap_or_default();
    let Some(recipe) = definition.install.get(&os) else {
        let text = format!("{skill} has no recipe for {os}, the system of {on}");
        let next =
            format!("fleet skills show {skill}; one of your own: fleet skills create {skill}");
        return Err(Failure::usage(text).next(next));
    };
    let line = line_of(recipe);
    cx.output.note(&format!("on {on}, in a shell: {line}"));
    if !yes && !ask::yes(&format!("install {skill} on {on}?")).await? {
        return Ok(Exit::Interrupted.code());
    }
    let name = format!("install {skill}");
    let words = [
        "fleet",
        "dispatch",
        "--on",
        on.as_str(),
        "--name",
        &name,
        "--follow",
        "--shell",
        "--",
        &line,
    ];
    let cli = Cli::try_parse_from(words).map_err(|e| Failure::internal(e.to_string()))?;
    let Verb::Dispatch(args) = &cli.verb else {
        return Err(Failure::internal("a dispatch is none".to_owned()));
    };
    let code = Box::pin(super::dispatch::run(args, cx)).await?;
    if code != 0 {
        return Ok(code);
    }
    let names = [skill.to_owned()];
    let presence = bus.ask_probe(on, &names, PROBED_WITHIN).await?;
    let found = presence.probed.skills.get(skill);
    let works = found.is_some_and(|found| found.ok);
    let told = match found {
        Some(found) if found.ok => format!("has {}", found.version.as_deref().unwrap_or("it")),
        Some(found) => format!("has it, but: {}", found.reason.as_deref().unwrap_or("?")),
        None => "does not have it".to_owned(),
    };
    cx.show(&Said {
        value: serde_json::json!({ "machine": on, "name": skill, "skill": found }),
        text: format!("{on} {}: {skill}\n", one_line(&told)),
    })?;
    Ok(match works {
        true => 0,
        false => Exit::TempFail.code(),
    })
}

/// The line that a recipe stands for.
fn line_of(recipe: &str) -> String {
    let Some(packages) = recipe.strip_prefix(PACKAGES) else {
        return recipe.to_owned();
    };
    format!(
        "set -e; s=; [ \"$(id -u)\" = 0 ] || s='sudo -n'; \
         if command -v apt-get >/dev/null; then $s apt-get install -y {packages}; \
         elif command -v dnf >/dev/null; then $s dnf install -y {packages}; \
         elif command -v pacman >/dev/null; then $s pacman -S --noconfirm {packages}; \
         elif command -v apk >/dev/null; then $s apk add {packages}; \
         else echo 'no package manager that is known here' >&2; exit 69; fi"
    )
}

fn add(file: &Path, replace: bool, cx: &mut Context) -> Outcome {
    let failed =
        |e: &dyn std::fmt::Display| Failure::config(one_line(&format!("{}: {e}", file.display())));
    let size = std::fs::metadata(file).map_err(|e| failed(&e))?.len();
    if size > skills::FILE_MAX_BYTES {
        return Err(failed(&format!(
            "more than {} bytes",
            skills::FILE_MAX_BYTES
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    let definition =
        skills::parse(file, &text).map_err(|e| Failure::config(one_line(&e.to_string())))?;
    put(&definition.name, &text, replace, cx)
}

fn create(skill: &str, cx: &mut Context) -> Outcome {
    let text = skills::scaffold(skill);
    let file = cx.settings.home.skills_dir().join(format!("{skill}.toml"));
    skills::parse(&file, &text).map_err(|e| Failure::usage(one_line(&e.why)))?;
    put(skill, &text, false, cx)
}

/// Writes a definition into this machine's own.
fn put(skill: &str, text: &str, replace: bool, cx: &mut Context) -> Outcome {
    let folder = cx.settings.home.skills_dir();
    let file = folder.join(format!("{skill}.toml"));
    if file.exists() && !replace {
        let text = format!("{} is there already", file.display());
        return Err(Failure::usage(text).next("edit it, or fleet skills add --replace FILE"));
    }
    let failed = |e: &std::io::Error| Failure::config(format!("{}: {e}", file.display()));
    private_file::folder(&folder)
        .and_then(|()| private_file::replace(&file, text.as_bytes()))
        .map_err(|e| failed(&e))?;
    let shown = file.display().to_string();
    cx.show(&Said {
        value: serde_json::json!({ "name": skill, "file": shown }),
        text: format!("{shown}: fleet skills probe {skill} has the agent here look for it now\n"),
    })?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_skill_is_in_the_document() {
        let document = include_str!("../../docs/skills.md");
        let rows: Vec<&str> = document.lines().filter(|l| l.starts_with("| ")).collect();
        for (name, definition) in skills::builtin().unwrap() {
            let row = rows
                .iter()
                .find(|row| row.starts_with(&format!("| {} |", definition.category)));
            let names = row.map(|row| row.split(['|', ',']).map(str::trim).collect::<Vec<_>>());
            assert!(names.unwrap_or_default().contains(&name.as_str()), "{name}");
        }
    }

    #[test]
    fn every_recipe_is_one_line_that_a_shell_can_read() {
        for (name, definition) in skills::builtin().unwrap() {
            for recipe in definition.install.values() {
                let line = line_of(recipe);
                assert!(
                    !line.contains('\n') && !line.contains('@') || line.contains("npm"),
                    "{name}"
                );
                let checked = std::process::Command::new("/bin/sh")
                    .args(["-n", "-c", &line])
                    .status()
                    .unwrap();
                assert!(checked.success(), "{name}: {line}");
            }
        }
    }
}
