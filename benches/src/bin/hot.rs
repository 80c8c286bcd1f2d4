//! One call in a loop, and nothing else. Three ways to run it:
//!
//! | arguments | |
//! | --- | --- |
//! | `CASE ITERATIONS` | for `valgrind --tool=callgrind`: `benches/instructions` counts two runs and divides their difference, so that the set-up is not counted. Instructions are the same from run to run, also on a busy machine |
//! | `--list` | the cases, and what each of them does |
//! | none | the central calls and their peers as Markdown, in ns: criterion's figures once more, by other code at other places in memory. Layout alone can move a call by some nanoseconds; the median over the places is to be compared, and a figure that differs much from criterion's is not one of the library |

use std::collections::VecDeque;
use std::env;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_context::{Budget, Resource};
use budget_pool::{
    Amount, Ask, BudgetError, BudgetPool, PoolBuilder, Reservation, Root, Usd, Window,
};
use governor::clock::MonotonicClock;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use markdown::{head, line};

#[allow(dead_code, reason = "it fills no file")]
#[path = "../markdown.rs"]
mod markdown;

const PLENTY: u64 = u64::MAX / 2;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// The call, made so many times; it owns what it calls.
type Loop = Box<dyn FnMut(u64)>;

/// Its name, what one iteration does, and what makes it.
type Case = (&'static str, &'static str, fn() -> Loop);

#[rustfmt::skip]
const CASES: &[Case] = &[
    ("record2", "`record` on two axes", || record(capped())),
    ("bare-lock", "a bare `parking_lot` lock around an addition", bare_lock),
    ("record4", "`record` on four axes", record4),
    ("token-budget-pool", "token-budget-pool: `record` on four axes", token_budget_pool),
    ("refused", "`record` on two axes, refused", || record(capped().usd(Usd::ZERO))),
    ("check", "`peek` on two axes", || on(capped().build(), |pool| pool.peek(two()).is_ok())),
    ("debit", "`debit` on two axes", || on(capped().build(), |pool| pool.debit(two()))),
    ("record-depth4", "`record` on two axes, four pools deep", || on(four_deep(), |pool| pool.record(two()).is_ok())),
    ("record-beside-waiter", "`record` on two axes of a child, a waiter in its sibling", record_beside_waiter),
    ("reserve", "`reserve` + `commit` on two axes", || on(capped().build(), reserve_and_commit)),
    ("tokio-reserve", "tokio: `try_acquire_many_owned` + drop", tokio_reserve),
    ("budget-context", "budget-context: `reserve_many` + `commit` on two axes", || budget_context(1)),
    ("reserve-depth4", "`reserve` + `commit` on two axes, four pools deep", || on(four_deep(), reserve_and_commit)),
    ("budget-context-depth4", "budget-context: the same, four contexts deep", || budget_context(4)),
    ("reserve-for", "`reserve` with a TTL + `commit` on two axes", || reserve_for(0)),
    ("reserve-for-10000", "`reserve` with a TTL + `commit` on two axes, beside 10,000 others", || reserve_for(10_000)),
    ("renew", "`renew`", renew),
    ("wait", "`reserve_wait`, which is granted what another releases", || wait(our_slot(), 0)),
    ("tokio-wait", "tokio: `acquire_owned`, which is granted what another releases", || wait(tokio_slot(), 0)),
    ("wait-1000", "the same of ours, behind 1,000 others", || wait(our_slot(), 1_000)),
    ("wait-100000", "the same of ours, behind 100,000 others", || wait(our_slot(), 100_000)),
    ("tokio-wait-100000", "tokio: the same, behind 100,000 others", || wait(tokio_slot(), 100_000)),
    ("churn-1000", "leave and join, 1,000 waiting", || churn(our_slot(), 1_000)),
    ("churn-100000", "leave and join, 100,000 waiting", || churn(our_slot(), 100_000)),
    ("tokio-churn-100000", "tokio: leave and join, 100,000 waiting", || churn(tokio_slot(), 100_000)),
    ("lease", "a lease's `record` on two axes", lease),
    ("fixed", "`record` under a fixed window, two axes", || record(capped().window(Window::fixed(HOUR)))),
    // What a call takes has all come back at the next; or only a part of it has.
    ("bucket", "`record` under a token bucket, two axes that come back", || record(capped().window(Window::token_bucket(SECOND)))),
    ("in-use", "`record` under a token bucket, two axes in use", || record(capped().window(Window::token_bucket(Duration::MAX)))),
    ("limiter", "`record` of one request under a token bucket, as governor's", || on(limiter(), |pool| pool.record(Amount::new().requests(black_box(1))).is_ok())),
    ("governor", "governor: `check`, by the system's clock", || governor(1_000_000_000)),
    ("refused-fixed", "refused under a fixed window", || record(capped().tokens(1_200).window(Window::fixed(HOUR)))),
    ("refused-bucket", "refused under a token bucket", || record(capped().tokens(1_200).window(Window::token_bucket(HOUR)))),
    ("refused-governor", "governor: refused, by the system's clock", || governor(1)),
    ("once-known", "`record_once` with a known key", || on(capped().build(), |pool| pool.record_once(black_box("job-17"), two()).is_ok())),
    ("snapshot", "`snapshot`", || on(capped().build(), BudgetPool::snapshot)),
    ("reserve-joint3", "`reserve` + `commit` on two axes, through a joint pool of three parents", || on(below_three(), reserve_and_commit)),
    ("refused-then-admitted", "`reserve` on two axes, refused, then for less + `commit`", || on(half(), |pool| { drop(pool.reserve(two())); commit_nothing(pool.reserve(cheap())) })),
    ("ask-second", "`reserve` of one of two alternatives + `commit`, the second fits", || on(half(), |pool| commit_nothing(pool.reserve(Ask::new(two()).or(cheap()))))),
    ("ask-first", "the same, the first fits", || on(capped().build(), |pool| commit_nothing(pool.reserve(Ask::new(two()).or(cheap()))))),
    ("child", "a child, made and dropped", || on(capped().build(), |pool| pool.child().tokens(black_box(PLENTY)).build())),
];

