//! The executor as its own process, with real jobs.
//!
//! The executor under test is this very test binary, started again with `FLEET_TEST_EXECUTOR`
//! set and only [`support::executor_process`] chosen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod endings;
mod life;
mod output;
mod support;
mod world;
