//! What the compiler is asked: auto traits and sizes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::size_of;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use budget_pool::*;

#[path = "support/waiter.rs"]
mod waiter;

use waiter::{Waiter, by_hand};

/// Listens to nothing.
struct Deaf;

impl Observer for Deaf {}

fn shared<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
fn unwound<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}
fn plain<T: Clone + Eq + std::hash::Hash + Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
fn copied<T: Copy>() {}
fn cloned<T: Clone>() {}

#[test]
fn what_is_handed_around_is_send_sync_static_and_debug() {
    shared::<BudgetPool>();
    shared::<Reservation>();
    shared::<Lease>();
    shared::<Wait>();
    shared::<Closed>();
    shared::<Reached>();
    shared::<Wants>();
    shared::<CommitRefused>();
    shared::<Keyed<String>>();
    shared::<PoolBuilder<Root>>();
    shared::<PoolBuilder<Child>>();
    shared::<PoolBuilder<Carved>>();
    shared::<PoolDeadline>();
    shared::<DeadlineBudget>();
    shared::<DeadlineBuilder>();
    shared::<SystemClock>();
    shared::<ManualClock>();
    unwound::<BudgetPool>();
    unwound::<Reservation>();
    unwound::<Lease>();
    unwound::<Wait>();
    unwound::<Closed>();
    unwound::<Reached>();
    unwound::<Wants>();
    unwound::<Keyed<String>>();
    unwound::<BudgetError>();
    unwound::<CommitRefused>();
    unwound::<Snapshot>();
    unwound::<DeadlineBudget>();
    unwound::<DeadlineBuilder>();
    unwound::<PoolDeadline>();
    unwound::<ManualClock>();
    error::<BudgetError>();
    error::<BudgetExceeded>();
    error::<DeadlineExceeded>();
    error::<CommitRefused>();
    error::<InvalidDeadline>();
    error::<ParseGrpcTimeoutError>();
    error::<ParseUsdError>();
    error::<TryFromF64Error>();
}

#[test]
fn what_is_a_value_can_be_compared_hashed_and_cloned() {
    plain::<Amount>();
    plain::<Caps>();
    plain::<Usd>();
    plain::<Axis>();
    plain::<Quantity>();
    plain::<Window>();
    plain::<Outlook>();
    plain::<Level>();
    plain::<Want>();
    plain::<Call<'static>>();
    plain::<Name>();
    plain::<Receipt>();
    plain::<Snapshot>();
    plain::<AxisSnapshot<u64>>();
    plain::<TreeSnapshot>();
    plain::<Holder>();
    plain::<BudgetError>();
    plain::<BudgetExceeded>();
    plain::<DeadlineExceeded>();
    plain::<InvalidDeadline>();
    plain::<ParseGrpcTimeoutError>();
    plain::<ParseUsdError>();
    plain::<TryFromF64Error>();
    cloned::<(
        PoolBuilder<Root>,
        PoolBuilder<Child>,
        PoolBuilder<Carved>,
        PoolDeadline,
        DeadlineBuilder,
    )>();
    copied::<(
        Amount,
        Caps,
        Usd,
        Axis,
        Quantity,
        Outlook,
        Level,
        Want,
        Call<'static>,
        Receipt,
        AxisSnapshot<Usd>,
    )>();
}

#[test]
fn a_clone_of_a_builder_builds_a_pool_of_its_own() {
    let clock = ManualClock::new();
    let one = BudgetPool::builder()
        .name("run")
        .tokens(100)
        .deadline(Duration::from_secs(5))
        .clock(clock.clone())
        .timer(by_hand);
    let (other, run) = (one.clone().name("other").tokens(50), one.build());
    clock.advance(Duration::from_secs(3));
    let other = other.build();
    run.record(Amount::new().tokens(100)).unwrap();
    assert_eq!((other.name(), other.snapshot().tokens.used), ("other", 0));
    other.record(Amount::new().tokens(50)).unwrap();
    let left = [&run, &other].map(|pool| pool.time_left().unwrap().as_secs());
    assert_eq!(left, [2, 5], "each from its own build on, by the same clock");

    let root = BudgetPool::builder().tokens(100).build();
    let agent = root.child().tokens(30);
    let agents = [agent.clone().build(), agent.build()];
    let share = root.child().tokens(20).carved();
    let shares = [share.clone().build().unwrap(), share.build().unwrap()];
    for pool in agents.iter().chain(&shares) {
        pool.record(Amount::new().tokens(10)).unwrap();
    }
    assert_eq!(root.snapshot().tokens.reserved, 2 * 20 - 2 * 10);
    assert_eq!(root.snapshot().tokens.used, 4 * 10);
    assert!(agents.iter().chain(&shares).all(|pool| pool.snapshot().tokens.used == 10));
}

