//! `fleet hub backup` and `fleet hub restore`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use fleet_nats::backup::{self, BackupError, Manifest, Progress};
use fleet_nats::bus::Bus;
use fleet_nats::connect::{ConnectOptions, connect};
use fleet_nats::home::Home;
use fleet_nats::hub::{Hub, HubOptions, HubRecord, running_hub};
use serde::Serialize;

use crate::ask;
use crate::context::{Context, no_hub};
use crate::failure::{Exit, Failure, Outcome};
use crate::output::table::{Cell, Column, Table};
use crate::output::{Answer, Look};
use crate::service::hub;
use crate::words;

/// Remarks on progress that wait to be told.
const SAID: usize = 64;

/// What was copied.
#[derive(Debug, Serialize)]
struct Copied {
    dir: String,
    /// Only after a restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    home: Option<String>,
    taken: String,
    epoch: u64,
    bytes: u64,
    streams: Vec<CopiedStream>,
    took_ms: u64,
    #[serde(skip)]
    after: String,
}

#[derive(Debug, Serialize)]
struct CopiedStream {
    stream: String,
    messages: u64,
    first_seq: u64,
    last_seq: u64,
    bytes: u64,
}

impl Copied {
    fn of(manifest: &Manifest, dir: &Path, begun: Instant, after: String) -> Self {
        let size = |name: &str| manifest.files.get(name).map_or(0, |file| file.bytes);
        let streams = manifest.streams.iter().map(|(name, copy)| CopiedStream {
            stream: name.clone(),
            messages: copy.messages,
            first_seq: copy.first_seq,
            last_seq: copy.last_seq,
            bytes: size(&format!("streams/{name}.snapshot")),
        });
        Self {
            dir: dir.display().to_string(),
            home: None,
            taken: manifest.taken.to_string(),
            epoch: manifest.hub.epoch,
            bytes: manifest.files.values().map(|file| file.bytes).sum(),
            streams: streams.collect(),
            took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            after,
        }
    }
}

impl Answer for Copied {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let mut table = Table::new(&[
            Column::new("STREAM"),
            Column::new("MESSAGES").right(),
            Column::new("FIRST").right(),
            Column::new("LAST").right(),
            Column::new("BYTES").right(),
        ]);
        for s in &self.streams {
            table.row(vec![
                Cell::new(s.stream.clone()),
                Cell::new(s.messages.to_string()),
                Cell::new(s.first_seq.to_string()),
                Cell::new(s.last_seq.to_string()),
                Cell::new(words::bytes(s.bytes)),
            ]);
        }
        let took = words::span(Duration::from_millis(self.took_ms));
        format!(
            "{}{} in {took}, verified\n{}\n",
            table.render(look.width, look.color),
            words::bytes(self.bytes),
            self.after
        )
    }
}

fn failed(error: BackupError) -> Failure {
    let exit = match &error {
        BackupError::Bus(bus) => return bus.clone().into(),
        BackupError::NotEmpty(_) => Exit::Usage,
        BackupError::File { .. } | BackupError::Stream { .. } => Exit::Internal,
        _ => Exit::Config,
    };
    Failure::new(exit, error.to_string())
}

/// What is told of the progress.
fn words_of(progress: &Progress<'_>) -> String {
    match progress {
        Progress::Stream { stream, bytes } => format!("{stream}: {}", words::bytes(*bytes)),
        Progress::Verifying => "verifying".to_owned(),
    }
}

