//! Looks for skills: which are due, what each is asked, what is remembered, and what changed. A program
//! that is the same file as before is not run again for hours; whether somebody is logged in or a
//! server has loaded a model is looked at each time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fleet_contract::needs::{Gpu, Model, Skill};
use fleet_contract::time::Time;
use futures_util::{StreamExt, stream};
use serde::Serialize;

use super::cache::{self, Entry};
use super::definition::{self, Definition, Login, Models, Server};
use super::find::{Program, World};
use super::finding::{Finding, State, answer, judge, versioned};
use super::http::{Address, NoAnswer};
use super::report;
use super::run::run;

/// Tools that are asked at once.
const AT_ONCE: usize = 2;
/// A program that is the same file is run again after so long: what stands behind a wrapper may be
/// another.
const RUN_AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Starts of a machine that are so many seconds apart are two: its clock may have been set.
const BOOTS_APART: u64 = 300;
/// What says the same for so long is kept again, for its age.
const KEEP_AGAIN: Duration = Duration::from_secs(3600);
/// Most models that are told of, of all servers.
const MODELS_MAX: usize = 128;
/// Most skills that are found to fail and named.
const NAMED_MAX: usize = 3;

/// Which skills are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those whose time has come, as cheaply as can be.
    Due,
    /// These, by running whatever they have to be asked; empty: all.
    Named(Vec<String>),
}

/// What is not as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Changes {
    /// Skills that work now and did not, with their versions.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gained: BTreeMap<String, Option<String>>,
    /// Skills that worked and do not, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub lost: BTreeMap<String, String>,
    /// Skills that work as another version.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub changed: BTreeMap<String, Option<String>>,
    /// Models that are loaded now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models_loaded: Vec<String>,
    /// Models that are not loaded any more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub models_gone: Vec<String>,
    /// Graphics processors, where there are others than before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<Vec<String>>,
    /// Skills whose probes began to fail, with the reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub failing: BTreeMap<String, String>,
}

impl Changes {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What is known at one time.
struct Known {
    skills: BTreeMap<String, Skill>,
    models: Vec<Model>,
    gpus: Vec<Gpu>,
    states: BTreeMap<String, State>,
}

/// Looks for skills and remembers what it found.
pub struct Prober {
    world: Arc<World>,
    /// The operator's own definitions.
    own: PathBuf,
    /// Where it is remembered.
    kept: PathBuf,
    definitions: BTreeMap<String, Arc<Definition>>,
    /// Definitions that cannot be read.
    unreadable: Vec<String>,
    entries: BTreeMap<String, Entry>,
    rebooted: bool,
    /// When it was kept on disk last.
    kept_at: Time,
}

impl Prober {
    /// Whether the machine was started anew since something was kept here.
    #[must_use]
    pub fn rebooted(&self) -> bool {
        self.rebooted
    }

    /// One that knows what was kept at `kept` and reads definitions of the operator's own in `own`.
    /// Reads files, and asks nothing.
    #[must_use]
    pub fn new(world: World, own: PathBuf, kept: PathBuf) -> Self {
        let (entries, booted_at) = cache::load(&kept);
        let apart = booted_at.abs_diff(world.booted_at);
        let mut prober = Self {
            world: Arc::new(world),
            own,
            kept,
            definitions: BTreeMap::new(),
            unreadable: Vec::new(),
            entries,
            rebooted: booted_at > 0 && apart > BOOTS_APART,
            kept_at: Time::from_micros(0),
        };
        prober.read_definitions();
        prober
    }

    /// Reads the definitions, and forgets what was found by others.
    fn read_definitions(&mut self) {
        let (own, errors) = definition::own(&self.own);
        let mut all = definition::builtin().unwrap_or_default();
        all.extend(own);
        let os = &self.world.os;
        all.retain(|_, one| one.os.is_empty() || one.os.contains(os));
        let all = all.into_iter().map(|(name, one)| (name, Arc::new(one)));
        self.definitions = all.collect();
        self.unreadable = errors.iter().map(ToString::to_string).collect();
        let definitions = &self.definitions;
        self.entries.retain(|name, entry| {
            let known = definitions.get(name);
            known.is_some_and(|one| fingerprint(one) == entry.definition)
        });
    }

    /// Every definition that holds here.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        self.definitions.values().map(|one| &**one)
    }

    fn found(&self) -> impl Iterator<Item = (&Definition, &Entry)> {
        let entries = self.entries.iter();
        entries.filter_map(|(name, entry)| Some((&**self.definitions.get(name)?, entry)))
    }

