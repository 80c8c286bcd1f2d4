//! Each public type can be shared between threads and moved: a type that is not on the list is
//! found by `data/surface.txt`, which `.ci/surface` of the workspace records.

use std::collections::BTreeSet;
use std::panic::{RefUnwindSafe, UnwindSafe};

use budget_pool_redis::*;

fn shared<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe>() {}

macro_rules! all_are {
    ($check:ident: $($type:ty),* $(,)?) => {
        [$({ $check::<$type>(); stringify!($type) }),*]
    };
}

#[test]
fn each_public_type_can_be_shared_and_moved() {
    let listed = all_are!(
        shared: Admin, Confirm, Fleet, FleetAxis, FleetBuilder, FleetError, FleetMember, FleetSnapshot,
        JournalFault, Lost, Settled, Status, blocking::Fleet,
    );
    let name = |listed: &'static str| listed.split(['<', ' ']).next().expect("a name");
    let listed: BTreeSet<&str> = listed.into_iter().map(name).collect();
    let is_type = |line: &&str| line.contains(" struct ") || line.contains(" enum ");
    let record = include_str!("data/surface.txt").lines().filter(is_type);
    let types: BTreeSet<&str> = record.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(listed, types);
}
