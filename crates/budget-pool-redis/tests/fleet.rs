//! Fleets on a real server: the promises where nothing fails.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use budget_pool::{Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Level};
use budget_pool_redis::{Admin, Fleet, FleetBuilder, FleetError, Lost, blocking};
use common::{figures, tokens};
use server::Server;

fn quick(wallet: &str) -> FleetBuilder {
    let short = Duration::from_millis(50);
    Fleet::builder(wallet).settle_every(short).horizon(short).ttl(Duration::from_secs(3))
}

fn founding(cap: u64) -> FleetBuilder {
    quick("acme").found(Caps::new().tokens(cap))
}

#[tokio::test]
async fn f2_what_is_spent_is_told_and_the_rest_comes_back() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    fleet.record(tokens(300)).await.unwrap();
    let hold = fleet.reserve(tokens(200)).await.unwrap();
    fleet.settle().await.unwrap();
    let (used, held, free) = figures(&admin).await;
    assert_eq!((used, used + held + free), (300, 1_000));
    assert!(held >= 200);
    hold.commit(tokens(150));
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (450, 0, 550));
    assert_eq!(admin.members().await.unwrap(), []);
}

/// The pool of a process has no cap of its own, so no figure of it is a percentage.
#[tokio::test]
async fn a_level_of_the_pool_of_a_process_is_an_amount_and_that_of_the_fleet_a_snapshot() {
    let server = Server::start();
    let one = founding(1_000).join(server.client()).await.unwrap();
    let two = founding(1_000).join(server.client()).await.unwrap();
    let is_there = |pool: &BudgetPool, level| {
        pool.reached(level).block_at_most(Duration::ZERO).map(|snapshot| snapshot.tokens.used)
    };
    let (pool, at_600) = (one.pool(), Level::amount(tokens(600)));
    let percent = |percent| Level::percent(Axis::Tokens, percent);
    let mut in_percent = std::pin::pin!(pool.reached(percent(0)));
    assert!(tokio::time::timeout(Duration::ZERO, &mut in_percent).await.is_err());
    let spend = async |pool: &BudgetPool, units| {
        pool.reserve_wait(tokens(units)).await.unwrap().commit_all();
    };
    spend(two.pool(), 300).await;
    spend(pool, 599).await;
    assert_eq!(is_there(pool, at_600), None, "the spend of another process counts");
    spend(pool, 1).await;
    assert_eq!(is_there(pool, at_600), Some(600));

    let agent = pool.child().name("agent").tokens(100).build();
    spend(&agent, 79).await;
    assert_eq!(is_there(&agent, percent(80)), None);
    spend(&agent, 1).await;
    assert_eq!(is_there(&agent, percent(80)), Some(80));

    spend(pool, 20).await;
    one.settle().await.unwrap();
    two.settle().await.unwrap();
    let fleet = one.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    assert_eq!((fleet.used.units(), fleet.cap.units()), (1_000, 1_000));
    let waited = tokio::time::timeout(Duration::from_millis(100), in_percent).await;
    assert!(waited.is_err(), "the pool has no cap");
    assert_eq!(is_there(pool, percent(100)), None, "the pool has no cap");
}