#[test]
fn a_clone_of_a_deadline_builder_builds_a_budget_of_its_own() {
    let clock = ManualClock::new();
    let second = Duration::from_secs(1);
    let one =
        DeadlineBudget::builder().total(second * 9).clock(clock.clone()).call_cap("a", second);
    let other = one.clone().call_cap("a", second * 2);
    let one = one.build().unwrap();
    clock.advance(second);
    let other = other.build().unwrap();
    assert_eq!((one.remaining(), other.remaining()), (second * 8, second * 9));
    assert_eq!(one.timeout_for("a").unwrap(), second);
    assert_eq!(other.timeout_for("a").unwrap(), second * 2);
}

#[test]
fn equal_amounts_hash_alike() {
    use std::collections::HashSet;
    let named = Amount::new().tokens(7).input_tokens(3).output_tokens(4);
    let followed = Amount::new().input_tokens(3).output_tokens(4);
    assert_eq!(named, followed);
    assert_eq!(HashSet::from([named, followed]).len(), 1);
    let in_flight = Amount::new().in_flight(1);
    assert_eq!(HashSet::from([Amount::new(), in_flight, Amount::new().in_flight(2)]).len(), 3);
    // The label of an own axis is for texts alone.
    let [bytes, jobs] = ["bytes", "jobs"].map(|label| Amount::of(Axis::custom(1, label), 5));
    assert_eq!(HashSet::from([bytes, jobs, Amount::of(Axis::custom(2, "bytes"), 5)]).len(), 2);
    // Named is not the same as nonzero.
    assert_eq!(
        HashSet::from([Amount::new(), Amount::new().requests(0), Amount::new().tokens(0)]).len(),
        3
    );
    assert_eq!(HashSet::from([Caps::new(), Caps::new().tokens(0), Caps::new().tokens(0)]).len(), 2);
}

#[test]
fn what_differs_has_another_hash() {
    fn hash(value: impl Hash) -> u64 {
        // Its keys are zero: it says the same in each run.
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        hasher.finish()
    }
    let pool = BudgetPool::unlimited();
    let receipt = |tokens| hash(pool.debit(Amount::new().tokens(tokens)));
    assert_eq!(receipt(1), receipt(1));
    assert_ne!(receipt(1), receipt(2));
    let caps = |tokens| hash(Caps::new().tokens(tokens));
    assert_ne!(caps(1), caps(2));
    assert_ne!(caps(0), hash(Caps::new()));
    assert_ne!(hash(Amount::new().tokens(1)), hash(Amount::new().tokens(2)));
}

#[test]
fn an_ask_tells_the_amount_that_it_asks_for_first() {
    let (dear, cheap) = (Amount::new().tokens(90), Amount::new().tokens(9));
    assert_eq!(Ask::new(dear).amount(), dear);
    assert_eq!(Ask::new(dear).or(cheap).at_least(cheap).amount(), dear);
}

#[test]
fn what_is_not_named_or_not_counted_is_no_unit() {
    let amount = Amount::new().tokens(5);
    for axis in [Axis::Requests, Axis::InFlight, Axis::Deadline, Axis::custom(3, "own")] {
        assert_eq!((amount.units(axis), amount.get(axis)), (0, None), "{axis}");
        assert_eq!(Caps::new().tokens(5).units(axis), None, "{axis}");
    }
    assert_eq!(amount.in_flight(0).get(Axis::InFlight).map(Quantity::units), Some(0));
}

#[test]
fn an_own_axis_is_its_index_whatever_its_label() {
    let [bytes, octets] = ["bytes", "octets"].map(|label| Axis::custom(1, label));
    assert_eq!(bytes.partial_cmp(&octets), Some(std::cmp::Ordering::Equal));
    assert!(bytes < Axis::custom(2, "a") && Axis::Usd < bytes);
    let [Axis::Custom(bytes), Axis::Custom(octets)] = [bytes, octets] else { panic!("own axes") };
    assert_eq!((bytes.label(), octets.label()), ("bytes", "octets"));
    assert_eq!((bytes.index(), bytes), (1, octets));
}

