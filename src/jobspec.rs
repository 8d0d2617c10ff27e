//! What a person typed, as a job's specification.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use fleet_contract::spec::{JobSpec, STDIN_MAX_BYTES, SpecError, Target};

use crate::args::dispatch::World;
use crate::context::Context;
use crate::failure::Failure;
use crate::project::Project;
use crate::{clock, place};

/// A job of this command in this world, for this place. Not checked yet: see [`check`].
pub(crate) fn build(
    mut words: Vec<String>,
    world: &World,
    target: Target,
    cx: &Context,
) -> Result<JobSpec, Failure> {
    if world.shell {
        words = vec![words.join(" ")];
    }
    let mut spec = JobSpec::new(words, target, clock::now(), cx.environment.who());
    spec.shell = world.shell;
    spec.env = world.env.iter().cloned().collect();
    spec.timeout_ms = world.timeout.map(millis);
    spec.name.clone_from(&world.name);
    spec.tags = world.tags.iter().cloned().collect();
    spec.log_keep_bytes = cx.settings.size("log_keep");
    if let Some(path) = &world.stdin {
        spec.stdin = Some(stdin(path)?);
    }
    Ok(spec)
}

/// The folder of a job that is sent away, and what it is called on machines where the project it is
/// in lies elsewhere.
pub(crate) fn travel(spec: &mut JobSpec, cwd: &str, cx: &Context) -> Result<(), Failure> {
    spec.cwd = Some(place::travelling(cwd, &cx.environment)?);
    if let Some(folder) = place::local(cwd, &cx.environment)?
        && let Some(project) = Project::of(cx.environment.folder.as_deref())?
    {
        spec.cwd_on = project.elsewhere(&folder);
    }
    Ok(())
}

/// Checks every limit.
pub(crate) fn check(spec: &JobSpec) -> Result<(), Failure> {
    spec.validate().map_err(invalid)
}

/// A specification that cannot be a job.
pub(crate) fn invalid(error: SpecError) -> Failure {
    Failure::usage(error.to_string())
}

/// A span as it travels.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What the job reads, from a file or from this command's own standard input.
fn stdin(path: &Path) -> Result<Vec<u8>, Failure> {
    let failed =
        |e: std::io::Error| Failure::usage(format!("cannot read --stdin {}: {e}", path.display()));
    let limit = STDIN_MAX_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    if bytes.len() > STDIN_MAX_BYTES {
        return Err(Failure::usage(format!(
            "--stdin {} is over the limit of 8 MiB: put it in a file on the machine and name that",
            path.display()
        )));
    }
    Ok(bytes)
}
