//! Conversions, iterators and writers of the user's, which a call runs on its way: they panic, or
//! they call the pool.

use super::*;
use budget_pool::{
    Axis, BudgetError, Call, DeadlineBudget, Keyed, Name, PoolDeadline, Quantity, TreeSnapshot, Usd,
};
use std::fmt::{self, Write};

/// What the code of the user's does.
#[derive(Clone)]
enum Door {
    Panics,
    Calls(BudgetPool),
}

impl Door {
    fn open(&self) {
        match self {
            Door::Panics => panics(),
            Door::Calls(pool) => use_all(pool),
        }
    }
}

impl From<Door> for Ask {
    fn from(door: Door) -> Ask {
        door.open();
        Ask::new(tokens(1))
    }
}

impl From<Door> for Name {
    fn from(door: Door) -> Name {
        door.open();
        Name::from("name")
    }
}

impl From<Door> for PoolDeadline {
    fn from(door: Door) -> PoolDeadline {
        door.open();
        PoolDeadline::from(secs(5))
    }
}

impl From<Door> for Call<'static> {
    fn from(door: Door) -> Call<'static> {
        door.open();
        Call::named("call")
    }
}

impl From<Door> for Box<str> {
    fn from(door: Door) -> Box<str> {
        door.open();
        Box::from("call")
    }
}

/// Some items, and then what the door does.
fn after<T>(items: impl IntoIterator<Item = T>, door: Door) -> impl Iterator<Item = T> {
    items.into_iter().chain(std::iter::from_fn(move || {
        door.open();
        None
    }))
}

fn quantity() -> Quantity {
    tokens(1).get(Axis::Tokens).unwrap()
}

type Use = fn(&BudgetPool, Door);

/// Each leaves nothing behind, whether it panics or not.
const USES: [(&str, Use); 20] = [
    ("reserve", |pool, door| drop(pool.reserve(door))),
    ("reserve_wait", |pool, door| drop(pool.reserve_wait(door))),
    ("reserve_blocking", |pool, door| drop(pool.reserve_blocking(door))),
    ("record_once", |pool, door| drop(pool.record_once(door, tokens(0)))),
    ("debit_once", |pool, door| drop(pool.debit_once(door, tokens(0)))),
    ("Ask::label", |pool, door| drop(pool.reserve(Ask::new(tokens(1)).label(door)))),
    ("Reservation::label", |pool, door| drop(pool.reserve(tokens(1)).unwrap().label(door))),
    ("name", |pool, door| drop(pool.child().name(door).build())),
    ("deadline", |pool, door| drop(pool.child().deadline(door).build())),
    ("timeout_for", |_, door| drop(DeadlineBudget::new(secs(5)).timeout_for(door))),
    ("call_cap", |_, door| drop(DeadlineBudget::builder().call_cap(door, secs(1)).build())),
    ("call_caps", |_, door| {
        let caps = after([("call", secs(1))], door);
        drop(DeadlineBudget::builder().call_caps(caps).build());
    }),
    ("call_caps' names", |_, door| {
        drop(DeadlineBudget::builder().call_caps([(door, secs(1))]).build());
    }),
    ("joint", |pool, door| {
        let parents = [pool.child().build(), pool.child().build()];
        drop(BudgetPool::joint(after(&parents, door)).map(|joint| joint.build()));
    }),
    ("calendar", |pool, door| {
        let now = std::time::Instant::now();
        let days = Window::calendar(after([now + secs(5), now + secs(9)], door));
        drop(pool.child().tokens(1).window(days).build());
    }),
    ("Amount's items", |pool, door| {
        drop(pool.reserve(after([quantity()], door).collect::<Amount>()));
    }),
    ("Caps' items", |pool, door| {
        drop(pool.child().caps(after([quantity()], door).collect()).build());
    }),
    ("a sum of amounts", |pool, door| {
        drop(pool.reserve(after([tokens(1)], door).sum::<Amount>()));
    }),
    ("a sum of dollars", |_, door| _ = after([Usd::ZERO], door).sum::<Usd>()),
    ("get_or_build", |pool, door| {
        let tenants = Keyed::<u8>::new(pool.clone());
        drop(tenants.get_or_build(&1, |tenant| {
            door.open();
            tenant
        }));
        assert_eq!((tenants.len(), tenants.evict_idle()), (1, 1));
    }),
];

