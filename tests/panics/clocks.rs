//! Every public call that may read the clock, with one that panics at its first read, its second,
//! and so on.

use super::*;
use budget_pool::{Axis, BudgetError, DeadlineBudget, Lease, Level, OnDrop, Usd};
use std::time::Instant;

#[derive(Clone)]
struct Clock {
    time: ManualClock,
    reads: Arc<AtomicUsize>,
    /// At which read it panics, if not zero.
    panics_at: Arc<AtomicUsize>,
    /// What it calls on its way, once for each call of the test's.
    comes_back: Arc<Mutex<Option<BudgetPool>>>,
}

impl budget_pool::Clock for Clock {
    fn now(&self) -> Instant {
        let read = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
        if read == self.panics_at.load(Ordering::SeqCst) {
            resume_unwind(Box::new("on purpose"));
        }
        let pool = self.comes_back.lock().unwrap().take();
        if let Some(pool) = pool {
            use_all(&pool);
        }
        self.time.now()
    }
}

/// A way with all that knows a time: a deadline, windows of both kinds, a share, holds that may
/// expire, a lease, and one that waits.
struct World {
    clock: Clock,
    root: BudgetPool,
    pool: BudgetPool,
    share: BudgetPool,
    line: BudgetPool,
    hold: Option<Reservation>,
    lease: Option<Lease>,
    waiter: Waiter,
    held: Vec<Reservation>,
    leases: Vec<Lease>,
    built: Vec<BudgetPool>,
}

impl World {
    fn new() -> World {
        let zero = Arc::<AtomicUsize>::default;
        let time = ManualClock::new();
        let clock = Clock { time, reads: zero(), panics_at: zero(), comes_back: Arc::default() };
        let root = BudgetPool::builder()
            .name("run")
            .tokens(1_000)
            .deadline(secs(600))
            .clock(clock.clone())
            .timer(by_hand);
        let root = root.window(Window::fixed(secs(60))).build();
        let pool =
            root.child().name("pool").tokens(500).window(Window::token_bucket(secs(60))).build();
        let share = root.child().name("share").tokens(100).carved().build().unwrap();
        let line = root.child().name("line").requests(1).build();
        pool.record(tokens(30)).unwrap();
        let hold =
            pool.reserve(Ask::new(tokens(50).usd(Usd::from_cents(1))).ttl(secs(30))).unwrap();
        let mut lease = pool.lease(tokens(20));
        lease.record(tokens(1)).unwrap();
        lease.record(tokens(5)).unwrap();
        assert_eq!(lease.remaining(), tokens(15));
        let held = vec![
            line.reserve(Amount::new().requests(1)).unwrap(),
            pool.reserve(tokens(5)).unwrap(),
        ];
        let waiter = Waiter::queued(&line, Amount::new().requests(1));
        let (leases, built) = (Vec::new(), Vec::new());
        let (hold, lease) = (Some(hold), Some(lease));
        World { clock, root, pool, share, line, hold, lease, waiter, held, leases, built }
    }

    fn hold(&mut self) -> &mut Reservation {
        self.hold.as_mut().unwrap()
    }

    fn take(&mut self) -> Reservation {
        self.hold.take().unwrap()
    }

    fn lease(&mut self) -> &mut Lease {
        self.lease.as_mut().unwrap()
    }

    /// With a clock that is well again.
    fn seen(&self) -> String {
        self.clock.panics_at.store(0, Ordering::SeqCst);
        let held = self.hold.as_ref().map(Reservation::amount);
        let left = self.lease.as_ref().map(Lease::remaining);
        without_instants(&format!("{:?} {held:?} {left:?}", self.root.snapshot_tree()))
    }

