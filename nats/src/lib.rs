//! The bus: fleet's contract on NATS JetStream. The only crate that names `async-nats`.

pub mod assemble;
pub mod bus;
pub mod clock;
pub mod connect;
mod files;
pub mod flow;
pub mod home;
pub mod hub;
pub mod journal;
pub mod keeper;
pub mod operate;
pub mod output;
pub mod probe;
pub mod registry;
pub mod streams;
pub mod subject;
pub mod tail;
#[cfg(feature = "testing")]
pub mod testing;
pub mod work;
