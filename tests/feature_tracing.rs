//! The feature `tracing`: what a subscriber gets of a tree of pools, field by field.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetPool, ManualClock, OnDrop, PoolBuilder, Root, TracingObserver, Usd,
    Window,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
const MINUTE: Duration = Duration::from_secs(60);

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

/// One event: `WARN [span] message`, and its other fields.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    head: String,
    fields: BTreeMap<&'static str, String>,
}

fn written<const N: usize>(head: &str, fields: [(&'static str, &str); N]) -> Written {
    let fields = fields.map(|(name, value)| (name, value.to_owned()));
    Written { head: head.to_owned(), fields: fields.into() }
}

/// Keeps the events that come.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Written>>>);

impl Kept {
    /// What has come since it was asked last.
    fn told(&self) -> Vec<Written> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[derive(Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    /// A text is a text, and not one in quotes.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields(mut fields) = fields;
        assert_eq!(event.metadata().target(), "budget_pool");
        let span = context.event_span(event).map_or("", |span| span.name());
        let message = fields.remove("message").unwrap();
        let head = format!("{} [{span}] {message}", event.metadata().level());
        self.0.lock().unwrap().push(Written { head, fields });
    }
}

/// One test at a time: whether an event has a subscriber is kept for the whole process, and a
/// subscriber that comes or goes in another thread is not seen at once.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs with a subscriber that keeps the events.
fn subscribed(program: impl FnOnce(&Kept)) {
    let _alone = alone();
    let kept = Kept::default();
    let subscriber = Registry::default().with(kept.clone());
    tracing::subscriber::with_default(subscriber, || program(&kept));
}

fn run() -> PoolBuilder<Root> {
    BudgetPool::builder().name("run").tokens(100).observer(TracingObserver)
}

#[test]
fn a_refusal_is_written_at_debug_with_its_figures() {
    subscribed(|kept| {
        let clock = ManualClock::new();
        let day = run().usd(Usd::from_dollars(10)).window(Window::fixed(MINUTE));
        let pool = day.cap(TOOL_CALLS, 3).clock(clock.clone()).build();
        let agent = pool.child().name("agent").build();

        pool.record(tokens(120)).unwrap_err();
        assert_eq!(
            kept.told(),
            [written(
                "DEBUG [] tokens of `run` exceeded: 120 requested, 100 available, cap 100, \
                 will never fit",
                [
                    ("pool", "run"),
                    ("axis", "tokens"),
                    ("requested", "120"),
                    ("available", "100"),
                    ("outlook", "never"),
                ],
            )]
        );

        // Money in dollars, an axis of the program's own by its label, the pool that refused.
        let spend = Amount::new().usd(Usd::from_cents(999)).with(TOOL_CALLS, 3);
        agent.record(spend).unwrap();
        agent.record(Amount::new().usd(Usd::from_cents(2))).unwrap_err();
        let hold = agent.reserve(tokens(60)).unwrap();
        agent.record(tokens(50)).unwrap_err();
        agent.record(Amount::of(TOOL_CALLS, 1)).unwrap_err();
        let fields: Vec<_> = kept.told().into_iter().map(|written| written.fields).collect();
        let refusal = |axis, requested, available, outlook| {
            let fields = [
                ("pool", "run"),
                ("axis", axis),
                ("requested", requested),
                ("available", available),
                ("outlook", outlook),
            ];
            written("", fields).fields
        };
        assert_eq!(
            fields,
            [
                refusal("usd", "0.02", "0.01", "at"),
                refusal("tokens", "50", "40", "after_release"),
                refusal("tool calls", "1", "0", "at"),
            ]
        );
        hold.commit_all();

        // A wait that was in vain has the figures of the refusal that it carries.
        let ask = Ask::new(tokens(50)).wait_at_most(Duration::ZERO);
        agent.reserve_blocking(ask).unwrap_err();
        let told = kept.told();
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].fields["requested"], "50");
    });
}

#[test]
fn a_refusal_without_figures_leaves_them_out() {
    subscribed(|kept| {
        let pool = run().name("a\nb").build();
        pool.close();
        pool.record(tokens(1)).unwrap_err();
        assert_eq!(
            kept.told(),
            [written("DEBUG [] `a\\nb` is closed", [("pool", "a\nb"), ("outlook", "never")])]
        );
    });
}

#[test]
fn overage_is_written_at_warn_once_for_each_axis() {
    subscribed(|kept| {
        let pool = run().usd(Usd::from_dollars(1)).requests(9).build();
        pool.debit(tokens(130).usd(Usd::from_micros(1_500_000)).requests(1));
        assert_eq!(
            kept.told(),
            [
                written(
                    "WARN [] `run` is over its cap: 30 of 130 tokens did not fit",
                    [
                        ("pool", "run"),
                        ("axis", "tokens"),
                        ("requested", "130"),
                        ("available", "100"),
                    ],
                ),
                written(
                    "WARN [] `run` is over its cap: 0.5 of 1.5 USD did not fit",
                    [("pool", "run"), ("axis", "usd"), ("requested", "1.5"), ("available", "1")],
                ),
            ]
        );
        pool.credit(tokens(30));
        pool.debit(Amount::new().requests(1));
        assert_eq!(kept.told(), [], "all of it fits");
    });
}

#[test]
fn an_expiry_and_a_late_spend_are_written_at_warn() {
    subscribed(|kept| {
        let clock = ManualClock::new();
        let pool = run().clock(clock.clone()).build();
        let ask = |n, on_drop| Ask::new(tokens(n)).ttl(MINUTE).on_drop(on_drop);
        let labelled = pool.reserve(ask(70, OnDrop::Release).label("call 7")).unwrap();
        let committed = pool.reserve(ask(20, OnDrop::Commit)).unwrap();
        clock.advance(MINUTE);
        drop(pool.snapshot());
        let expired = [("pool", "run"), ("amount", "70 tokens"), ("label", "call 7")];
        assert_eq!(
            kept.told(),
            [
                written(
                    "WARN [] the hold `call 7` on `run` has expired: 70 tokens released",
                    expired,
                ),
                written(
                    "WARN [] the hold on `run` has expired: 20 tokens booked",
                    [("pool", "run"), ("amount", "20 tokens")],
                ),
            ]
        );
        labelled.commit(tokens(60));
        drop(committed);
        assert_eq!(
            kept.told(),
            [written(
                "WARN [] a hold on `run` had expired when its spend was told: 60 tokens booked late",
                [("pool", "run"), ("amount", "60 tokens")],
            )]
        );
    });
}

#[test]
fn a_hold_dropped_without_a_word_is_written_if_it_was_released() {
    subscribed(|kept| {
        let pool = run().build();
        drop(pool.reserve(Ask::new(tokens(40)).label("call")).unwrap());
        assert_eq!(
            kept.told(),
            [written(
                "WARN [] the hold `call` on `run` was dropped without a word: 40 tokens released",
                [("pool", "run"), ("amount", "40 tokens"), ("label", "call")],
            )]
        );
        drop(pool.reserve(tokens(40)).unwrap().commit_on_drop());
        pool.reserve(tokens(40)).unwrap().release();
        pool.reserve(tokens(40)).unwrap().commit_all();
        assert_eq!(kept.told(), []);
    });
}

#[test]
fn an_event_belongs_to_the_span_of_its_caller_and_its_subscriber_may_call_the_pool() {
    /// Looks at the pool with each event, which would wait for ever if the lock were held.
    struct Looks(BudgetPool, Arc<Mutex<Vec<u64>>>);
    impl<S: Subscriber> Layer<S> for Looks {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.1.lock().unwrap().push(self.0.snapshot().refused);
        }
    }
    let _alone = alone();
    let (pool, seen) = (run().build(), Arc::default());
    let kept = Kept::default();
    let looks = Looks(pool.clone(), Arc::clone(&seen));
    let subscriber = Registry::default().with(kept.clone()).with(looks);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info_span!("task").in_scope(|| pool.record(tokens(101)).unwrap_err());
    });
    assert!(kept.told()[0].head.starts_with("DEBUG [task] tokens of `run`"));
    assert_eq!(*seen.lock().unwrap(), [1]);
}

#[test]
fn without_a_subscriber_nothing_is_lost_and_nothing_fails() {
    let _alone = alone();
    let pool = run().build();
    pool.record(tokens(101)).unwrap_err();
    assert_eq!(pool.debit(tokens(120)).overage(), tokens(20));
    assert_eq!(pool.snapshot().refused, 1);
}
