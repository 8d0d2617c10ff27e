//! `fleet hub`: the hub alone, and its care.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use fleet_contract::ids::MachineId;
use fleet_nats::bus::Usage;
use fleet_nats::guard::{Recovered, Trouble};
use fleet_nats::hub::{HubRecord, IdentityError, Permission, issue_credentials};
use fleet_nats::subject::stream;
use serde::Serialize;

use crate::args::Tether;
use crate::context::Context;
use crate::environment::host_name;
use crate::failure::{Exit, Failure, Outcome};
use crate::interrupt::Stops;
use crate::output::table::{Cell, Column, Table};
use crate::output::{Answer, Look, Said};
use crate::service::hub::{self, HubService};
use crate::{clock, private_file, words};

/// Runs the hub until it is asked to stop.
pub(crate) async fn run(tether: Tether, cx: &mut Context) -> Outcome {
    let mut stops = Stops::new(tether.tether);
    let output = &mut cx.output;
    let mut tell = |text: &str| output.note(text);
    let starting = HubService::start(&cx.settings, &cx.environment, tether.tether, &mut tell);
    let service = tokio::select! {
        // Given up half-way, the server ends with it.
        () = stops.next() => {
            return Err(Failure::new(Exit::Interrupted, "stopped before it was up"));
        }
        service = starting => service?,
    };
    for warning in service.hub().warnings() {
        cx.output.note(&warning);
    }
    let ready = serde_json::json!({
        "event": "ready",
        "hub": service.hub().url(),
        "monitor": service.hub().monitor_url(),
        "server_pid": service.hub().pid(),
        "took_ms": u64::try_from(service.took.as_millis()).unwrap_or(u64::MAX),
    });
    let text = format!(
        "hub ready at {} in {}\n",
        service.hub().url(),
        words::span(service.took)
    );
    let told = cx.show(&Said { value: ready, text });
    if told.is_ok() {
        stops.next().await;
    }
    service.stop().await?;
    told.map(|()| 0)
}

/// How a hub is.
#[derive(Debug, Serialize)]
struct Status {
    hub: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    /// The last recovery of its store.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<Recovered>,
    /// What is wrong now.
    troubles: Vec<Trouble>,
    streams: Vec<StreamStatus>,
}

#[derive(Debug, Serialize)]
struct StreamStatus {
    stream: &'static str,
    messages: u64,
    bytes: u64,
    max_bytes: u64,
    last_seq: u64,
}

impl Answer for Status {
    fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    fn text(&self, look: &Look) -> String {
        let mut table = Table::new(&[
            Column::new("STREAM"),
            Column::new("MESSAGES").right(),
            Column::new("BYTES").right(),
            Column::new("LIMIT").right(),
            Column::new("FULL").right(),
        ]);
        for s in &self.streams {
            table.row(vec![
                Cell::new(s.stream),
                Cell::new(s.messages.to_string()),
                Cell::new(words::bytes(s.bytes)),
                Cell::new(words::bytes(s.max_bytes)),
                Cell::maybe(full(s.bytes, s.max_bytes).as_ref()),
            ]);
        }
        let mut text = format!("hub {} at {}", self.state, self.hub);
        if let Some(epoch) = self.epoch.filter(|epoch| *epoch != 0) {
            text.push_str(&format!(", epoch {epoch}"));
        }
        text.push('\n');
        text.push_str(&table.render(look.width, look.color));
        for trouble in &self.troubles {
            text.push_str(&format!(
                "{} ({})\n",
                trouble.text,
                look.time(trouble.since)
            ));
        }
        if let Some(recovered) = &self.recovered {
            text.push_str(&told_of(recovered, look));
        }
        text
    }
}

/// How full a stream is, in percent; none where it has no limit.
fn full(bytes: u64, max_bytes: u64) -> Option<String> {
    let percent = bytes.saturating_mul(100).checked_div(max_bytes)?;
    Some(format!("{percent} %"))
}

