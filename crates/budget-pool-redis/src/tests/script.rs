//! The script on a real server beside the rules, field by field. The instant of each step is the one
//! that the server's answer names, so time passes as it does.

use std::collections::BTreeMap;
use std::time::Duration;

use budget_pool::Axis;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Commands, Connection, Value};

use super::histories::{Step, steps};
use super::server::Server;
use crate::protocol::{Book, Change, Lost, REMEMBERED, State, Totals, Way};
use crate::rules::{MOST_KEYS, Made, Record, Refusal, Tombstone, Wallet};
use crate::script::{Axes, Call, Keys, SOURCE, Words, refusal};

struct Store {
    connection: Connection,
    keys: Keys,
    axes: Axes,
    script: redis::Script,
}

impl Store {
    fn new(server: &Server, wallet: &str) -> Store {
        let connection = server.client().get_connection().unwrap();
        let axes = Axes(vec![Axis::Tokens, Axis::Custom(custom())]);
        Store {
            connection,
            keys: Keys::new(wallet).unwrap(),
            axes,
            script: redis::Script::new(SOURCE),
        }
    }

    fn call(&mut self, call: &Call) -> Result<Words, crate::FleetError> {
        let mut invocation = self.script.prepare_invoke();
        self.keys.all().iter().for_each(|key| {
            invocation.key(key);
        });
        call.0.iter().for_each(|argument| {
            invocation.arg(argument);
        });
        let reply: redis::RedisResult<Value> = invocation.invoke(&mut self.connection);
        Words::read("test", reply)
    }

    /// Reads the keys into the [`Wallet`] that the rules would hold.
    fn dump(&mut self) -> Wallet {
        let [wallet, members, expiry, tombs, ends, claims, changes] = self.keys.all() else {
            panic!()
        };
        let connection = &mut self.connection;
        let wallet: BTreeMap<String, String> = connection.hgetall(wallet).unwrap();
        let number = |field: &str| wallet[field].parse::<u64>().unwrap();
        let book = |axis: usize| Book {
            founded: number(&format!("f{axis}")),
            cap: number(&format!("c{axis}")),
            charged: number(&format!("h{axis}")),
            used: number(&format!("u{axis}")),
        };
        let numbers = |packed: &str| -> Vec<u64> {
            packed.split(' ').map(|word| word.parse().unwrap()).collect()
        };
        let records: BTreeMap<String, String> = connection.hgetall(members).unwrap();
        let record = |packed: &String| {
            let all = numbers(packed);
            let totals =
                |part: &[u64]| Totals { granted: part[0], returned: part[1], spent: part[2] };
            Record { expires: all[0], totals: all[1..].chunks(3).map(totals).collect() }
        };
        let members: BTreeMap<String, Record> =
            records.iter().map(|(id, packed)| (id.clone(), record(packed))).collect();
        let scores = |all: Vec<(String, u64)>| all.into_iter().collect::<BTreeMap<_, _>>();
        let expires = scores(connection.zrange_withscores(expiry, 0, -1).unwrap());
        let kept = members.iter().map(|(id, record)| (id.clone(), record.expires)).collect();
        assert_eq!(expires, kept, "the index of the expiries");
        let packed: BTreeMap<String, String> = connection.hgetall(tombs).unwrap();
        let ends = scores(connection.zrange_withscores(ends, 0, -1).unwrap());
        let tombstones = packed
            .iter()
            .map(|(id, spent)| (id.clone(), Tombstone { until: ends[id], spent: numbers(spent) }))
            .collect();
        let counts = [members.len() as u64, packed.len() as u64];
        assert_eq!([number("members"), number("tombs")], counts);
        let packed: BTreeMap<String, String> = connection.hgetall(changes).unwrap();
        let made = |(key, packed): (&String, &String)| (key.clone(), made(packed));
        let changes: BTreeMap<String, Made> = packed.iter().map(made).collect();
        let count = |field: &str| wallet.get(field).map_or(0, |text| text.parse::<u64>().unwrap());
        assert_eq!(count("keys"), changes.len() as u64);
        assert_eq!(count("keys_end"), changes.values().map(|made| made.until).max().unwrap_or(0));
        Wallet {
            lost: if wallet["lost"] == "return" { Lost::Return } else { Lost::Charge },
            period: number("period"),
            period_end: number("pend"),
            run: wallet["run"].clone(),
            learn_until: number("learn"),
            ttl: number("ttl"),
            books: (1..=2).map(book).collect(),
            members,
            tombstones,
            claims: scores(connection.zrange_withscores(claims, 0, -1).unwrap()),
            changes,
        }
    }

