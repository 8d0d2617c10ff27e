//! Any bytes as what people and earlier starts wrote: settings, credentials, the hub's record, and
//! the subjects of the bus. An error with its place in words, or a value that is itself again once
//! it was written.

use std::path::Path;

use fleet_contract::ids::{JobId, Lane, MachineId, Writer};
use fleet_contract::spec::{Priority, Target};
use fleet_contract::time::Time;
use fleet_nats::home::Home;
use fleet_nats::hub::{Credentials, HubRecord, Identity, Permission};
use fleet_nats::subject;

use crate::Seed;
use crate::config::file::File;
use crate::config::keys::{self, Scope, Value};
use crate::{args::parse, words};

/// Takes any bytes.
pub(crate) fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else {
        return;
    };
    match mode {
        b'h' => hub_record(rest),
        b'c' => text(rest, credentials),
        b's' => text(rest, subjects),
        b'w' => text(rest, single_words),
        b'p' => text(rest, |text| settings(text, Scope::Project)),
        _ => text(rest, |text| settings(text, Scope::User)),
    }
}

fn text(bytes: &[u8], run: impl FnOnce(&str)) {
    // Each reader refuses other bytes before it looks at anything.
    if let Ok(text) = std::str::from_utf8(bytes) {
        run(text);
    }
}

fn settings(text: &str, scope: Scope) {
    let path = Path::new("config.toml");
    let lines = text.lines().count().max(1) + 1;
    match File::parse(path, text, scope) {
        Ok(file) => {
            assert_eq!(file.path, path);
            for (name, (value, line)) in &file.values {
                assert!((1..=lines).contains(line), "{name} in line {line}");
                let key = keys::Key::named(name).unwrap();
                assert!(
                    scope == Scope::User || key.project,
                    "{name} in a project's file"
                );
                // As it is shown, it can be written.
                let shown = value.to_string();
                match value {
                    Value::Text(_) | Value::Span(_) | Value::Path(_) => {
                        assert_eq!(key.read_str(&shown).as_ref(), Ok(value), "{name}");
                    }
                    Value::Number(n) => {
                        let read = key.read_number(i64::try_from(*n).unwrap());
                        assert_eq!(read.as_ref(), Ok(value), "{name}");
                    }
                    Value::Size(_) => assert!(key.read_str(&shown).is_ok(), "{name}: {shown}"),
                }
            }
            let own = !file.tables.is_empty() || file.console.is_some();
            assert!(!own || scope == Scope::User, "a table in a project's file");
        }
        Err(failure) => {
            assert_eq!(failure.exit_code(), 78);
            let said = failure.render(false).unwrap();
            let rest = said.strip_prefix("fleet: config.toml:").unwrap();
            let line: usize = rest.split(':').next().unwrap().parse().unwrap();
            assert!((1..=lines).contains(&line), "{said}");
            failure.render(true).unwrap();
        }
    }
}

fn credentials(text: &str) {
    let Ok(read) = Credentials::parse(text) else {
        return;
    };
    let written = read.to_text();
    let again = Credentials::parse(&written).unwrap();
    assert_eq!(again.to_text(), written);
    assert_eq!((again.name(), again.hubs()), (read.name(), read.hubs()));
    assert_eq!(again.permission(), read.permission());
    assert!(!format!("{read:?}").contains("SU"), "a seed is shown");
    let _ = (read.public_key(), read.issuer(), read.inbox_prefix());
}

fn hub_record(bytes: &[u8]) {
    let Ok(read) = serde_json::from_slice::<HubRecord>(bytes) else {
        return;
    };
    let written = serde_json::to_vec_pretty(&read).unwrap();
    let again: HubRecord = serde_json::from_slice(&written).unwrap();
    assert_eq!(again.streams, read.streams);
    assert_eq!(serde_json::to_vec_pretty(&again).unwrap(), written);
}