#[tokio::test]
async fn a_level_of_the_pool_of_a_process_counts_all_periods() {
    let server = Server::start();
    let terms = founding(100).window(Duration::from_millis(400));
    let fleet = terms.join(server.client()).await.unwrap();
    fleet.record(tokens(60)).await.unwrap();
    fleet.settle().await.unwrap();
    let end = Instant::now() + Duration::from_secs(10);
    while fleet.record(tokens(60)).await.is_err() {
        assert!(Instant::now() < end, "the period does not turn");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let reached = fleet.pool().reached(Level::amount(tokens(120)).settled());
    assert_eq!(reached.block_at_most(Duration::ZERO).unwrap().tokens.used, 120);
}

#[tokio::test]
async fn f7_a_refusal_names_the_figures_of_the_fleet() {
    let server = Server::start();
    let one = founding(100).join(server.client()).await.unwrap();
    let two = founding(100).join(server.client()).await.unwrap();
    let hold = one.reserve(tokens(60)).await.unwrap();
    two.record(tokens(10)).await.unwrap();
    let refused = two.record(tokens(70)).await.unwrap_err();
    let FleetError::Short { axis, requested, cap, held_by_others, retry_after, .. } = &refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!((*axis, *requested, *cap), (Axis::Tokens, 70, 100));
    assert!(*held_by_others >= 60 && retry_after.is_some(), "{refused:?}");
    hold.release();
    let end = Instant::now() + Duration::from_secs(5);
    while two.record(tokens(70)).await.is_err() {
        assert!(Instant::now() < end, "what the other gave back does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let never = two.record(tokens(101)).await.unwrap_err();
    assert!(matches!(never, FleetError::Budget(BudgetError::Exceeded(_))), "{never:?}");
}

/// Nothing but a call has this process hear of the new cap in time.
#[tokio::test]
async fn f7_a_call_that_would_never_fit_finds_what_an_operator_added() {
    let server = Server::start();
    let minute = Duration::from_secs(60);
    let terms = Fleet::builder("acme").found(Caps::new().tokens(100));
    let fleet = terms.ttl(minute).settle_every(minute / 3).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    let admin = fleet.admin();
    let lately = Duration::from_millis(300);
    for turn in 0..4 {
        fleet.settle().await.unwrap();
        let never = fleet.record(tokens(10)).await.unwrap_err();
        assert!(matches!(never, FleetError::Budget(BudgetError::Exceeded(_))), "{never:?}");
        tokio::time::sleep(lately).await;
        admin.raise(&format!("ticket {turn}"), Caps::new().tokens(10)).await.unwrap();
        let hold = match turn {
            0 => {
                fleet.record(tokens(10)).await.unwrap();
                continue;
            }
            1 => fleet.reserve(tokens(10)).await,
            2 => fleet.reserve(Ask::new(tokens(50)).or(tokens(10))).await,
            _ => fleet.reserve_wait(Ask::new(tokens(10)).wait_at_most(lately)).await,
        };
        hold.unwrap().commit_all();
    }
    let (start, calls) = (Instant::now(), fleet.status().calls);
    while start.elapsed() < Duration::from_secs(1) {
        assert!(fleet.record(tokens(10)).await.is_err());
        assert!(fleet.reserve_wait(tokens(10)).await.is_err());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let calls = fleet.status().calls - calls;
    assert!((2..=5).contains(&calls), "{calls} calls");
    assert_eq!(figures(&admin).await, (140, 0, 0));
}

#[test]
fn threads_that_wait_find_what_an_operator_added() {
    let server = Server::start();
    let minute = Duration::from_secs(60);
    let terms = Fleet::builder("acme").found(Caps::new().tokens(100));
    let terms = terms.ttl(minute).settle_every(minute / 3);
    let fleet = blocking::Fleet::join(terms, server.client()).unwrap();
    fleet.record(tokens(100)).unwrap();
    fleet.settle().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let admin = Admin::new("acme", server.client());
    runtime.block_on(admin.raise("1", Caps::new().tokens(10))).unwrap();
    fleet.reserve_wait(tokens(10)).unwrap().commit_all();
}

/// A call that lacks more than the others hold waits for the end of the period, and says so.
#[tokio::test]
async fn f7_the_others_are_no_hope_for_more_than_they_hold() {
    let (server, minute) = (Server::start(), Duration::from_secs(60));
    for period in [Duration::ZERO, minute] {
        let wallet = format!("acme-{}", period.as_secs());
        let founding = || quick(&wallet).found(Caps::new().tokens(100)).window(period);
        let one = founding().join(server.client()).await.unwrap();
        let two = founding().join(server.client()).await.unwrap();
        let _hold = one.reserve(tokens(5)).await.unwrap();
        let _own = two.reserve(tokens(80)).await.unwrap();
        let FleetError::Short { held_by_others, retry_after, .. } =
            two.record(tokens(50)).await.unwrap_err()
        else {
            panic!("it is short")
        };
        assert!((5..30).contains(&held_by_others), "{held_by_others}");
        match retry_after {
            None => assert_eq!(period, Duration::ZERO),
            Some(after) => assert!(after > minute / 2 && after <= minute, "{after:?}"),
        }
    }
}

/// What was spent since the last exchange comes back with the period, as all that is used.
#[tokio::test]
async fn f7_a_spent_grant_comes_back_with_the_period() {
    let (server, period) = (Server::start(), Duration::from_secs(2));
    for (wallet, first) in [("part", 900), ("all", 1_000)] {
        let terms = Fleet::builder(wallet).found(Caps::new().tokens(1_000)).window(period);
        let fleet = terms.ttl(60 * period).settle_every(20 * period).join(server.client());
        let fleet = fleet.await.unwrap();
        fleet.record(tokens(first)).await.unwrap();
        let refused = fleet.record(tokens(200)).await.unwrap_err();
        let FleetError::Short { retry_after: Some(after), .. } = refused else {
            panic!("{refused:?}")
        };
        assert!(after <= period, "{after:?}");
        let wait = tokio::time::timeout(2 * period, fleet.reserve_wait(tokens(200)));
        wait.await.unwrap().unwrap().commit_all();
        // No period has room for more than its cap.
        fleet.reserve(tokens(500)).await.unwrap().release();
        let refused = fleet.record(tokens(1_001)).await.unwrap_err();
        assert_eq!(refused.retry_after(), None, "{refused:?}");
    }
}

#[tokio::test]
async fn f7_a_short_answer_counts_for_a_quarter_of_a_second() {
    let server = Server::start();
    let join = || Fleet::builder("acme").found(Caps::new().tokens(100)).join(server.client());
    let (one, two) = (join().await.unwrap(), join().await.unwrap());
    let hold = one.reserve(tokens(100)).await.unwrap();
    let start = Instant::now();
    assert!(matches!(two.record(tokens(10)).await, Err(FleetError::Short { .. })));
    let calls = two.status().calls;
    hold.release();
    one.leave().await.unwrap();
    let (again, calls) = (two.record(tokens(10)).await, two.status().calls - calls);
    if start.elapsed() < Duration::from_millis(250) {
        assert!(matches!(again, Err(FleetError::Short { .. })) && calls == 0, "{again:?} {calls}");
    }
    tokio::time::sleep(Duration::from_millis(350)).await;
    two.record(tokens(10)).await.unwrap();
}

#[tokio::test]
async fn the_text_of_a_refusal_is_one_line() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    let _hold = fleet.reserve(tokens(100)).await.unwrap();
    let refused = fleet.record(tokens(5)).await.unwrap_err();
    let text = "the fleet `acme` is short: 5 tokens requested, 0 tokens free, cap 100 tokens, 0 tokens held by others";
    assert_eq!(refused.to_string(), text);
}

/// Four processes take one unit after the other, at first at once and then what is left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_f4_all_of_the_cap_is_spent_and_no_more() {
    let server = Server::start();
    let mut workers = Vec::new();
    let mut fleets = Vec::new();
    for _process in 0..4 {
        let fleet = founding(10_000).join(server.client()).await.unwrap();
        fleets.push(fleet.clone());
        workers.push(tokio::spawn(async move {
            let (mut spent, mut idle) = (0_u64, Instant::now());
            while idle.elapsed() < Duration::from_secs(4) {
                match fleet.record(tokens(1)).await {
                    Ok(()) => (spent, idle) = (spent + 1, Instant::now()),
                    Err(FleetError::Budget(BudgetError::Exceeded(_))) => break,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
                if spent % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            spent
        }));
    }
    let mut spent = 0;
    for worker in workers {
        spent += worker.await.unwrap();
    }
    assert_eq!(spent, 10_000);
    let admin = fleets[0].admin();
    for fleet in fleets {
        fleet.leave().await.unwrap();
    }
    assert_eq!(figures(&admin).await, (10_000, 0, 0));
}

#[tokio::test]
async fn f6_a_waiter_gets_what_another_process_gives_back() {
    let server = Server::start();
    let one = founding(100).join(server.client()).await.unwrap();
    let two = founding(100).join(server.client()).await.unwrap();
    let hold = one.reserve(tokens(80)).await.unwrap();
    let waiter = tokio::spawn({
        let two = two.clone();
        async move { two.reserve_wait(tokens(70)).await.map(|hold| hold.commit_all()) }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!waiter.is_finished());
    hold.release();
    tokio::time::timeout(Duration::from_secs(5), waiter).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_a_caller_does_to_its_pool_makes_no_budget() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    let pool: &BudgetPool = fleet.pool();
    pool.reset();
    pool.raise_caps(Caps::new().tokens(1_000)).unwrap();
    pool.set_used(tokens(0)).unwrap();
    assert!(pool.record(tokens(1)).is_err());
    assert!(fleet.record(tokens(1)).await.is_err());
}

#[tokio::test]
async fn a_debit_beyond_the_grant_is_booked_and_paid_first() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    fleet.pool().debit(tokens(130));
    fleet.settle().await.unwrap();
    let admin = fleet.admin();
    let axis = admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    assert_eq!((axis.used.units(), axis.overage.units()), (130, 30));
    assert!(fleet.record(tokens(1)).await.is_err());
    admin.set_caps(Caps::new().tokens(140)).await.unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while fleet.record(tokens(10)).await.is_err() {
        assert!(Instant::now() < end, "the raised cap does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fleet.record(tokens(1)).await.is_err());
}

/// A call that was refused a moment ago does not keep the spend from being told.
#[tokio::test]
async fn f2_an_overage_is_told_while_the_fleet_is_short() {
    let server = Server::start();
    let other = founding(100).join(server.client()).await.unwrap();
    let _hold = other.reserve(tokens(80)).await.unwrap();
    // No exchange but those of its calls, so that the refusal is still known.
    let fleet = quick("acme").settle_every(Duration::from_secs(1)).join(server.client());
    let fleet = fleet.await.unwrap();
    let refused = fleet.record(tokens(50)).await;
    assert!(matches!(refused, Err(FleetError::Short { .. })), "{refused:?}");
    fleet.pool().debit(tokens(150));
    fleet.settle().await.unwrap();
    assert_eq!(figures(&fleet.admin()).await.0, 150);
}

#[tokio::test]
async fn a_window_brings_back_what_was_used() {
    let server = Server::start();
    let period = Duration::from_millis(700);
    let founding = || founding(100).window(period);
    let fleet = founding().join(server.client()).await.unwrap();
    let (start, mut spent) = (Instant::now(), 0);
    while start.elapsed() < 3 * period {
        match fleet.record(tokens(10)).await {
            Ok(()) => spent += 10,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    // Three whole periods pass, and parts of two others at most.
    assert!((300..=500).contains(&spent), "{spent}");
    assert!(fleet.snapshot().await.unwrap().period_ends_in.is_some());
}

#[tokio::test]
async fn joins_that_are_refused() {
    let server = Server::start();
    let join = |builder: FleetBuilder| builder.join(server.client());
    let error = join(quick("acme")).await.unwrap_err();
    assert!(matches!(error, FleetError::NoWallet { .. }), "{error:?}");
    assert_eq!(error.to_string(), "there is no wallet `acme`");
    let most = (1 << 53) - 1;
    let error = join(founding(most + 1)).await.unwrap_err();
    assert!(matches!(error, FleetError::Range { .. }), "{error:?}");
    let _first = join(founding(most)).await.unwrap();
    for other in [
        founding(most - 1),
        founding(most).lost(Lost::Return),
        founding(most).window(Duration::from_secs(1)),
        quick("acme").found(Caps::new().tokens(most).requests(1)),
    ] {
        let error = join(other).await.unwrap_err();
        assert!(matches!(error, FleetError::OtherFounding { .. }), "{error:?}");
    }
    let error = join(quick("acme").at_most(Amount::new().requests(1))).await.unwrap_err();
    assert!(matches!(error, FleetError::OtherAxes { .. }), "{error:?}");
    join(quick("acme")).await.unwrap();

    server.command(&["SET", "bp1:{text}:w", "a string"]);
    let error = join(quick("text")).await.unwrap_err();
    assert!(matches!(error, FleetError::Store { .. }), "{error:?}");
    server.command(&["HSET", "bp1:{garbage}:w", "v", "1", "run", "?"]);
    let error = join(quick("garbage")).await.unwrap_err();
    assert!(matches!(error, FleetError::Damaged { .. }), "{error:?}");
    server.command(&["HSET", "bp1:{newer}:w", "v", "2"]);
    let error = join(quick("newer")).await.unwrap_err();
    assert_eq!(error.to_string(), "the wallet `newer` is of protocol \"2\", this process speaks 1");
    server.command(&["ACL", "SETUSER", "default", "-evalsha"]);
    let error = join(quick("acme")).await.unwrap_err();
    assert!(matches!(error, FleetError::Store { .. }), "{error:?}");
}

/// Each amount of input or output tokens names their sum, too, which such a wallet does not count.
#[tokio::test]
async fn a_wallet_of_input_and_output_tokens_without_their_sum() {
    let server = Server::start();
    let caps = Caps::new().input_tokens(10_000).output_tokens(5_000);
    let spend = Amount::new().input_tokens(70).output_tokens(7);
    let terms = quick("io").found(caps).at_most(Amount::new().input_tokens(500));
    let fleet = terms.join(server.client()).await.unwrap();
    fleet.record(spend).await.unwrap();
    fleet.settle().await.unwrap();
    let admin = fleet.admin();
    let member = admin.members().await.unwrap().remove(0);
    let spent = |axis| member.spent.units(axis);
    assert_eq!((spent(Axis::InputTokens), spent(Axis::OutputTokens)), (70, 7));
    let snapshot = admin.resolve(&member.id, Amount::new().input_tokens(90)).await.unwrap();
    let used = |axis| snapshot.axis(axis).unwrap().used.units();
    assert_eq!((used(Axis::InputTokens), used(Axis::OutputTokens)), (90, 7));
    for other in [tokens(500), Amount::new().requests(1), spend.requests(1)] {
        let error = admin.resolve(&fleet.status().member, other).await.unwrap_err();
        assert!(matches!(error, FleetError::OtherAxes { .. }), "{error:?}");
        let error = quick("io").at_most(other).join(server.client()).await.unwrap_err();
        assert!(matches!(error, FleetError::OtherAxes { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn names_that_have_no_slot_are_refused_and_change_nothing() {
    let server = Server::start();
    let path = server.folder().join("journal");
    for name in ["", "}", "}x", "}{x}"] {
        let founding = || quick(name).found(Caps::new().tokens(10)).journal(&path);
        let error = founding().join(server.client()).await.unwrap_err();
        assert!(matches!(&error, FleetError::Name { wallet, .. } if wallet == name), "{error:?}");
        let text = format!("no wallet can be called {name:?}: a name is not empty");
        assert_eq!(error.to_string(), text + " and does not begin with `}`");
        let (terms, client) = (founding(), server.client());
        let join = tokio::task::spawn_blocking(|| blocking::Fleet::join(terms, client));
        assert!(matches!(join.await.unwrap(), Err(FleetError::Name { .. })));
        let admin = Admin::new(name, server.client());
        for error in [
            admin.snapshot().await.unwrap_err(),
            admin.raise("1", Caps::new().tokens(5)).await.unwrap_err(),
            admin.remove().await.unwrap_err(),
        ] {
            assert!(matches!(error, FleetError::Name { .. }), "{error:?}");
        }
    }
    assert!(!path.exists() && common::kept(&server).is_empty());
}

#[tokio::test]
async fn caps_up_to_the_greatest_are_exact() {
    let server = Server::start();
    let most = (1 << 53) - 1;
    let fleet = founding(most).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    fleet.record(tokens(most - 1)).await.unwrap();
    fleet.settle().await.unwrap();
    assert_eq!(figures(&admin).await, (most - 1, 0, 1));
    fleet.record(tokens(1)).await.unwrap();
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (most, 0, 0));
}

#[tokio::test]
async fn an_operator_resolves_a_member_that_lives_all_the_same() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    fleet.record(tokens(40)).await.unwrap();
    let member = fleet.status().member;
    admin.resolve(&member, tokens(10)).await.unwrap();
    fleet.settle().await.unwrap();
    assert_eq!(figures(&admin).await.0, 40);
    fleet.record(tokens(60)).await.unwrap();
    assert!(fleet.record(tokens(1)).await.is_err());
    let error = admin.write_off("nobody").await.unwrap_err();
    assert!(matches!(error, FleetError::NoMember { .. }), "{error:?}");
}

#[tokio::test]
async fn f3_a_crash_leaves_no_more_in_doubt_than_was_chosen() {
    let server = Server::start();
    let fleet = founding(100_000).at_most(tokens(20)).join(server.client()).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(500) {
        fleet.record(tokens(1)).await.unwrap();
        let in_doubt = fleet.status().in_doubt.units(Axis::Tokens);
        assert!(in_doubt <= 20 + 20, "{in_doubt}");
    }
}

#[tokio::test]
async fn axes_of_a_users_own_and_in_flight() {
    const CALLS: Axis = Axis::custom(2, "tool calls");
    let server = Server::start();
    let caps = || Caps::new().with(CALLS, 5).in_flight(2);
    let one = quick("acme").found(caps()).join(server.client()).await.unwrap();
    let two = quick("acme").join(server.client()).await.unwrap();
    let holds = [
        one.reserve(Amount::of(CALLS, 2)).await.unwrap(),
        two.reserve(Amount::of(CALLS, 2)).await.unwrap(),
    ];
    let refused = one.reserve(Amount::of(CALLS, 1)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Short { axis: Axis::InFlight, .. }), "{refused:?}");
    for hold in holds {
        hold.commit_all();
    }
    let end = Instant::now() + Duration::from_secs(5);
    while one.reserve(Amount::of(CALLS, 1)).await.map(|hold| hold.commit_all()).is_err() {
        assert!(Instant::now() < end, "the slots do not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(two.record(Amount::of(CALLS, 1)).await.is_err());
}

/// A slot is not spent: it would be lost to the fleet for ever.
#[tokio::test]
async fn a_hold_that_outlives_its_member_gives_back_its_slot_and_counts_as_spent() {
    const CALLS: Axis = Axis::custom(2, "tool calls");
    let server = Server::start();
    let caps = Caps::new().with(CALLS, 5).in_flight(2);
    let short = |builder: FleetBuilder| builder.ttl(Duration::from_millis(300));
    let one = short(quick("acme").found(caps)).join(server.client()).await.unwrap();
    let two = quick("acme").join(server.client()).await.unwrap();
    let hold = one.reserve(Amount::of(CALLS, 3)).await.unwrap();
    one.leave().await.unwrap();
    let snapshot = two.snapshot().await.unwrap();
    let used = |axis| snapshot.axis(axis).unwrap().used.units();
    assert_eq!((used(CALLS), used(Axis::InFlight)), (3, 0));
    let both = [two.reserve(Amount::of(CALLS, 1)).await, two.reserve(Amount::of(CALLS, 1)).await];
    assert!(both.iter().all(Result::is_ok), "{both:?}");
    drop(hold);
}

/// No sum of the clock and a term is greater than an instant can be.
#[tokio::test]
async fn terms_may_be_as_long_as_a_duration_is() {
    let server = Server::start();
    for (wallet, lost) in [("charge", Lost::Charge), ("return", Lost::Return)] {
        for settle_every in [Duration::from_millis(50), Duration::MAX] {
            let terms = Fleet::builder(wallet).found(Caps::new().tokens(1_000)).lost(lost);
            let terms = terms.ttl(Duration::MAX).horizon(Duration::MAX).settle_every(settle_every);
            let fleet = terms.join(server.client()).await.unwrap();
            let before = figures(&fleet.admin()).await.0;
            fleet.record(tokens(100)).await.unwrap();
            fleet.settle().await.unwrap();
            let hold = fleet.reserve(tokens(300)).await.unwrap();
            hold.commit(tokens(100));
            let admin = fleet.admin();
            fleet.leave().await.unwrap();
            assert_eq!(figures(&admin).await, (before + 200, 0, 800 - before));
        }
    }
}

/// At a thousand spends a second, once the rate is known.
#[tokio::test]
async fn a_thousand_spends_take_three_calls_of_the_store_at_most() {
    let server = Server::start();
    let caps = Caps::new().tokens(1_000_000);
    let fleet = Fleet::builder("acme").found(caps).join(server.client()).await.unwrap();
    let (start, mut spent, mut before) = (Instant::now(), 0, None);
    while start.elapsed() < Duration::from_millis(5_500) {
        while spent < start.elapsed().as_millis() {
            fleet.record(tokens(1)).await.unwrap();
            spent += 1;
        }
        if before.is_none() && start.elapsed() > Duration::from_millis(1_500) {
            before = Some((spent, fleet.status().calls));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (spent_before, calls_before) = before.unwrap();
    let (spent, calls) = (spent - spent_before, fleet.status().calls - calls_before);
    println!("{calls} calls for {spent} spends");
    assert!(u128::from(calls) * 1_000 <= 3 * spent, "{calls} calls for {spent} spends");
}

/// A store that has nothing left is not asked again and again by those who would like to fetch ahead.
#[tokio::test]
async fn an_empty_wallet_is_left_alone() {
    let server = Server::start();
    let caps = Caps::new().tokens(200);
    let fleet = Fleet::builder("acme").found(caps).join(server.client()).await.unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        let _ = fleet.record(tokens(1)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let calls = fleet.status().calls;
    assert!(fleet.record(tokens(1)).await.is_err() && calls < 45, "{calls}");
}

#[test]
fn threads_spend_without_a_runtime_of_their_own() {
    let server = Server::start();
    let one = blocking::Fleet::join(founding(1_000), server.client()).unwrap();
    let two = blocking::Fleet::join(founding(1_000), server.client()).unwrap();
    fn spend(fleet: &blocking::Fleet) -> u64 {
        let (mut spent, mut last) = (0, Instant::now());
        while last.elapsed() < Duration::from_secs(2) {
            match fleet.record(tokens(1)) {
                Ok(()) => (spent, last) = (spent + 1, Instant::now()),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        spent
    }
    let spent: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> =
            [&one, &two, &two].map(|fleet| scope.spawn(move || spend(fleet))).into();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(spent, 1_000);
    assert!(one.reserve(tokens(1)).is_err());
    two.settle().unwrap();
    two.leave().unwrap();
    one.leave().unwrap();
    let three = blocking::Fleet::join(quick("acme"), server.client()).unwrap();
    let used = three.snapshot().unwrap().axis(Axis::Tokens).unwrap().used;
    assert_eq!((used.units(), three.status().failure.is_none()), (1_000, true));
}

/// The totals of a member count to `2^53 - 1`, units that it gave back included.
#[tokio::test]
async fn f4_a_process_is_granted_more_in_its_life_than_a_total_counts() {
    let server = Server::start();
    let most = (1 << 53) - 1;
    let fleet = founding(most).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    for round in 1..=12 {
        fleet.reserve(tokens(most / 9)).await.unwrap().commit(tokens(1));
        common::until("the rest comes back", || async {
            figures(&admin).await == (round, 0, most - round)
        })
        .await;
    }
    assert_eq!(admin.members().await.unwrap().len(), 1);
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (12, 0, most - 12));
}

/// F2: a member that joins anew tells each spend once, whatever its callers do meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_what_is_spent_while_members_join_anew_is_booked_once() {
    let server = Server::start();
    let most = (1 << 53) - 1;
    let fleets = [
        founding(most).join(server.client()).await.unwrap(),
        founding(most).join(server.client()).await.unwrap(),
    ];
    let admin = fleets[0].admin();
    let start = Instant::now();
    let tasks = (0..6_u64).map(|index| {
        let fleet = fleets[usize::from(index % 2 == 0)].clone();
        tokio::spawn(async move {
            let mut spent = 0;
            while start.elapsed() < Duration::from_secs(2) {
                match fleet.reserve(tokens(most / 40)).await {
                    Ok(hold) if index < 2 => {
                        tokio::task::yield_now().await;
                        hold.commit(tokens(7));
                        spent += 7;
                    }
                    Ok(hold) => hold.release(),
                    Err(error) => assert!(matches!(error, FleetError::Short { .. }), "{error:?}"),
                }
                fleet.pool().debit(tokens(1));
                spent += 1;
                tokio::time::sleep(Duration::from_millis(1 + index)).await;
            }
            spent
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut spent = 0;
    for task in tasks {
        spent += task.await.unwrap();
    }
    let names = fleets.each_ref().map(|fleet| fleet.status().member);
    assert!(names.iter().all(|name| name.contains('+')), "{names:?}");
    for fleet in fleets {
        fleet.leave().await.unwrap();
    }
    assert_eq!(figures(&admin).await, (spent, 0, most - spent));
}

/// The grant of a [`blocking::Fleet`] that was not left stays charged, as that of a process that died.
#[test]
fn a_drop_without_a_runtime_says_no_farewell() {
    let server = Server::start();
    let dropped = (0..20).map(|number| {
        let wallet = format!("dropped {number}");
        let terms = quick(&wallet).found(Caps::new().tokens(100));
        let fleet = blocking::Fleet::join(terms, server.client()).unwrap();
        fleet.record(tokens(6)).unwrap();
        (wallet, fleet.status().member)
    });
    let dropped: Vec<_> = dropped.collect();
    // A farewell may still be on its way.
    std::thread::sleep(Duration::from_millis(100));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let is_there = |(wallet, member): &&(String, String)| {
        let members = runtime.block_on(Admin::new(wallet, server.client()).members()).unwrap();
        members.iter().any(|other| other.id == *member)
    };
    assert_eq!(dropped.iter().filter(is_there).count(), 20);
}

#[tokio::test]
async fn a_drop_in_async_code_says_no_farewell() {
    let server = Server::start();
    let path = server.folder().join("journal");
    let (client, terms) = (server.client(), founding(100).journal(&path));
    let join = tokio::task::spawn_blocking(move || {
        let fleet = blocking::Fleet::join(terms, client)?;
        fleet.record(tokens(6)).map(|()| fleet)
    });
    let fleet = join.await.unwrap().unwrap();
    let member = fleet.status().member;
    fleet.pool().debit(tokens(30));
    drop(fleet);
    // The journal is free at once, and has all.
    let next = founding(100).journal(&path).join(server.client()).await.unwrap();
    let settled = next.settled().unwrap();
    assert_eq!((&settled.member, settled.spent), (&member, tokens(36)));
}

/// The permissions that the documentation names are enough.
#[tokio::test]
async fn a_user_with_the_documented_permissions_can_do_it_all() {
    let docs = include_str!("../src/lib.rs");
    let (_, rules) = docs.split_once("//! `~bp1:*").unwrap();
    let (rules, _) = rules.split_once("`.").unwrap();
    let rules = rules.replace("//!", " ");
    let server = Server::start();
    let mut words = vec!["ACL", "SETUSER", "fleet", "on", ">secret", "~bp1:*"];
    words.extend(rules.split_whitespace());
    server.command(&words);
    let url = format!("redis://fleet:secret@127.0.0.1:{}/", server.port());
    let client = redis::Client::open(url).unwrap();
    let fleet = founding(100).lost(Lost::Return).join(client).await.unwrap();
    fleet.record(tokens(60)).await.unwrap();
    assert!(fleet.record(tokens(50)).await.is_err());
    let admin = fleet.admin();
    admin.set_caps(Caps::new().tokens(120)).await.unwrap();
    admin.raise("1", Caps::new().tokens(5)).await.unwrap();
    // A key that is over is removed by the next change.
    server.command(&["HSET", "bp1:{acme}:k", "1", "1 raise 5"]);
    admin.lower("2", Caps::new().tokens(5)).await.unwrap();
    admin.write_off(&fleet.status().member).await.unwrap();
    fleet.settle().await.unwrap();
    fleet.leave().await.unwrap();
    assert_eq!(admin.members().await.unwrap(), []);
}
