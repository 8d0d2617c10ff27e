//! What each kind of user may do on the bus: three templates that the server fills in with the
//! user's name. The names of subjects and consumers here are those of the wire contract.

use std::fmt;
use std::str::FromStr;

use serde_json::json;

/// How much of the fleet a user may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Permission {
    /// A machine: takes work, reports on itself and on its own attempts.
    Worker,
    /// Reads, and asks every agent for its specs.
    Viewer,
    /// Everything in the fleet. The keeper is one, too.
    Operator,
}

/// The text is not a permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("permission {0:?} is not known: use worker, viewer or operator")]
pub struct PermissionError(String);

/// Streams that a viewer may read.
const VIEWABLE: [&str; 5] = ["JOB", "FLOW", "LOG", "PRES", "LANE"];

/// The server replaces this by the user's name.
const NAME: &str = "{{name()}}";

/// Rights of a scoped signing key.
pub(crate) struct Template {
    publish: Vec<String>,
    subscribe: Vec<String>,
    /// May answer what it was asked, once, within this many nanoseconds.
    respond: Option<i64>,
    /// Most subscriptions of one connection; -1: no limit.
    subscriptions: i64,
}

impl Template {
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut template = json!({
            "pub": { "allow": self.publish },
            "sub": { "allow": self.subscribe },
            "subs": self.subscriptions, "data": -1, "payload": -1,
        });
        if let Some(ttl) = self.respond {
            template["resp"] = json!({ "max": 1, "ttl": ttl });
        }
        template
    }
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Worker, Self::Viewer, Self::Operator];

    /// `worker`, `viewer` or `operator`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
        }
    }

    /// The prefix of the user's own inboxes. Nobody else may subscribe below it. The kinds have
    /// separate roots: a viewer named like a machine must not read that machine's tickets.
    #[must_use]
    pub fn inbox_prefix(self, name: &str) -> String {
        let root = match self {
            Self::Worker => "_INBOX",
            Self::Viewer => "_INBOX_V",
            Self::Operator => "_INBOX_O",
        };
        format!("{root}.{name}")
    }

    pub(crate) fn template(self) -> Template {
        match self {
            Self::Worker => worker(),
            Self::Viewer => viewer(),
            Self::Operator => operator(),
        }
    }
}

/// Three for each lane and its own pin, and a few more: nobody has so many lanes.
const WORKER_SUBSCRIPTIONS: i64 = 8192;

/// A minute to answer a command.
const ANSWER_WITHIN_NS: i64 = 60_000_000_000;

fn worker() -> Template {
    let m = NAME;
    let mut publish = vec![
        format!("fleet.pres.{m}"),
        format!("fleet.stat.{m}"),
        format!("fleet.flow.{m}.>"),
        format!("fleet.log.*.{m}"),
        format!("fleet.job.*.{m}"),
        format!("fleet.lease.{m}.{m}"),
        "$JS.API.INFO".into(),
        "$JS.API.CONSUMER.MSG.NEXT.WORK.*".into(),
        "$JS.ACK.WORK.>".into(),
        // By subject only: the form with a body reads a whole stream. The subject may be
        // `fleet.job.<job>.*`, which answers with the job's last record, whoever wrote it.
        "$JS.API.DIRECT.GET.JOB.fleet.job.>".into(),
        format!("$JS.API.DIRECT.GET.LEASE.fleet.lease.{m}.*"),
        format!("$JS.API.DIRECT.GET.FLOW.fleet.flow.{m}.>"),
        format!("$JS.API.DIRECT.GET.LOG.fleet.log.*.{m}"),
        format!("$JS.API.DIRECT.GET.PRES.fleet.pres.{m}"),
        // With a body here: the only way to list all lanes at once, and no secret is in LANE.
        "$JS.API.DIRECT.GET.LANE".into(),
        "$JS.API.DIRECT.GET.LANE.fleet.lane.*".into(),
        format!("$JS.API.DIRECT.GET.LANE.fleet.want.{m}"),
        "$JS.API.DIRECT.GET.LANE.fleet.want.hub".into(),
    ];
    for priority in ["h", "n", "l"] {
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.PIN.m-{m}-{priority}"));
        publish.push(format!("$JS.ACK.PIN.m-{m}-{priority}.>"));
    }
    let subscribe = vec![
        format!("{}.>", Permission::Worker.inbox_prefix(m)),
        format!("fleet.cmd.{m}.>"),
        "fleet.cmd.all.>".into(),
        "fleet.lane.>".into(),
        format!("fleet.want.{m}"),
        "fleet.want.hub".into(),
    ];
    Template {
        publish,
        subscribe,
        respond: Some(ANSWER_WITHIN_NS),
        subscriptions: WORKER_SUBSCRIPTIONS,
    }
}

fn viewer() -> Template {
    let mut publish = vec![
        "$JS.API.INFO".into(),
        "$JS.API.STREAM.NAMES".into(),
        "$JS.API.STREAM.LIST".into(),
        "fleet.cmd.all.specs".into(),
        "fleet.cmd.hub.stats".into(),
    ];
    for stream in VIEWABLE {
        publish.push(format!("$JS.API.STREAM.INFO.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        publish.push(format!("$JS.API.CONSUMER.CREATE.{stream}.>"));
        publish.push(format!("$JS.API.CONSUMER.INFO.{stream}.*"));
        publish.push(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"));
        // By subject only. With a body it can be told to leave out the headers that mark an
        // answer (`no_hdr`), and sent to any subject as its reply: a forged record.
        publish.push(format!("$JS.API.DIRECT.GET.{stream}.>"));
        // Flow control of ordered consumers.
        publish.push(format!("$JS.FC.{stream}.>"));
    }
    Template {
        publish,
        subscribe: vec![
            format!("{}.>", Permission::Viewer.inbox_prefix(NAME)),
            "fleet.stat.*".into(),
        ],
        respond: None,
        subscriptions: -1,
    }
}

fn operator() -> Template {
    Template {
        publish: vec![
            "fleet.>".into(),
            "$JS.API.>".into(),
            "$JS.ACK.>".into(),
            "$JS.FC.>".into(),
            // The pieces of a backup, and of what is put back.
            "$JS.SNAPSHOT.>".into(),
        ],
        subscribe: vec![
            format!("{}.>", Permission::Operator.inbox_prefix(NAME)),
            "fleet.>".into(),
            "$JS.EVENT.>".into(),
        ],
        respond: Some(ANSWER_WITHIN_NS),
        subscriptions: -1,
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Permission {
    type Err = PermissionError;
    fn from_str(text: &str) -> Result<Self, PermissionError> {
        Self::ALL
            .into_iter()
            .find(|p| p.as_str() == text)
            .ok_or_else(|| PermissionError(text.chars().take(80).collect()))
    }
}
