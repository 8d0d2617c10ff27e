//! Everything that has to happen at least once over all seeds, or the simulation looks away.

use std::collections::BTreeMap;

/// By kind: what goes wrong, what the rules make of it, which transitions of a job there are.
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "faults of the network",
        &[
            "message late",
            "request lost",
            "request twice",
            "answer lost",
            "answer twice",
            "no answer",
            "partition",
            "one-way partition: unheard",
            "one-way partition: deaf",
            "partition between some",
            "operators cut off",
            "keeper cut off",
            "sent after the outage",
            "lost with its server",
            "reached the next server",
            "answer of a server that is gone",
        ],
    ),
    (
        "faults of machines and programs",
        &[
            "agent crash",
            "agent frozen",
            "machine crash",
            "machine asleep",
            "machine wakes without network",
            "pinned ticket delivered elsewhere",
            "executor's record lost",
            "hub restart",
            "hub restart in a recovery",
            "hub asleep",
            "keeper restart",
            "second keeper",
            "client died",
            "clock jump of a machine",
            "clock jump of the hub",
            "clocks slewed",
            "void record",
        ],
    ),
    (
        "damage of the hub's store",
        &[
            "journal truncated",
            "journal lost",
            "tickets lost",
            "leases lost",
            "events lost",
            "restored from a backup",
            "damage: made anew",
            "damage: truncated",
            "damage: behind",
            "damage: restored",
            "damage told by an agent",
            "recovered into a new epoch",
            "leases lost and made anew",
            "ticket without a journal gets one",
            "put to the operator by a recovery",
            "told of a new epoch",
            "claim dropped in a new epoch",
            "ticket of an earlier epoch",
            "not vouched for",
            "answer not vouched for",
            "adopted again",
            "adopted anew",
            "adopted as the first record",
            "nobody reports it in the new epoch",
            "console begins anew",
        ],
    ),
    (
        "rules at work",
        &[
            "leases counted anew",
            "append refused",
            "lease refused",
            "lease taken",
            "found by a new agent",
            "paused",
            "gave back",
            "superseded",
            "fenced by a ruling",
            "overruled by the operator",
            "fenced itself",
            "too late to start",
            "waited for an earlier attempt",
            "cancel reached the machine",
            "process started",
            "purged",
            "client done",
            "own ticket deleted",
            "slept on a ticket",
            "ticket issued by the keeper",
            "ticket republished",
            "claimed first",
            "ticket before its record",
            "late end of an asked-about attempt",
            "console heals a gap",
            "somebody comes by a spooled dispatch",
            "spooled dispatch sent",
            "spooled dispatch was there already",
            "spool: batch stored",
            "spool: batch refused",
            "spool: hub had more than was noted",
            "spool: delivered again to an older hub",
            "spool: hub is further back than is kept",
        ],
    ),
    (
        "transitions",
        &[
            "ended fenced",
            "ended canceled",
            "ended unknown",
            "lost: ask",
            "lost: retry",
            "lost: end",
            "job.queued",
            "job.claimed",
            "job.ended",
            "job.cancel_requested",
            "job.canceled",
            "job.lost",
            "job.expired",
            "job.resolved",
            "job.restated",
            "job.recovered",
            "job.adopted",
            "is queued",
            "is running",
            "is backoff",
            "is needs_human",
            "is succeeded",
            "is failed",
            "is timed_out",
            "is canceled",
            "is lost",
            "is expired",
            "is rejected",
        ],
    ),
];

/// How often each happened.
pub fn print(hits: &BTreeMap<&'static str, u64>) {
    let expected = |what: &str| EXPECTED.iter().any(|(_, all)| all.contains(&what));
    for (kind, all) in EXPECTED {
        println!("{kind}:");
        for what in *all {
            println!("{:>12}  {what}", hits.get(what).copied().unwrap_or(0));
        }
    }
    for (what, n) in hits.iter().filter(|(what, _)| !expected(what)) {
        println!("{n:>12}  {what} (not asked for)");
    }
}

/// What never happened.
pub fn missing(hits: &BTreeMap<&'static str, u64>) -> Vec<&'static str> {
    let all = EXPECTED.iter().flat_map(|(_, all)| *all).copied();
    all.filter(|what| !hits.contains_key(what)).collect()
}
