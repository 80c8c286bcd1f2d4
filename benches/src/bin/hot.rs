//! One call in a loop, and nothing else, for `valgrind --tool=callgrind`: the instructions it counts, divided by the
//! iterations, are those of one call. They are the same from run to run, also on a busy machine.
//!
//! `waitN` lets N wait at any time. One iteration releases, which grants the first, collects that, and lets one more wait. To
//! make a line of them takes instructions, too: count two runs, and divide the difference.

use std::collections::VecDeque;
use std::env;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Usd, Wait, Window};
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

    let nanos = Usd::from_nanos(PLENTY);
    let pool = match case.as_str() {
        "record4" => BudgetPool::builder().tokens(PLENTY).input_tokens(PLENTY).output_tokens(PLENTY).usd(nanos).build(),
        "refused" => BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(0)).build(),
        "wait1" | "wait1000" | "wait100000" => BudgetPool::builder().in_flight(1).build(),
        "fixed" => BudgetPool::builder().tokens(PLENTY).usd(nanos).window(Window::fixed(HOUR)).build(),
        // What a call takes has all come back at the next; or only a part of it has.
        "sliding" => BudgetPool::builder().tokens(PLENTY).usd(nanos).window(Window::sliding(SECOND)).build(),
        "in-use" => BudgetPool::builder().tokens(PLENTY).usd(nanos).window(Window::sliding(Duration::MAX)).build(),
        "refused-fixed" => BudgetPool::builder().tokens(1_200).window(Window::fixed(HOUR)).build(),
        "refused-sliding" => BudgetPool::builder().tokens(1_200).window(Window::sliding(HOUR)).build(),
        "depth4" => (1..4).fold(BudgetPool::builder().tokens(PLENTY).usd(nanos).build(), |above, _| {
            above.child().tokens(PLENTY).usd(nanos).build()
        }),
        _ => BudgetPool::builder().tokens(PLENTY).usd(nanos).build(),
    };
    match case.as_str() {
        "record2" | "refused" | "depth4" | "fixed" | "sliding" | "in-use" | "refused-fixed" | "refused-sliding" => {
            for _ in 0..iterations {
                black_box(pool.record(two()).is_ok());
            }
        }
        "record4" => {
            for _ in 0..iterations {
                let amount = Amount::new().input_tokens(black_box(1_000)).output_tokens(black_box(200));
                black_box(pool.record(amount.usd(Usd::from_nanos(black_box(3_600_000)))).is_ok());
            }
        }
        "reserve" => {
            for _ in 0..iterations {
                let Ok(hold) = pool.reserve(two()) else {
                    return ExitCode::FAILURE;
                };
                black_box(hold.commit(two()));
            }
        }
        "reserve-for" => {
            for _ in 0..iterations {
                let Ok(hold) = pool.reserve_for(two(), black_box(HOUR)) else {
                    return ExitCode::FAILURE;
                };
                black_box(hold.commit(two()));
            }
        }
        "renew" => {
            let Ok(mut hold) = pool.reserve_for(two(), HOUR) else {
                return ExitCode::FAILURE;
            };
            for _ in 0..iterations {
                black_box(hold.renew(black_box(HOUR)).is_ok());
            }
        }
        "once-known" => {
            for _ in 0..iterations {
                black_box(pool.record_once(black_box("job-17"), two()).is_ok());
            }
        }
        "governor" | "refused-governor" => {
            let rate = if case == "governor" { 1_000_000_000 } else { 1 };
            let limiter = RateLimiter::direct(Quota::per_second(NonZeroU32::new(rate).expect("not zero")));
            for _ in 0..iterations {
                black_box(limiter.check().is_ok());
            }
        }
        "wait1" => wait(&pool, 1, iterations),
        "wait1000" => wait(&pool, 1_000, iterations),
        "wait100000" => wait(&pool, 100_000, iterations),
        _ => return usage(),
    }
    ExitCode::SUCCESS
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
        "usage: hot CASE ITERATIONS, the case one of record2, record4, refused, reserve, depth4, fixed, sliding, in-use,\n\
         refused-fixed, refused-sliding, reserve-for, renew, once-known, governor, refused-governor, wait1, wait1000, wait100000"
    );
    ExitCode::from(2)
}
