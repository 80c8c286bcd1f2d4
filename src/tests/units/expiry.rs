use super::*;
use crate::engine::{Booked, End, Place, Purpose, Refill, Spec};
use crate::types::axis::lane;
use crate::types::on_drop::OnDrop;
use crate::{Amount, Caps, Window};

const TTL: Duration = Duration::from_secs(1);

/// A thousand forgotten holds of one token each, all that there are, and the instant at which
/// they expire.
fn forgotten() -> (Engine, NodeId, Instant) {
    forgotten_in(None)
}

/// The same in a pool with a window that starts now.
fn forgotten_in(window: Option<Window>) -> (Engine, NodeId, Instant) {
    let (at, now) = (NodeId::ROOT, Instant::now());
    let mut engine = Engine::new(spec(Caps::new().tokens(1_000), window, now));
    for _ in 0..1_000 {
        engine.reserve_for(at, Amount::new().tokens(1).quantities(), TTL, now).unwrap();
    }
    (engine, at, now + TTL)
}

fn spec(caps: Caps, window: Option<Window>, now: Instant) -> Spec {
    let window = window.map(|window| Box::new(Refill::start(window, now)));
    Spec { window, ..Spec::of(caps) }
}

fn record(engine: &mut Engine, at: NodeId, tokens: u64, now: Instant) -> bool {
    engine.record(at, &Quantities::NONE.with(lane::TOKENS, tokens), Some(now)).is_ok()
}

fn left(engine: &Engine) -> u32 {
    engine.expiry.len()
}

#[test]
fn p4_as_many_are_reclaimed_as_a_call_needs_and_a_few_by_each() {
    let (mut engine, at, expiry) = forgotten();
    assert!(!record(&mut engine, at, 1, expiry - Duration::from_nanos(1)));
    assert_eq!(left(&engine), 1_000);
    assert!(record(&mut engine, at, 1, expiry));
    assert_eq!(left(&engine), 1_000 - BATCH);
    assert!(record(&mut engine, at, 0, expiry));
    assert_eq!(left(&engine), 1_000 - 2 * BATCH);
    assert!(record(&mut engine, at, 500, expiry));
    assert_eq!(left(&engine), 1_000 - 501);
    assert!(!record(&mut engine, at, 1_000, expiry), "only after all were reclaimed");
    assert_eq!((left(&engine), engine.heeds_time()), (0, false));
}

/// At the end of a transition.
fn is_quiet(engine: &mut Engine) -> bool {
    engine.renew_duties();
    engine.is_quiet()
}

#[test]
fn a_tree_is_quiet_while_no_hold_may_expire_and_nobody_waits() {
    let now = Instant::now();
    let mut engine = Engine::new(spec(Caps::new().tokens(1), None, now));
    assert!(is_quiet(&mut engine));
    let one = Quantities::NONE.with(lane::TOKENS, 1);
    let hold = engine.reserve_for(NodeId::ROOT, &one, TTL, now).unwrap();
    assert!(!is_quiet(&mut engine), "a hold may expire");
    engine.unschedule(hold);
    assert!(is_quiet(&mut engine));
    let place = engine.wait(NodeId::ROOT, &one, Purpose::Hold, None).unwrap();
    assert!(matches!(place, Place::InLine(_)) && !is_quiet(&mut engine), "a waiter is in line");
}

#[test]
fn p8_a_tree_is_as_good_as_quiet_until_a_hold_is_due_and_not_before_though_the_clock_runs_back() {
    let (mut engine, at, expiry) = forgotten();
    let before = expiry - Duration::from_nanos(1);
    assert!(!is_quiet(&mut engine));
    assert!(engine.is_quiet_at(before) && !engine.is_quiet_at(expiry));
    engine.pause(at, before, |_| expiry);
    is_quiet(&mut engine);
    assert!(!engine.is_quiet_at(before), "a pool is paused");
    engine.resume(at, Some(before));
    is_quiet(&mut engine);
    assert!(engine.is_quiet_at(before));
    assert!(record(&mut engine, at, 0, expiry));
    assert!(!engine.is_quiet_at(before), "others were due by then");
}

#[test]
fn p4_holds_that_settle_are_reclaimed_in_batches_while_nobody_waits_and_no_window_turns() {
    let (mut engine, at, expiry) = forgotten();
    let order = engine.expiry.order.as_ref().expect("they may expire");
    let keys: Vec<HoldKey> = order.releasing.0.iter().map(|entry| entry.key).collect();
    keys.into_iter().for_each(|key| engine.on_drop(key, OnDrop::Commit, None));
    assert!(record(&mut engine, at, 0, expiry));
    assert_eq!(left(&engine), 1_000 - BATCH);
}

#[test]
fn p4_all_are_reclaimed_only_before_a_period_ends_in_a_pool_that_has_some() {
    let just = Duration::from_nanos(1);
    for (period, reclaimed) in [(TTL + 2 * just, BATCH), (TTL + just, 1_000)] {
        let (mut engine, at, expiry) = forgotten_in(Some(Window::fixed(period)));
        assert!(record(&mut engine, at, 0, expiry + just));
        assert_eq!(left(&engine), 1_000 - reclaimed, "{period:?}");
    }
    let (mut engine, at, expiry) = forgotten();
    let turning = spec(Caps::new(), Some(Window::fixed(TTL)), expiry - TTL);
    let turning = engine.add_child(at, turning);
    assert!(record(&mut engine, turning, 0, expiry));
    assert_eq!(left(&engine), 1_000 - BATCH, "none of them is in the pool that turns");
}

#[test]
fn all_are_reclaimed_for_whoever_looks_and_as_many_as_whoever_waits_needs() {
    let (mut engine, at, expiry) = forgotten();
    engine.snapshot(at, Some(expiry));
    assert_eq!(left(&engine), 0);
    let (mut engine, at, expiry) = forgotten();
    let half = Quantities::NONE.with(lane::TOKENS, 500);
    let place = engine.wait(at, &half, Purpose::Hold, Some(expiry - TTL)).unwrap();
    assert!(matches!(place, Place::InLine(_)));
    assert!(record(&mut engine, at, 0, expiry));
    assert_eq!((left(&engine), engine.queue.has_waiting()), (500, false));
}

#[test]
fn the_hold_at_hand_is_brought_up_though_others_are_due_before() {
    let (mut engine, at, expiry) = forgotten();
    let key = engine.reserve_for(at, &Quantities::NONE, TTL, expiry - TTL).unwrap();
    assert!(engine.holds.get(key).is_live());
    engine.advance_hold(key, Some(expiry), |_| Quantities::NONE);
    assert!(!engine.holds.get(key).is_live());
    assert!(left(&engine) > 900, "no more than it takes");
}

#[test]
fn what_ends_before_its_time_is_not_due_any_more() {
    let (mut engine, at, expiry) = forgotten();
    engine.snapshot(at, Some(expiry));
    let held = Quantities::NONE.with(lane::TOKENS, 1);
    let keys = [(); 3].map(|()| engine.reserve_for(at, &held, TTL, expiry).unwrap());
    keys.into_iter().for_each(|key| engine.on_drop(key, OnDrop::Commit, Some(expiry)));
    assert_eq!(left(&engine), 3);
    engine.end(keys[0], End::Release, Some(expiry), &mut { Booked::NOTHING });
    engine.renew(keys[1], Duration::MAX, expiry).unwrap();
    assert_eq!(left(&engine), 1);
    engine.snapshot(at, Some(expiry + TTL));
    assert_eq!(left(&engine), 0);
}
