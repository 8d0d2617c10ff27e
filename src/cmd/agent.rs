//! `fleet agent`: the agent alone.

use std::path::Path;
use std::time::Duration;

use fleet_agent::agent::{AgentStatus, SpoolStatus, StatusError, Stop, read_status};

use fleet_contract::time::Time;

use crate::args::Tether;
use crate::config::Origin;
use crate::context::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Stops;
use crate::output::style::Paint;
use crate::output::{Answer, Look, Said};
use crate::service::agent::{self, AgentService};
use crate::service::{renewal, spool};
use crate::words;

/// How soon it is told that the hub is waited for, and how often looked whether it is there: only
/// until it is.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Runs the agent until it is asked to stop: the first wish waits for its jobs, the second does
/// not.
pub(crate) async fn run(tether: Tether, cx: &mut Context) -> Outcome {
    let mut stops = Stops::new(tether.tether);
    // Before anything is written; its own lock decides in the end.
    if let Ok(other) = read_status(&cx.settings.home) {
        return Err(Failure::config(format!(
            "agent {} (process {}) already runs in {}: stop it first, or use another FLEET_HOME",
            other.machine,
            other.pid,
            cx.settings.home.root().display()
        ))
        .next("fleet agent credentials FILE, if it shall go on with new ones"));
    }
    let (machine, credentials) = agent::credentials(&cx.settings)?;
    let urls: Vec<String> = cx.settings.hub().map(str::to_owned).into_iter().collect();
    let hubs = match urls.is_empty() {
        true => credentials.hubs().to_vec(),
        false => urls.clone(),
    };
    let (home, shown) = (cx.settings.home.clone(), credentials.clone());
    // Whoever says where the hub is, or whose credentials to show, is not told otherwise.
    let follows = urls.is_empty() && !named_in_file(cx);
    let options = agent::options(&cx.settings, machine.clone(), urls, credentials)?;
    let slots = options.slots;
    let spool = spool::run(cx.settings.home.clone(), options.urls.clone());
    let mut service = AgentService::start(options);
    cx.show(&Said {
        value: serde_json::json!({
            "event": "started",
            "machine": machine,
            "slots": slots,
            "hubs": hubs,
        }),
        text: format!(
            "agent {machine} with {slots} slots, hub {}\n",
            hubs.join(", ")
        ),
    })?;
    let renewed = tokio::select! {
        ended = until_ended(&mut service, &mut stops) => {
            ended?;
            return Ok(0);
        }
        told = tell_link(cx, &hubs) => {
            told?;
            return Ok(0);
        }
        () = spool => return Ok(0),
        renewed = renewal::awaited(&home, &machine, &shown), if follows => renewed,
    };
    let hubs = renewed.hubs();
    cx.show(&Said {
        value: serde_json::json!({ "event": "renewed", "machine": machine, "hubs": hubs }),
        text: format!(
            "new credentials: going on with the hub at {}\n",
            hubs.join(", ")
        ),
    })?;
    match renewal::begin_anew()? {}
}

/// Whether a file of settings says whose credentials to show: at each start these are taken in again.
fn named_in_file(cx: &Context) -> bool {
    let setting = cx.settings.get("credentials");
    setting.is_some_and(|setting| matches!(setting.origin, Origin::Line(..)))
}

/// Takes new credentials into this home.
pub(crate) fn renew(file: &Path, cx: &mut Context) -> Outcome {
    let running = read_status(&cx.settings.home).ok();
    let expected = running.as_ref().map(|status| &status.machine);
    let (machine, credentials) = agent::renew(&cx.settings, file, expected)?;
    let hubs = credentials.hubs();
    let next = match &running {
        _ if named_in_file(cx) => {
            "config.toml names other credentials, which are shown instead: take `credentials` out of it, and start the agent again"
        }
        Some(status) if status.connected => {
            "the agent here has its hub; it goes on with them when it has not"
        }
        Some(_) => {
            "the agent here goes on with them within seconds (one of `fleet up`, or with --hub or FLEET_HUB: start it again)"
        }
        None => "start the agent: fleet agent run",
    };
    cx.show(&Said {
        value: serde_json::json!({
            "machine": machine,
            "hubs": hubs,
            "running": running.is_some(),
        }),
        text: format!("{machine}: hub {}; {next}\n", hubs.join(", ")),
    })?;
    Ok(0)
}

/// Says that the hub is waited for, if it is, and when it is there; then it has nothing more to
/// say and never returns.
async fn tell_link(cx: &mut Context, hubs: &[String]) -> Result<(), Failure> {
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Ok(status) = read_status(&cx.settings.home) else {
            continue;
        };
        if status.pid != std::process::id() {
            continue;
        }
        if status.connected {
            break;
        }
        let why = words_for(status.last_error.as_deref());
        if told.as_ref() != Some(&why) {
            let text = format!("waiting for the hub at {}: {why}\n", hubs.join(", "));
            let value = serde_json::json!({ "event": "waiting", "hubs": hubs, "reason": why });
            cx.show(&Said { value, text })?;
            told = Some(why);
        }
    }
    if told.is_some() {
        let value = serde_json::json!({ "event": "connected" });
        let text = "connected to the hub\n".to_owned();
        cx.show(&Said { value, text })?;
    }
    std::future::pending().await
}

/// Why the hub is not there, in words of ours where they say more.
fn words_for(error: Option<&str>) -> String {
    match error {
        None => "no answer yet".to_owned(),
        Some(text) if text.contains("DNS") => "its name has no address here".to_owned(),
        Some(text) => crate::output::escape::one_line(text),
    }
}

