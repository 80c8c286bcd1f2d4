//! What grows, and who is in its way. In all of it the tenants are children of one root without
//! caps: nothing but the lock is shared by those that are measured.

use std::alloc::System;
use std::iter;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use budget_pool::{Amount, Ask, BudgetPool, Clock, ManualClock, Name, Reservation, Usd, Window};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::measure::{Calls, Figure, Waiting, beside, enqueue, one, poll, repeated, time, timed};
use crate::{Row, Unit, tenants};

/// Counts what is on the heap.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Rows that are measured in one go.
pub struct Topic {
    pub name: &'static str,
    pub rows: &'static [Row],
    pub measure: fn(usize) -> Vec<Figure>,
}

pub const NONE: [Option<f64>; 4] = [None; 4];

pub const fn ns(what: &'static str, goals: [Option<f64>; 4]) -> Row {
    Row { what, unit: Unit::Nanoseconds, goals }
}

pub const TOPICS: &[Topic] = &[
    Topic {
        name: "keys",
        rows: &[ns("the longest `record_once` while N keys are added", [Some(0.2e6); 4])],
        measure: keys,
    },
    Topic {
        name: "wake-ups",
        rows: &[Row {
            what: "polls of N waiters, each in a pool of its own, for one hold with a TTL elsewhere",
            unit: Unit::Polls,
            goals: [Some(0.0); 4],
        }],
        measure: wake_ups,
    },
    Topic {
        name: "hopeless",
        rows: &[
            ns("a `debit` that leaves a waiter no hope, N waiting elsewhere", [Some(1e3); 4]),
            ns("… the same after these N have left", [Some(1e3); 4]),
        ],
        measure: hopeless,
    },
    Topic {
        name: "expired",
        rows: &[
            ns(
                "the longest `record` after N holds elsewhere have expired, beside a waiter",
                [Some(0.05e6); 4],
            ),
            ns("… the same beside a window", [Some(0.05e6); 4]),
        ],
        measure: expired,
    },
    Topic {
        name: "tree",
        rows: &[
            ns("`snapshot_tree` of N pools", NONE),
            ns(
                "… another tenant's longest `record` meanwhile",
                [None, None, Some(4e6), Some(40e6)],
            ),
            ns("`close` of a tree of N pools", NONE),
            ns("… another tenant's longest `record` meanwhile", NONE),
            ns("dropping N pools, one by one, and then the tree", NONE),
            ns("… the longest of these drops", NONE),
            ns("the longest `build` while N pools are made", NONE),
        ],
        measure: tree,
    },
    Topic {
        name: "holders",
        rows: &[
            ns("`holders` of N holds", NONE),
            ns("… another tenant's longest `record` meanwhile", NONE),
            ns("the longest `reserve` while N holds are made", NONE),
        ],
        measure: holders,
    },
    Topic {
        name: "waiters",
        rows: &[ns("the longest first poll while N join one line", NONE)],
        measure: waiters,
    },
    Topic {
        name: "heap",
        rows: &[
            Row { what: "bytes of a root pool", unit: Unit::Bytes, goals: [Some(1_100.0); 4] },
            Row { what: "bytes of each of N children", unit: Unit::Bytes, goals: NONE },
        ],
        measure: heap,
    },
];

pub const TENANTS: &[Topic] = &[tenants::TOPIC];

fn keys(number: usize) -> Vec<Figure> {
    repeated(|| {
        let pool = BudgetPool::builder().idempotency_keys(number, HOUR).build();
        let name = |index: usize| Name::from(format!("job-{index}"));
        let call = |index| {
            let name = name(index);
            let (ns, outcome) = time(|| pool.record_once(name, one()));
            assert!(outcome.is_ok(), "there is room for so many");
            ns
        };
        [(0..number).map(call).collect()]
    })
}

/// A tenant with one slot, which is taken, and one who waits for it.
struct Blocked {
    held: Reservation,
    waiting: Waiting,
}

