//! One call in a loop, and nothing else, for `valgrind --tool=callgrind`: the instructions it counts, divided by the
//! iterations, are those of one call. They are the same from run to run, also on a busy machine.

use std::env;
use std::hint::black_box;
use std::process::ExitCode;

use budget_pool::{Amount, BudgetPool, Usd};

const PLENTY: u64 = u64::MAX / 2;

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
        "depth4" => (1..4).fold(BudgetPool::builder().tokens(PLENTY).usd(nanos).build(), |above, _| {
            above.child().tokens(PLENTY).usd(nanos).build()
        }),
        _ => BudgetPool::builder().tokens(PLENTY).usd(nanos).build(),
    };
    match case.as_str() {
        "record2" | "refused" | "depth4" => {
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
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!("usage: hot record2|record4|refused|reserve|depth4 ITERATIONS");
    ExitCode::from(2)
}