    /// Calls, with a clock that panics at one read. How often it was read, and what came of it.
    fn calls(&mut self, call: Call, panics_at: usize) -> (usize, Option<String>) {
        self.clock.reads.store(0, Ordering::SeqCst);
        self.clock.panics_at.store(panics_at, Ordering::SeqCst);
        let outcome = catch_unwind(AssertUnwindSafe(|| call(self)));
        if let Err(panic) = &outcome {
            assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        }
        (self.clock.reads.load(Ordering::SeqCst), outcome.ok())
    }

    /// All goes: nothing is held, nobody waits, no pool is left, and the rest can be had.
    #[track_caller]
    fn ends(self, case: &str) {
        self.clock.panics_at.store(0, Ordering::SeqCst);
        let World { root, pool, share, line, hold, lease, mut waiter, held, leases, built, .. } =
            self;
        drop((held, hold, lease, leases));
        assert!(waiter.poll().is_ready(), "{case}");
        drop((waiter, pool, share, line, built));
        let tree = root.snapshot_tree();
        assert_eq!((tree.len(), tree[0].reservations, tree[0].waiting), (1, 0, 0), "{case}");
        assert!(tree[0].axes().all(|(_, axis)| axis.reserved.units() == 0), "{case}: {tree}");
        root.record(tokens(tree[0].tokens.available.unwrap())).unwrap();
    }
}

/// What it says.
type Call = fn(&mut World) -> String;

fn said<T, E: std::fmt::Debug>(answer: Result<T, E>) -> String {
    answer.map_or_else(|refusal| format!("{refusal:?}"), |_| "admitted".to_owned())
}

fn kept<T, E: std::fmt::Debug>(all: &mut Vec<T>, answer: Result<T, E>) -> String {
    said(answer.map(|one| all.push(one)))
}

/// Makes a call while another thread moves the time, until the call returns or panics.
/// By the first poll.
fn granted(world: &mut World, ask: impl Into<Ask>) -> String {
    let mut wait = world.pool.reserve_wait(ask);
    match Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => kept(&mut world.held, answer),
        Poll::Pending => panic!("it waits"),
    }
}

fn while_time_passes<T>(time: &ManualClock, call: impl FnOnce() -> T) -> T {
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let has_ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::SeqCst) {
                time.advance(Duration::from_millis(1));
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let _stop = Stop(&has_ended);
        call()
    })
}