/// What is timed without arguments.
const CENTRAL: [&str; 8] = [
    "record2",
    "bare-lock",
    "record4",
    "token-budget-pool",
    "refused",
    "reserve",
    "tokio-reserve",
    "budget-context",
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => println!("{}", times()),
        ["--list"] => CASES.iter().for_each(|(name, what, _)| println!("{name}\t{what}")),
        [name, iterations] => match (case(name), iterations.parse()) {
            (Some(make), Ok(iterations)) => make()(iterations),
            _ => return usage(),
        },
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: hot [CASE ITERATIONS | --list]");
    ExitCode::from(2)
}

fn case(name: &str) -> Option<fn() -> Loop> {
    CASES.iter().find(|case| case.0 == name).map(|case| case.2)
}

/// The central calls at many places in memory: all of them live at once, with other allocations
/// between them. Of each place the least of some rounds, which the neighbours disturbed least.
fn times() -> String {
    const PLACES: usize = 16;
    const ROUNDS: usize = 5;
    const CALLS: u64 = 100_000;
    let make = |name: &&str| case(name).expect("it is one of the cases")();
    let mut places: Vec<(Vec<Loop>, Vec<u8>)> = (0..PLACES)
        .map(|place| (CENTRAL.iter().map(make).collect(), vec![0; 16 + place * 208]))
        .collect();
    let mut least = [[f64::INFINITY; PLACES]; CENTRAL.len()];
    for _ in 0..ROUNDS {
        for (place, (calls, _)) in places.iter_mut().enumerate() {
            for (case, call) in calls.iter_mut().enumerate() {
                let start = Instant::now();
                call(CALLS);
                let ns = start.elapsed().as_nanos() as f64 / CALLS as f64;
                least[case][place] = ns.min(least[case][place]);
            }
        }
    }
    let mut table = head(&["ns a call, over the places", "median", "least", "most"]);
    for (name, mut ns) in CENTRAL.into_iter().zip(least) {
        ns.sort_by(f64::total_cmp);
        let [median, least, most] =
            [PLACES / 2, 0, PLACES - 1].map(|place| format!("{:.1}", ns[place]));
        line(&mut table, [name.to_owned(), median, least, most]);
    }
    table
}

