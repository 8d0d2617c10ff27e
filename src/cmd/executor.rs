//! `fleet executor`: the parent of this machine's jobs, and `fleet login-env`, which asks the
//! login shell for its variables. The agent starts both; people need neither.

use fleet_agent::executor::{ExecutorError, ExecutorOptions, serve_blocking};

use crate::args::Executor;
use crate::failure::{Failure, Outcome};

/// Serves until it is told to end or has nothing to do.
pub(crate) fn run(args: &Executor) -> Outcome {
    match serve_blocking(ExecutorOptions::new(args.home.clone())) {
        Ok(()) => Ok(0),
        Err(error @ ExecutorError::Busy(_)) => Err(Failure::config(error.to_string())),
        Err(error) => Err(Failure::internal(error.to_string())),
    }
}

/// Prints what the login shell gives.
pub(crate) fn login_env() -> Outcome {
    fleet_agent::world::print_login_env()?;
    Ok(0)
}
