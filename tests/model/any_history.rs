//! Histories that proptest makes up, each much about one thing.

use super::*;

#[test]
fn balances_are_those_of_the_model() {
    let meets = [
        "exceeded until a release",
        "exceeded for ever",
        "closed",
        "a pool has several parents",
        "carved",
        "of another tree",
        "an observer is told of a refusal",
        "an observer is told of overage",
        "an observer is told of a drop",
    ];
    compare_many(Much::Money, &meets);
}

#[test]
fn deadlines_are_those_of_the_model() {
    let meets = [
        "late",
        "paused beyond the deadline",
        "a pool has several parents",
        "a future is done",
        "a future is late",
        "a future is never polled",
        "a future ends with its pool",
    ];
    compare_many(Much::Deadlines, &meets);
}

#[test]
fn what_time_does_is_what_it_does_to_the_model() {
    let meets = [
        "exceeded until an instant",
        "expired",
        "another amount for a key",
        "too many keys",
        "some slots come back",
        "a calendar turns",
        "an overage is carried",
        "paused until an instant",
        "time frees more under a limit",
    ];
    compare_many(Much::Time, &meets);
}

#[test]
fn leases_are_those_of_the_model() {
    let meets = [
        "exceeded until a release",
        "exceeded for ever",
        "queued",
        "a lease spends from its share",
    ];
    compare_many(Much::Leases, &meets);
}

#[test]
fn who_waits_is_who_waits_in_the_model() {
    compare_many(
        Much::Waiting,
        &[
            "queued",
            "granted after a wait",
            "spent at once",
            "spent after a wait",
            "refused after a wait",
            "paused until an instant",
            "paused, and a release is to come",
            "one waits through a joint pool",
            "a window turns for one that waits",
            "a line is full",
        ],
    );
}

#[test]
fn what_an_ask_is_granted_is_what_it_is_in_the_model() {
    let meets = [
        "an ask is cut",
        "an ask is cut in part",
        "an ask is granted its second choice",
        "a total cuts the parts of an ask",
        "a wait is granted more than its least",
        "an expiry settles",
        "a wait gives up",
        "queued",
        "granted after a wait",
        "the time of a wait ends it",
    ];
    compare_many(Much::Asks, &meets);
}

#[test]
fn what_expires_in_crowds_is_what_expires_in_the_model() {
    let company = [
        "a crowd expires where one waits",
        "a crowd expires while one waits elsewhere",
        "a crowd expires beside a window",
        "an observer is told of an expiry",
    ];
    compare_many(Much::Crowds, &company);
}

#[test]
fn joint_pools_are_those_of_the_model() {
    let meets = [
        "a pool has several parents",
        "a share moves through a joint pool",
        "one waits through a joint pool",
        "closed",
    ];
    compare_many(Much::Joints, &meets);
}

#[test]
fn caps_that_move_are_those_of_the_model() {
    let meets = [
        "exceeded until funding",
        "a wait is funded",
        "a cap falls",
        "a cap has come down",
        "a transfer between carved siblings",
        "no cap to move",
        "of another tree",
    ];
    compare_many(Much::Caps, &meets);
}

#[test]
fn who_watches_is_told_what_the_model_says() {
    let meets = [
        "a level is there",
        "a level is reached",
        "a want is there",
        "a want is told",
        "a want of a refused call is told",
        "a want of one that waits is told",
        "a want of what is low is told",
        "exceeded until funding",
        "a wait is funded",
    ];
    compare_many(Much::Watches, &meets);
}

#[test]
fn tenants_are_those_of_the_model() {
    let meets = [
        "a tenant is evicted",
        "a tenant stays",
        "time makes a tenant idle",
        "a tenant comes back",
    ];
    compare_many(Much::Tenants, &meets);
}

#[test]
fn what_is_settled_and_taken_back_is_what_it_is_in_the_model() {
    let meets = [
        "a commit takes back overage",
        "a commit takes back what was used",
        "a credit goes through a carve",
        "a credit ends at a period above",
        "a hold is committed",
        "a hold is released",
        "a hold expires",
        "a drop settles",
        "two holds become one",
        "a debit whose key is known",
    ];
    compare_many(Much::Settling, &meets);
}
