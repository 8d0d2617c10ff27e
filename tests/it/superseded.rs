//! Attempts that had run though another decision held: told, with all that is known of them, until
//! somebody says that they know.

use serde_json::Value;

use crate::fleet::{Gate, HubEnd, freeze, runs, thaw};
use crate::harness::{Fleet, eventually};

/// A line for a shell that says in the file `ran` who runs it, waits for the gate of its job and
/// machine, and ends with 3 on ada and 0 elsewhere.
fn script(gate: &Gate) -> String {
    format!(
        "echo \"$FLEET_JOB $FLEET_MACHINE $FLEET_FENCING_TOKEN $$\" >> {}; echo on $FLEET_MACHINE; \
         {}; test $FLEET_MACHINE != ada || exit 3",
        gate.file("ran").display(),
        gate.wait("$FLEET_JOB-$FLEET_MACHINE")
    )
}

/// What a job wrote about its attempt on a machine: its token and its process.
fn attempt(gate: &Gate, job: &str, machine: &str) -> (u64, u32) {
    let begins = format!("{job} {machine} ");
    let line = eventually(&format!("{job} runs on {machine}"), || {
        let lines = gate.lines("ran").into_iter();
        lines
            .filter(|line| line.split(' ').count() == 4)
            .find(|line| line.starts_with(&begins))
    });
    let mut words = line.split(' ').skip(2);
    let token = words.next().unwrap().parse().unwrap();
    (token, words.next().unwrap().parse().unwrap())
}

/// Waits until a job tells of a superseded attempt; the attempt.
fn told(fleet: &Fleet, id: &str) -> Value {
    eventually(&format!("{id} tells of an attempt"), || {
        let job = fleet.job(id);
        job["superseded"].as_array()?.first().cloned()
    })
}

