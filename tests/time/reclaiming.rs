//! What has expired is reclaimed a little by each call, but at once where somebody could tell.

use super::*;

/// More than a call must reclaim, and how many that is.
const MANY: u64 = 20;
const BATCH: u64 = 2;

/// A tree with many holds of a token on one tenant, nobody's any more, that expire in a second.
struct Tree {
    clock: Counting,
    root: BudgetPool,
    other: BudgetPool,
}

impl Tree {
    fn new(build: impl FnOnce(PoolBuilder<Root>) -> PoolBuilder<Root>) -> Tree {
        let clock = Counting::new();
        let root =
            build(BudgetPool::builder().name("root").clock(clock.clock()).timer(by_hand)).build();
        let tenant = root.child().build();
        (0..MANY).for_each(|_| forget(tenant.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
        let other = root.child().build();
        Tree { clock, root, other }
    }

    /// The call of another tenant, which needs none of what has expired.
    fn call(&self) {
        self.other.peek(Amount::new()).unwrap();
    }
}

#[test]
fn p8_what_expired_is_left_to_later_calls_whoever_waits_or_turns_elsewhere() {
    type Elsewhere = fn(&BudgetPool) -> Box<dyn Any>;
    let all: [Elsewhere; 3] = [
        |_| Box::new(()),
        |root| {
            let busy = root.child().tokens(10).build();
            let hold = busy.reserve(tokens(10)).unwrap();
            Box::new((hold, Waiter::queued(&busy, tokens(5))))
        },
        |root| Box::new(root.child().tokens(10).window(Window::fixed(secs(10))).build()),
    ];
    for (case, elsewhere) in all.into_iter().enumerate() {
        let tree = Tree::new(|root| root);
        let _kept = elsewhere(&tree.root);
        tree.clock.clock.advance(secs(30));
        tree.clock.reads();
        // A call reads the clock as long as there is one more to reclaim.
        let calls = (0..MANY).take_while(|_| {
            tree.call();
            tree.clock.reads() > 0
        });
        assert_eq!(calls.count() as u64, MANY / BATCH, "{case}");
    }
}

/// A total below the metered parts gives back at most what is booked in the period.
#[test]
fn p2_a_commit_below_what_was_metered_comes_after_what_settled_before_it() {
    let tree = Tree::new(|root| root);
    let hold = tree.root.reserve(tokens(8)).unwrap();
    hold.record(tokens(8)).unwrap();
    tree.root.reset();
    let settles = Ask::new(tokens(5)).ttl(secs(2)).on_drop(OnDrop::Commit);
    forget(tree.root.reserve(settles).unwrap());
    tree.clock.clock.advance(secs(3));
    assert_eq!(hold.commit(tokens(0)).credited(), tokens(5));
    assert_eq!(balance(&tree.root), [0, 0, 0]);
}

#[test]
fn p6_whom_expired_holds_block_the_next_call_of_another_serves() {
    let tree = Tree::new(|root| root.tokens(MANY));
    let waiter = Waiter::queued(&tree.root.child().build(), tokens(MANY));
    tree.clock.clock.advance(secs(1));
    tree.call();
    assert_eq!(waiter.wakes(), 1);
}

/// The second waiter came before the third, but its hold expires after that of the third. Above
/// there is room for one of them.
#[test]
fn p6_whom_expired_holds_block_are_served_in_the_order_of_time() {
    let tree = Tree::new(|root| root.tokens(MANY + 15));
    let pools = [(); 2].map(|()| tree.root.child().tokens(8).build());
    for (pool, ttl) in pools.iter().zip([3, 2]) {
        forget(pool.reserve(Ask::new(tokens(5)).ttl(secs(ttl))).unwrap());
    }
    let asked = [(&tree.root, MANY), (&pools[0], 8), (&pools[1], 8)];
    let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
    tree.clock.clock.advance(secs(3));
    let polls = waiters.each_mut().map(Waiter::poll);
    assert_eq!(polls.each_ref().map(Poll::is_ready), [true, false, true]);
}

/// The waiter is blocked in its own pool, where nothing expires, by a hold or by another waiter;
/// then it would be above, where many have expired and it needs all that these give back. A
/// wait that is dropped reads no clock.
#[test]
fn p6_a_waiter_that_moves_up_to_where_holds_have_expired_is_served_at_once() {
    for is_behind_another in [false, true] {
        let tree = Tree::new(|root| root.tokens(MANY + 10));
        let own = tree.root.child().tokens(MANY + 10).build();
        let hold = own.reserve(tokens(5)).unwrap();
        let other = is_behind_another.then(|| Waiter::queued(&own, tokens(MANY + 10)));
        let asked = if is_behind_another { MANY + 5 } else { MANY + 10 };
        let waiter = Waiter::queued(&own, tokens(asked));
        tree.clock.clock.advance(secs(1));
        tree.call();
        assert_eq!(waiter.wakes(), 0);
        match other {
            Some(other) => drop(other),
            None => hold.release(),
        }
        assert_eq!(waiter.wakes(), 1);
        // Nothing is left that may expire: it was not woken only to look again.
        tree.clock.reads();
        tree.call();
        assert_eq!(tree.clock.reads(), 0, "{is_behind_another}");
    }
}

/// What comes back from it before it is settled would be lost.
#[test]
fn p2_a_hold_that_settles_does_so_before_a_window_gives_back() {
    let tree = Tree::new(|root| root.tokens(MANY + 10).window(Window::token_bucket(secs(30))));
    forget(tree.root.reserve(Ask::new(tokens(10)).ttl(secs(2))).unwrap().commit_on_drop());
    tree.clock.clock.advance(secs(7));
    tree.call();
    assert_eq!((balance(&tree.root), spent(&tree.root)), ([5, 0, 0], 10));
}

/// The waiter is blocked in its own pool, and has no hope once the hold above is spent.
#[test]
fn p6_a_hold_that_settles_does_so_before_waiters_look() {
    let tree = Tree::new(|root| root.tokens(MANY + 10));
    let own = tree.root.child().tokens(8).build();
    let _hold = own.reserve(tokens(4)).unwrap();
    let mut waiter = Waiter::queued(&own, tokens(8));
    let all = tree.root.reserve(Ask::new(tokens(6)).ttl(secs(2))).unwrap();
    tree.other.debit(tokens(MANY));
    forget(all.commit_on_drop());
    tree.clock.clock.advance(secs(2));
    tree.call();
    assert_eq!(waiter.wakes(), 1);
    let Poll::Ready(Err(refusal)) = waiter.poll() else { panic!("it has no hope") };
    assert_eq!((refusal.pool(), refusal.outlook()), (own.name(), Outlook::Never));
}

#[test]
fn p5_a_peak_does_not_count_what_expired_before_its_period_whatever_turns_the_window() {
    type Turn = fn(&Tree, &BudgetPool);
    let turns: [Turn; 5] = [
        |_, turning| turning.record(tokens(0)).unwrap(),
        |_, turning| _ = turning.debit(tokens(0)),
        |tree, _| drop(tree.root.snapshot_tree()),
        // These read no clock: the period has begun at the latest instant seen.
        |tree, turning| {
            tree.call();
            turning.close();
        },
        |tree, _| {
            tree.call();
            tree.root.close();
        },
    ];
    for (case, turn) in turns.into_iter().enumerate() {
        let tree = Tree::new(|root| root);
        let turning = tree.root.child().tokens(MANY).window(Window::fixed(secs(10))).build();
        (0..MANY).for_each(|_| forget(turning.reserve(Ask::new(tokens(1)).ttl(secs(2))).unwrap()));
        tree.clock.clock.advance(secs(10));
        turn(&tree, &turning);
        assert_eq!(turning.snapshot().tokens.peak, 0, "{case}");
    }
}
