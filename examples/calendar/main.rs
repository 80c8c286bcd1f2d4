//! A budget that follows the calendar: days that begin at local midnight, one of which has 23
//! hours, and months.
//!
//! ```text
//! cargo run --example calendar
//! ```
//!
//! A pool knows instants alone. `jiff` knows where midnight is: [`Periods::begins`] and [`instant`]
//! are the part to take home. The time is moved by hand, so that half a year is over at once. At
//! the begin of each period all of the budget is spent, and one dollar more is refused: until the
//! next period begins, which the last column shows beside what a fixed window would do.

use std::error::Error;
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetPool, Clock, ManualClock, Usd, Window};
use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Span, ToSpan, Zoned};

/// Periods that begin at local midnight.
struct Periods {
    title: &'static str,
    zone: &'static str,
    first: Date,
    every: Span,
    many: usize,
    budget: Usd,
}

impl Periods {
    /// When each of them begins, and when the last one ends.
    fn begins(&self) -> Result<Vec<Zoned>, jiff::Error> {
        let zone = TimeZone::get(self.zone)?;
        let days = self.first.series(self.every).take(self.many + 1);
        days.map(|day| day.to_zoned(zone.clone())).collect()
    }

    /// Spends each period's budget at its begin, and shows when there is more.
    fn show(&self) -> Result<(), Box<dyn Error>> {
        let begins = self.begins()?;
        let clock = ManualClock::new();
        // The same moment, by the clock of the pool and by that on the wall.
        let start = (clock.now(), &begins[0]);
        let turns: Result<Vec<Instant>, _> =
            begins.iter().map(|begin| instant(start, begin)).collect();
        let pool = BudgetPool::builder()
            .usd(self.budget)
            .window(Window::calendar(turns?))
            .clock(clock.clone())
            .build();

        let mut first = None;
        println!("{} in {}: {} USD each", self.title, self.zone, self.budget);
        println!(
            "begins at local midnight       refused for    more is there from   a fixed window"
        );
        println!(
            "--------------------------------------------------------------------------------"
        );
        for (begin, next) in begins.iter().zip(&begins[1..]) {
            pool.record(Amount::new().usd(self.budget))?;
            let refused = pool.record(Amount::new().usd(Usd::from_dollars(1))).unwrap_err();
            let wait = refused.retry_after().ok_or("a period is to come")?;
            clock.advance(wait);
            // In its clock's hours the next period begins when it does on the wall.
            let passed = clock.now() - start.0;
            if instant(start, next)? != clock.now() {
                return Err(format!("{next} is not {passed:?} after the start").into());
            }
            let fixed = *first.get_or_insert(wait);
            let turned = passed.as_secs().div_ceil(fixed.as_secs()) * fixed.as_secs();
            println!(
                "{}  {:>11}    {}    {}",
                begin.strftime("%a %Y-%m-%d %H:%M UTC%:z"),
                length(wait),
                next.strftime("%a %m-%d %H:%M"),
                late(turned.abs_diff(passed.as_secs())),
            );
        }
        println!();
        Ok(())
    }
}

/// The instant of a moment, where one moment is known by both clocks.
fn instant((start, wall): (Instant, &Zoned), at: &Zoned) -> Result<Instant, Box<dyn Error>> {
    let after = at.timestamp().duration_since(wall.timestamp());
    Ok(start + Duration::try_from(after)?)
}

/// Short ones in hours.
fn length(time: Duration) -> String {
    let hours = time.as_secs() / 3_600;
    match (hours / 24, hours % 24) {
        (0 | 1, _) => format!("{hours} h"),
        (days, 0) => format!("{days} d"),
        (days, hours) => format!("{days} d {hours} h"),
    }
}

fn late(secs: u64) -> String {
    match secs {
        0 => "at the same time".to_owned(),
        secs => format!("{} late", length(Duration::from_secs(secs))),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let days = Periods {
        title: "Days",
        zone: "Europe/Berlin",
        first: date(2025, 3, 28),
        every: 1.day(),
        many: 5,
        budget: Usd::from_dollars(10),
    };
    let months = Periods {
        title: "Months",
        zone: "America/New_York",
        first: date(2025, 1, 1),
        every: 1.month(),
        many: 6,
        budget: Usd::from_dollars(300),
    };
    days.show()?;
    months.show()
}