/// The line of a job in `fleet jobs`.
fn listed(fleet: &Fleet, id: &str) -> String {
    let ran = fleet.run(&["jobs", "--plain"]);
    let line = ran.ok().lines().find(|line| line.contains(&id[..4]));
    line.unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

#[test]
fn a_frozen_machine_that_ran_on_is_told_of_until_somebody_acknowledges_it() {
    let mut fleet = Fleet::of(&[("ada", 4)]);
    let gate = Gate::new();
    let script = script(&gate);
    let job = |policy: &str| fleet.dispatch(&["--on-lost", policy, "--shell", "--", &script]);
    let (ended, running, asked) = (job("retry"), job("retry"), job("ask"));
    let refused = job("ask");
    let on_ada = [&ended, &running, &asked, &refused].map(|id| attempt(&gate, id, "ada"));
    let ada = (fleet.agents[0].process.pid(), fleet.agents[0].executor());
    // Its jobs run on: worse than a suspend, in which they would stand still as well.
    freeze(ada.0);
    freeze(ada.1);
    fleet.add_agent("bob", &["--slots", "3"]);
    fleet.until_lease_taken("ada");
    let on_bob = [&ended, &running].map(|id| attempt(&gate, id, "bob"));
    for (one, two) in on_ada.iter().zip(&on_bob) {
        assert!(one.0 < two.0, "tokens grow");
    }
    // Two end by themselves while nobody looks, and the second attempt of one as well; two are
    // canceled, as somebody has given the machine up.
    for (id, at) in [(&ended, 0), (&refused, 3)] {
        gate.open(&format!("{id}-ada"));
        eventually("it has ended on ada", || {
            (!runs(on_ada[at].1)).then_some(())
        });
    }
    gate.open(&format!("{ended}-bob"));
    assert_eq!(fleet.ended(&ended).0, 0);
    for id in [&asked, &refused] {
        fleet.until(id, "needs_human");
        fleet.run(&["cancel", "--yes", id]).ok();
    }
    assert_eq!(fleet.job(&ended)["superseded"], Value::Array(Vec::new()));
    assert!(runs(on_ada[1].1) && runs(on_ada[2].1));

    // The executor is awake, its agent is not: what others may have taken over ends at once.
    thaw(ada.1);
    eventually("it was ended on ada", || (!runs(on_ada[1].1)).then_some(()));
    assert!(runs(on_ada[2].1), "it asks before anything is done to it");
    thaw(ada.0);
    eventually("what was canceled is ended", || {
        (!runs(on_ada[2].1)).then_some(())
    });

    // The second attempt of one still runs while it is told of the first.
    let first = told(&fleet, &running);
    assert_eq!(first["reason"], "ended by its machine", "{first}");
    assert_eq!(fleet.job(&running)["state"], "running");
    gate.open(&format!("{running}-bob"));
    assert_eq!(fleet.ended(&running).0, 0, "it goes on over the remark");

    let first = told(&fleet, &ended);
    assert_eq!(
        (&first["attempt"], &first["machine"], &first["exit_code"]),
        (&1.into(), &"ada".into(), &3.into()),
        "{first}"
    );
    assert_eq!(first["token"], on_ada[0].0);
    assert!(first["started_at"].is_string() && first["ended_at"].is_string());
    let job = fleet.job(&ended);
    assert_eq!(
        (&job["state"], &job["exit_code"], &job["two_ran"]),
        (&"succeeded".into(), &0.into(), &true.into()),
        "{job}"
    );
    assert_eq!(job["attempts"][0]["exit_code"], Value::Null, "{job}");
    for (id, exit_code) in [(&asked, Value::Null), (&refused, 3.into())] {
        let only = told(&fleet, id);
        assert_eq!(only["exit_code"], exit_code, "{only}");
        let job = fleet.job(id);
        assert_eq!(
            (&job["state"], &job["two_ran"], &job["unacknowledged"]),
            (&"canceled".into(), &false.into(), &true.into()),
            "{job}"
        );
    }

    // Said wherever somebody looks, also by another keeper.
    fleet.without_hub(HubEnd::Killed, |_| {});
    for id in [&ended, &running, &asked, &refused] {
        assert_eq!(fleet.job(id)["unacknowledged"], true);
        let of_job = ["flow", "--kind", "job.superseded", "--job", id];
        assert_eq!(fleet.home.json_lines(&of_job).1.len(), 1, "told once");
    }
    assert!(listed(&fleet, &ended).contains("succeeded, two ran"));
    assert!(listed(&fleet, &asked).contains("canceled, had run on"));
    let shown = fleet.run(&["show", &ended]);
    for words in ["also ran", "attempt 1 on ada from", "exit 3", "fleet ack"] {
        assert!(shown.ok().contains(words), "{words}: {shown:?}");
    }
    let waited = fleet.run(&["wait", &ended]);
    assert_eq!(waited.code, 0, "{waited:?}");
    assert!(
        waited.err.contains("two attempts ran: attempt 1 on ada"),
        "{waited:?}"
    );

    let ran = fleet.run(&["ack", &ended]);
    assert!(
        ran.ok().contains("acknowledged: attempt 1 on ada"),
        "{ran:?}"
    );
    let job = fleet.job(&ended);
    assert_eq!(
        (&job["unacknowledged"], &job["two_ran"]),
        (&false.into(), &true.into())
    );
    assert!(job["superseded"][0]["acknowledged_by"].is_string(), "{job}");
    assert!(!listed(&fleet, &ended).contains("two ran"));
    assert_eq!(fleet.run(&["wait", &ended]).err, "");
    let ran = fleet.run(&["ack", &ended]);
    assert!(ran.ok().contains("nothing to acknowledge"), "{ran:?}");
    let ran = fleet.run(&["ack", "--all"]);
    assert_eq!(ran.ok().lines().count(), 3, "{ran:?}");
    let jobs = fleet.json(&["jobs"]);
    let mut jobs = jobs.as_array().unwrap().iter();
    assert!(jobs.all(|job| job["unacknowledged"] == false), "{jobs:?}");
    // What they wrote is there as well.
    let log = eventually("the whole log", || {
        let ran = fleet.run(&["logs", &ended]);
        let log = ran.ok().to_owned();
        (log.contains("on ada") && log.contains("on bob")).then_some(log)
    });
    assert_eq!(log.lines().count(), 2, "{log}");
}
