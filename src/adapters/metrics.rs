//! Figures for a recorder of `metrics`, pulled from a snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};

use crate::pool::BudgetPool;
use crate::types::axis::{Axis, CustomAxis, Quantity};
use crate::types::name::Name;
use crate::types::snapshot::{AxisSnapshot, Snapshot, is_in_play};
use crate::types::usd::Usd;

/// Exports the figures of a pool, and of the pools below it down to a [depth](Exporter::depth), to
/// the recorder of the `metrics` crate.
///
/// Nothing is counted on the way of a call: [`export`](Exporter::export) takes one
/// [`snapshot_tree`](BudgetPool::snapshot_tree), and is called at each scrape or every few seconds.
///
/// | metric | labels | kind |
/// | --- | --- | --- |
/// | `budget_pool_tokens` | `pool`, `state`: `used`, `reserved` or `overage` | gauge |
/// | `budget_pool_tokens_limit` | `pool` | gauge; absent where there has been no cap |
/// | `budget_pool_tokens_spent_total` | `pool` | counter |
/// | the same for `input_tokens`, `output_tokens`, `requests`, `usd` and the user's own axes | | |
/// | `budget_pool_in_flight`, `budget_pool_in_flight_limit` | as of tokens | gauges |
/// | `budget_pool_admissions_total` | `pool`, `result`: `admitted` or `refused` | counter |
/// | `budget_pool_holds_ended_total` | `pool`, `how`: `committed`, `released` or `expired` | counter |
/// | `budget_pool_waiting` | `pool` | gauge |
/// | `budget_pool_time_left_seconds` | `pool`, of the exported pool alone | gauge; absent without a deadline |
///
/// - Money is in dollars. `budget_pool_usd_spent_total` is a gauge, as a counter of `metrics` has
///   whole numbers: it stands where a pool is gone, and falls with a `credit` and with a pool that
///   is built anew.
/// - An axis is exported from its first cap or spend on.
/// - An axis of the user's own has its label for a name, with `_` in place of other characters:
///   `budget_pool_tool_calls`. A label that would give the name of another metric gives
///   `budget_pool_custom_0` to `budget_pool_custom_3`. Of two such labels the lower index has the
///   name, or the one that the pools were told of first: a name stays.
/// - The label `pool` is the pool's name. The figures of pools with the same name are added up.
/// - The gauges of a pool that is gone fall to zero, once, and so does the limit of a cap that is
///   gone. A counter never falls: after a [`credit`](BudgetPool::credit), or where a pool with the
///   same name is built anew, it stands until the figure has passed it.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, Exporter};
///
/// let pool = BudgetPool::builder().name("acme").tokens(1_000).build();
/// let exporter = Exporter::new(&pool).depth(1);
/// exporter.describe(); // once, when the recorder is installed
///
/// pool.record(Amount::new().tokens(300))?;
/// exporter.export(); // at each scrape
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
pub struct Exporter {
    pool: BudgetPool,
    depth: usize,
    /// The series exported last: a series that is gone since then falls to zero.
    last: Mutex<Series>,
    names: Mutex<Names>,
}

/// The figures by the names of the pools.
type Series = BTreeMap<Name, Figures>;

#[derive(Clone, Default, PartialEq)]
struct Figures {
    axes: BTreeMap<Axis, Balance>,
    admitted: u64,
    refused: u64,
    committed: u64,
    released: u64,
    expired: u64,
    waiting: u64,
}

#[derive(Clone, Copy, Default, PartialEq)]
struct Balance {
    limit: Option<u64>,
    used: u64,
    reserved: u64,
    overage: u64,
    spent: u64,
}

impl Exporter {
    /// An `Exporter` of this pool alone. It keeps the pool.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Exporter};
    /// let pool = BudgetPool::builder().name("acme").tokens(1_000).build();
    /// Exporter::new(&pool).export();
    /// ```
    #[must_use]
    pub fn new(pool: &BudgetPool) -> Exporter {
        Exporter { pool: pool.clone(), depth: 0, last: Mutex::default(), names: Mutex::default() }
    }

    /// Exports the pools down to `levels` below this one, too. The spend of the pools further below
    /// is in the figures of those above them in any case. Every pool is a label of its own at the
    /// recorder, so choose a depth at which there are few.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Exporter};
    /// # let pool = BudgetPool::unlimited();
    /// let teams = Exporter::new(&pool).depth(1); // the pool, and its children
    /// teams.export();
    /// ```
    #[must_use]
    pub fn depth(mut self, levels: usize) -> Exporter {
        self.depth = levels;
        self
    }