/// Each parser takes what its builder makes of it, and nothing else.
fn subjects(text: &str) {
    if let Some((job, writer)) = subject::parse_job(text) {
        assert_eq!(subject::job(job, &writer), text);
    }
    if let Some((lane, priority)) = subject::parse_work(text) {
        let job: JobId = text.rsplit('.').next().unwrap().parse().unwrap();
        assert_eq!(subject::ticket(&Target::Lane(lane), priority, job), text);
    }
    if let Some(lane) = subject::parse_lane(text) {
        assert_eq!(subject::lane(&lane), text);
    }
    if let Some(machine) = subject::parse_presence(text) {
        assert_eq!(subject::presence(&machine), text);
    }
    if let Some((writer, kind)) = subject::parse_flow(text) {
        assert_eq!(subject::flow(writer, kind), text);
    }
    if let Some((job, machine)) = subject::parse_log(text) {
        assert_eq!(subject::log(job, &machine), text);
    }
    if let Some(machine) = subject::parse_lease(text) {
        let holder = text.rsplit('.').next().unwrap();
        assert_eq!(subject::lease(&machine, holder), text);
    }
    if let Some(machine) = subject::parse_stat(text) {
        assert_eq!(subject::stat(&machine), text);
    }
    // What is an id is one token of a subject, and nothing that means more in a filter.
    let token = |id: String| {
        assert_eq!(id, text);
        assert!(
            !id.is_empty() && !id.contains(['.', '*', '>', ' ']),
            "{id:?}"
        );
    };
    let machine = text.parse::<MachineId>().map(|id| token(id.to_string()));
    assert!(machine.is_err() || text.len() <= 63);
    let _ = text.parse::<JobId>().map(|id| token(id.to_string()));
    let _ = text.parse::<Lane>().map(|id| token(id.to_string()));
    let _ = text.parse::<Writer>().map(|id| token(id.to_string()));
    let _ = Priority::from_letter(text);
    let host = MachineId::from_host_name(text);
    assert_eq!(host.as_str().parse().as_ref(), Ok(&host));
    if let Ok(time) = text.parse::<Time>() {
        assert_eq!(time.to_string().parse(), Ok(time));
    }
}

/// Single words, as flags and variables have them.
fn single_words(text: &str) {
    if let Ok(span) = words::parse_duration(text) {
        assert_eq!(words::parse_duration(&words::duration(span)), Ok(span));
    }
    if let Ok(size) = words::parse_bytes(text) {
        assert!(words::parse_bytes(&words::bytes(size)).is_ok());
    }
    if let Ok(url) = keys::hub_url(text) {
        assert_eq!(keys::hub_url(&url).as_ref(), Ok(&url));
    }
    if let Ok(address) = parse::listen(text) {
        assert_eq!(parse::listen(&address.to_string()), Ok(address));
    }
    let _ = (parse::pair(text), parse::slots(text), parse::state(text));
    let _ = crate::prefix::check(text);
    for key in &keys::KEYS {
        let _ = key.read_str(text);
        let _ = key.read_text(text.as_ref());
    }
}

/// The default file in use, credentials of a throw-away hub, a record, and each subject.
pub(crate) fn seeds() -> Vec<Seed> {
    let defaults = include_str!("../../../docs/config.toml");
    let used: String = defaults
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
            _ => String::new(),
        })
        .collect();
    let dir = crate::folder();
    let identity = Identity::load_or_create(&Home::new(dir.path())).unwrap();
    let hubs = || vec!["nats://studio:4222".to_owned()];
    let worker = identity
        .issue(1, "studio", Permission::Worker, hubs())
        .unwrap();
    let operator = identity
        .issue(1, "ana", Permission::Operator, hubs())
        .unwrap();
    let record = r#"{"version":1,"created_at":"2026-01-31T12:00:00.000000Z","epoch":2,"name":"studio",
        "listen":"127.0.0.1:4222","monitor":"127.0.0.1:8222","max_file_store":1073741824,
        "streams":{"JOB":{"created":"2026-01-31T12:00:00.000000Z","last_sequence":7}},
        "recovering":{"since":"a backup","damage":{"JOB":"it is missing"}},"colour":"blue"}"#;
    let job = JobId::from_random([3; 10]);
    let studio: MachineId = "studio".parse().unwrap();
    let lane = Target::Lane(Lane::any());
    let subjects = [
        subject::job(job, &Writer::Keeper),
        subject::ticket(&lane, Priority::High, job),
        subject::lane(&Lane::any()),
        subject::presence(&studio),
        subject::flow("studio", "machine.up"),
        subject::log(job, &studio),
        subject::lease(&studio, subject::HUB),
        subject::stat(&studio),
        "2026-01-31T12:00:00.000001Z".to_owned(),
        "Studio-9.local".to_owned(),
    ];
    let words = [
        "1h 30m",
        "256 MiB",
        "[::1]:4222",
        "tls://hub:443",
        "NAME=VALUE",
        "needs_human",
    ];
    let one =
        |name: &str, mode: u8, text: &str| (name.to_owned(), [&[mode], text.as_bytes()].concat());
    let mut seeds = vec![
        one("settings", b'u', &used),
        one("project", b'p', "hub = \"studio\"\nlog_keep = 1048576\n"),
        one("worker", b'c', &worker.to_text()),
        one("operator", b'c', &operator.to_text()),
        one("hub-record", b'h', record),
    ];
    for (n, subject) in subjects.iter().enumerate() {
        seeds.push(one(&format!("subject-{n}"), b's', subject));
    }
    for (n, word) in words.iter().enumerate() {
        seeds.push(one(&format!("word-{n}"), b'w', word));
    }
    seeds
}