    /// As [`Wallet::age_keys`] does.
    fn age_keys(&mut self) {
        let earlier = |until: u64| until.saturating_sub(REMEMBERED / 2);
        let [wallet, .., changes] = self.keys.all() else { panic!() };
        let packed: BTreeMap<String, String> = self.connection.hgetall(changes).unwrap();
        for (key, packed) in packed {
            let (until, change) = packed.split_once(' ').unwrap();
            let packed = format!("{} {change}", earlier(until.parse().unwrap()));
            let () = self.connection.hset(changes, key, packed).unwrap();
        }
        let last: Option<u64> = self.connection.hget(wallet, "keys_end").unwrap();
        if let Some(last) = last {
            let () = self.connection.hset(wallet, "keys_end", earlier(last)).unwrap();
        }
    }
}

fn made(packed: &str) -> Made {
    let words: Vec<&str> = packed.split(' ').collect();
    let [until, way, units @ ..] = &words[..] else { panic!() };
    let way = if *way == "raise" { Way::Raise } else { Way::Lower };
    let units = units.iter().map(|units| units.parse().unwrap()).collect();
    Made { until: until.parse().unwrap(), change: Change { way, units } }
}

fn custom() -> budget_pool::CustomAxis {
    match Axis::custom(2, "tool calls") {
        Axis::Custom(custom) => custom,
        _ => unreachable!(),
    }
}

#[derive(Debug, Default)]
struct Seen {
    granted: u32,
    short: u32,
    learning: u32,
    gone: u32,
    closed: u32,
    refused: u32,
    expired: u32,
    changed: u32,
    repeated: u32,
    conflicts: u32,
    below_zero: u32,
}

fn run(server: &Server, lost: Lost, period: u64, steps: &[Step], seen: &mut Seen) {
    server.command(&["FLUSHALL"]);
    let mut store = Store::new(server, "side by side");
    let axes = store.axes.clone();
    let found = Call::found(&axes, &[100, 60], lost, period, "run 1");
    let look = store.call(&found).unwrap().look(&axes.0).unwrap();
    let mut wallet = Wallet::found(&[100, 60], lost, period, "run 1", look.now);
    assert_eq!((&look.axes, look.lost, look.period), (&axes, lost, period));
    assert_eq!(store.dump(), wallet);
    for step in steps {
        let before = server_time(&mut store.connection);
        match step {
            Step::Wait(time) => std::thread::sleep(Duration::from_millis(*time)),
            Step::SetCap { axis, cap } => {
                let mut caps = [None; 2];
                caps[*axis] = Some(*cap);
                let look = store.call(&Call::caps(&axes, &caps)).unwrap().look(&axes.0).unwrap();
                wallet.books[*axis].cap = *cap;
                wallet.turn(look.now);
                assert_eq!(look.books, wallet.books);
            }
            Step::AgeKeys => {
                store.age_keys();
                wallet.age_keys();
            }
            Step::Change { key, change } => {
                let is_known = |wallet: &Wallet, now| {
                    wallet.changes.get(key).is_some_and(|made| made.until > now)
                };
                match store.call(&Call::change(&axes, key, change)) {
                    Err(error) => {
                        let mut instants = before..=server_time(&mut store.connection);
                        let same = |now| wallet.clone().change(now, key, change).err();
                        let refused = refusal(&error).unwrap();
                        assert!(instants.any(|now| same(now) == Some(refused)), "{error}");
                        seen.conflicts += u32::from(refused == Refusal::KeyConflict);
                        let is_below_zero = matches!(refused, Refusal::BelowZero { .. });
                        seen.below_zero += u32::from(is_below_zero);
                    }
                    Ok(words) => {
                        let look = words.look(&axes.0).unwrap();
                        let is_known = is_known(&wallet, look.now);
                        wallet.change(look.now, key, change).unwrap();
                        assert_eq!(look.books, wallet.books);
                        seen.repeated += u32::from(is_known);
                        seen.changed += u32::from(!is_known);
                    }
                }
            }
            Step::Resolve { member, spent } => {
                let figures = match spent {
                    Some(spent) => spent.iter().map(|units| Some(*units)).collect(),
                    None => vec![None; 2],
                };
                match store.call(&Call::resolve(&axes, member, &figures)) {
                    Err(error) => {
                        let mut instants = before..=server_time(&mut store.connection);
                        let same =
                            |now| wallet.clone().resolve(now, member, spent.as_deref()).err();
                        let refused = refusal(&error).unwrap();
                        assert!(instants.any(|now| same(now) == Some(refused)), "{error}");
                    }
                    Ok(words) => {
                        let look = words.look(&axes.0).unwrap();
                        wallet.resolve(look.now, member, spent.as_deref()).unwrap();
                        assert_eq!(look.books, wallet.books);
                    }
                }
            }
            Step::Exchange(request) => match store.call(&Call::exchange(&axes, request)) {
                Err(error) => {
                    // A period may end between the refusal and the look at the clock.
                    let mut instants = before..=server_time(&mut store.connection);
                    let same = |now| wallet.clone().exchange(now, request).err();
                    let refused = refusal(&error).unwrap();
                    assert!(instants.any(|now| same(now) == Some(refused)), "{error}");
                    seen.refused += 1;
                }
                Ok(words) => {
                    let answer = words.answer(2).unwrap();
                    let members = wallet.members.len();
                    assert_eq!(wallet.exchange(answer.now, request).unwrap(), answer);
                    match answer.state {
                        State::Granted => seen.granted += 1,
                        State::Short(_) => seen.short += 1,
                        State::Learning => seen.learning += 1,
                        State::Gone => seen.gone += 1,
                        State::Closed => seen.closed += 1,
                    }
                    let is_closed = answer.state == State::Closed;
                    seen.expired += u32::from(!is_closed && wallet.members.len() < members);
                }
            },
        }
        assert_eq!(store.dump(), wallet);
    }
}