    /// Describes the metrics to the recorder, with those of the user's own axes that the pools have
    /// been told of by now.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Exporter};
    /// # let exporter = Exporter::new(&BudgetPool::unlimited());
    /// exporter.describe(); // once, after the recorder is installed
    /// ```
    pub fn describe(&self) {
        let names = self.names();
        for axis in built_in().chain(names.0.keys().copied()) {
            let name = names.of_axis(axis);
            describe_gauge!(name.clone(), format!("{axis}: used, reserved and overage"));
            describe_gauge!(
                limit(&name),
                format!("{axis}: the most that may be used and reserved")
            );
            let text = format!("{axis}: spent since the pool was built, less what was credited");
            match axis {
                Axis::InFlight => {}
                Axis::Usd => describe_gauge!(spent(&name), text),
                _ => describe_counter!(spent(&name), text),
            }
        }
        describe_counter!(ADMISSIONS, Unit::Count, "what asked for capacity, by the result");
        describe_counter!(HOLDS_ENDED, Unit::Count, "holds that ended, by how");
        describe_gauge!(WAITING, Unit::Count, "those that wait in line");
        describe_gauge!(TIME_LEFT, Unit::Seconds, "the time until the deadline");
    }

    /// Sets the metrics to the balances of the pools at one instant. Of two calls at the same time,
    /// either may be the last to set a metric.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Exporter};
    /// # let exporter = Exporter::new(&BudgetPool::unlimited());
    /// exporter.export(); // at each scrape, or every few seconds
    /// ```
    pub fn export(&self) {
        let mut series = self.look();
        // The recorder is not called under the lock: it is not the library's.
        let gone = {
            let mut last = locked(&self.last);
            for (name, pool) in &mut series {
                if let Some(before) = last.get(name) {
                    pool.outlive(before);
                }
            }
            let is_gone = |name: &Name| !series.contains_key(name);
            let gone = last.iter().filter(|(name, _)| is_gone(name));
            let gone: Series = gone.map(|(name, pool)| (name.clone(), pool.gone())).collect();
            // Those that are gone stay until their gauges are set: the recorder may panic.
            last.clone_from(&gone);
            last.extend(series.clone());
            gone
        };
        let names = self.names();
        gone.iter().for_each(|(name, pool)| pool.set_gauges(name, &names));
        // Another export may have seen the pool, or one of its name, meanwhile.
        locked(&self.last).retain(|name, pool| gone.get(name) != Some(pool));
        for (name, pool) in &series {
            pool.set_gauges(name, &names);
            pool.set_counters(name, &names);
        }
        if let Some(left) = self.pool.time_left() {
            gauge!(TIME_LEFT, "pool" => self.pool.name().to_owned()).set(left.as_secs_f64());
        }
    }

    /// The names of all axes that the tree knows. A name once given stays, so that no series becomes
    /// that of another axis.
    fn names(&self) -> Names {
        let mut names = locked(&self.names);
        names.give(self.pool.handle().labels().own());
        names.clone()
    }