    /// Skills that are there, those that do not work with the reason.
    #[must_use]
    pub fn skills(&self) -> BTreeMap<String, Skill> {
        self.found()
            .filter_map(|(definition, entry)| {
                let skill = entry.finding.skill(definition, entry.checked_at)?;
                Some((definition.name.clone(), skill))
            })
            .collect()
    }

    /// Models that are loaded.
    #[must_use]
    pub fn models(&self) -> Vec<Model> {
        let models = self.found().flat_map(|(definition, entry)| {
            let names = entry.finding.models.iter();
            names.map(|name| Model {
                name: name.clone(),
                server: server_of(definition).to_owned(),
                checked_at: entry.checked_at,
            })
        });
        models.take(MODELS_MAX).collect()
    }

    /// Graphics processors. Only one driver's: their numbers are its own.
    #[must_use]
    pub fn gpus(&self) -> Vec<Gpu> {
        let mut all = self.found().map(|(_, entry)| (&entry.finding.gpus, entry));
        let first = all.find(|(gpus, _)| !gpus.is_empty());
        first.map_or_else(Vec::new, |(gpus, entry)| {
            let checked_at = entry.checked_at;
            let gpus = gpus.iter().cloned();
            gpus.map(|gpu| Gpu { checked_at, ..gpu }).collect()
        })
    }

    /// The probes that fail, in words; none where all are well.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let failing = self
            .found()
            .filter_map(|(one, entry)| match &entry.finding.state {
                State::Failing(why) => Some(format!("{}: {why}", one.name)),
                _ => None,
            });
        let all: Vec<String> = self.unreadable.iter().cloned().chain(failing).collect();
        let (named, rest) = all.split_at(all.len().min(NAMED_MAX));
        match (named, rest.len()) {
            ([], _) => None,
            (named, 0) => Some(named.join("; ")),
            (named, more) => Some(format!("{}; and {more} more", named.join("; "))),
        }
    }

    /// When a skill is to be looked at next.
    #[must_use]
    pub fn next(&self, now: Time) -> Duration {
        let due = self
            .definitions
            .values()
            .map(|one| match self.entries.get(&one.name) {
                Some(entry) => one.every.saturating_sub(now.since(entry.checked_at)),
                None => Duration::ZERO,
            });
        due.min().unwrap_or(definition::EVERY)
    }

    /// Looks at skills. Safe to drop in between: what was asked is ended.
    pub async fn probe(&mut self, which: &Which, now: impl Fn() -> Time) -> Changes {
        let before = self.known();
        if let Which::Named(_) = which {
            self.read_definitions();
        }
        let begun = now();
        let asked: Vec<Arc<Definition>> = self
            .definitions
            .values()
            .filter(|one| match which {
                Which::Due => self.is_due(one, begun),
                Which::Named(names) => names.is_empty() || names.contains(&one.name),
            })
            .cloned()
            .collect();
        let now = &now;
        let world = &self.world;
        let looks = asked.into_iter().map(|definition| {
            let known = match which {
                Which::Due => self.entries.get(&definition.name).cloned(),
                Which::Named(_) => None,
            };
            let world = world.clone();
            async move {
                let entry = look(&definition, known, &world, now).await;
                (definition.name.clone(), entry)
            }
        });
        let found: Vec<(String, Entry)> = stream::iter(looks.collect::<Vec<_>>())
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let news = found.iter().any(|(name, entry)| {
            let known = self.entries.get(name);
            known.is_none_or(|known| !entry.says_the_same(known))
        });
        self.entries.extend(found);
        let forgot = before.skills.len() != self.skills().len();
        if news || forgot || begun.since(self.kept_at) > KEEP_AGAIN {
            self.kept_at = begun;
            self.keep().await;
        }
        self.changes(&before)
    }

    /// Keeps what is known on disk.
    async fn keep(&self) {
        let (kept, entries) = (self.kept.clone(), self.entries.clone());
        let booted_at = self.world.booted_at;
        let stored =
            tokio::task::spawn_blocking(move || cache::store(&kept, entries, booted_at)).await;
        if !matches!(stored, Ok(Ok(()))) {
            tracing::warn!(
                "what was found of skills cannot be kept: it is asked for anew after a restart"
            );
        }
    }

    fn is_due(&self, definition: &Definition, now: Time) -> bool {
        let entry = self.entries.get(&definition.name);
        // Those whose time comes soon are looked at, too: together they wake the machine once. And a
        // clock that was set back would else keep them from being looked at for as long.
        let soon = definition.every - definition.every / 10;
        entry.is_none_or(|e| now.since(e.checked_at) >= soon || e.checked_at > now)
    }

    fn states(&self) -> BTreeMap<String, State> {
        let states = self.found();
        states
            .map(|(one, entry)| (one.name.clone(), entry.finding.state.clone()))
            .collect()
    }

    fn known(&self) -> Known {
        Known {
            skills: self.skills(),
            models: self.models(),
            gpus: self.gpus(),
            states: self.states(),
        }
    }

    fn changes(&self, before: &Known) -> Changes {
        let Known {
            skills,
            models,
            gpus,
            states,
        } = before;
        let mut changes = Changes::default();
        let now = self.skills();
        let names: BTreeSet<&String> = skills.keys().chain(now.keys()).collect();
        for name in names {
            let works = |all: &BTreeMap<String, Skill>| {
                let skill = all.get(name).filter(|skill| skill.ok);
                skill.map(|skill| skill.version.clone())
            };
            match (works(skills), works(&now)) {
                (None, Some(version)) => drop(changes.gained.insert(name.clone(), version)),
                (Some(_), None) => {
                    let why = now.get(name).and_then(|skill| skill.reason.clone());
                    let why = why.unwrap_or_else(|| "not found".to_owned());
                    changes.lost.insert(name.clone(), why);
                }
                (Some(was), Some(is)) if was != is => {
                    changes.changed.insert(name.clone(), is);
                }
                _ => {}
            }
        }
        for (name, state) in self.states() {
            if let State::Failing(why) = &state
                && !matches!(states.get(&name), Some(State::Failing(_)))
            {
                changes.failing.insert(name, why.clone());
            }
        }
        let names = |models: &[Model]| -> BTreeSet<String> {
            models.iter().map(|model| model.name.clone()).collect()
        };
        let (were, are) = (names(models), names(&self.models()));
        changes.models_loaded = are.difference(&were).cloned().collect();
        changes.models_gone = were.difference(&are).cloned().collect();
        let told = |gpus: &[Gpu]| -> Vec<String> {
            let gpus = gpus.iter();
            gpus.map(|gpu| format!("{} {} MiB", gpu.name, gpu.mem >> 20))
                .collect()
        };
        let (were, are) = (told(gpus), told(&self.gpus()));
        changes.gpus = (were != are).then_some(are);
        changes
    }
}