#[test]
fn equal_amounts_are_the_same_to_a_pool() {
    let parts = Amount::new().input_tokens(3).output_tokens(4);
    for (one, other) in [(parts, parts.tokens(7)), (parts, parts.tokens(3))] {
        assert_eq!(one, other);
        let seen = [one, other].map(|amount| {
            let pool = BudgetPool::builder()
                .caps(Caps::new().tokens(9).input_tokens(6).output_tokens(8))
                .build();
            pool.record_once("key", one).unwrap();
            pool.record_once("key", amount).unwrap();
            let refused = pool.reserve(amount).unwrap_err();
            let receipt = pool.debit(amount);
            pool.reset();
            let hold = pool.reserve(amount).unwrap();
            let held = hold.amount();
            hold.record(amount).unwrap();
            (refused, receipt, held, hold.commit(amount), pool.snapshot())
        });
        assert_eq!(seen[0], seen[1]);
    }
}

#[test]
fn sizes() {
    assert_eq!(size_of::<BudgetPool>(), size_of::<usize>(), "a handle is one pointer");
    assert_eq!(size_of::<Option<BudgetPool>>(), size_of::<usize>());
    assert!(size_of::<Reservation>() <= 32);
    assert!(size_of::<Option<Reservation>>() <= 32);
    assert!(size_of::<BudgetError>() <= 96);
    assert_eq!(size_of::<Usd>(), 8);
}

