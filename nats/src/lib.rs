//! The bus: fleet's contract on NATS JetStream. The only crate that names `async-nats`.

pub mod connect;
mod files;
pub mod home;
pub mod hub;
#[cfg(feature = "testing")]
pub mod testing;