/// What has the models of this skill loaded.
fn server_of(definition: &Definition) -> &str {
    let server = definition.server.as_ref();
    server.map_or("", |server| server.models.as_str())
}

/// What tells that a definition is another one. The same for as long as fleet is the same.
fn fingerprint(definition: &Definition) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    format!("{definition:?}").hash(&mut hasher);
    hasher.finish()
}

/// Looks at one skill, with what is known of it; none where it has to be asked in any case.
async fn look(
    definition: &Definition,
    known: Option<Entry>,
    world: &Arc<World>,
    now: &impl Fn() -> Time,
) -> Entry {
    let program = {
        let (world, programs) = (world.clone(), definition.programs.clone());
        let found = tokio::task::spawn_blocking(move || world.find(&programs)).await;
        found.unwrap_or_default()
    };
    let begun = now();
    let same = known.filter(|known| {
        known.program == program
            && definition.server.is_none()
            && definition.gives.is_none()
            && begun.since(known.asked_at) < RUN_AGAIN
            && !matches!(known.finding.state, State::Failing(_))
    });
    let (finding, asked_at) = match (&definition.server, &program, same) {
        (Some(server), program, _) => {
            let found = of_server(server, program.is_some(), definition, world).await;
            (found, begun)
        }
        (None, None, _) => (Finding::new(State::Absent), begun),
        (None, Some(_), Some(known))
            if definition.ready.is_none() && definition.login.is_none() =>
        {
            (known.finding, known.asked_at)
        }
        (None, Some(program), same) => {
            let (first, asked_at) = match same {
                // What was missing is looked at anew below.
                Some(known) => (known.finding.but(State::Works), known.asked_at),
                None => (of_program(definition, program, world, begun).await, begun),
            };
            let finding = match first.state {
                State::Works => besides(definition, &program.path, world, first).await,
                _ => first,
            };
            (finding, asked_at)
        }
    };
    Entry {
        definition: fingerprint(definition),
        program,
        checked_at: now(),
        asked_at,
        finding,
    }
}