fn blocked(root: &BudgetPool, waker: &Waker) -> Blocked {
    let pool = root.child().in_flight(1).build();
    let held = pool.reserve(Amount::new()).expect("it is free");
    Blocked { held, waiting: enqueue(pool.reserve_wait(Amount::new()), waker) }
}

/// The alarms that waiters have set, to go off by a clock that is moved by hand.
struct Alarms {
    clock: ManualClock,
    set: Mutex<Vec<(Instant, Waker)>>,
}

impl Alarms {
    /// Wakes those whose instant has come.
    fn ring(&self) {
        let now = self.clock.now();
        let set = std::mem::take(&mut *self.set.lock().expect("nobody panics"));
        let (due, later): (Vec<_>, Vec<_>) = set.into_iter().partition(|(at, _)| *at <= now);
        *self.set.lock().expect("nobody panics") = later;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// What the pool's timer makes.
struct Alarm(Instant, Arc<Alarms>);

impl Future for Alarm {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Alarm(at, alarms) = &*self;
        if *at <= alarms.clock.now() {
            return Poll::Ready(());
        }
        alarms.set.lock().expect("nobody panics").push((*at, context.waker().clone()));
        Poll::Pending
    }
}

/// Remembers who was woken, as an executor does.
struct Woken(usize, Arc<Mutex<Vec<usize>>>);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("nobody panics").push(self.0);
    }
}

/// One hold after the other in a branch of its own, each made before the last has expired, so that
/// there is always one that may expire.
fn wake_ups(waiters: usize) -> Vec<Figure> {
    const HOLDS: usize = 3;
    let clock = ManualClock::new();
    let alarms = Arc::new(Alarms { clock: clock.clone(), set: Mutex::default() });
    let timer = Arc::clone(&alarms);
    let root = BudgetPool::builder()
        .clock(clock.clone())
        .timer(move |until| Box::pin(Alarm(until, Arc::clone(&timer))))
        .build();
    let elsewhere = root.child().build();
    let hold = |ttl| elsewhere.reserve(Ask::new(one()).ttl(ttl)).expect("there is no cap");
    let mut held = hold(SECOND);

    let woken = Arc::<Mutex<Vec<usize>>>::default();
    let wakers: Vec<Waker> =
        (0..waiters).map(|number| Arc::new(Woken(number, Arc::clone(&woken))).into()).collect();
    let mut tenants: Vec<Blocked> = wakers.iter().map(|waker| blocked(&root, waker)).collect();

    let mut polls = 0;
    for _ in 0..HOLDS {
        let next = hold(2 * SECOND);
        clock.advance(SECOND);
        assert!(elsewhere.record(one()).is_ok(), "it finds what has expired");
        alarms.ring();
        loop {
            let Some(number) = woken.lock().expect("nobody panics").pop() else { break };
            assert!(poll(&mut tenants[number].waiting, &wakers[number]).is_pending());
            polls += 1;
        }
        held = next;
    }
    drop(held);
    vec![Figure::exact(polls as f64 / HOLDS as f64)]
}

/// Somebody waits for all of a pool, of which one token is then spent for good.
fn hopeless(waiters: usize) -> Vec<Figure> {
    let root = BudgetPool::unlimited();
    let tokens = |tokens| Amount::new().tokens(tokens);
    let debit = || {
        repeated(|| {
            let pool = root.child().tokens(10).build();
            let _held = pool.reserve(tokens(5)).expect("it is free");
            let mut waiting = enqueue(pool.reserve_wait(tokens(10)), Waker::noop());
            let (ns, _) = time(|| pool.debit(tokens(1)));
            let told = poll(&mut waiting, Waker::noop());
            assert!(matches!(told, Poll::Ready(Err(_))), "it is told at once");
            [vec![ns]]
        })
    };
    let mut tenants: Vec<Blocked> = (0..waiters).map(|_| blocked(&root, Waker::noop())).collect();
    let beside = debit();
    let held: Vec<Reservation> = tenants.drain(..).map(|tenant| tenant.held).collect();
    let after = debit();
    drop(held);
    beside.into_iter().chain(after).collect()
}

