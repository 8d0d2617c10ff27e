//! One file for each verb.

pub(crate) mod ack;
pub(crate) mod agent;
pub(crate) mod backup;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod dispatch;
pub(crate) mod down;
pub(crate) mod executor;
pub(crate) mod explain;
pub(crate) mod flow;
pub(crate) mod hub;
pub(crate) mod jobs;
pub(crate) mod logs;
pub(crate) mod machines;
pub(crate) mod run;
pub(crate) mod show;
pub(crate) mod spool;
pub(crate) mod tui;
pub(crate) mod unsent;
pub(crate) mod up;
pub(crate) mod wait;
