//! Who may do what on the bus, asked of the real server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking, its helpers too"
)]

use std::time::Duration;

use async_nats::jetstream::{self, consumer, stream};
use async_nats::{Message, Subscriber};
use fleet_nats::connect::Link;
use fleet_nats::hub::Permission::{Operator, Viewer, Worker};
use fleet_nats::testing::TestHub;
use futures_util::StreamExt;

/// Long enough for a loaded machine; nothing waits this long unless it is broken.
const LONG: Duration = Duration::from_secs(30);

/// The streams as the wire contract has them, as far as rights depend on it.
const STREAMS: [(&str, &[&str]); 8] = [
    ("JOB", &["fleet.job.*.*"]),
    ("WORK", &["fleet.work.*.*"]),
    ("PIN", &["fleet.pin.*.*"]),
    ("LANE", &["fleet.lane.*", "fleet.want.*"]),
    ("PRES", &["fleet.pres.*"]),
    ("FLOW", &["fleet.flow.>"]),
    ("LOG", &["fleet.log.*.*"]),
    ("LEASE", &["fleet.lease.*.*"]),
];

struct Fleet {
    hub: TestHub,
    operator: Link,
}

/// A hub with the streams, consumers and a few messages in each.
async fn fleet() -> Fleet {
    let hub = TestHub::start().await;
    let operator = hub.operator().await;
    let js = jetstream::new(operator.client().clone());
    for (name, subjects) in STREAMS {
        let queue = name == "WORK" || name == "PIN";
        js.create_stream(stream::Config {
            name: name.into(),
            subjects: subjects.iter().map(|s| (*s).to_string()).collect(),
            retention: if queue {
                stream::RetentionPolicy::WorkQueue
            } else {
                stream::RetentionPolicy::Limits
            },
            discard: stream::DiscardPolicy::New,
            allow_direct: true,
            deny_delete: name == "JOB",
            max_bytes: 10_000_000,
            ..Default::default()
        })
        .await
        .unwrap();
    }
    for (stream, name, filter) in [
        ("WORK", "any-n", "fleet.work.any.n"),
        ("PIN", "m-studio-n", "fleet.pin.studio.n"),
        ("PIN", "m-mini-n", "fleet.pin.mini.n"),
    ] {
        let config = consumer::pull::Config {
            durable_name: Some(name.into()),
            filter_subject: filter.into(),
            ack_policy: consumer::AckPolicy::Explicit,
            ..Default::default()
        };
        js.create_consumer_on_stream(config, stream).await.unwrap();
    }
    for subject in [
        "fleet.job.a.operator",
        "fleet.lane.any",
        "fleet.lane.docker",
        "fleet.want.studio",
        "fleet.want.mini",
        "fleet.flow.mini.up",
        "fleet.lease.studio.hub",
        "fleet.lease.mini.mini",
        "fleet.pres.mini",
        "fleet.log.a.mini",
        "fleet.work.any.n",
        "fleet.pin.studio.n",
        "fleet.pin.mini.n",
    ] {
        allowed(&operator, subject, subject).await;
    }
    Fleet { hub, operator }
}

/// Asks and expects an answer that is no error.
async fn allowed(link: &Link, subject: &str, body: &str) -> Message {
    let asked = link
        .client()
        .request(subject.to_owned(), body.to_owned().into())
        .await;
    let answer = asked.unwrap_or_else(|e| {
        let status = link.status().borrow().clone();
        panic!("{subject} {body}: {e} {status:?}")
    });
    let text = String::from_utf8_lossy(&answer.payload);
    assert!(!text.contains("\"error\""), "{subject} {body}: {text}");
    answer
}

/// Publishes and waits until the server says that it may not.
async fn denied(link: &Link, subject: &str, body: &str) {
    let mut status = link.status();
    let before = status.borrow_and_update().denied;
    let client = link.client();
    client
        .publish(subject.to_owned(), body.to_owned().into())
        .await
        .unwrap();
    expect_denial(&mut status, before, subject).await;
}

