//! What an operator sees of a wallet, and does with it.

use std::fmt;
use std::time::Duration;

use budget_pool::{Amount, Axis, Caps, Quantity};
use redis::Client;

use crate::driver::quantity;
use crate::error::FleetError;
use crate::link::Link;
use crate::protocol::Totals;
use crate::script::{Axes, Call, Look};

/// What an operator can do with a wallet, from [`Admin::new`] or [`Fleet::admin`](crate::Fleet::admin).
/// Each call connects anew, and each may be repeated: it says what is to be, not what is to change.
#[derive(Clone)]
pub struct Admin {
    wallet: String,
    client: Client,
}

/// A wallet at one instant of the store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// Its axes, in the order of the wallet.
    pub axes: Vec<FleetAxis>,
    /// The time until the period ends; `None` without a window.
    pub period_ends_in: Option<Duration>,
}

/// One axis of a wallet. `charged` is never above `cap` but for what was told as spent beyond it, or
/// where the cap was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetAxis {
    /// The axis. One of the user's own is called `custom 0` to `custom 3`.
    pub axis: Axis,
    /// The most that all processes together may spend, in a period if there is a window.
    pub cap: Quantity,
    /// What the processes have told as spent, in this period.
    pub used: Quantity,
    /// What they hold beyond that.
    pub held: Quantity,
    /// What is neither used nor held.
    pub free: Quantity,
    /// By how much used and held are above the cap.
    pub overage: Quantity,
}

/// A member of a wallet.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetMember {
    /// Its name: [`Admin::resolve`] takes it.
    pub id: String,
    /// Whether it was not heard of for its TTL.
    pub is_lost: bool,
    /// What it has told as spent since it joined.
    pub spent: Amount,
    /// What it holds beyond that: if it is lost, so much is in doubt.
    pub held: Amount,
}

impl Admin {
    /// Of the wallet of this name. It does no I/O.
    #[must_use]
    pub fn new(wallet: impl Into<String>, client: Client) -> Admin {
        Admin { wallet: wallet.into(), client }
    }

    fn link(&self) -> Link {
        Link::new(&self.wallet, self.client.clone(), Duration::from_secs(5))
    }

    async fn look(&self, link: &mut Link) -> Result<Look, FleetError> {
        link.call(&Call::look()).await?.look(&[])
    }

    /// The wallet at one instant of the store.
    ///
    /// # Errors
    /// [`NoWallet`](FleetError::NoWallet), [`Unreachable`](FleetError::Unreachable),
    /// [`Store`](FleetError::Store), [`Damaged`](FleetError::Damaged), [`Version`](FleetError::Version).
    pub async fn snapshot(&self) -> Result<FleetSnapshot, FleetError> {
        Ok(snapshot(&self.look(&mut self.link()).await?))
    }

    /// The members that have not left, lost ones as well.
    ///
    /// # Errors
    /// As [`snapshot`](Admin::snapshot).
    pub async fn members(&self) -> Result<Vec<FleetMember>, FleetError> {
        let mut link = self.link();
        let axes = self.look(&mut link).await?.axes;
        let (now, members) = link.call(&Call::members()).await?.members(axes.0.len())?;
        let amount = |totals: &[Totals], part: fn(&Totals) -> u64| {
            axes.0.iter().zip(totals).map(|(&axis, totals)| quantity(axis, part(totals))).collect()
        };
        let member = |(id, expires, totals): (String, u64, Vec<Totals>)| FleetMember {
            id,
            is_lost: expires <= now,
            spent: amount(&totals, |totals| totals.spent),
            held: amount(&totals, |totals| totals.held().saturating_sub(totals.spent)),
        };
        Ok(members.into_iter().map(member).collect())
    }

    /// Sets the caps that are named. One below what is charged is paid before anything is granted.
    ///
    /// # Errors
    /// As [`snapshot`](Admin::snapshot), [`OtherAxes`](FleetError::OtherAxes) for an axis that the
    /// wallet lacks, [`Range`](FleetError::Range) for a cap above 2^53 - 1. Nothing has changed then.
    pub async fn set_caps(&self, caps: Caps) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link();
        let axes = self.look(&mut link).await?.axes;
        self.has_axes(&axes, caps.iter())?;
        let caps: Vec<Option<u64>> = axes.0.iter().map(|&axis| caps.units(axis)).collect();
        Ok(snapshot(&link.call(&Call::caps(&axes, &caps)).await?.look(&[])?))
    }

    /// Says what a member has spent since it joined, in all, and closes its record: the rest of its
    /// grant is free. On an axis that is not named the member has spent what it told. Less than it
    /// told counts as what it told. A member that was alive all the same joins anew, and what it had
    /// spent beyond the figure is booked.
    ///
    /// # Errors
    /// As [`set_caps`](Admin::set_caps), and [`NoMember`](FleetError::NoMember).
    pub async fn resolve(&self, member: &str, spent: Amount) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link();
        let axes = self.look(&mut link).await?.axes;
        self.has_axes(&axes, spent.iter())?;
        let spent: Vec<_> = axes.0.iter().map(|&axis| Some(spent.units(axis))).collect();
        Ok(snapshot(&link.call(&Call::resolve(&axes, member, &spent)).await?.look(&[])?))
    }

    /// Counts all that a member holds as spent, and closes its record.
    ///
    /// # Errors
    /// As [`resolve`](Admin::resolve).
    pub async fn write_off(&self, member: &str) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link();
        let axes = self.look(&mut link).await?.axes;
        let all = vec![None; axes.0.len()];
        Ok(snapshot(&link.call(&Call::resolve(&axes, member, &all)).await?.look(&[])?))
    }

    fn has_axes(
        &self,
        axes: &Axes,
        mut quantities: impl Iterator<Item = Quantity>,
    ) -> Result<(), FleetError> {
        match quantities.all(|quantity| axes.0.contains(&quantity.axis())) {
            true => Ok(()),
            false => Err(FleetError::OtherAxes { wallet: self.wallet.clone() }),
        }
    }
}

fn snapshot(look: &Look) -> FleetSnapshot {
    let axis = |(&axis, book): (&Axis, &crate::protocol::Book)| FleetAxis {
        axis,
        cap: quantity(axis, book.cap),
        used: quantity(axis, book.used),
        held: quantity(axis, book.charged.saturating_sub(book.used)),
        free: quantity(axis, book.free()),
        overage: quantity(axis, book.charged.saturating_sub(book.cap)),
    };
    let ends = look.period_end.checked_sub(look.now).filter(|_| look.period > 0);
    FleetSnapshot {
        axes: look.axes.0.iter().zip(&look.books).map(axis).collect(),
        period_ends_in: ends.map(Duration::from_millis),
    }
}

impl FleetSnapshot {
    /// One axis by its name; `None` if the wallet lacks it.
    #[must_use]
    pub fn axis(&self, axis: Axis) -> Option<FleetAxis> {
        self.axes.iter().copied().find(|each| each.axis == axis)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("wallet", &self.wallet).finish_non_exhaustive()
    }
}