#[test]
fn p3_a_conversion_that_panics_does_so_before_anything_is_held() {
    for (name, call) in USES {
        let pool = pool_of(100);
        let before = pool.snapshot_tree();
        comes_out(|| call(&pool, Door::Panics));
        let after = pool.snapshot_tree();
        // The hold that is labelled was there before.
        let is_held = |tree: &TreeSnapshot| tree[0].tokens.reserved;
        assert_eq!((after.len(), is_held(&after)), (1, 0), "{name}");
        let is_labelled = name == "Reservation::label";
        assert!(is_labelled || after == before, "{name}: {after}");
        is_balanced(&pool);
    }
}

#[test]
fn a_conversion_that_calls_the_pool_finds_no_lock_held() {
    for (name, call) in USES {
        ends(name, move || {
            let pool = pool_of(100);
            call(&pool, Door::Calls(pool.child().build()));
            let end = pool.snapshot_tree();
            assert_eq!((end.len(), end[0].reservations, end[0].waiting), (1, 0, 0), "{name}");
            check_invariants(&pool);
        });
    }
}

/// At each piece that is written.
struct Writer(Door);

impl Write for Writer {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        self.0.open();
        Ok(())
    }
}

type Show = fn(&BudgetPool, &mut Writer);

const TEXTS: [(&str, Show); 14] = [
    ("a pool", |pool, writer| write!(writer, "{pool:?}").unwrap()),
    ("a weak handle", |pool, writer| write!(writer, "{:?}", pool.downgrade()).unwrap()),
    ("a hold", |pool, writer| {
        let hold = pool.reserve(tokens(1)).unwrap();
        write!(writer, "{hold:?}").unwrap();
    }),
    ("a lease", |pool, writer| {
        let lease = pool.lease(tokens(1));
        write!(writer, "{lease:?}").unwrap();
    }),
    ("a wait", |pool, writer| {
        let waits = (pool.reserve_wait(tokens(1)), pool.record_wait(tokens(1)));
        write!(writer, "{waits:?}").unwrap();
    }),
    ("a wait in line", |pool, writer| {
        let _held = pool.reserve(tokens(100)).unwrap();
        let mut wait = pool.reserve_wait(tokens(1));
        assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        write!(writer, "{wait:?}").unwrap();
    }),
    ("a watch", |pool, writer| write!(writer, "{:?}", (pool.closed(), pool.wants())).unwrap()),
    ("a builder", |pool, writer| {
        write!(writer, "{:?}{:?}", pool.child(), BudgetPool::builder()).unwrap();
    }),
    ("a keyed", |pool, writer| {
        write!(writer, "{:?}", Keyed::<u8>::new(pool.clone())).unwrap();
    }),
    ("a refused commit", |pool, writer| {
        let hold = pool.reserve(tokens(1)).unwrap();
        let refused = hold.try_commit(tokens(1_000)).unwrap_err();
        write!(writer, "{refused}{refused:?}").unwrap();
    }),
    ("a snapshot", |pool, writer| write!(writer, "{}", pool.snapshot()).unwrap()),
    ("a tree", |pool, writer| write!(writer, "{}", pool.snapshot_tree()).unwrap()),
    ("a refusal", |pool, writer| {
        let refused: BudgetError = pool.record(tokens(1_000)).unwrap_err();
        write!(writer, "{refused}{refused:?}").unwrap();
    }),
    ("a deadline", |pool, writer| {
        let child = pool.child().deadline(secs(5)).build();
        write!(writer, "{:?}", child.deadline()).unwrap();
    }),
];

#[test]
fn p3_a_writer_that_panics_leaves_the_pool_as_it_was() {
    for (name, show) in TEXTS {
        let pool = pool_of(100);
        comes_out(|| show(&pool, &mut Writer(Door::Panics)));
        assert_eq!(pool.snapshot_tree().len(), 1, "{name}");
        is_balanced(&pool);
    }
}

#[test]
fn a_writer_that_calls_the_pool_finds_no_lock_held() {
    for (name, show) in TEXTS {
        ends(name, move || {
            let pool = pool_of(100);
            show(&pool, &mut Writer(Door::Calls(pool.child().build())));
            let end = pool.snapshot_tree();
            assert_eq!((end.len(), end[0].reservations, end[0].waiting), (1, 0, 0), "{name}");
        });
    }
}
