//! What the tests of fleets share.

#![allow(dead_code)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, BudgetError, Caps};
use budget_pool_redis::{Admin, Fleet, FleetBuilder, FleetError};

use super::server::Server;

pub const TTL: Duration = Duration::from_millis(600);

/// The keys of the wallet `acme`.
pub const PARTS: [&str; 7] = ["w", "m", "x", "t", "y", "s", "k"];

pub fn key(part: &str) -> String {
    format!("bp1:{{acme}}:{part}")
}

pub fn tokens(units: u64) -> Amount {
    Amount::new().tokens(units)
}

pub fn quick(wallet: &str) -> FleetBuilder {
    let short = Duration::from_millis(50);
    Fleet::builder(wallet).settle_every(short).horizon(short).ttl(TTL)
}

pub fn founding(cap: u64) -> FleetBuilder {
    quick("acme").found(Caps::new().tokens(cap))
}

/// The caps of an operator's call, in tokens.
pub fn caps(units: u64) -> Caps {
    Caps::new().tokens(units)
}

pub async fn cap(admin: &Admin) -> u64 {
    admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap().cap.units()
}

pub async fn figures(admin: &Admin) -> (u64, u64, u64) {
    let axis = admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    (axis.used.units(), axis.held.units(), axis.free.units())
}

/// Until it is so, or fifteen seconds have passed.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl FnMut() -> F) {
    until_within(Duration::from_secs(15), what, is_so).await;
}

pub async fn until_within<F: Future<Output = bool>>(
    time: Duration,
    what: &str,
    mut is_so: impl FnMut() -> F,
) {
    let end = Instant::now() + time;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Spends one by one until the fleet has nothing left for a while.
pub async fn spend_all(fleet: &Fleet) -> u64 {
    let (mut spent, mut last) = (0, Instant::now());
    while last.elapsed() < Duration::from_secs(2) {
        match fleet.record(tokens(1)).await {
            Ok(()) => (spent, last) = (spent + 1, Instant::now()),
            Err(FleetError::Budget(BudgetError::Exceeded(_))) => break,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    spent
}

/// All that the server keeps under each key, as it would save it. The claims are left out: they name
/// instants.
pub fn kept(server: &Server) -> BTreeMap<String, redis::Value> {
    let keys = server.command(&["KEYS", "*"]);
    let keys: Vec<String> = redis::from_redis_value(keys).unwrap();
    let keys = keys.into_iter().filter(|name| *name != key("s"));
    keys.map(|name| (name.clone(), server.command(&["DUMP", &name]))).collect()
}
