//! The first example of the README, broken off wherever it can be: the books never hold less than
//! the provider billed, and exactly that where the call told what it was.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, OnDrop, Usd};

fn answer(
    pool: &BudgetPool,
    call_llm: impl FnOnce(Option<Duration>) -> Result<Reply, Failure>,
) -> Result<String, Box<dyn Error>> {
    // Hold the most that the call can cost. Cut off anywhere below, by `?`, a panic or a drop, it is
    // booked: the provider bills what it began.
    let most = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_cents(1));
    let hold = pool.reserve(most)?;
    let reply = match call_llm(hold.time_left()) {
        Err(failure) if !failure.is_billed => {
            hold.release(); // the provider says so, by a 429 for instance
            return Err(failure.into());
        }
        reply => reply?,
    };
    let cost = Usd::try_from_dollars_f64(reply.dollars)?;
    // Settle the real figures.
    hold.commit(Amount::new().input_tokens(reply.input).output_tokens(reply.output).usd(cost));
    Ok(reply.text)
}

struct Reply {
    text: String,
    input: u64,
    output: u64,
    dollars: f64,
}

#[derive(Debug)]
struct Failure {
    is_billed: bool,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the call failed")
    }
}

impl Error for Failure {}

fn pool() -> BudgetPool {
    BudgetPool::builder()
        .name("run-17")
        .tokens(1_000_000)
        .usd("0.03".parse().unwrap())
        .deadline(Duration::from_secs(60))
        .on_drop(OnDrop::Commit)
        .build()
}

/// What the provider billed, and what its reply said.
fn billed(dollars: f64) -> Result<Reply, Failure> {
    Ok(Reply { text: "42".into(), input: 1_480, output: 212, dollars })
}

/// The books, after all that was held has gone.
fn audit(pool: &BudgetPool) -> (u64, String) {
    let snapshot = pool.snapshot();
    let reserved = snapshot.axes().map(|(_, axis)| axis.reserved.units()).sum::<u64>();
    assert_eq!((reserved, snapshot.reservations), (0, 0), "nothing is held any more");
    (snapshot.tokens.spent, snapshot.usd.spent.to_string())
}

#[test]
fn the_readme_shows_this_very_program() {
    let here = include_str!("cut_off.rs");
    let from = here.find("fn answer(").expect("it is above");
    let program = &here[from..from + here[from..].find("\n}\n").expect("it ends")];
    assert!(include_str!("../README.md").contains(program));
    for line in program.lines().filter(|line| line.contains("hold") && !line.contains("fn ")) {
        let shown = line.trim().trim_end_matches(" // the provider says so, by a 429 for instance");
        let is_shown = include_str!("../src/lib.rs").contains(shown);
        assert!(is_shown || line.contains("call_llm"), "the landing page shows it, too: {shown}");
    }
}

#[test]
fn p2_a_call_that_ends_is_booked_exactly() {
    let pool = pool();
    assert_eq!(answer(&pool, |timeout| billed(timeout.map_or(9.0, |_| 0.00762))).unwrap(), "42");
    assert_eq!(audit(&pool), (1_692, "0.00762".into()));
}

#[test]
fn p2_wherever_it_is_cut_off_the_books_hold_what_was_billed() {
    let whole = || (2_000, "0.01".to_owned());
    let nothing = || (0, "0".to_owned());

    // 1. Refused: the provider was never asked.
    let full = pool();
    full.debit(Amount::new().usd(Usd::from_cents(3)));
    answer(&full, |_| panic!("nothing fits")).unwrap_err();
    assert_eq!(audit(&full), (0, "0.03".into()));

    // 2. The provider did not bill it.
    let refused = pool();
    answer(&refused, |_| Err(Failure { is_billed: false })).unwrap_err();
    assert_eq!(audit(&refused), nothing());
    assert_eq!(refused.snapshot().released, 1);

    // 3. The stream broke, after the provider had begun.
    let broken = pool();
    answer(&broken, |_| Err(Failure { is_billed: true })).unwrap_err();
    assert_eq!(audit(&broken), whole());

    // 4. The cost cannot be read.
    let unreadable = pool();
    answer(&unreadable, |_| billed(f64::NAN)).unwrap_err();
    assert_eq!(audit(&unreadable), whole());

    // 5. A panic in the middle.
    let panicked = pool();
    catch_unwind(AssertUnwindSafe(|| answer(&panicked, |_| panic!("in the client")))).unwrap_err();
    assert_eq!(audit(&panicked), whole());
    for cut_off in [broken, unreadable, panicked] {
        assert_eq!(cut_off.snapshot().committed, 1);
    }
}

#[test]
fn p2_a_task_that_is_cancelled_is_booked_too() {
    let pool = pool();
    let task = async {
        let hold = pool.reserve(Amount::new().tokens(2_000).usd(Usd::from_cents(1))).unwrap();
        std::future::pending::<()>().await;
        hold.release();
    };
    {
        let mut task = pin!(task);
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(task.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(pool.snapshot().usd.reserved, Usd::from_cents(1));
    }
    assert_eq!(audit(&pool), (2_000, "0.01".into()));
}