/// Runs `work`, which tells its progress, and says that on standard error.
async fn told<T>(
    cx: &mut Context,
    work: impl AsyncFnOnce(&mut (dyn FnMut(Progress<'_>) + Send)) -> Result<T, BackupError>,
) -> Result<T, Failure> {
    let (say, mut said) = tokio::sync::mpsc::channel::<String>(SAID);
    // A remark for which there is no room is not worth waiting for.
    let mut tell = move |progress: Progress<'_>| drop(say.try_send(words_of(&progress)));
    let mut work = std::pin::pin!(work(&mut tell));
    let outcome = loop {
        tokio::select! {
            biased;
            Some(text) = said.recv() => cx.output.note(&text),
            done = &mut work => break done,
        }
    };
    while let Ok(text) = said.try_recv() {
        cx.output.note(&text);
    }
    outcome.map_err(failed)
}

/// A server over this home's store that nobody else finds.
async fn private_hub(cx: &mut Context) -> Result<(Hub, Bus), Failure> {
    let output = &mut cx.output;
    let mut tell = |text: &str| output.note(text);
    let server = hub::server(&cx.settings, &cx.environment, &mut tell).await?;
    let options = HubOptions {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        private: true,
        tethered: true,
        ..HubOptions::new(cx.settings.home.clone(), server)
    };
    let started = Hub::start(options).await.map_err(hub::hub_failed)?;
    let credentials = started.operator_credentials().clone();
    match connect(&ConnectOptions::new("fleet backup", credentials)).await {
        Ok(link) => {
            let bus = Bus::new(&link);
            Ok((started, bus))
        }
        Err(error) => {
            // The first failure is the one to tell.
            let _ = started.stop().await;
            Err(no_hub(error))
        }
    }
}

/// Writes a backup of this machine's hub, whether it runs or not.
pub(crate) async fn backup(dir: &Path, cx: &mut Context) -> Outcome {
    let begun = Instant::now();
    let home = cx.settings.home.clone();
    if HubRecord::load(&home)
        .map_err(|e| Failure::config(e.to_string()))?
        .is_none()
    {
        return Err(failed(BackupError::NoHub(home.root().to_owned())));
    }
    let manifest = if running_hub(&home).is_some() {
        let bus = cx.bus().await?;
        told(cx, async |tell| {
            backup::backup(&bus, &home, dir, tell).await
        })
        .await?
    } else {
        let (started, bus) = private_hub(cx).await?;
        let copied = told(cx, async |tell| {
            backup::backup(&bus, &home, dir, tell).await
        })
        .await;
        let stopped = started.stop().await.map_err(hub::hub_failed);
        let manifest = copied?;
        stopped?;
        manifest
    };
    let after = format!(
        "{} holds the keys of the fleet: keep it as safe as this machine",
        dir.display()
    );
    cx.show(&Copied::of(&manifest, dir, begun, after))?;
    Ok(0)
}

/// Makes this home the hub that a backup is of.
pub(crate) async fn restore(dir: &Path, yes: bool, cx: &mut Context) -> Outcome {
    let begun = Instant::now();
    let home = cx.settings.home.clone();
    let manifest = told(cx, async |tell| backup::check(&home, dir, tell).await).await?;
    let question = format!(
        "make {} the hub as of {}?",
        home.root().display(),
        manifest.taken
    );
    if !yes && !ask::yes(&question).await? {
        return Err(Failure::new(Exit::Interrupted, "nothing was restored"));
    }
    match put_back(dir, &home, &manifest, cx).await {
        Ok(()) => {}
        Err(failure) => {
            // Half of a hub must not be started: there was none here before.
            if let Err(error) = std::fs::remove_dir_all(home.hub_dir()) {
                cx.output.note(&format!(
                    "cannot remove {}: {error}: remove it before you try again",
                    home.hub_dir().display()
                ));
            }
            return Err(failure);
        }
    }
    let after =
        "start it with `fleet hub run`, or `fleet up`: it goes on in a new epoch".to_owned();
    let copied = Copied {
        home: Some(home.root().display().to_string()),
        ..Copied::of(&manifest, dir, begun, after)
    };
    cx.show(&copied)?;
    Ok(0)
}

async fn put_back(
    dir: &Path,
    home: &Home,
    manifest: &Manifest,
    cx: &mut Context,
) -> Result<(), Failure> {
    backup::put_files(home, dir, manifest).map_err(failed)?;
    let (started, bus) = private_hub(cx).await?;
    let restored = told(cx, async |tell| {
        let marks = backup::restore(&bus, dir, manifest, tell).await?;
        started.update_record(|record| record.streams = marks)?;
        Ok(())
    })
    .await;
    let stopped = started.stop().await.map_err(hub::hub_failed);
    restored.and(stopped)
}