#[test]
fn debug_says_what_it_is_without_a_wall_of_text() {
    let pool = BudgetPool::builder().name("run").tokens(10).build();
    let hold = pool.reserve(Amount::new().tokens(3)).unwrap();
    assert_eq!(format!("{pool:?}"), r#"BudgetPool { name: "run", .. }"#);
    let text = format!("{hold:?}");
    assert!(text.starts_with(r#"Reservation { pool: "run", key: "#), "{text}");
    assert!(text.ends_with(", .. }") && text.len() < 100, "{text}");
    let other = pool.reserve(Amount::new().tokens(3)).unwrap();
    assert_ne!(text, format!("{other:?}"), "two holds are told apart");
}

#[test]
fn debug_names_the_type_and_its_fields() {
    let clock = ManualClock::new();
    let root = || {
        let root = BudgetPool::builder().name("run").tokens(7).clock(clock.clone());
        root.timer(by_hand).deadline(Duration::from_secs(5))
    };
    let pool = root().build();
    let mut lease = pool.lease(Amount::new().tokens(2));
    lease.record(Amount::new().tokens(1)).unwrap();
    let receipt = pool.debit(Amount::new().tokens(4));
    let refused = pool.record(Amount::new().tokens(9)).unwrap_err();
    let minute = Duration::from_secs(60);
    let deadline = DeadlineBudget::builder().total(minute * 2).call_cap("llm", minute);
    let told = BudgetPool::builder().clock(Instant::now).observer(Deaf);

    // In this order, whatever stands between them.
    let shows = |value: &dyn std::fmt::Debug, parts: &str| {
        let text = format!("{value:?}");
        let mut rest = text.as_str();
        for part in parts.split(", ") {
            let at = rest.find(part).unwrap_or_else(|| panic!("`{part}` is missing: {text}"));
            rest = &rest[at + part.len()..];
        }
    };
    shows(&pool, r#"BudgetPool, name: "run""#);
    shows(&pool.snapshot().name, r#""run""#);
    shows(&pool.downgrade(), "WeakPool");
    shows(&Keyed::<u8>::new(pool.clone()), r#"Keyed, parent: BudgetPool, "run", len: 0"#);
    shows(&lease, r#"Lease, pool: "run", remaining: Amount"#);
    shows(&receipt, "Receipt, settled: Amount(4 tokens), overage, credited, is_late: false");
    let figures = "axis: Tokens, requested: 9, available: 2, cap: Some(7)";
    let rest = r#"pool: "run", outlook: Never, retry_after: None"#;
    shows(&refused, &format!("Exceeded, BudgetExceeded, {figures}, {rest}"));

    shows(&pool.reserve_wait(Amount::new()), r#"Wait, pool: "run", state: "new""#);
    shows(&pool.record_wait(Amount::new()), r#"RecordWait, pool: "run", state: "new""#);
    shows(&pool.closed(), r#"Closed, pool: "run""#);
    shows(&pool.reached(Level::percent(Axis::Tokens, 80)), r#"Reached, pool: "run""#);
    shows(&pool.wants(), r#"Wants, pool: "run""#);

    let caps = r#"PoolBuilder, name: Some("run"), caps: Caps(7 tokens), deadline: Some, window"#;
    let rules = "keys, used, ceiling, low, on_drop, most_waiting";
    let runtime = r#"clock: Clock(given), timer: "given", observer: "none""#;
    shows(&root(), &format!("{caps}, {rules}, {runtime}"));
    shows(&told, r#"timer: "none", observer: "given""#);
    shows(&BudgetPool::builder(), "clock: Clock(system)");
    shows(&pool.child().name("agent").carved(), r#"PoolBuilder, "agent", parent: BudgetPool"#);

    let rules = r#"min_timeout, call_caps, ("llm", 60s)"#;
    shows(&deadline, &format!("DeadlineBuilder, total: Some(120s), safety_margin, {rules}"));
    let budget = deadline.build().unwrap();
    shows(&budget, &format!("DeadlineBudget, started, deadline, {rules}"));
    shows(&clock, &format!("ManualClock, {:?}", clock.now()));
}

/// The hold of another task has expired, and its units would go to the task that waits.
#[test]
fn the_debug_text_of_a_hold_reads_no_clock_and_wakes_nobody() {
    let (clock, reads) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (clock, reads) = (clock.clone(), Arc::clone(&reads));
        move || {
            reads.fetch_add(1, Ordering::SeqCst);
            clock.now()
        }
    };
    let pool = BudgetPool::builder().tokens(10).clock(counted).timer(by_hand).build();
    let hold = pool.reserve(Amount::new().tokens(1)).unwrap();
    let stuck =
        pool.reserve(Ask::new(Amount::new().tokens(9)).ttl(Duration::from_secs(1))).unwrap();
    let mut waiter = Waiter::queued(&pool, Amount::new().tokens(9));
    clock.advance(Duration::from_secs(1));

    let before = reads.load(Ordering::SeqCst);
    assert!(format!("{hold:?} {stuck:?}").contains("Reservation"));
    assert_eq!((reads.load(Ordering::SeqCst), waiter.wakes()), (before, 0));

    assert_eq!(pool.snapshot().waiting, 0, "a call on the pool serves the waiter");
    assert!(reads.load(Ordering::SeqCst) > before && waiter.wakes() == 1);
    assert!(waiter.poll().is_ready());
}

/// A text would be cut to a precision, in the middle of a figure.
#[test]
fn a_precision_of_quantities_rounds_the_money_and_cuts_no_digit() {
    let amount = Amount::new().tokens(1_200).usd(Usd::from_micros(12_345_600));
    let caps = Caps::new().tokens(1_200).usd(Usd::from_micros(12_345_600));
    let [tokens, usd] = [0, 1].map(|place| amount.iter().nth(place).unwrap());
    assert_eq!(format!("{tokens:.0}|{tokens:.2}|{tokens:.40}"), ["1200 tokens"; 3].join("|"));
    assert_eq!(format!("{usd:.0}|{usd:.2}|{usd:.6}"), "12 USD|12.35 USD|12.345600 USD");
    for text in [format!("{amount:.2}"), format!("{caps:.2}")] {
        assert_eq!(text, "1200 tokens, 12.35 USD");
    }
    assert_eq!(format!("{:.2}", Amount::new()), "nothing");
    assert_eq!(format!("{:.2?}", amount), "Amount(1200 tokens, 12.35 USD)");
    // The rest is padded as texts are, with a precision and without one.
    let padded = |width: usize| {
        assert_eq!(format!("{tokens:width$}"), format!("{:width$}", "1200 tokens"));
        assert_eq!(format!("{tokens:>width$.1}"), format!("{:>width$}", "1200 tokens"));
        assert_eq!(format!("{tokens:*^width$.1}"), format!("{:*^width$}", "1200 tokens"));
        assert_eq!(format!("{tokens:é<width$.1}"), format!("{:é<width$}", "1200 tokens"));
        assert_eq!(format!("{tokens:+0width$.1}"), format!("{:+0width$}", "1200 tokens"));
        assert_eq!(format!("{amount:>width$}"), format!("{:>width$}", "1200 tokens, 12.3456 USD"));
    };
    (0..30).for_each(padded);
    let bytes = Amount::new().with(Axis::custom(0, "étés"), 10);
    assert_eq!(format!("[{bytes:>8.0}]"), "[ 10 étés]");
}

#[test]
fn a_name_is_found_in_a_map_by_its_text() {
    let pool = BudgetPool::builder().name("run-17").build();
    let by_name = std::collections::HashMap::from([(pool.snapshot().name, 1)]);
    assert_eq!((by_name.get("run-17"), by_name.get("run-18")), (Some(&1), None));
}

#[test]
fn a_name_is_text_whichever_way_it_is_compared_or_made() {
    let name = BudgetPool::builder().name("run-17").build().snapshot().name;
    assert_eq!(name, "run-17");
    assert_eq!("run-17", name);
    assert_eq!(name, String::from("run-17"));
    assert_eq!(String::from("run-17"), name);
    assert_eq!(*"run-17", name);
    assert_eq!(name, *"run-17");
    assert_ne!(*"run-18", name);
    for made in [
        Name::from(Box::<str>::from("run-17")),
        Name::from(std::borrow::Cow::Borrowed("run-17")),
        Name::from(&String::from("run-17")),
        Name::from(&name),
    ] {
        assert_eq!(made, name);
    }
    assert_eq!(String::from(name.clone()), name.as_str());
    assert_eq!(AsRef::<str>::as_ref(&name), "run-17");
}

#[test]
fn the_axes_of_a_snapshot_are_its_fields_in_declared_order() {
    let pool = BudgetPool::unlimited();
    let _hold = pool.reserve(Amount::new()).unwrap();
    let amount = Amount::new().input_tokens(1).output_tokens(2).requests(4).usd(Usd::from_nanos(5));
    let custom = (0..4).fold(amount, |amount, index| {
        amount.with(Axis::custom(index, "own"), 6 + u64::from(index))
    });
    pool.record(custom).unwrap();
    let snapshot = pool.snapshot();
    let peaks: Vec<_> =
        snapshot.axes().map(|(axis, of_axis)| (axis, of_axis.peak.units())).collect();
    let declared = [
        (Axis::Tokens, 3),
        (Axis::InputTokens, 1),
        (Axis::OutputTokens, 2),
        (Axis::Requests, 4),
        (Axis::Usd, 5),
        (Axis::InFlight, 1),
        (Axis::custom(0, "0"), 6),
        (Axis::custom(1, "1"), 7),
        (Axis::custom(2, "2"), 8),
        (Axis::custom(3, "3"), 9),
    ];
    assert_eq!(peaks, declared);
    assert_eq!(snapshot.custom.map(|axis| axis.used), [6, 7, 8, 9]);
    assert_eq!(snapshot.axis(Axis::Deadline), None);
    assert_eq!(snapshot.axis(Axis::Usd).map(|usd| usd.spent.usd()), Some(Some(snapshot.usd.spent)));
}

#[test]
fn an_own_axis_tells_its_index_and_its_label() {
    let pages = Axis::custom(3, "pages");
    let Axis::Custom(custom) = pages else { panic!("{pages:?}") };
    assert_eq!((custom.index(), custom.label()), (3, "pages"));
}

#[test]
fn a_snapshot_of_a_tree_is_walked_by_reference_and_by_value() {
    let run = BudgetPool::builder().name("run").build();
    let _agent = run.child().name("agent").build();
    let tree = run.snapshot_tree();
    assert_eq!((&tree).into_iter().map(|pool| pool.depth).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(tree.into_iter().map(|pool| pool.name).collect::<Vec<_>>(), ["run", "agent"]);
}

#[test]
fn a_table_shows_the_axes_that_have_a_cap_or_were_used() {
    let pool = BudgetPool::builder().name("run").build();
    let shown = |pool: &BudgetPool| {
        let text = pool.snapshot().to_string();
        let axes = text.lines().skip(2).map(|row| row.split("  ").next().unwrap().to_owned());
        (axes.collect::<Vec<_>>().join(", "), text)
    };
    let idle = "run: 0 admitted, 0 refused, 0 reservations\n";
    assert_eq!(shown(&pool), (String::new(), idle.to_owned()), "no head over no rows");
    pool.reserve(Amount::new().requests(1)).unwrap().release();
    assert_eq!(shown(&pool).0, "requests, in flight", "held, and spent nothing");
    pool.reset();
    pool.debit(Amount::new().tokens(1));
    pool.reset();
    assert_eq!(shown(&pool).0, "tokens", "spent before, and nothing since");
    let capped = BudgetPool::builder().input_tokens(1).build();
    assert_eq!(shown(&capped).0, "input tokens");

    let child = pool.child().name("agent").build();
    let tables = pool.snapshot().to_string() + "  " + &child.snapshot().to_string();
    assert_eq!(pool.snapshot_tree().to_string(), tables);
}

#[test]
fn what_differs_is_not_equal() {
    assert_ne!(Caps::new().tokens(1), Caps::new().tokens(2));
    assert_ne!(Caps::new().tokens(0), Caps::new(), "a cap of zero is a cap");
    let pool = BudgetPool::unlimited();
    assert_ne!(pool.debit(Amount::new().tokens(1)), pool.debit(Amount::new().tokens(2)));
    let (name, other, owned) = (Name::from("run"), "walk", String::from("walk"));
    assert_ne!(name, other);
    assert_ne!(other, name);
    assert_ne!(name, owned);
    assert_ne!(owned, name);
}
