//! Values of flags.

#[path = "../../../src/args/parse.rs"]
#[allow(dead_code, reason = "the command line uses the rest of it")]
pub(crate) mod parse;