async fn of_program(
    definition: &Definition,
    program: &Program,
    world: &World,
    now: Time,
) -> Finding {
    if let Some(beside) = &definition.version_file {
        return match read_beside(&program.path, beside) {
            Ok(text) => versioned(definition, &text),
            Err(why) => Finding::failing(&why),
        };
    }
    let ran = run(&program.path, &definition.args, world, definition.timeout).await;
    judge(definition, &ran, world.mem_total, now)
}

/// A small file, named from the folder in which a program really is.
fn read_beside(program: &Path, name: &str) -> Result<String, String> {
    let real = std::fs::canonicalize(program).map_err(|e| e.to_string())?;
    let file = real.parent().unwrap_or(&real).join(name);
    let failed = |e: std::io::Error| format!("{}: {e}", file.display());
    let size = std::fs::metadata(&file).map_err(failed)?.len();
    if size > definition::FILE_MAX_BYTES {
        return Err(format!("{}: {size} bytes", file.display()));
    }
    std::fs::read_to_string(&file).map_err(failed)
}

/// Looks at what must hold besides: that it is ready, that somebody is logged in.
async fn besides(
    definition: &Definition,
    program: &Path,
    world: &World,
    found: Finding,
) -> Finding {
    if let Some(ready) = &definition.ready {
        let ran = run(program, &ready.args, world, definition.timeout).await;
        match (&ran, answer(&ran, definition)) {
            (_, Ok(_)) => {}
            (super::run::Ran::Ended { .. }, Err(_)) => {
                return found.but(Finding::not_ready(&ready.reason).state);
            }
            (_, Err(why)) => return found.but(Finding::failing(&why).state),
        }
    }
    match &definition.login {
        Some(login) if !is_logged_in(login, definition, program, world).await => {
            found.but(Finding::not_ready("not logged in").state)
        }
        _ => found,
    }
}

async fn is_logged_in(
    login: &Login,
    definition: &Definition,
    program: &Path,
    world: &World,
) -> bool {
    let there = |file: &String| {
        let path = world.path(file);
        path.is_some_and(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0))
    };
    if login.env.iter().any(|name| world.var(name).is_some()) || login.files.iter().any(there) {
        return true;
    }
    let well = async |program: &Path, args: &[String]| {
        let ran = run(program, args, world, definition.timeout).await;
        answer(&ran, definition).is_ok()
    };
    if !login.args.is_empty() && well(program, &login.args).await {
        return true;
    }
    let Some(entry) = login.keychain.as_ref().filter(|_| world.os == "macos") else {
        return false;
    };
    // Without -w it tells that the entry is there and asks nobody to unlock it.
    let args = ["find-generic-password", "-s", entry].map(str::to_owned);
    well(Path::new("/usr/bin/security"), &args).await
}

async fn of_server(
    server: &Server,
    installed: bool,
    definition: &Definition,
    world: &World,
) -> Finding {
    let told = server.env.as_deref().and_then(|name| world.var(name));
    let url = told.unwrap_or(&server.url);
    let Some(address) = Address::parse(url) else {
        return Finding::not_ready(&format!("{url} is another machine"));
    };
    let within = definition.timeout;
    let (version, models) = match server.models {
        Models::Ollama => {
            let models = address
                .get("/api/ps", within)
                .await
                .map(|b| report::ollama(&b));
            let version = match &models {
                Ok(Some(_)) => address.get("/api/version", within).await.ok(),
                _ => None,
            };
            (version, models)
        }
        Models::LmStudio => {
            let mut models = address.get("/api/v1/models", within).await;
            if models == Err(NoAnswer::NotThere) {
                models = address.get("/api/v0/models", within).await;
            }
            (None, models.map(|body| report::lm_studio(&body)))
        }
    };
    match models {
        Ok(Some(models)) => {
            let version = version.and_then(|body| {
                let text = String::from_utf8_lossy(&body).into_owned();
                versioned(definition, &text).version
            });
            Finding {
                models,
                ..Finding::works(version)
            }
        }
        Ok(None) => Finding::failing("what it tells of its models cannot be read"),
        Err(NoAnswer::Nobody) if installed => Finding::not_ready("its server does not run"),
        Err(NoAnswer::Nobody) => Finding::new(State::Absent),
        Err(NoAnswer::NotThere) => Finding::failing("what answers there is another server"),
        Err(NoAnswer::Silent) => {
            let within = definition::words(within);
            Finding::failing(&format!("no answer within {within}"))
        }
        Err(NoAnswer::Garbage(why)) => Finding::failing(&why),
    }
}