fn expired(holds: usize) -> Vec<Figure> {
    let waiter = expired_beside(holds, |root| blocked(root, Waker::noop()));
    let window = expired_beside(holds, |root| {
        let windowed = root.child().requests(10).window(Window::fixed(HOUR)).build();
        assert!(windowed.record(one()).is_ok());
        windowed
    });
    waiter.into_iter().chain(window).collect()
}

/// Many holds, whose times lie in no order, have expired: the next calls of another tenant.
fn expired_beside<B>(holds: usize, neighbour: impl Fn(&BudgetPool) -> B) -> Vec<Figure> {
    const CALLS: usize = 1_000;
    repeated(|| {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).build();
        let _neighbour = neighbour(&root);
        let (tenant, other) = (root.child().build(), root.child().build());
        let hold = |number: usize| {
            let ttl = SECOND + Duration::from_nanos(number as u64 * 7_919 % 1_000_003);
            tenant.reserve(Ask::new(one()).ttl(ttl)).expect("there is no cap")
        };
        let _holds: Vec<Reservation> = (0..holds).map(hold).collect();
        clock.advance(2 * SECOND);
        let (calls, outcomes) = timed(CALLS, |_| other.record(one()));
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(tenant.snapshot().reservations, 0);
        [calls]
    })
}

fn tree(pools: usize) -> Vec<Figure> {
    repeated(|| {
        let root = BudgetPool::unlimited();
        let (other, top) = (root.child().build(), root.child().build());
        let (built, pools) = timed(pools, |_| child(&top));
        let [snapshot, held_up] = beside(&other, || top.snapshot_tree());
        let [close, held_up_by_close] = beside(&other, || top.close());
        let mut drops: Calls = pools.into_iter().map(|pool| time(|| drop(pool)).0).collect();
        drop((top, other));
        drops.push(time(|| drop(root)).0);
        let all = drops.iter().sum();
        [snapshot, held_up, close, held_up_by_close, vec![all], drops, built]
    })
}

fn child(parent: &BudgetPool) -> BudgetPool {
    parent.child().tokens(1_000_000).usd(Usd::from_cents(1_000)).build()
}

fn holders(holds: usize) -> Vec<Figure> {
    repeated(|| {
        let root = BudgetPool::unlimited();
        let (other, pool) = (root.child().build(), child(&root));
        let hold = |_| pool.reserve(Amount::new().tokens(1)).expect("there is room for a million");
        let (reserved, _holds) = timed(holds, hold);
        let [call, held_up] = beside(&other, || pool.holders());
        [call, held_up, reserved]
    })
}

fn waiters(waiters: usize) -> Vec<Figure> {
    repeated(|| {
        let pool = BudgetPool::builder().in_flight(1).build();
        let _held = pool.reserve(Amount::new()).expect("it is free");
        let mut line: Vec<Waiting> =
            (0..waiters).map(|_| Box::pin(pool.reserve_wait(Amount::new()))).collect();
        let join = |wait: &mut Waiting| {
            let (ns, polled) = time(|| poll(wait, Waker::noop()));
            assert!(polled.is_pending());
            ns
        };
        let calls = line.iter_mut().map(join).collect();
        // From its end: whoever leaves is the last of the line.
        iter::from_fn(|| line.pop()).for_each(drop);
        [calls]
    })
}

fn heap(pools: usize) -> Vec<Figure> {
    let root = || BudgetPool::builder().tokens(1_000_000).usd(Usd::from_cents(1_000)).build();
    let alone = (0..pools).map(|_| bytes(root)).fold(0.0, f64::max);
    let root = root();
    let mut children = Vec::with_capacity(pools);
    let all = bytes(|| children.extend(iter::repeat_with(|| child(&root)).take(pools)));
    vec![Figure::exact(alone), Figure::exact(all / pools as f64)]
}

/// How many more bytes are on the heap while what was made lives.
pub fn bytes<R>(make: impl FnOnce() -> R) -> f64 {
    let now = || {
        let stats = HEAP.stats();
        stats.bytes_allocated - stats.bytes_deallocated
    };
    let before = now();
    let _made = make();
    (now() - before) as f64
}
