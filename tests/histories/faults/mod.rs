//! What is done to the worlds of machines: each file one way to hurt, and how it is taken back.

pub(crate) mod clock;
pub(crate) mod disk;
pub(crate) mod link;
pub(crate) mod process;
pub(crate) mod proxy;