fn repeat<R>(mut call: impl FnMut() -> R + 'static) -> Loop {
    Box::new(move |iterations| {
        for _ in 0..iterations {
            black_box(call());
        }
    })
}

fn on<R>(pool: BudgetPool, call: impl Fn(&BudgetPool) -> R + 'static) -> Loop {
    repeat(move || call(&pool))
}

fn two() -> Amount {
    Amount::new().tokens(black_box(1_200)).usd(Usd::from_nanos(black_box(3_600_000)))
}

fn capped() -> PoolBuilder<Root> {
    BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(PLENTY))
}

/// Governor's limit, for a pool.
fn limiter() -> BudgetPool {
    BudgetPool::builder().requests(1_000_000_000).window(Window::token_bucket(SECOND)).build()
}

fn four_deep() -> BudgetPool {
    (1..4).fold(capped().build(), |above, _| {
        above.child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
    })
}

/// Too little for [`two`], and enough for [`cheap`].
fn half() -> BudgetPool {
    BudgetPool::builder().tokens(1_000).usd(Usd::from_nanos(PLENTY)).build()
}

fn cheap() -> Amount {
    Amount::new().tokens(black_box(600)).usd(Usd::from_nanos(black_box(360_000)))
}

/// Nothing, so that the next call finds the same room.
fn commit_nothing(hold: Result<Reservation, BudgetError>) {
    let nothing = Amount::new().tokens(black_box(0)).usd(Usd::from_nanos(black_box(0)));
    hold.expect("it fits").commit(nothing);
}

/// A joint pool below three pools of one root.
fn below_three() -> BudgetPool {
    let root = capped().build();
    let below = |_| root.child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build();
    let parents = [0, 1, 2].map(below);
    let joint = BudgetPool::joint(&parents).expect("they are of one tree");
    joint.tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
}

fn record(builder: PoolBuilder<Root>) -> Loop {
    on(builder.build(), |pool| pool.record(two()).is_ok())
}

fn record4() -> Loop {
    on(capped().input_tokens(PLENTY).output_tokens(PLENTY).build(), |pool| {
        let amount = Amount::new().input_tokens(black_box(1_000)).output_tokens(black_box(200));
        pool.record(amount.usd(Usd::from_nanos(black_box(3_600_000)))).is_ok()
    })
}

fn record_beside_waiter() -> Loop {
    let root = BudgetPool::unlimited();
    let blocked = root.child().in_flight(1).build();
    let held = blocked.reserve(Amount::new());
    let waiting = enqueue(Box::pin(blocked.reserve_wait(Amount::new())));
    let pool = root.child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build();
    repeat(move || {
        let _beside = (&held, &waiting);
        pool.record(two()).is_ok()
    })
}

/// The same figures as in `benches/contenders`.
fn reserve_and_commit(pool: &BudgetPool) {
    let hold = pool.reserve(two()).expect("there is plenty");
    hold.commit(less());
}

fn less() -> Amount {
    Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000)))
}

fn reserve_for(others: usize) -> Loop {
    let pool = capped().build();
    let hold = move |pool: &BudgetPool| {
        pool.reserve(Ask::new(two()).ttl(black_box(HOUR))).expect("there is plenty")
    };
    let others: Vec<_> = (0..others).map(|_| hold(&pool)).collect();
    repeat(move || {
        let _beside = &others;
        hold(&pool).commit(less())
    })
}

fn renew() -> Loop {
    let hold = capped().build().reserve(Ask::new(two()).ttl(HOUR)).expect("there is plenty");
    repeat(move || hold.renew(black_box(HOUR)).is_ok())
}

fn lease() -> Loop {
    let share = Amount::new().tokens(PLENTY).usd(Usd::from_nanos(PLENTY));
    let mut lease = capped().build().lease(share);
    repeat(move || lease.record(two()).is_ok())
}