/// A call that asks: it panics where it is called, and nothing has changed.
const ASKS: [(&str, Call); 61] = [
    ("record", |world| said(world.pool.record(tokens(1)))),
    ("record, refused", |world| said(world.pool.record(tokens(1_000)))),
    ("record on a share", |world| said(world.share.record(tokens(1)))),
    ("peek", |world| said(world.pool.peek(tokens(1)))),
    ("reserve", |world| kept(&mut world.held, world.pool.reserve(tokens(1)))),
    ("reserve, queued", |world| {
        kept(&mut world.held, world.line.reserve(Amount::new().requests(1)))
    }),
    ("reserve, with a TTL", |world| {
        kept(&mut world.held, world.pool.reserve(Ask::new(tokens(1)).ttl(secs(1))))
    }),
    ("record_once", |world| said(world.pool.record_once("key", tokens(1)))),
    ("lease.record of a new one", |world| {
        world.leases.push(world.pool.lease(tokens(10)));
        said(world.leases.last_mut().unwrap().record(tokens(1)))
    }),
    ("record_and_snapshot", |world| said(world.pool.record_and_snapshot(tokens(1)))),
    ("record_and_snapshot, refused", |world| said(world.pool.record_and_snapshot(tokens(1_000)))),
    ("reserve, one of several", |world| {
        kept(&mut world.held, world.pool.reserve(Ask::new(tokens(900)).or(tokens(1))))
    }),
    ("reserve, as much as there is", |world| {
        kept(&mut world.held, world.pool.reserve(Ask::new(tokens(900)).at_least(tokens(1))))
    }),
    ("reserve, none of several", |world| {
        said(world.pool.reserve(Ask::new(tokens(900)).or(tokens(800)).at_least(tokens(700))))
    }),
    ("reserve_wait, one of several", |world| {
        let ask = Ask::new(tokens(900)).or(tokens(1)).wait_at_most(secs(1));
        granted(world, ask)
    }),
    ("reserve_wait, queued for a time", |world| {
        let ask = Ask::new(Amount::new().requests(1)).wait_at_most(secs(1));
        said(world.line.reserve_wait(ask).block_on_once())
    }),
    ("record_wait, granted", |world| polled(world.pool.record_wait(tokens(1)))),
    ("record_wait, refused", |world| polled(world.pool.record_wait(tokens(1_000)))),
    ("record_wait, queued", |world| polled(world.line.record_wait(Amount::new().requests(1)))),
    ("record_blocking", |world| said(world.pool.record_blocking(tokens(1)))),
    ("run, done at once", |world| polled(Box::pin(world.pool.run(std::future::ready(1))))),
    ("run, not done", |world| polled(Box::pin(world.pool.run(std::future::pending::<()>())))),
    ("set_caps", |world| said(world.pool.set_caps(Caps::new().tokens(40)))),
    ("set_caps of a share", |world| said(world.share.set_caps(Caps::new().tokens(40)))),
    ("pause", |world| {
        world.share.pause(secs(5));
        String::new()
    }),
    ("joint, with both", |world| {
        let joint = BudgetPool::joint([&world.pool, &world.line]).unwrap();
        world.built.push(joint.deadline(secs(5)).window(Window::fixed(secs(5))).build());
        String::new()
    }),
    ("add", |world| said(world.pool.raise_caps(Caps::new().tokens(1)))),
    ("add to a share", |world| said(world.share.raise_caps(Caps::new().tokens(1)))),
    ("time_left", |world| format!("{:?}", world.pool.time_left())),
    ("reserve_wait, granted", |world| granted(world, tokens(1))),
    ("reserve_wait, refused", |world| said(world.pool.reserve_wait(tokens(1_000)).block_on_once())),
    ("reserve_wait, queued", |world| {
        said(world.line.reserve_wait(Amount::new().requests(1)).block_on_once())
    }),
    ("polled again", |world| format!("{}", world.waiter.poll().is_pending())),
    ("reserve_blocking", |world| kept(&mut world.held, world.pool.reserve_blocking(tokens(1)))),
    ("reserve_blocking, in vain", |world| {
        said(
            world
                .line
                .reserve_blocking(Ask::new(Amount::new().requests(1)).wait_at_most(Duration::ZERO)),
        )
    }),
    ("reserve_blocking, parked", |world| {
        let time = Duration::from_millis(20);
        let ask = Ask::new(Amount::new().requests(1)).wait_at_most(time);
        let error = while_time_passes(&world.clock.time, || world.line.reserve_blocking(ask));
        // However often it looked.
        world.clock.reads.store(3, Ordering::SeqCst);
        let error = error.unwrap_err();
        assert!(matches!(error, BudgetError::Timeout { .. }));
        error.to_string()
    }),
    ("hold.record", |world| said(world.hold().record(tokens(60)))),
    ("hold.grow", |world| said(world.hold().grow(tokens(1)))),
    ("hold.split", |world| {
        let half = world.hold().split(tokens(1));
        kept(&mut world.held, half)
    }),
    ("hold.renew", |world| said(world.hold().renew(secs(5)))),
    ("hold.time_left", |world| format!("{:?}", world.hold().time_left())),
    ("lease.record", |world| said(world.lease().record(tokens(30)))),
    ("child with a deadline", |world| {
        world.built.push(world.pool.child().deadline(secs(5)).build());
        String::new()
    }),
    ("child with a budget of time", |world| {
        let budget = DeadlineBudget::new(secs(5));
        world.built.push(world.pool.child().deadline(budget).build());
        String::new()
    }),
    ("child with a window", |world| {
        world
            .built
            .push(world.pool.child().tokens(1).window(Window::token_bucket(secs(5))).build());
        String::new()
    }),
    ("child with both", |world| {
        world
            .built
            .push(world.pool.child().deadline(secs(5)).window(Window::fixed(secs(5))).build());
        String::new()
    }),
    ("share", |world| kept(&mut world.built, world.pool.child().tokens(10).carved().build())),
    ("share with a deadline", |world| {
        kept(&mut world.built, world.pool.child().tokens(10).deadline(secs(5)).carved().build())
    }),
    ("another tree", |world| {
        let other = BudgetPool::builder().deadline(secs(5)).window(Window::fixed(secs(5)));
        said::<_, ()>(Ok(other.clock(world.clock.clone()).build()))
    }),
    ("budget", |world| {
        said(
            DeadlineBudget::builder().total(secs(5)).clock(world.clock.clone()).build().map(|_| ()),
        )
    }),
    ("budget.remaining", |world| format!("{:?}", world.pool.deadline().unwrap().remaining())),
    ("budget.elapsed", |world| format!("{:?}", world.pool.deadline().unwrap().elapsed())),
    ("budget.overrun", |world| format!("{:?}", world.pool.deadline().unwrap().overrun())),
    ("budget.is_expired", |world| format!("{:?}", world.pool.deadline().unwrap().is_expired())),
    ("budget.check", |world| said(world.pool.deadline().unwrap().check())),
    ("budget.fits", |world| said(world.pool.deadline().unwrap().fits(secs(5)))),
    ("budget.timeout_for", |world| {
        format!("{:?}", world.pool.deadline().unwrap().timeout_for("call"))
    }),
    ("budget.split", |world| format!("{:?}", world.pool.deadline().unwrap().split(3))),
    ("budget.child", |world| {
        format!("{:?}", world.pool.deadline().unwrap().child(secs(5)).total())
    }),
    ("budget.to_grpc_timeout", |world| {
        format!("{:?}", world.pool.deadline().unwrap().to_grpc_timeout())
    }),
    ("budget.child_from_grpc_timeout", |world| {
        said(world.pool.deadline().unwrap().child_from_grpc_timeout("5S").map(|_| ()))
    }),
];