const STREAMS: [&str; 8] = [
    stream::JOB,
    stream::WORK,
    stream::PIN,
    stream::LANE,
    stream::PRES,
    stream::FLOW,
    stream::LOG,
    stream::LEASE,
];

/// A recovery in words.
fn told_of(recovered: &Recovered, look: &Look) -> String {
    let mut text = format!(
        "recovered from {} ({}): {} jobs were put to you, {} left to what their machines reported\n",
        recovered.since,
        look.time(recovered.at),
        recovered.asked,
        recovered.running
    );
    for (stream, damage) in &recovered.damage {
        text.push_str(&format!("  stream {stream} {damage}\n"));
    }
    text
}

/// Says how the hub is.
pub(crate) async fn status(cx: &mut Context) -> Outcome {
    let record = HubRecord::load(&cx.settings.home).map_err(|e| Failure::config(e.to_string()))?;
    let bus = cx.bus().await?;
    let mut streams = Vec::new();
    for name in STREAMS {
        let Usage {
            messages,
            bytes,
            max_bytes,
            last_seq,
            ..
        } = bus.usage(name).await?;
        streams.push(StreamStatus {
            stream: name,
            messages,
            bytes,
            max_bytes,
            last_seq,
        });
    }
    let word = bus.hub_word().await?;
    let local = record.as_ref().map(|r| format!("nats://{}", r.listen));
    let hub = cx.settings.hub().map(str::to_owned).or(local);
    let well = word.as_ref().is_none_or(|word| word.troubles.is_empty());
    cx.show(&Status {
        hub: hub.unwrap_or_else(|| "where the credentials say".to_owned()),
        state: if well { "up" } else { "degraded" },
        epoch: word
            .as_ref()
            .map(|word| word.epoch)
            .or(record.map(|r| r.epoch)),
        recovered: word.as_ref().and_then(|word| word.recovered.clone()),
        troubles: word.map(|word| word.troubles).unwrap_or_default(),
        streams,
    })?;
    Ok(0)
}

/// Lets a machine in again that the hub has locked out.
pub(crate) async fn admit(machine: &MachineId, cx: &mut Context) -> Outcome {
    let bus = cx.bus().await?;
    let was = bus.admit(machine).await?;
    let text = match was {
        true => format!("{machine} is let in again\n"),
        false => format!("{machine} was not locked out\n"),
    };
    let value = serde_json::json!({ "machine": machine, "was_locked_out": was });
    cx.show(&Said { value, text })?;
    Ok(0)
}

/// Gets the pinned server.
pub(crate) fn install_server(cx: &mut Context) -> Outcome {
    let output = &mut cx.output;
    let mut tell = |text: &str| output.note(text);
    let installed = hub::install(&cx.settings.home, &mut tell)?;
    let path = installed.path.display().to_string();
    let text = match installed.already {
        true => format!("{path} is there already\n"),
        false => format!("{path}\n"),
    };
    cx.show(&Said {
        value: serde_json::json!({
            "path": path,
            "already": installed.already,
            "version": fleet_nats::hub::PINNED_VERSION,
        }),
        text,
    })?;
    Ok(0)
}

/// Whom credentials are for.
pub(crate) enum Whose<'a> {
    /// An agent of this machine.
    Machine(&'a MachineId),
    /// Somebody who looks on.
    Viewer(&'a str),
}

impl Whose<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Machine(machine) => machine.as_str(),
            Self::Viewer(name) => name,
        }
    }

    fn permission(&self) -> Permission {
        match self {
            Self::Machine(_) => Permission::Worker,
            Self::Viewer(_) => Permission::Viewer,
        }
    }

    /// What to type where the file is brought to.
    fn next(&self) -> &'static str {
        match self {
            Self::Machine(_) => "fleet agent run --credentials FILE",
            Self::Viewer(_) => "fleet tui --credentials FILE",
        }
    }
}