/// Waits for an agent; each wish to stop is stronger than the last.
pub(crate) async fn until_ended(
    service: &mut AgentService,
    stops: &mut Stops,
) -> Result<(), Failure> {
    let mut how = Stop::Gracefully;
    loop {
        tokio::select! {
            ended = service.ended() => return ended,
            () = stops.next() => {
                service.stop(how);
                how = Stop::Now;
            }
        }
    }
}

struct Shown(AgentStatus);

impl Answer for Shown {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(&self.0)
    }

    fn text(&self, look: &Look) -> String {
        let s = &self.0;
        let link = match (s.connected, s.lease) {
            (true, true) => Paint::Good.on("connected", look.color),
            (true, false) => Paint::Warn.on("connected, waits for its lease", look.color),
            (false, _) => Paint::Bad.on("not connected", look.color),
        };
        let mut text = format!(
            "agent {} (process {}), {link}\nslots {}/{}, {} waiting for the hub, {}\n",
            s.machine,
            s.pid,
            s.slots_used,
            s.slots,
            s.spooled,
            up_for(look, s.started_at),
        );
        text.push_str(&spool_words(&s.spool, look));
        if let Some(error) = s.last_error.as_ref().filter(|_| !s.connected) {
            text.push_str(&format!(
                "last error: {}\n",
                crate::output::escape::one_line(error)
            ));
        }
        match s.executor_pid {
            Some(pid) => text.push_str(&format!("executor: process {pid}\n")),
            None => text.push_str("executor: does not answer\n"),
        }
        text
    }
}

/// What waits for the hub and what was lost, a line each; nothing where all is well.
fn spool_words(spool: &SpoolStatus, look: &Look) -> String {
    let mut waits = Vec::new();
    if spool.events > 0 {
        let oldest = spool.oldest.map_or_else(String::new, |time| {
            format!(", the oldest of {}", look.time(time))
        });
        let bytes = words::bytes(spool.bytes);
        waits.push(format!(
            "{} ({bytes}{oldest})",
            counted(spool.events, "event")
        ));
    }
    if spool.chunks > 0 {
        let oldest = spool.oldest_chunk.map_or_else(String::new, |time| {
            format!(", the oldest of {}", look.time(time))
        });
        let bytes = words::bytes(spool.chunk_bytes);
        let chunks = counted(spool.chunks, "chunk");
        waits.push(format!("{chunks} of output ({bytes}{oldest})"));
    }
    if spool.results > 0 {
        waits.push(counted(spool.results, "result"));
    }
    let mut lost = Vec::new();
    if spool.dropped_events > 0 {
        lost.push(counted(spool.dropped_events, "event"));
    }
    if spool.dropped_log_bytes > 0 {
        lost.push(format!(
            "{} of output",
            words::bytes(spool.dropped_log_bytes)
        ));
    }
    let mut text = String::new();
    if !waits.is_empty() {
        text.push_str(&format!("spool: {}\n", waits.join(", ")));
    }
    if spool.kept_bytes > 0 {
        let (kept, keep) = (
            words::bytes(spool.kept_bytes),
            words::bytes(spool.keep_bytes),
        );
        text.push_str(&format!("output on disk: {kept} of {keep}\n"));
    }
    if !lost.is_empty() {
        text.push_str(&format!("lost since its start: {}\n", lost.join(", ")));
    }
    if let Some(trouble) = &spool.trouble {
        let trouble = crate::output::escape::one_line(trouble);
        let line = format!("events are lost now: {trouble}");
        text.push_str(&format!("{}\n", Paint::Bad.on(&line, look.color)));
    }
    text
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        many => format!("{many} {what}s"),
    }
}

fn up_for(look: &Look, since: Time) -> String {
    match look.ages {
        true => format!("up for {}", words::span(look.now.since(since))),
        false => format!("up since {since}"),
    }
}

/// Says how this machine's agent is.
pub(crate) fn status(cx: &mut Context) -> Outcome {
    let status = read_status(&cx.settings.home).map_err(|error| match error {
        StatusError::NotRunning(_) => Failure::new(Exit::Unavailable, error.to_string()),
        error => Failure::internal(error.to_string()),
    })?;
    cx.show(&Shown(status))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_says_what_waits_and_what_was_lost() {
        let look = Look {
            width: None,
            color: false,
            ages: true,
            now: Time::from_micros(200_000_000),
        };
        assert_eq!(spool_words(&SpoolStatus::default(), &look), "");
        let minutes = |n: i64| Some(Time::from_micros(200_000_000 - n * 60_000_000));
        let spool = SpoolStatus {
            events: 12,
            bytes: 3072,
            oldest: Some(Time::from_micros(20_000_000)),
            chunks: 1,
            chunk_bytes: 500,
            oldest_chunk: minutes(2),
            results: 2,
            kept_bytes: 1536,
            keep_bytes: 1 << 30,
            dropped_events: 1,
            dropped_log_bytes: 2048,
            trouble: Some("no space\nleft".to_owned()),
        };
        assert_eq!(
            spool_words(&spool, &look),
            "spool: 12 events (3.0 KiB, the oldest of 3 min ago), 1 chunk of output \
             (500 B, the oldest of 2 min ago), 2 results\n\
             output on disk: 1.5 KiB of 1.0 GiB\n\
             lost since its start: 1 event, 2.0 KiB of output\n\
             events are lost now: no space\\nleft\n"
        );
    }

    #[test]
    fn a_name_without_an_address_is_told_in_words() {
        assert_eq!(
            words_for(Some("nats: DNS error")),
            "its name has no address here"
        );
        assert_eq!(words_for(Some("nats: a\nb")), r"nats: a\nb");
        assert_eq!(words_for(None), "no answer yet");
    }
}