/// A call that tells, or looks: it is done, with the time that was seen last.
const TELLS: [(&str, Call); 42] = [
    ("debit_once", |world| said(world.pool.debit_once("key", tokens(700)))),
    ("debit", |world| format!("{:?}", world.pool.debit(tokens(700)))),
    ("debit on a share", |world| format!("{:?}", world.share.debit(tokens(700)))),
    ("credit", |world| format!("{:?}", world.pool.credit(tokens(10)))),
    ("credit on a share", |world| format!("{:?}", world.share.credit(tokens(10)))),
    ("set_used", |world| said(world.pool.set_used(tokens(70)))),
    ("set_used, refused", |world| said(world.share.set_used(tokens(70)))),
    ("set_ceiling", |world| {
        world.pool.set_ceiling(Caps::new().tokens(2_000));
        String::new()
    }),
    ("remove up to", |world| world.pool.lower_caps_up_to(Caps::new().tokens(490)).to_string()),
    ("transfer", |world| said(world.pool.transfer(&world.share, Caps::new().tokens(10)))),
    ("transfer from a share", |world| {
        said(world.share.transfer(&world.pool, Caps::new().tokens(10)))
    }),
    ("transfer, refused", |world| {
        said(world.pool.transfer(&world.share, Caps::new().tokens(10_000)))
    }),
    ("resume", |world| {
        world.share.resume();
        String::new()
    }),
    ("limits", |world| format!("{:?}", world.pool.limits())),
    ("reached, at once", |world| polled(world.pool.reached(Level::percent(Axis::Tokens, 1)))),
    ("reached, not yet", |world| polled(world.pool.reached(Level::percent(Axis::Tokens, 99)))),
    ("wants", |world| polled(world.line.wants())),
    ("merge", |world| {
        let other = world.held.pop().unwrap();
        said(world.hold().merge(other))
    }),
    ("label", |world| {
        let hold = world.take().label("a");
        world.hold = Some(hold);
        String::new()
    }),
    ("on_drop", |world| {
        drop(world.take().on_drop(OnDrop::Commit));
        String::new()
    }),
    ("hold.is_expired", |world| world.hold().is_expired().to_string()),
    ("snapshot", |world| world.pool.snapshot().to_string()),
    ("snapshot_tree", |world| world.root.snapshot_tree().to_string()),
    ("holders", |world| format!("{:?}", world.root.holders())),
    ("reset", |world| world.pool.reset().to_string()),
    ("remove", |world| said(world.pool.lower_caps(Caps::new().tokens(10)))),
    ("remove from a share", |world| said(world.share.lower_caps(Caps::new().tokens(10)))),
    ("remove, refused", |world| said(world.pool.lower_caps(Caps::new().tokens(10_000)))),
    ("commit", |world| format!("{:?}", world.take().commit(tokens(60)))),
    ("commit_all", |world| format!("{:?}", world.take().commit_all())),
    ("commit of less than was metered", |world| {
        let metered = world.hold().debit(tokens(20));
        format!("{metered:?} {:?}", world.take().commit(tokens(10)))
    }),
    ("try_commit", |world| {
        said(world.take().try_commit(tokens(60)).map_err(|refused| refused.to_string()))
    }),
    ("try_commit, refused", |world| {
        let refused = world.take().try_commit(tokens(1_000)).unwrap_err();
        let error = refused.error().to_string();
        world.hold = Some(refused.into_reservation());
        error
    }),
    ("release", |world| {
        world.take().release();
        String::new()
    }),
    ("drop", |world| {
        drop(world.take());
        String::new()
    }),
    ("commit_on_drop", |world| {
        drop(world.take().commit_on_drop());
        String::new()
    }),
    ("hold.debit", |world| format!("{:?}", world.hold().debit(tokens(60)))),
    ("hold.shrink", |world| said(world.hold().shrink(tokens(10)))),
    ("hold's texts", |world| {
        let text = format!("{:?}", world.hold);
        format!("{text} {}", world.hold().amount())
    }),
    ("lease.debit", |world| format!("{:?}", world.lease().debit(tokens(600)))),
    ("lease.settle", |world| {
        world.lease().settle();
        String::new()
    }),
    ("lease's drop", |world| {
        drop(world.lease.take());
        String::new()
    }),
];