/// Subscribes and waits until the server says that it may not.
async fn deaf(link: &Link, subject: &str) {
    let mut status = link.status();
    let before = status.borrow_and_update().denied;
    let _subscription = link.client().subscribe(subject.to_owned()).await.unwrap();
    expect_denial(&mut status, before, subject).await;
}

async fn expect_denial(
    status: &mut tokio::sync::watch::Receiver<fleet_nats::connect::LinkStatus>,
    before: u64,
    subject: &str,
) {
    let told = tokio::time::timeout(LONG, status.wait_for(|s| s.denied > before)).await;
    let status = told
        .unwrap_or_else(|_| panic!("{subject} was not denied"))
        .unwrap();
    let error = status.last_error.clone().unwrap_or_default();
    assert!(
        error.contains(&format!("\"{subject}\"")),
        "{subject}: {error}"
    );
}

async fn next(subscription: &mut Subscriber) -> Message {
    tokio::time::timeout(LONG, subscription.next())
        .await
        .unwrap()
        .unwrap()
}

/// The server has taken in everything this link sent: `flush` alone does not say so.
async fn settled(link: &Link) {
    allowed(link, "$JS.API.INFO", "").await;
}

fn header(message: &Message, name: &str) -> Vec<String> {
    let headers = message.headers.iter();
    headers
        .flat_map(|h| h.get_all(name))
        .map(ToString::to_string)
        .collect()
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

#[tokio::test]
async fn a_worker_may_do_its_own_part() {
    let Fleet { hub, operator: _o } = fleet().await;
    let worker = hub.connect("studio", Worker).await.unwrap();
    for subject in [
        "fleet.pres.studio",
        "fleet.flow.studio.machine.up",
        "fleet.flow.studio.emit",
        "fleet.log.a.studio",
        "fleet.lease.studio.studio",
        "fleet.job.a.studio",
    ] {
        allowed(&worker, subject, subject).await;
    }
    for (get, last) in [
        // The last record of a job, whoever wrote it: a wildcard is fine in this form.
        ("JOB.fleet.job.a.*", "fleet.job.a.studio"),
        ("JOB.fleet.job.a.operator", "fleet.job.a.operator"),
        ("LEASE.fleet.lease.studio.*", "fleet.lease.studio.studio"),
        ("LEASE.fleet.lease.studio.hub", "fleet.lease.studio.hub"),
        ("FLOW.fleet.flow.studio.>", "fleet.flow.studio.emit"),
        ("LOG.fleet.log.a.studio", "fleet.log.a.studio"),
        ("PRES.fleet.pres.studio", "fleet.pres.studio"),
        ("LANE.fleet.lane.any", "fleet.lane.any"),
        ("LANE.fleet.want.studio", "fleet.want.studio"),
    ] {
        let answer = allowed(&worker, &format!("$JS.API.DIRECT.GET.{get}"), "").await;
        assert_eq!(header(&answer, "Nats-Subject"), [last], "{get}");
        assert_eq!(text(&answer), last);
    }
    let missing = allowed(&worker, "$JS.API.DIRECT.GET.JOB.fleet.job.b.*", "").await;
    assert_eq!(missing.status.map(|s| s.as_u16()), Some(404));
    // All lanes at once: the answers come one by one, an empty one (EOB) at the end.
    let inbox = worker.client().new_inbox();
    let mut lanes = worker.client().subscribe(inbox.clone()).await.unwrap();
    let body = r#"{"multi_last":["fleet.lane.*"]}"#;
    let client = worker.client();
    client
        .publish_with_reply("$JS.API.DIRECT.GET.LANE", inbox, body.into())
        .await
        .unwrap();
    assert_eq!(text(&next(&mut lanes).await), "fleet.lane.any");
    assert_eq!(text(&next(&mut lanes).await), "fleet.lane.docker");
    let end = next(&mut lanes).await;
    assert_eq!(end.status.map(|s| s.as_u16()), Some(204));
}

#[tokio::test]
async fn a_worker_pulls_and_acknowledges_its_own_tickets_only() {
    let Fleet { hub, operator } = fleet().await;
    let worker = hub.connect("studio", Worker).await.unwrap();
    let client = worker.client();
    for (consumer, ticket) in [
        ("WORK.any-n", "fleet.work.any.n"),
        ("PIN.m-studio-n", "fleet.pin.studio.n"),
    ] {
        // A ticket comes on its own subject: the shared inbox of requests would not see it.
        let inbox = client.new_inbox();
        let mut pull = client.subscribe(inbox.clone()).await.unwrap();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{consumer}");
        let body = r#"{"batch":1,"expires":10000000000}"#;
        client
            .publish_with_reply(subject, inbox, body.into())
            .await
            .unwrap();
        let message = next(&mut pull).await;
        assert_eq!(message.subject.as_str(), ticket);
        allowed(&worker, message.reply.unwrap().as_str(), "+ACK").await;
    }
    for subject in [
        "$JS.API.CONSUMER.MSG.NEXT.PIN.m-mini-n",
        "$JS.ACK.PIN.m-mini-n.1.2.1.1.0",
        "$JS.API.CONSUMER.MSG.NEXT.JOB.any",
    ] {
        denied(&worker, subject, "").await;
    }
    // The other's ticket is there still.
    let js = jetstream::new(operator.client().clone());
    let info = js.get_stream("PIN").await.unwrap();
    assert_eq!(info.cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_worker_may_not_act_for_others_or_touch_streams() {
    let Fleet { hub, operator: _o } = fleet().await;
    let worker = hub.connect("studio", Worker).await.unwrap();
    for (subject, body) in [
        // Dispatching.
        ("fleet.work.any.n", ""),
        ("fleet.pin.studio.n", ""),
        ("fleet.pin.mini.n", ""),
        // Speaking for others.
        ("fleet.job.a.mini", ""),
        ("fleet.job.a.operator", ""),
        ("fleet.job.a.keeper", ""),
        ("fleet.pres.mini", ""),
        ("fleet.flow.mini.x", ""),
        ("fleet.log.a.mini", ""),
        ("fleet.lease.mini.mini", ""),
        ("fleet.lease.studio.hub", ""),
        ("fleet.lane.any", ""),
        ("fleet.want.studio", ""),
        ("fleet.cmd.mini.cancel", ""),
        ("fleet.cmd.studio.cancel", ""),
        // Reading what is not its own.
        ("$JS.API.DIRECT.GET.JOB", r#"{"seq":1}"#),
        ("$JS.API.DIRECT.GET.PIN.fleet.pin.mini.n", ""),
        ("$JS.API.DIRECT.GET.WORK.fleet.work.any.n", ""),
        ("$JS.API.DIRECT.GET.FLOW.fleet.flow.mini.up", ""),
        ("$JS.API.DIRECT.GET.FLOW.fleet.flow.>", ""),
        ("$JS.API.DIRECT.GET.FLOW.fleet.flow.*.>", ""),
        ("$JS.API.DIRECT.GET.LOG.fleet.log.a.*", ""),
        ("$JS.API.DIRECT.GET.PRES.fleet.pres.*", ""),
        ("$JS.API.DIRECT.GET.LEASE.fleet.lease.mini.mini", ""),
        ("$JS.API.DIRECT.GET.LANE.fleet.want.mini", ""),
        ("$JS.API.STREAM.MSG.GET.JOB", r#"{"seq":1}"#),
        ("$JS.API.STREAM.INFO.JOB", ""),
        ("$JS.API.STREAM.NAMES", ""),
        ("$JS.API.CONSUMER.INFO.WORK.any-n", ""),
        // Changing streams and consumers.
        ("$JS.API.STREAM.PURGE.JOB", ""),
        ("$JS.API.STREAM.DELETE.JOB", ""),
        ("$JS.API.STREAM.UPDATE.JOB", "{}"),
        ("$JS.API.STREAM.MSG.DELETE.WORK", r#"{"seq":1}"#),
        (
            "$JS.API.STREAM.CREATE.X",
            r#"{"name":"X","subjects":["x"]}"#,
        ),
        ("$JS.API.CONSUMER.CREATE.JOB", "{}"),
        ("$JS.API.CONSUMER.CREATE.JOB.x", "{}"),
        ("$JS.API.CONSUMER.DURABLE.CREATE.WORK.x", "{}"),
        ("$JS.API.CONSUMER.DELETE.WORK.any-n", ""),
        ("$JS.API.CONSUMER.PAUSE.WORK.any-n", "{}"),
        ("$JS.ACK.JOB.x.1.1.1.1.0", ""),
        ("$KV.x.y", ""),
        ("$SYS.REQ.SERVER.PING", ""),
        ("elsewhere", ""),
    ] {
        denied(&worker, subject, body).await;
    }
    for subject in [
        ">",
        "_INBOX.>",
        "_INBOX.mini.>",
        "_INBOX_O.operator.>",
        "fleet.>",
        "fleet.cmd.>",
        "fleet.cmd.mini.>",
        "fleet.job.>",
        "fleet.work.>",
        "fleet.want.mini",
        "fleet.log.>",
        "$SYS.>",
        "$JS.>",
    ] {
        deaf(&worker, subject).await;
    }
    // And what a body says in the allowed form is refused, not obeyed.
    let answer = allowed(
        &worker,
        "$JS.API.DIRECT.GET.JOB.fleet.job.a.*",
        r#"{"seq":1}"#,
    )
    .await;
    assert_eq!(answer.status.map(|s| s.as_u16()), Some(408));
}

#[tokio::test]
async fn a_worker_answers_what_it_is_asked_once_and_nothing_else() {
    let Fleet { hub, operator } = fleet().await;
    let worker = hub.connect("studio", Worker).await.unwrap();
    let mut mine = worker
        .client()
        .subscribe("fleet.cmd.studio.>")
        .await
        .unwrap();
    let mut all = worker.client().subscribe("fleet.cmd.all.>").await.unwrap();
    settled(&worker).await;
    for (subject, commands) in [
        ("fleet.cmd.studio.cancel", &mut mine),
        ("fleet.cmd.all.specs", &mut all),
    ] {
        let inbox = operator.client().new_inbox();
        let mut answers = operator.client().subscribe(inbox.clone()).await.unwrap();
        operator
            .client()
            .publish_with_reply(subject, inbox.clone(), "?".into())
            .await
            .unwrap();
        let command = next(commands).await;
        let reply = command.reply.unwrap();
        worker
            .client()
            .publish(reply.clone(), "!".into())
            .await
            .unwrap();
        assert_eq!(text(&next(&mut answers).await), "!");
        denied(&worker, reply.as_str(), "again").await;
    }
    denied(&worker, "_INBOX_O.operator.guessed", "").await;
    denied(&worker, "_INBOX.mini.guessed", "").await;
}

#[tokio::test]
async fn a_viewer_reads_and_asks_for_specs() {
    let Fleet { hub, operator: _o } = fleet().await;
    let viewer = hub.connect("bob", Viewer).await.unwrap();
    let js = jetstream::new(viewer.client().clone());
    for (stream, filter, first) in [
        ("JOB", "fleet.job.>", "fleet.job.a.operator"),
        ("FLOW", "fleet.flow.>", "fleet.flow.mini.up"),
        ("LOG", "fleet.log.a.*", "fleet.log.a.mini"),
        ("PRES", "fleet.pres.*", "fleet.pres.mini"),
        ("LANE", "fleet.lane.*", "fleet.lane.any"),
    ] {
        let stream = js.get_stream(stream).await.unwrap();
        let config = consumer::pull::OrderedConfig {
            filter_subject: filter.into(),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let message = tokio::time::timeout(LONG, messages.next()).await.unwrap();
        assert_eq!(text(&message.unwrap().unwrap().message), first);
    }
    let get = "$JS.API.DIRECT.GET.JOB.fleet.job.a.*";
    assert_eq!(
        text(&allowed(&viewer, get, "").await),
        "fleet.job.a.operator"
    );
    let client = viewer.client();
    client
        .publish("fleet.cmd.all.specs", "".into())
        .await
        .unwrap();
    for (subject, body) in [
        ("fleet.work.any.n", ""),
        ("fleet.job.a.bob", ""),
        ("fleet.job.a.operator", ""),
        ("fleet.flow.bob.x", ""),
        ("fleet.pres.bob", ""),
        ("fleet.cmd.all.drain", ""),
        ("fleet.cmd.studio.cancel", ""),
        ("$JS.API.STREAM.PURGE.FLOW", ""),
        ("$JS.API.STREAM.DELETE.FLOW", ""),
        ("$JS.API.STREAM.CREATE.X", "{}"),
        ("$JS.API.STREAM.UPDATE.FLOW", "{}"),
        ("$JS.API.STREAM.MSG.GET.JOB", r#"{"seq":1}"#),
        ("$JS.API.DIRECT.GET.JOB", r#"{"seq":1}"#),
        ("$JS.API.DIRECT.GET.PIN.fleet.pin.mini.n", ""),
        ("$JS.API.CONSUMER.CREATE.WORK", "{}"),
        ("$JS.API.CONSUMER.CREATE.PIN.x", "{}"),
        ("$JS.API.CONSUMER.MSG.NEXT.WORK.any-n", ""),
        ("$JS.API.CONSUMER.DELETE.JOB.x", ""),
    ] {
        denied(&viewer, subject, body).await;
    }
    for subject in ["_INBOX.bob.>", "_INBOX_O.operator.>", "fleet.>", ">"] {
        deaf(&viewer, subject).await;
    }
}

#[tokio::test]
async fn an_operator_may_do_everything_but_read_others_inboxes() {
    let Fleet { hub, operator } = fleet().await;
    let second = hub.connect("ana", Operator).await.unwrap();
    allowed(&second, "fleet.job.b.operator", "x").await;
    allowed(&second, "$JS.API.STREAM.PURGE.WORK", "").await;
    let mut heard = second.client().subscribe("fleet.cmd.ana.>").await.unwrap();
    settled(&second).await;
    operator
        .client()
        .publish("fleet.cmd.ana.x", "".into())
        .await
        .unwrap();
    next(&mut heard).await;
    for subject in ["_INBOX.studio.>", "_INBOX_O.operator.>", ">", "$SYS.>"] {
        deaf(&second, subject).await;
    }
    denied(&second, "$SYS.REQ.SERVER.PING", "").await;
}

/// The server checks what a client publishes, not the reply subject it names: an answer of the
/// server goes there with the server's rights. What gets into a stream that way is marked, and
/// whoever reads a stream must look for the mark.
#[tokio::test]
async fn what_a_worker_smuggles_in_by_a_reply_subject_is_marked() {
    let Fleet { hub, operator } = fleet().await;
    let worker = hub.connect("studio", Worker).await.unwrap();
    allowed(&worker, "fleet.flow.studio.x", "forged").await;
    worker
        .client()
        .publish_with_reply(
            "$JS.API.DIRECT.GET.FLOW.fleet.flow.studio.x",
            "fleet.job.z.operator",
            "".into(),
        )
        .await
        .unwrap();
    settled(&worker).await;
    let js = jetstream::new(operator.client().clone());
    let stream = js.get_stream("JOB").await.unwrap();
    let config = consumer::pull::OrderedConfig {
        filter_subject: "fleet.job.z.*".into(),
        ..Default::default()
    };
    let consumer = stream.create_consumer(config).await.unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let message = tokio::time::timeout(LONG, messages.next()).await.unwrap();
    let message = message.unwrap().unwrap().message;
    assert_eq!(text(&message), "forged");
    // By a consumer: an honest record has none of these headers.
    assert_eq!(header(&message, "Nats-Stream"), ["FLOW"]);
    assert_eq!(header(&message, "Nats-Subject"), ["fleet.flow.studio.x"]);
    // By a direct get, which adds its own: an honest record has each of them once.
    let get = "$JS.API.DIRECT.GET.JOB.fleet.job.z.*";
    let message = allowed(&operator, get, "").await;
    println!("{:?}", message.headers);
    assert_eq!(header(&message, "Nats-Stream").len(), 2);
}
