//! Leaving and suspending where hub and agent run in the same process, as in `fleet up`: what ends
//! then is said before, and asked about while jobs run. A part of the model; no cells and no keys.

use fleet_contract::record::StateWord;

use crate::link::Phase;
use crate::model::{Cmd, Model};
use crate::text;

/// Why the terminal is not given to the shell there, and what to do instead.
pub(crate) const STAYS: &str =
    "hub and agent run in this process and would stop: fleet up --detach, fleet tui";

/// What is known of leaving.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leaving {
    /// Whether hub and agent run in this process, and end with the console.
    pub(crate) with_hub: bool,
    /// How to leave, once the person says so.
    pub(crate) asked: Option<Cmd>,
}

/// Leaves, or asks first: what is to be done outside.
pub(crate) fn leave(model: &mut Model, how: Cmd) -> Vec<Cmd> {
    if model.ui.leaving.with_hub && running(model).is_some() {
        model.ui.pending = None;
        model.ui.leaving.asked = Some(how);
        return Vec::new();
    }
    vec![how]
}

/// What runs, in words; none where nothing does.
fn running(model: &Model) -> Option<String> {
    let fleet = model.live();
    let running = fleet.count(StateWord::Running);
    match (running, model.phase()) {
        (0, Phase::Connecting | Phase::CatchingUp { .. }) => {
            Some("what runs is not known yet".to_owned())
        }
        (0, _) => None,
        (1, _) => Some("1 job runs".to_owned()),
        (n, _) => Some(format!("{} jobs run", text::thousands(n as u64))),
    }
}

/// What is asked, if anything is: the question, and what comes of a yes.
pub(crate) fn question(model: &Model) -> Option<[String; 2]> {
    model.ui.leaving.asked.as_ref()?;
    let running = running(model).unwrap_or_else(|| "no job runs any more".to_owned());
    Some([
        format!("{running}: end hub and agent? y/N"),
        "y waits for the jobs of this machine to end; Ctrl-c then ends them. fleet up --detach \
         runs without a console"
            .to_owned(),
    ])
}