/// Neither: there is no clock to panic.
const SILENT: [(&str, Call); 9] = [
    ("close", |world| {
        world.share.close();
        world.share.is_closed().to_string()
    }),
    ("closed", |world| {
        let mut closed = world.pool.closed();
        Pin::new(&mut closed).poll(&mut Context::from_waker(Waker::noop())).is_pending().to_string()
    }),
    ("child", |world| {
        world.built.push(world.pool.child().tokens(5).build());
        format!("{:?}", world.built)
    }),
    ("a wait that is not polled", |world| format!("{:?}", world.pool.reserve_wait(tokens(1)))),
    ("lease", |world| {
        world.leases.push(world.pool.lease(tokens(10)));
        String::new()
    }),
    ("lease.record of the share", |world| said(world.lease().record(tokens(1)))),
    ("lease.debit of the share", |world| format!("{:?}", world.lease().debit(tokens(1)))),
    ("lease's texts", |world| {
        let text = format!("{:?}", world.lease);
        format!("{text} {}", world.lease().remaining())
    }),
    ("budget's texts", |world| {
        let budget = world.pool.deadline().unwrap();
        format!("{:?}", (budget.total(), budget.deadline().is_some()))
    }),
];

/// Polled once, and dropped.
fn polled<F: Future<Output: std::fmt::Debug> + Unpin>(mut future: F) -> String {
    format!("{:?}", Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop())))
}

