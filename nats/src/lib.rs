//! The bus: fleet's contract on NATS JetStream. The only crate that names `async-nats`.
//!
//! Where to look: [`subject`] and [`streams`] say what is on the bus, [`bus`] holds the few
//! primitives everything is built on, [`tail`] reads in order. Above them, by what is on the wire:
//! [`journal`], [`work`] and [`pulls`] (jobs and their tickets), [`output`], [`owners`] and [`assemble`] (what jobs write),
//! [`registry`] and [`probe`] (machines and leases), [`stat`] (what machines count), [`flow`] (other
//! events), [`recording`] (all of it in a file). [`operate`] is what a person does to jobs, [`keeper`]
//! what the hub does when nobody else would, [`hub`] the nats-server itself, [`hub_stats`] what it
//! says of itself, [`guard`] watches over what it stores, [`backup`] copies it, [`connect`] is the way
//! to it.

mod acknowledge;
pub mod assemble;
pub mod backup;
pub mod bus;
pub mod clock;
pub mod connect;
pub mod decide;
mod files;
pub mod flow;
pub mod guard;
pub mod home;
pub mod hub;
pub mod hub_stats;
pub mod journal;
pub mod keeper;
pub mod lanes;
pub mod lockout;
pub mod operate;
pub mod output;
pub mod owners;
pub mod probe;
pub mod pulls;
pub mod recording;
pub mod registry;
pub mod stat;
pub mod streams;
pub mod subject;
pub mod tail;
#[cfg(feature = "testing")]
pub mod testing;
pub mod work;
