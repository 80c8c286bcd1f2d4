//! What an operator does to a wallet as a whole.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use budget_pool::Caps;
use budget_pool_redis::{Admin, FleetError};
use common::{figures, founding, kept, key, quick, tokens, until};
use server::Server;

#[tokio::test]
async fn a_wallet_is_removed_once_nobody_lives_in_it() {
    let server = Server::start();
    let admin = Admin::new("acme", server.client());
    let error = admin.remove().await.unwrap_err();
    assert!(matches!(error, FleetError::NoWallet { .. }), "{error:?}");

    let one = founding(1_000).join(server.client()).await.unwrap();
    let two = founding(1_000).join(server.client()).await.unwrap();
    one.record(tokens(300)).await.unwrap();
    let error = admin.remove().await.unwrap_err();
    assert_eq!(error.to_string(), "the wallet `acme` is in use by 2 processes");
    assert_eq!(error.retry_after(), None);
    one.record(tokens(300)).await.unwrap();
    one.leave().await.unwrap();
    let error = admin.remove().await.unwrap_err();
    assert!(matches!(error, FleetError::InUse { members: 1, .. }), "{error:?}");
    two.leave().await.unwrap();
    server.command(&["SET", "bp1:{other}:w", "a key of another wallet"]);
    admin.remove().await.unwrap();
    assert_eq!(kept(&server).into_keys().collect::<Vec<_>>(), ["bp1:{other}:w"]);

    let other = quick("acme").found(Caps::new().tokens(50)).join(server.client()).await.unwrap();
    other.record(tokens(50)).await.unwrap();
    assert!(other.record(tokens(1)).await.is_err());
}

#[tokio::test]
async fn a_member_that_was_killed_does_not_keep_its_wallet() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let client = server.client();
    let fleet = runtime.spawn(async move { founding(1_000).join(client).await.unwrap() });
    let fleet = fleet.await.unwrap();
    let admin = fleet.admin();
    // As `kill -9` does, the driver ends without a farewell.
    runtime.shutdown_background();
    let error = admin.remove().await.unwrap_err();
    assert!(matches!(error, FleetError::InUse { .. }), "{error:?}");
    until("the member is lost", || async { admin.remove().await.is_ok() }).await;
    drop(fleet);
}

#[tokio::test]
async fn a_wallet_in_use_is_removed_only_by_name_and_a_damaged_one_too() {
    let server = Server::start();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    fleet.record(tokens(300)).await.unwrap();
    fleet.settle().await.unwrap();
    server.command(&["DEL", &key("m")]);
    let error = admin.snapshot().await.unwrap_err();
    assert!(matches!(error, FleetError::Damaged { .. }), "{error:?}");
    admin.remove_in_use().await.unwrap();
    assert!(kept(&server).is_empty());
    let error = fleet.settle().await.unwrap_err();
    assert!(matches!(error, FleetError::NoWallet { .. }), "{error:?}");

    // A member of the old wallet tells its totals to the new one.
    let new = founding(1_000).join(server.client()).await.unwrap();
    until("it tells them", || async { fleet.settle().await.is_ok() }).await;
    assert_eq!(figures(&new.admin()).await.0, 300);
}
