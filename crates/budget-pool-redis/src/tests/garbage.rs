//! A server that answers what no script of this package answers.

use budget_pool::Axis;
use proptest::prelude::*;
use redis::Value;

use crate::FleetError;
use crate::script::Words;

fn word() -> impl Strategy<Value = String> {
    let known = [
        "wallet",
        "members",
        "granted",
        "short 0",
        "short 9",
        "learning",
        "gone",
        "closed",
        "no_wallet",
        "version",
        "damaged",
        "in_use",
        "key_conflict",
        "keys_full",
        "below_zero",
        "charge",
        "return",
        "tokens",
        "tokens custom3",
        "custom9",
        "-1",
        "0",
        "1 2 3 4",
        "1 2 3",
        "18446744073709551615",
        "18446744073709551616",
        "",
    ];
    prop_oneof![8 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned), 1 => ".*"]
}

fn value() -> impl Strategy<Value = Value> {
    let text = word().prop_map(|word| Value::BulkString(word.into_bytes()));
    let other = prop_oneof![
        Just(Value::Nil),
        any::<i64>().prop_map(Value::Int),
        Just(Value::Okay),
        Just(Value::BulkString(vec![0xff, 0xfe])),
        Just(Value::Array(vec![])),
    ];
    prop_oneof![20 => text, 1 => other]
}

fn is_an_error(error: FleetError) -> bool {
    use FleetError::{
        BelowZero, Damaged, InUse, KeyConflict, KeysFull, NoWallet, Unreachable, Version,
    };
    let is_of_keys = matches!(error, BelowZero { .. } | KeyConflict { .. } | KeysFull { .. });
    is_of_keys
        || matches!(
            error,
            Damaged { .. } | InUse { .. } | NoWallet { .. } | Unreachable { .. } | Version { .. }
        )
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_no_panic(all in proptest::collection::vec(value(), 0..24)) {
        match Words::read("acme", Ok(Value::Array(all))) {
            Err(error) => prop_assert!(is_an_error(error)),
            Ok(words) => {
                for axes in 0..3 {
                    let errors = [
                        words.answer(axes).err(),
                        words.members(axes).err(),
                        words.look(&[Axis::Tokens]).err(),
                    ];
                    // No answer is one of two kinds.
                    prop_assert!(errors.iter().flatten().count() >= 2);
                    prop_assert!(errors.into_iter().flatten().all(is_an_error));
                }
            }
        }
    }
}

#[test]
fn a_list_of_members_that_ends_too_early() {
    for words in [&["members"][..], &["members", "5", "m"], &["members", "5", "m", "1 2"]] {
        let words = words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect();
        let words = Words::read("acme", Ok(Value::Array(words))).unwrap();
        assert!(matches!(words.members(1), Err(FleetError::Damaged { .. })));
    }
}
