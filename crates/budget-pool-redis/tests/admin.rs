//! What an operator does to a wallet as a whole.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::time::Duration;

use budget_pool::{Axis, Caps};
use budget_pool_redis::{Admin, FleetError};
use common::{cap, caps, figures, founding, kept, key, quick, spend_all, tokens, until};
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

/// Each reads nothing and names its difference, so none writes over the raise of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_who_raise_and_lower_at_once_lose_nothing() {
    let server = Server::start();
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    let operator = |index: u64| {
        let admin = Admin::new("acme", server.client());
        tokio::spawn(async move {
            for turn in 0..20 {
                let (key, more) = (format!("raise {index} {turn}"), caps(10 + index));
                admin.raise(&key, more).await.unwrap();
                admin.lower(&format!("lower {index} {turn}"), caps(1)).await.unwrap();
            }
        })
    };
    for operator in [0, 1, 2].map(operator) {
        operator.await.unwrap();
    }
    assert_eq!(cap(&Admin::new("acme", server.client())).await, 1_000 + 20 * (9 + 10 + 11));
}

#[tokio::test]
async fn a_key_is_booked_once_and_stands_for_one_change() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    let first = admin.raise("ticket 1", caps(500)).await.unwrap();
    assert_eq!(first.axis(Axis::Tokens).unwrap().cap.units(), 1_500);
    // The member hears of the cap at its next exchange.
    fleet.settle().await.unwrap();
    fleet.record(tokens(1_200)).await.unwrap();
    fleet.settle().await.unwrap();
    admin.lower("ticket 2", caps(100)).await.unwrap();
    // The answer is that of its own instant.
    let again = admin.raise("ticket 1", caps(500)).await.unwrap().axis(Axis::Tokens).unwrap();
    assert_eq!((again.cap.units(), again.used.units()), (1_400, 1_200));

    let before = kept_of_operators(&server);
    let conflicts = [
        admin.raise("ticket 1", caps(501)).await.unwrap_err(),
        admin.lower("ticket 1", caps(500)).await.unwrap_err(),
        admin.raise("ticket 1", Caps::new()).await.unwrap_err(),
    ];
    for error in conflicts {
        assert!(matches!(&error, FleetError::KeyConflict { key, .. } if key == "ticket 1"));
        let text = r#"the key "ticket 1" of the wallet `acme` stands for another change"#;
        assert_eq!(error.to_string(), text);
    }
    assert_eq!(kept_of_operators(&server), before);
    // The founding is that of the wallet all the same, and its keys end with it.
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    fleet.leave().await.unwrap();
    admin.remove().await.unwrap();
    assert!(kept(&server).is_empty());
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    admin.raise("ticket 1", caps(7)).await.unwrap();
    assert_eq!(cap(&admin).await, 1_007);
}

/// What a call of an operator may change, and the driver of a member does not.
fn kept_of_operators(server: &Server) -> Vec<redis::Value> {
    let fields =
        ["c1", "c2", "keys", "keys_end"].map(|name| server.command(&["HGET", &key("w"), name]));
    fields.into_iter().chain([server.command(&["HGETALL", &key("k")])]).collect()
}

#[tokio::test]
async fn a_change_that_is_refused_changes_no_axis() {
    const MOST: u64 = (1 << 53) - 1;
    let server = Server::start();
    let admin = Admin::new("acme", server.client());
    for error in [admin.raise("1", caps(5)).await, admin.lower("1", caps(5)).await] {
        assert!(matches!(error, Err(FleetError::NoWallet { .. })), "{error:?}");
    }
    let two = Caps::new().tokens(1_000).with(Axis::custom(2, "tool calls"), 10);
    quick("acme").found(two).join(server.client()).await.unwrap().leave().await.unwrap();
    let both = |tokens, calls| Caps::new().tokens(tokens).with(Axis::custom(2, "any"), calls);
    admin.raise("0", both(1, 1)).await.unwrap();
    let before = kept(&server);
    let most = MOST - 1_001;
    for (what, error) in [
        ("another axis", admin.raise("1", caps(5).requests(5)).await),
        ("another axis", admin.lower("1", caps(5).requests(0)).await),
        ("a figure", admin.raise("1", caps(MOST + 1)).await),
        ("a figure", admin.lower("1", both(0, u64::MAX)).await),
        ("a cap", admin.raise("1", caps(most + 1)).await),
        ("a cap", admin.raise("1", both(5, MOST - 10)).await),
        ("below zero", admin.lower("1", caps(1_002)).await),
        ("below zero", admin.lower("1", both(5, MOST)).await),
    ] {
        let error = error.unwrap_err();
        let is_it = match what {
            "another axis" => matches!(error, FleetError::OtherAxes { .. }),
            "below zero" => matches!(error, FleetError::BelowZero { .. }),
            _ => matches!(error, FleetError::Range { .. }),
        };
        assert!(is_it, "{what}: {error:?}");
        assert_eq!(kept(&server), before, "{what}");
    }
    let error = admin.lower("1", both(1_001, 12)).await.unwrap_err();
    let FleetError::BelowZero { axis, requested, cap, .. } = &error else { panic!("{error:?}") };
    assert_eq!((axis.as_str(), *requested, *cap), ("custom 2", 12, 11));
    let text = "the wallet `acme` cannot lower its cap 11 custom 2 by 12 custom 2";
    assert_eq!(error.to_string(), text);
    // A refused key stands for nothing, and any text is one.
    admin.raise("1", both(most, 0)).await.unwrap();
    for (key, caps) in [("", both(MOST, 0)), ("two\nlines\0", both(0, 11))] {
        admin.lower(key, caps).await.unwrap();
        admin.lower(key, caps).await.unwrap();
    }
    let snapshot = admin.snapshot().await.unwrap();
    assert!(snapshot.axes.iter().all(|axis| axis.cap.units() == 0), "{snapshot:?}");
}