fn server_time(connection: &mut Connection) -> u64 {
    let (seconds, micros): (u64, u64) = redis::cmd("TIME").query(connection).unwrap();
    seconds * 1_000 + micros / 1_000
}

/// The part of a key that a cluster takes the slot from.
fn tag(key: &str) -> &str {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    tag.map_or(key, |(tag, _)| if tag.is_empty() { key } else { tag })
}

#[test]
fn the_keys_of_a_wallet_lie_in_one_slot_whatever_its_name() {
    for name in ["acme", "{", "{}", "a}", "a}{b}", "{a}", " ", "ü"] {
        let keys = Keys::in_escrow(name, "escrowmint").unwrap();
        assert!(keys.all().iter().all(|key| tag(key) == tag(&keys.all()[0])), "{keys:?}");
    }
    for name in ["", "}", "}a", "}{a}"] {
        assert!(Keys::new(name).is_err() && Keys::in_escrow(name, "x").is_err(), "{name}");
    }
}

#[test]
fn the_script_does_what_the_rules_do() {
    let server = Server::start();
    let seen = std::cell::RefCell::new(Seen::default());
    let mut runner = TestRunner::new_with_rng(
        Config { cases: 150, failure_persistence: None, ..Config::default() },
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let lost = prop_oneof![Just(Lost::Charge), Just(Lost::Return)];
    let period = prop_oneof![Just(0), 1..20_u64];
    runner
        .run(&(lost, period, steps(12)), |(lost, period, steps)| {
            run(&server, lost, period, &steps, &mut seen.borrow_mut());
            Ok(())
        })
        .unwrap();
    let Seen {
        granted,
        short,
        learning,
        gone,
        closed,
        refused,
        expired,
        changed,
        repeated,
        conflicts,
        below_zero,
    } = seen.into_inner();
    let all = [granted, short, learning, gone, closed, refused, expired];
    let of_keys = [changed, repeated, conflicts, below_zero];
    assert!(all.iter().chain(&of_keys).min() > Some(&20), "{all:?} {of_keys:?}");
}

#[test]
fn a_wallet_with_as_many_keys_as_it_remembers() {
    let server = Server::start();
    let mut store = Store::new(&server, "many keys");
    let axes = store.axes.clone();
    let found = Call::found(&axes, &[100, 60], Lost::Charge, 0, "run 1");
    let now = store.call(&found).unwrap().look(&axes.0).unwrap().now;
    let mut wallet = Wallet::found(&[100, 60], Lost::Charge, 0, "run 1", now);
    let change = Change { way: Way::Raise, units: vec![1, 0] };
    let make = |store: &mut Store, wallet: &mut Wallet, key: &str| {
        let before = server_time(&mut store.connection);
        match store.call(&Call::change(&axes, key, &change)) {
            Err(error) => {
                let mut instants = before..=server_time(&mut store.connection);
                let refused = refusal(&error).unwrap();
                assert!(matches!(refused, Refusal::KeysFull { .. }), "{error}");
                let same = |now| wallet.clone().change(now, key, &change).err();
                assert!(instants.any(|now| same(now) == Some(refused)), "{error}");
                false
            }
            Ok(words) => {
                wallet.change(words.look(&axes.0).unwrap().now, key, &change).unwrap();
                true
            }
        }
    };
    let half = MOST_KEYS / 2;
    for key in 0..MOST_KEYS {
        if key == half {
            store.age_keys();
            wallet.age_keys();
        }
        assert!(make(&mut store, &mut wallet, &format!("key {key}")));
    }
    assert_eq!(store.dump(), wallet);
    assert!(!make(&mut store, &mut wallet, "one more"));
    assert!(make(&mut store, &mut wallet, "key 0"), "a repetition needs no room");
    assert_eq!(wallet.books[0].cap, 100 + MOST_KEYS as u64);
    assert_eq!(store.dump(), wallet);
    // The first half is forgotten.
    store.age_keys();
    wallet.age_keys();
    assert!(make(&mut store, &mut wallet, "one more"));
    assert_eq!(wallet.changes.len(), half + 1);
    assert!(make(&mut store, &mut wallet, "key 0"), "it counts as a new one");
    assert_eq!(wallet.books[0].cap, 102 + MOST_KEYS as u64);
    assert_eq!(store.dump(), wallet);
}
