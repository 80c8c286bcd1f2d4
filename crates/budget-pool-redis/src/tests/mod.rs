//! Tests of what is private here: the rules, beside a naive sum of facts, beside the script on a real
//! server, and in every interleaving of small fleets.

#![allow(clippy::unwrap_used)]

mod facts;
mod histories;
mod journal;
mod model;
mod script;
#[path = "../../tests/support/server.rs"]
mod server;