/// Writes credentials for another machine, or for a viewer.
pub(crate) fn credentials(whose: &Whose<'_>, out: &Path, cx: &mut Context) -> Outcome {
    let hubs = addresses_for_others(cx)?;
    let issued_at = clock::now().as_micros() / 1_000_000;
    let home = &cx.settings.home;
    let text = issue_credentials(
        home,
        issued_at,
        whose.name(),
        whose.permission(),
        hubs.clone(),
    )
    .map_err(|error| match error {
        IdentityError::Name(_) => Failure::usage(error.to_string()),
        IdentityError::Missing(_) => {
            Failure::config(error.to_string()).next("fleet up, or fleet hub run, here first")
        }
        error => Failure::config(error.to_string()),
    })?;
    private_file::create(out, text.as_bytes()).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::usage(format!(
            "{} exists already: choose another name",
            out.display()
        )),
        _ => Failure::new(
            Exit::Internal,
            format!("cannot write {}: {e}", out.display()),
        ),
    })?;
    let text = format!(
        "{} for {}, who will look for the hub at {}\n\
         keep it secret, bring it there, and type: {}\n",
        out.display(),
        whose.name(),
        hubs.join(", "),
        whose.next(),
    );
    let mut value = serde_json::json!({ "file": out, "hubs": hubs });
    value[match whose {
        Whose::Machine(_) => "machine",
        Whose::Viewer(_) => "viewer",
    }] = whose.name().into();
    cx.show(&Said { value, text })?;
    Ok(0)
}

/// Addresses that credentials may name.
const HUBS_MAX: usize = 16;

/// The addresses of this host.
fn networks() -> Vec<IpAddr> {
    let networks = sysinfo::Networks::new_with_refreshed_list();
    let mut found: Vec<IpAddr> = networks
        .values()
        .flat_map(|network| network.ip_networks().iter().map(|net| net.addr))
        .collect();
    // The old ones first: they are shorter, and more often the ones that work.
    found.sort_unstable();
    found.dedup();
    found
}

/// Whether another machine may reach an address of this host, which listens on `listen`.
fn reachable(ip: IpAddr, listen: IpAddr) -> bool {
    let elsewhere = match ip {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local(),
        // Of no use without the name of the other machine's own network card.
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local() || listen.is_ipv4(),
    };
    !elsewhere && !ip.is_unspecified()
}

/// Where other machines reach this hub: what was said, else what it listens on.
fn addresses_for_others(cx: &mut Context) -> Result<Vec<String>, Failure> {
    if let Some(url) = cx.settings.hub() {
        return Ok(vec![url.to_owned()]);
    }
    let record = HubRecord::load(&cx.settings.home).map_err(|e| Failure::config(e.to_string()))?;
    let listen = record.map(|r| r.listen).unwrap_or_default();
    let Ok(address) = listen.parse::<std::net::SocketAddr>() else {
        return Err(Failure::config("no hub was started here yet")
            .next("fleet up, or fleet hub run, here first"));
    };
    if address.ip().is_loopback() {
        cx.output.note(&format!(
            "the hub listens on {address} only: other machines need --listen ADDRESS at its start"
        ));
    }
    if address.ip().is_unspecified() {
        // Its name, for networks that know it, and its addresses, for those that do not.
        let of_host = networks()
            .into_iter()
            .filter(|ip| reachable(*ip, address.ip()));
        let numbers = of_host.map(|ip| SocketAddr::new(ip, address.port()).to_string());
        let name = format!("{}:{}", host_name(), address.port());
        return Ok(std::iter::once(name)
            .chain(numbers)
            .take(HUBS_MAX)
            .map(|host| format!("nats://{host}"))
            .collect());
    }
    Ok(vec![format!("nats://{address}")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_are_told_what_they_can_reach() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (four, both) = (ip("0.0.0.0"), ip("::"));
        for (address, listen, expected) in [
            ("192.168.1.20", four, true),
            ("127.0.0.1", four, false),
            ("169.254.3.4", four, false),
            ("2001:db8::1", four, false),
            ("2001:db8::1", both, true),
            ("192.168.1.20", both, true),
            ("fe80::1", both, false),
        ] {
            assert_eq!(reachable(ip(address), listen), expected, "{address}");
        }
    }
}
