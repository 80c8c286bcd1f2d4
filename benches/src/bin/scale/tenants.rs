//! The tenants of a service: each a pool in a `Keyed`, under a token bucket; beside governor's keyed
//! limiter, which has one atomic for each.
//!
//! What a tenant uses has come back after a microsecond, so that all are idle when they are evicted.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Keyed, Window};
use governor::clock::MonotonicClock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::measure::{Calls, Figure, meanwhile, one, repeated, time};
use crate::topics::{NONE, Topic, bytes, ns};
use crate::{Row, Unit};

pub const TOPIC: Topic = Topic {
    name: "tenants",
    rows: &[
        ns("`get` of one of N tenants, at random", NONE),
        ns("`get_or_build` of one that is there", NONE),
        ns("… and a `record` in it, by the system's clock", NONE),
        ns("governor: `check_key` of one of N keys, by the system's clock", NONE),
        ns("… the same by quanta", NONE),
        ns("the longest `get_or_build` while N tenants come", NONE),
        ns("governor: the longest `check_key` while N keys come", NONE),
        ns("`evict_idle` that keeps N tenants", NONE),
        ns("… another tenant's longest `get` + `record` meanwhile", NONE),
        ns("`evict_idle` that evicts N tenants", NONE),
        ns("… for each 32 of them, after which it lets others pass", NONE),
        ns("… another tenant's longest `get` + `record` meanwhile", NONE),
        ns("governor: `retain_recent` that drops N keys", NONE),
        ns("… another key's longest `check_key` meanwhile", NONE),
        Row { what: "bytes of each of N tenants, with its key", unit: Unit::Bytes, goals: NONE },
        Row { what: "governor: bytes of each of N keys", unit: Unit::Bytes, goals: NONE },
    ],
    measure,
};

const RATE: u32 = 1_000_000;
const SECOND: Duration = Duration::from_secs(1);

fn measure(number: usize) -> Vec<Figure> {
    let names: Vec<String> = (0..number).map(|number| format!("tenant-{number:07}")).collect();
    let order = shuffled(number);
    let mut figures = repeated(|| {
        let tenants = Keyed::new(BudgetPool::unlimited());
        let tenant = |name: &String| get_or_build(&tenants, name);
        let come = timed(&names, tenant);
        let get = mean(&names, &order, |name| tenants.get(name));
        let build = mean(&names, &order, tenant);
        let record = mean(&names, &order, |name| tenant(name).record(one()).is_ok());

        let other = tenants.get_or_build("other", |pool| pool.requests(1 << 40));
        let call = || tenants.get("other").map(|pool| pool.record(one()));
        // What they owe takes days to come back.
        let owed = Amount::new().requests(1 << 40);
        names.iter().for_each(|name| _ = tenant(name).debit(owed));
        let [keep, kept_up] = meanwhile(call, || assert_eq!(tenants.evict_idle(), 0));
        names.iter().for_each(|name| _ = tenant(name).credit(owed));
        let [evict, held_up] = meanwhile(call, || assert_eq!(tenants.evict_idle(), number));
        drop(other);
        let batch = evict.iter().map(|all| all * 32.0 / number as f64).collect();

        let by_system = RateLimiter::dashmap_with_clock(quota(), MonotonicClock);
        names.iter().for_each(|name| assert!(by_system.check_key(name).is_ok()));
        let check = mean(&names, &order, |name| by_system.check_key(name).is_ok());
        drop(by_system);
        let limiter = limiter();
        let first = timed(&names, |name| limiter.check_key(name).is_ok());
        let check_by_quanta = mean(&names, &order, |name| limiter.check_key(name).is_ok());
        let key = "other".to_owned();
        let [retain, theirs_held_up] =
            meanwhile(|| limiter.check_key(&key).is_ok(), || limiter.retain_recent());
        assert!(limiter.len() <= 1, "all have their rate again");
        let looks = [get, build, record, check, check_by_quanta, come, first];
        let sweeps = [keep, kept_up, evict, batch, held_up, retain, theirs_held_up];
        let mut all = looks.into_iter().chain(sweeps);
        std::array::from_fn::<_, 14, _>(|_| all.next().expect("there are as many"))
    });

    let tenants = Keyed::new(BudgetPool::unlimited());
    let ours = bytes(|| names.iter().for_each(|name| drop(get_or_build(&tenants, name))));
    let limiter = limiter();
    let theirs = bytes(|| names.iter().for_each(|name| assert!(limiter.check_key(name).is_ok())));
    figures.extend([ours, theirs].map(|bytes| Figure::exact(bytes / number as f64)));
    figures
}

fn get_or_build(tenants: &Keyed<String>, name: &String) -> BudgetPool {
    tenants.get_or_build(name, |pool| {
        pool.name(name).requests(RATE.into()).window(Window::token_bucket(SECOND))
    })
}

fn limiter() -> DefaultKeyedRateLimiter<String> {
    RateLimiter::keyed(quota())
}

fn quota() -> Quota {
    Quota::per_second(NonZeroU32::new(RATE).expect("it is not zero"))
}

/// Times each call by itself.
fn timed<R>(names: &[String], call: impl Fn(&String) -> R) -> Calls {
    names.iter().map(|name| time(|| call(name)).0).collect()
}

/// How long such a call takes, over all of them.
fn mean<R>(names: &[String], order: &[u32], call: impl Fn(&String) -> R) -> Calls {
    let all = || order.iter().for_each(|&at| _ = black_box(call(&names[at as usize])));
    vec![time(all).0 / order.len() as f64]
}

/// Each number once, in no order.
fn shuffled(number: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..number as u32).collect();
    let mut odds = 1_u64;
    for at in (1..order.len()).rev() {
        odds = odds.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(at, (odds >> 33) as usize % (at + 1));
    }
    order
}
