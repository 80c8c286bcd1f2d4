//! Live progress: a bar for each capped axis, on stderr, and none if that is no terminal.

use std::time::Duration;

use budget_pool::{Axis, BudgetPool, Quantity, Snapshot};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::strategy::Strategy;

const WATCHED: [Axis; 4] = [Axis::Tokens, Axis::Usd, Axis::Requests, Axis::InFlight];

pub struct Bars {
    title: ProgressBar,
    bars: Vec<(Axis, ProgressBar)>,
}

impl Bars {
    /// Draws what is capped in `pool`, and its `deadline`.
    pub fn new(strategy: Strategy, pool: &BudgetPool, deadline: Option<Duration>) -> Bars {
        let style =
            |template| ProgressStyle::with_template(template).expect("the template is well formed");
        let screen = MultiProgress::new();
        let title = screen.add(ProgressBar::new_spinner()).with_style(style("{msg}"));
        title.set_message(strategy.to_string());

        let snapshot = pool.snapshot();
        let caps =
            WATCHED.into_iter().filter_map(|axis| Some((axis, snapshot.axis(axis)?.cap?.units())));
        let time = deadline.map(|deadline| (Axis::Deadline, millis(deadline)));
        let bar = |(axis, cap): (Axis, u64)| {
            let bar = screen
                .add(ProgressBar::new(cap))
                .with_style(style("{prefix:>9} [{bar:30}] {wide_msg}"));
            (axis, bar.with_prefix(axis.to_string()))
        };
        Bars { title, bars: caps.chain(time).map(bar).collect() }
    }

    /// Moves the bars to what `pool` says, `elapsed` being the simulated time.
    pub fn update(&self, pool: &Snapshot, elapsed: Duration) {
        for (axis, bar) in &self.bars {
            let Some(books) = pool.axis(*axis) else {
                // The one axis without books is time.
                let deadline = Duration::from_millis(bar.length().unwrap_or(0));
                bar.set_position(millis(elapsed.min(deadline)));
                bar.set_message(format!(
                    "{:.1} of {:.1} s",
                    elapsed.as_secs_f64(),
                    deadline.as_secs_f64()
                ));
                continue;
            };
            // Calls in flight are only ever held.
            let (filled, held) = match axis {
                Axis::InFlight => (books.reserved, 0),
                _ => (books.used, books.reserved.units()),
            };
            let mut message =
                format!("{} of {}", number(filled), books.cap.map(number).unwrap_or_default());
            if held > 0 {
                message += &format!(", {} held", number(books.reserved));
            }
            if books.overage.units() > 0 {
                message += &format!(", {} beyond it", number(books.overage));
            }
            bar.set_position(filled.units());
            bar.set_message(message);
        }
    }

    /// Takes the bars off the screen: the table says the rest.
    pub fn finish(self) {
        for (_, bar) in self.bars {
            bar.finish_and_clear();
        }
        self.title.finish_and_clear();
    }
}

fn number(quantity: Quantity) -> String {
    quantity.usd().map_or_else(|| quantity.units().to_string(), |usd| format!("{usd:.4}"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
