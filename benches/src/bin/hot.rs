//! One call in a loop, and nothing else, for `valgrind --tool=callgrind`: the instructions it
//! counts, divided by the iterations, are those of one call. They are the same from run to run,
//! also on a busy machine.
//!
//! `waitN` lets N wait at any time. One iteration releases, which grants the first, collects that,
//! and lets one more wait. To make a line of them takes instructions, too: count two runs, and
//! divide the difference.

use std::collections::VecDeque;
use std::env;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Builder, Root, Usd, Wait, Window};
use governor::{Quota, RateLimiter};

const PLENTY: u64 = u64::MAX / 2;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

fn two() -> Amount {
    Amount::new().tokens(black_box(1_200)).usd(Usd::from_nanos(black_box(3_600_000)))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [case, iterations] = arguments.as_slice() else {
        return usage();
    };
    let Ok(iterations) = iterations.parse::<u64>() else {
        return usage();
    };

    let capped = |usd: u64| BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(usd));
    let (pool, slots) = (capped(PLENTY).build(), BudgetPool::builder().in_flight(1).build());
    match case.as_str() {
        "record2" => record(capped(PLENTY), iterations),
        "record4" => {
            let pool = capped(PLENTY).input_tokens(PLENTY).output_tokens(PLENTY).build();
            repeat(iterations, || {
                let amount =
                    Amount::new().input_tokens(black_box(1_000)).output_tokens(black_box(200));
                pool.record(amount.usd(Usd::from_nanos(black_box(3_600_000)))).is_ok()
            });
        }
        "refused" => record(capped(0), iterations),
        "depth4" => {
            let pool = (1..4).fold(pool, |above, _| {
                above.child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
            });
            repeat(iterations, || pool.record(two()).is_ok());
        }
        "reserve" => repeat(iterations, || pool.reserve(two()).expect("it is free").commit(two())),
        "lease" => {
            let share = Amount::new().tokens(PLENTY).usd(Usd::from_nanos(PLENTY));
            let mut lease = pool.lease(share).expect("all of it is free");
            repeat(iterations, || lease.record(two()).is_ok());
        }
        "fixed" => record(capped(PLENTY).window(Window::fixed(HOUR)), iterations),
        // What a call takes has all come back at the next; or only a part of it has.
        "sliding" => record(capped(PLENTY).window(Window::sliding(SECOND)), iterations),
        "in-use" => record(capped(PLENTY).window(Window::sliding(Duration::MAX)), iterations),
        "refused-fixed" => {
            record(BudgetPool::builder().tokens(1_200).window(Window::fixed(HOUR)), iterations)
        }
        "refused-sliding" => {
            record(BudgetPool::builder().tokens(1_200).window(Window::sliding(HOUR)), iterations)
        }
        "reserve-for" => {
            repeat(iterations, || {
                pool.reserve_for(two(), black_box(HOUR)).expect("it is free").commit(two())
            });
        }
        "renew" => {
            let mut hold = pool.reserve_for(two(), HOUR).expect("it is free");
            repeat(iterations, || hold.renew(black_box(HOUR)).is_ok());
        }
        "once-known" => repeat(iterations, || pool.record_once(black_box("job-17"), two()).is_ok()),
        "governor" | "refused-governor" => {
            let rate = if case == "governor" { 1_000_000_000 } else { 1 };
            let limiter =
                RateLimiter::direct(Quota::per_second(NonZeroU32::new(rate).expect("not zero")));
            repeat(iterations, || limiter.check().is_ok());
        }
        "snapshot" => repeat(iterations, || pool.snapshot()),
        "child" => repeat(iterations, || pool.child().tokens(black_box(PLENTY)).build()),
        "wait1" => wait(&slots, 1, iterations),
        "wait1000" => wait(&slots, 1_000, iterations),
        "wait100000" => wait(&slots, 100_000, iterations),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn record(builder: Builder<Root>, iterations: u64) {
    let pool = builder.build();
    repeat(iterations, || pool.record(two()).is_ok());
}

fn repeat<R>(iterations: u64, mut call: impl FnMut() -> R) {
    for _ in 0..iterations {
        black_box(call());
    }
}

fn wait(pool: &BudgetPool, waiting: usize, iterations: u64) {
    let poll = |wait: &mut Wait| Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()));
    let ask = || {
        let mut wait = pool.reserve_wait(Amount::new());
        let polled = poll(&mut wait);
        (wait, polled)
    };
    let (_, Poll::Ready(first)) = ask() else { panic!("there is room for the first") };
    let mut held = Some(first);
    let mut line: VecDeque<Wait> = (0..waiting).map(|_| ask().0).collect();
    for _ in 0..iterations {
        drop(held.take());
        let Some(Poll::Ready(granted)) = line.pop_front().map(|mut first| poll(&mut first)) else {
            panic!("the first is granted what was released")
        };
        held = Some(granted);
        line.push_back(ask().0);
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: hot CASE ITERATIONS, the case one of record2, record4, refused, reserve, depth4, lease, snapshot, child,\n\
         fixed, sliding, in-use, refused-fixed, refused-sliding, reserve-for, renew, once-known, governor,\n\
         refused-governor, wait1, wait1000, wait100000"
    );
    ExitCode::from(2)
}