    fn look(&self) -> Series {
        let mut series = Series::new();
        let tree = self.pool.snapshot_tree();
        for pool in tree.iter().filter(|pool| pool.depth <= self.depth) {
            series.entry(pool.name.clone()).or_default().add(pool);
        }
        series
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter")
            .field("pool", &self.pool.name())
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

impl Figures {
    fn add(&mut self, pool: &Snapshot) {
        for (axis, seen) in pool.axes().filter(|(_, seen)| is_in_play(seen)) {
            self.axes.entry(axis).or_default().add(&seen);
        }
        for (sum, figure) in [
            (&mut self.admitted, pool.admitted),
            (&mut self.refused, pool.refused),
            (&mut self.committed, pool.committed),
            (&mut self.released, pool.released),
            (&mut self.expired, pool.expired),
            (&mut self.waiting, pool.waiting),
        ] {
            *sum = sum.saturating_add(figure);
        }
    }

    /// Where the pools of a name had an axis or a cap before, and have none now, it is zero.
    fn outlive(&mut self, before: &Figures) {
        for (&axis, before) in &before.axes {
            let limit = &mut self.axes.entry(axis).or_default().limit;
            *limit = limit.or(before.limit.map(|_| 0));
        }
    }

    /// The gauges of a pool that is gone.
    fn gone(&self) -> Figures {
        let mut nothing = Figures::default();
        nothing.outlive(self);
        nothing
    }

    fn set_gauges(&self, pool: &Name, names: &Names) {
        let pool = || pool.to_string();
        for (&axis, balance) in &self.axes {
            let name = names.of_axis(axis);
            for (state, units) in [
                ("used", balance.used),
                ("reserved", balance.reserved),
                ("overage", balance.overage),
            ] {
                gauge!(name.clone(), "pool" => pool(), "state" => state).set(float(axis, units));
            }
            if let Some(cap) = balance.limit {
                gauge!(limit(&name), "pool" => pool()).set(float(axis, cap));
            }
        }
        gauge!(WAITING, "pool" => pool()).set(self.waiting as f64);
    }

    fn set_counters(&self, pool: &Name, names: &Names) {
        let pool = || pool.to_string();
        for (&axis, balance) in &self.axes {
            let name = spent(&names.of_axis(axis));
            match axis {
                Axis::InFlight => {}
                Axis::Usd => gauge!(name, "pool" => pool()).set(float(axis, balance.spent)),
                _ => counter!(name, "pool" => pool()).absolute(balance.spent),
            }
        }
        for (result, count) in [("admitted", self.admitted), ("refused", self.refused)] {
            counter!(ADMISSIONS, "pool" => pool(), "result" => result).absolute(count);
        }
        for (how, count) in
            [("committed", self.committed), ("released", self.released), ("expired", self.expired)]
        {
            counter!(HOLDS_ENDED, "pool" => pool(), "how" => how).absolute(count);
        }
    }
}

impl Balance {
    fn add(&mut self, seen: &AxisSnapshot<Quantity>) {
        if let Some(cap) = seen.cap {
            self.limit = Some(self.limit.unwrap_or(0).saturating_add(cap.units()));
        }
        for (sum, figure) in [
            (&mut self.used, seen.used),
            (&mut self.reserved, seen.reserved),
            (&mut self.overage, seen.overage),
            (&mut self.spent, seen.spent),
        ] {
            *sum = sum.saturating_add(figure.units());
        }
    }
}

/// Dollars on the axis of money.
fn float(axis: Axis, units: u64) -> f64 {
    match axis {
        Axis::Usd => Usd::from_nanos(units).as_dollars_f64(),
        _ => units as f64,
    }
}

const ADMISSIONS: &str = "budget_pool_admissions_total";
const HOLDS_ENDED: &str = "budget_pool_holds_ended_total";
const WAITING: &str = "budget_pool_waiting";
const TIME_LEFT: &str = "budget_pool_time_left_seconds";

fn built_in() -> impl Iterator<Item = Axis> {
    Axis::ALL.iter().copied().filter(|axis| axis.is_counted())
}

fn of_word(word: &str) -> String {
    format!("budget_pool_{word}")
}

fn limit(name: &str) -> String {
    format!("{name}_limit")
}

fn spent(name: &str) -> String {
    format!("{name}_spent_total")
}

/// The names of the metrics of the user's own axes.
#[derive(Clone, Default)]
struct Names(BTreeMap<Axis, String>);

impl Names {
    /// Gives those a name that have none.
    fn give(&mut self, axes: impl Iterator<Item = Axis>) {
        let mut taken: BTreeSet<String> =
            [ADMISSIONS, HOLDS_ENDED, WAITING, TIME_LEFT].map(str::to_owned).into();
        let words = built_in().map(|axis| of_word(axis.as_str()));
        words.chain(self.0.values().cloned()).for_each(|name| taken.extend(all_of(&name)));
        for axis in axes {
            let Axis::Custom(custom) = axis else { continue };
            if self.0.contains_key(&axis) {
                continue;
            }
            let may_stand = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            let word: String = custom.label().chars().map(may_stand).collect();
            let by_label = of_word(&word);
            // The names by index are kept free for their own axes.
            let is_free = !word.starts_with("custom_") && all_of(&by_label).is_disjoint(&taken);
            let name = if is_free { by_label } else { by_index(custom) };
            taken.extend(all_of(&name));
            self.0.insert(axis, name);
        }
    }

    fn of_axis(&self, axis: Axis) -> String {
        match axis {
            Axis::Custom(custom) => self.0.get(&axis).cloned().unwrap_or_else(|| by_index(custom)),
            _ => of_word(axis.as_str()),
        }
    }
}

fn by_index(axis: CustomAxis) -> String {
    of_word(&format!("custom_{}", axis.index()))
}

/// The names of all metrics of an axis.
fn all_of(name: &str) -> BTreeSet<String> {
    [name.to_owned(), limit(name), spent(name)].into()
}