trait BlockOnOnce {
    fn block_on_once(self) -> Result<bool, BudgetError>;
}

impl BlockOnOnce for Wait {
    /// Polled once, and dropped: whether it was granted.
    fn block_on_once(mut self) -> Result<bool, BudgetError> {
        match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => answer.map(|_| true),
            Poll::Pending => Ok(false),
        }
    }
}

/// What it says without any panic, how often it reads the clock for that, and what is seen
/// afterwards.
fn whole(call: Call, later: Duration) -> (usize, String, World) {
    let mut world = World::new();
    world.clock.time.advance(later);
    let (reads, outcome) = world.calls(call, 0);
    (reads, outcome.unwrap(), world)
}

/// Instants differ from one world to another.
fn without_instants(text: &str) -> String {
    let mut parts = text.split("Instant");
    let first = parts.next().unwrap().to_owned();
    let rest = parts.map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
    rest.fold(first, |text, rest| text + rest)
}

fn same(a: &str, b: &str) -> bool {
    without_instants(a) == without_instants(b)
}

#[test]
fn p7_what_asks_panics_wherever_it_reads_the_clock_and_nothing_has_changed() {
    for (name, call) in ASKS {
        // As things stand; after holds have expired; after both windows have turned.
        for later in [0, 40, 70] {
            let later = secs(later);
            let case = format!("{name}, {later:?} later");
            let untouched = World::new();
            untouched.clock.time.advance(later);
            let before = untouched.seen();
            let (reads, outcome, then) = whole(call, later);
            assert!(reads > 0, "{case}");
            let after = then.seen();
            for read in 1..=reads {
                let mut world = World::new();
                world.clock.time.advance(later);
                let panicked = world.calls(call, read);
                assert_eq!(panicked, (read, None), "{case}, read {read}");
                assert_eq!(world.seen(), before, "{case}, read {read}");
                let (_, again) = world.calls(call, 0);
                assert!(same(&again.unwrap(), &outcome), "{case}, read {read}");
                assert_eq!(world.seen(), after, "{case}, read {read}");
                world.ends(&case);
            }
            then.ends(&case);
            untouched.ends(&case);
        }
    }
}

#[test]
fn p2_what_tells_is_done_wherever_the_clock_panics() {
    for (name, call) in TELLS {
        let (reads, outcome, then) = whole(call, Duration::ZERO);
        assert!(reads > 0, "{name}");
        let after = then.seen();
        // Where it is read once more because the first read panicked, there, too.
        for read in 1..=reads + 1 {
            let mut world = World::new();
            let (_, told) = world.calls(call, read);
            let told = told.unwrap();
            assert!(same(&told, &outcome), "{name}, read {read}: {told}, {outcome}");
            assert_eq!(world.seen(), after, "{name}, read {read}");
            world.ends(name);
        }
        then.ends(name);
    }
}

#[test]
fn p8_what_takes_no_time_cannot_meet_a_clock_that_panics() {
    for (name, call) in SILENT {
        let (reads, _, then) = whole(call, secs(70));
        assert_eq!(reads, 0, "{name}");
        then.ends(name);
    }
}

#[test]
fn a_clock_that_comes_back_finds_no_lock_held() {
    for (name, call) in ASKS.into_iter().chain(TELLS) {
        let (_, outcome, then) = whole(call, Duration::ZERO);
        then.ends(name);
        let told = ends(name, move || {
            let mut world = World::new();
            *world.clock.comes_back.lock().unwrap() = Some(world.line.child().tokens(100).build());
            let (_, told) = world.calls(call, 0);
            assert!(world.clock.comes_back.lock().unwrap().is_none());
            world.ends(name);
            told.unwrap()
        });
        let looks = ["snapshot_tree", "holders", "limits"].contains(&name);
        assert!(looks || same(&told, &outcome), "{name}: {told}, {outcome}");
    }
}
