//! The live view: on stderr, and nothing at all if that is no terminal.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use budget_pool::BudgetPool;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(50);

/// Shows the pool until the other end of `running` is dropped.
pub fn show(pool: &BudgetPool, tasks: u64, running: &Receiver<()>) {
    let screen = MultiProgress::new();
    let style = ProgressStyle::with_template("{prefix:>9} [{bar:40}] {msg}")
        .expect("the template is well formed");
    let bar = |name: &'static str, length: u64| {
        screen.add(ProgressBar::new(length)).with_style(style.clone()).with_prefix(name)
    };
    let first = pool.snapshot();
    let cap = |cap: Option<u64>| cap.unwrap_or_default();
    let (in_flight, waiting) = (bar("in flight", cap(first.in_flight.cap)), bar("waiting", tasks));
    let (tokens, time) =
        (bar("tokens", cap(first.tokens.cap)), bar("time left", millis(pool.time_left())));

    while let Err(RecvTimeoutError::Timeout) = running.recv_timeout(TICK) {
        // All four lines are of one instant.
        let (now, left) = (pool.snapshot(), pool.time_left());
        let show = |bar: &ProgressBar, position: u64, message: String| {
            bar.set_position(position);
            bar.set_message(message);
        };
        show(&in_flight, now.in_flight.reserved, now.in_flight.reserved.to_string());
        show(&waiting, now.waiting, format!("{} ({} told)", now.waiting, now.refused));
        show(
            &tokens,
            now.tokens.used,
            format!("{} used, {} held", now.tokens.used, now.tokens.reserved),
        );
        show(&time, millis(left), format!("{:.1} s", left.unwrap_or_default().as_secs_f64()));
    }
    for bar in [in_flight, waiting, tokens, time] {
        bar.finish_and_clear();
    }
}

fn millis(time: Option<Duration>) -> u64 {
    time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
