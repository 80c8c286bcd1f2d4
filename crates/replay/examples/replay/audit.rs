//! The audit: what the agents say they spent, against what the pools have booked.

use std::iter::Sum;
use std::ops::{Add, AddAssign};

use budget_pool::{Amount, Axis, Snapshot, Usd};

/// What was really spent, in plain integers that no pool has touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub requests: u64,
    pub usd: Usd,
}

impl Usage {
    /// The units on one axis: nano-USD for money, a count for everything else. Nothing stays in
    /// flight.
    pub fn on(&self, axis: Axis) -> u64 {
        match axis {
            Axis::Tokens => self.input + self.output,
            Axis::InputTokens => self.input,
            Axis::OutputTokens => self.output,
            Axis::Requests => self.requests,
            Axis::Usd => self.usd.as_nanos(),
            _ => 0,
        }
    }

    pub fn amount(&self) -> Amount {
        Amount::new()
            .input_tokens(self.input)
            .output_tokens(self.output)
            .requests(self.requests)
            .usd(self.usd)
    }
}

impl Add for Usage {
    type Output = Usage;

    fn add(self, other: Usage) -> Usage {
        Usage {
            input: self.input + other.input,
            output: self.output + other.output,
            requests: self.requests + other.requests,
            usd: self.usd + other.usd,
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        *self = *self + other;
    }
}

impl Sum for Usage {
    fn sum<I: Iterator<Item = Usage>>(usages: I) -> Usage {
        usages.fold(Usage::default(), Add::add)
    }
}

/// Compares a tree of pools with those who spent from it, to the last token and nano-USD. `pools`
/// starts with the root; below it each agent has the pool of its name.
///
/// - Every pool's `used + overage` is what its agent (for the root: all agents together) really
///   spent.
/// - Nothing is left reserved.
/// - No pool was ever above a cap.
///
/// # Errors
/// A line for every place where they differ.
pub fn audit(pools: &[Snapshot], agents: &[(String, Usage)]) -> Result<(), Vec<String>> {
    let Some((root, children)) = pools.split_first() else {
        return Err(vec!["there is no pool to audit".to_owned()]);
    };
    let mut wrong = Vec::new();
    compare(root, agents.iter().map(|(_, usage)| *usage).sum(), &mut wrong);
    for (name, usage) in agents {
        match children.iter().find(|child| *child.name == **name) {
            Some(child) => compare(child, *usage, &mut wrong),
            None => wrong.push(format!("`{name}` has no pool")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn compare(pool: &Snapshot, usage: Usage, wrong: &mut Vec<String>) {
    for (axis, books) in pool.axes() {
        let unit = if axis == Axis::Usd { "nano-USD".to_owned() } else { axis.to_string() };
        let mut differs = |what: String| wrong.push(format!("`{}`, {unit}: {what}", pool.name));
        let (booked, spent) = (books.used.units() + books.overage.units(), usage.on(axis));
        if booked != spent {
            differs(format!("{booked} booked, {spent} spent"));
        }
        if books.reserved.units() != 0 {
            differs(format!("{} left reserved", books.reserved.units()));
        }
        if let Some(cap) = books.cap.filter(|cap| books.peak.units() > cap.units()) {
            differs(format!(
                "{} used and reserved at once, the cap is {}",
                books.peak.units(),
                cap.units()
            ));
        }
    }
}