fn bare_lock() -> Loop {
    let sum = Arc::new(Mutex::new(0_u64));
    repeat(move || {
        let mut sum = sum.lock();
        *sum = sum.wrapping_add(black_box(1_200));
    })
}

fn token_budget_pool() -> Loop {
    let peer = Arc::new(token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
        max_input_tokens: Some(PLENTY),
        max_output_tokens: Some(PLENTY),
        max_total_tokens: Some(PLENTY),
        max_cost_usd: Some(f64::MAX),
    }));
    repeat(move || peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_ok())
}

fn tokio_reserve() -> Loop {
    let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    repeat(move || Arc::clone(&peer).try_acquire_many_owned(black_box(1_200)).is_ok())
}

fn budget_context(depth: usize) -> Loop {
    let [tokens, usd] =
        ["tokens", "usd"].map(|name| Resource::new(name).expect("a name that may be"));
    let limited = |builder: budget_context::BudgetBuilder| {
        let builder = builder.limit(tokens.clone(), PLENTY).limit(usd.clone(), PLENTY);
        builder.build().expect("each limit is given once")
    };
    let context = (1..depth).fold(limited(Budget::builder()), |above, _| limited(above.child()));
    repeat(move || {
        let held = [(&tokens, black_box(1_200)), (&usd, black_box(3_600_000))];
        let hold = context.reserve_many(held).expect("there is plenty");
        hold.commit([(&tokens, black_box(900)), (&usd, black_box(2_700_000))]).is_ok()
    })
}

fn governor(per_second: u32) -> Loop {
    let rate = NonZeroU32::new(per_second).expect("not zero");
    let limiter = RateLimiter::direct_with_clock(Quota::per_second(rate), MonotonicClock);
    repeat(move || limiter.check().is_ok())
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Asks for the one slot that there is.
type Slot<F> = Box<dyn Fn() -> Pin<Box<F>>>;

fn our_slot() -> Slot<budget_pool::Wait> {
    let pool = BudgetPool::builder().in_flight(1).build();
    Box::new(move || Box::pin(pool.reserve_wait(Amount::new())))
}

fn tokio_slot() -> Slot<impl Future<Output = Result<impl Sized, impl Sized>>> {
    let semaphore = Arc::new(Semaphore::new(1));
    Box::new(move || Box::pin(Arc::clone(&semaphore).acquire_owned()))
}

fn collect<H, E, F: Future<Output = Result<H, E>>>(mut future: Pin<Box<F>>) -> H {
    match poll(future.as_mut()) {
        Poll::Ready(Ok(granted)) => granted,
        _ => panic!("it is granted by now"),
    }
}

fn enqueue<F: Future>(mut future: Pin<Box<F>>) -> Pin<Box<F>> {
    assert!(poll(future.as_mut()).is_pending());
    future
}

/// While `others` wait one more joins the line, the slot is released, and the first collects it.
fn wait<H: 'static, E: 'static, F: Future<Output = Result<H, E>> + 'static>(
    ask: Slot<F>,
    others: usize,
) -> Loop {
    let mut held = Some(collect(ask()));
    let mut line: VecDeque<_> = (0..others).map(|_| enqueue(ask())).collect();
    repeat(move || {
        line.push_back(enqueue(ask()));
        drop(held.take());
        held = line.pop_front().map(collect);
    })
}

/// One of those that wait gives up its place, and joins the line again.
fn churn<H: 'static, E: 'static, F: Future<Output = Result<H, E>> + 'static>(
    ask: Slot<F>,
    waiting: usize,
) -> Loop {
    let held = collect(ask());
    let mut line: Vec<_> = (0..waiting).map(|_| enqueue(ask())).collect();
    let mut random = 1_u64;
    let mut replace = repeat(move || {
        let _for_ever = &held;
        // Knuth's generator, its upper half.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = (random >> 33) as usize % line.len();
        line[index] = enqueue(ask());
    });
    // A line that stands as it was filled is left and joined for less than one that has long been
    // left and joined.
    replace(4 * waiting as u64);
    replace
}
