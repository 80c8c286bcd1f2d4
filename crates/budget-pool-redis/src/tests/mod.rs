//! Tests of what is private here: the rules, beside a naive sum of facts, beside the script on a real
//! server, and in every interleaving of small fleets; clocks that jump, and answers that are garbage.

#![allow(clippy::unwrap_used)]

mod clock;
mod facts;
mod garbage;
mod histories;
mod journal;
mod model;
mod script;
#[path = "../../tests/support/server.rs"]
mod server;