#[tokio::test]
async fn a_cap_that_is_lowered_below_the_charged_units_grants_nothing() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    fleet.record(tokens(600)).await.unwrap();
    fleet.settle().await.unwrap();
    let admin = fleet.admin();
    let axis = admin.lower("less", caps(500)).await.unwrap().axis(Axis::Tokens).unwrap();
    assert_eq!((axis.cap.units(), axis.free.units()), (500, 0));
    assert!(axis.overage.units() >= 100, "{axis:?}");
    let spent = 600 + spend_all(&fleet).await;
    admin.raise("more", caps(1_000)).await.unwrap();
    until("the raise is granted", || async { fleet.record(tokens(1)).await.is_ok() }).await;
    assert_eq!(spent + 1 + spend_all(&fleet).await, 1_500);
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_500, 0, 0));
}

#[tokio::test]
async fn the_keys_of_a_day_are_bounded_and_then_forgotten() {
    let server = Server::start();
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    let admin = Admin::new("acme", server.client());
    admin.raise("key 0", caps(1)).await.unwrap();
    // As if 1,023 more had come a minute later.
    let now: Vec<u64> = redis::from_redis_value(server.command(&["TIME"])).unwrap();
    let day = 24 * 60 * 60;
    let (first, last) = ((now[0] + day - 60) * 1_000, (now[0] + day) * 1_000);
    server.command(&["HSET", &key("k"), "key 0", &format!("{first} raise 1")]);
    for index in 1..1_024 {
        server.command(&["HSET", &key("k"), &format!("key {index}"), &format!("{last} raise 1")]);
    }
    server.command(&["HSET", &key("w"), "keys", "1024", "keys_end", &last.to_string()]);
    let error = admin.lower("one more", caps(1)).await.unwrap_err();
    let wait = error.retry_after().unwrap();
    assert!(matches!(error, FleetError::KeysFull { .. }), "{error:?}");
    assert!((day - 75..=day - 60).contains(&wait.as_secs()), "{wait:?}");
    let text = format!("the wallet `acme` has no room for another key for {wait:?}");
    assert_eq!(error.to_string(), text);
    admin.raise("key 1023", caps(1)).await.unwrap();
    assert_eq!(cap(&admin).await, 1_001);

    server.command(&["HSET", &key("k"), "key 0", &format!("{} raise 1", now[0] * 1_000)]);
    admin.raise("key 0", caps(5)).await.unwrap();
    assert_eq!(cap(&admin).await, 1_006);
    assert_eq!(server.command(&["HLEN", &key("k")]), redis::Value::Int(1_024));
}

/// Without its keys a wallet would make a change twice: `set_caps` makes one meanwhile.
#[tokio::test]
async fn keys_that_are_evicted_stop_the_changes_until_all_would_be_forgotten() {
    let server = Server::start();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    admin.raise("ticket 1", caps(5)).await.unwrap();
    for garbage in [None, Some("HSET"), Some("SET")] {
        server.command(&["DEL", &key("k")]);
        match garbage {
            Some("HSET") => drop(server.command(&["HSET", &key("k"), "ticket 1", "garbage"])),
            Some(_) => drop(server.command(&["SET", &key("k"), "a text"])),
            None => {}
        }
        for known in ["ticket 1", "ticket 2"] {
            let error = admin.raise(known, caps(5)).await.unwrap_err();
            let is_it = match garbage {
                Some("SET") => matches!(error, FleetError::Store { .. }),
                _ => matches!(error, FleetError::Damaged { .. }),
            };
            assert!(is_it, "{garbage:?}: {error:?}");
        }
        // The members go on.
        fleet.record(tokens(10)).await.unwrap();
        fleet.settle().await.unwrap();
    }
    assert_eq!(cap(&admin).await, 1_005);
    admin.set_caps(caps(1_010)).await.unwrap();
    server.command(&["DEL", &key("k")]);
    let now: Vec<u64> = redis::from_redis_value(server.command(&["TIME"])).unwrap();
    server.command(&["HSET", &key("w"), "keys_end", &(now[0] * 1_000).to_string()]);
    admin.raise("ticket 2", caps(5)).await.unwrap();
    admin.raise("ticket 2", caps(5)).await.unwrap();
    assert_eq!(cap(&admin).await, 1_015);
}

/// A version that remembers no keys leaves them behind when it removes a wallet, and founds the next
/// one without their number.
#[tokio::test]
async fn keys_of_an_older_wallet_of_the_name_count_for_nothing() {
    let server = Server::start();
    let admin = Admin::new("acme", server.client());
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    admin.raise("ticket 1", caps(5)).await.unwrap();
    server.command(&["HDEL", &key("w"), "keys", "keys_end"]);
    admin.raise("ticket 1", caps(6)).await.unwrap();
    admin.raise("ticket 2", caps(7)).await.unwrap();
    admin.raise("ticket 1", caps(6)).await.unwrap();
    assert_eq!(cap(&admin).await, 1_005 + 6 + 7);
}
