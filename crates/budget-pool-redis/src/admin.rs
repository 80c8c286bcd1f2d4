//! [`Admin`], with which an operator inspects a wallet and corrects it.

use std::fmt;
use std::time::Duration;

use budget_pool::{Amount, Axis, Caps, Quantity};
use redis::Client;

use crate::driver::quantity;
use crate::error::FleetError;
use crate::link::{Link, Source};
use crate::protocol::{Change, Totals, Way};
use crate::script::{Axes, Call, Look};

/// The operator's handle of a wallet, from [`Admin::new`] or [`Fleet::admin`](crate::Fleet::admin).
/// Each call connects anew.
///
/// Each call may be repeated where its answer was lost. [`raise`](Admin::raise) and
/// [`lower`](Admin::lower) name a difference, and take a key by which the wallet knows a repetition.
/// The other calls name the state that shall hold.
#[derive(Clone)]
pub struct Admin {
    wallet: String,
    source: Source,
}

/// A wallet at one instant of the store, from [`Admin::snapshot`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FleetSnapshot {
    /// The axes of the wallet, in its order.
    pub axes: Vec<FleetAxis>,
    /// The time until the period ends; `None` without a window.
    pub period_ends_in: Option<Duration>,
}

/// The figures of a wallet on an [`Axis`]. `used` and `held` together exceed `cap` only by spend
/// that was told beyond it, or where the cap was lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FleetAxis {
    /// The axis. An axis of the user's own is called `custom 0` to `custom 3`.
    pub axis: Axis,
    /// The most that all processes together may spend, in a period if there is a
    /// [`window`](crate::FleetBuilder::window).
    pub cap: Quantity,
    /// The spend that the processes have told, in this period.
    pub used: Quantity,
    /// The units that the processes hold beyond `used`.
    pub held: Quantity,
    /// The units of `cap` that are neither `used` nor `held`.
    pub free: Quantity,
    /// The units by which `used` and `held` together exceed `cap`.
    pub overage: Quantity,
}

/// A member of a wallet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FleetMember {
    /// The name of the member: [`Admin::resolve`] takes it.
    pub id: String,
    /// Whether the store has not heard of the member for its [`ttl`](crate::FleetBuilder::ttl).
    pub is_lost: bool,
    /// The spend that the member has told since it joined.
    pub spent: Amount,
    /// The units that the member holds beyond `spent`. They are in doubt if it [is
    /// lost](FleetMember::is_lost).
    pub held: Amount,
}

impl Admin {
    /// Makes the `Admin` of the wallet of this name. `new` does no I/O.
    #[must_use]
    pub fn new(wallet: impl Into<String>, client: Client) -> Admin {
        Admin::at(wallet, client.into())
    }

    pub(crate) fn at(wallet: impl Into<String>, source: Source) -> Admin {
        Admin { wallet: wallet.into(), source }
    }

    fn link(&self) -> Result<Link, FleetError> {
        Link::new(&self.wallet, self.source.clone(), Duration::from_secs(5))
    }

    async fn look(&self, link: &mut Link) -> Result<Look, FleetError> {
        link.call(&Call::look()).await?.look(&[])
    }

    /// Reads the wallet at one instant of the store.
    ///
    /// # Errors
    /// [`NoWallet`](FleetError::NoWallet), [`Unreachable`](FleetError::Unreachable),
    /// [`Store`](FleetError::Store), [`Damaged`](FleetError::Damaged), [`Version`](FleetError::Version),
    /// [`Name`](FleetError::Name).
    pub async fn snapshot(&self) -> Result<FleetSnapshot, FleetError> {
        Ok(snapshot(&self.look(&mut self.link()?).await?))
    }

    /// Lists the members that have not left. A lost member stays in the list, with
    /// [`is_lost`](FleetMember::is_lost).
    ///
    /// # Errors
    /// As [`snapshot`](Admin::snapshot).
    pub async fn members(&self) -> Result<Vec<FleetMember>, FleetError> {
        let mut link = self.link()?;
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

    /// Sets the caps that `caps` names. Under a cap below the charged units, the wallet grants
    /// nothing on that axis until the members have given back the difference, or the period ends.
    ///
    /// `set_caps` loses a change that another operator made since the caps were read:
    /// [`raise`](Admin::raise) and [`lower`](Admin::lower) lose none.
    ///
    /// # Errors
    /// As [`snapshot`](Admin::snapshot), [`OtherAxes`](FleetError::OtherAxes) for an axis that the
    /// wallet lacks, [`Range`](FleetError::Range) for a cap above `2^53 - 1`. Nothing has changed
    /// then.
    pub async fn set_caps(&self, caps: Caps) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link()?;
        let axes = self.look(&mut link).await?.axes;
        self.has_axes(&axes, &caps)?;
        let caps: Vec<Option<u64>> = axes.0.iter().map(|&axis| caps.units(axis)).collect();
        Ok(snapshot(&link.call(&Call::caps(&axes, &caps)).await?.look(&[])?))
    }

    /// Adds `caps` to the caps of the wallet, on the axes that `caps` names, once for each `key`. A
    /// call with a `key` that the wallet knows changes nothing, and answers with the wallet of its
    /// own instant. So an operator whose answer was lost calls again with the same `key` and the
    /// same `caps`, and operators who raise at once take different keys: the number of a ticket, a
    /// fresh UUID.
    ///
    /// The wallet remembers a `key` for 24 hours by the clock of the store, and 1,024 keys at most. A
    /// call that comes later is a new one. `raise` and [`lower`](Admin::lower) share the keys.
    ///
    /// The members learn of the cap at their next exchange, after about a
    /// [`settle_every`](crate::FleetBuilder::settle_every). A call of a [`Fleet`](crate::Fleet) that
    /// would never fit without the raise makes that exchange itself, if the last is older than about a
    /// quarter of a second.
    ///
    /// # Errors
    /// As [`snapshot`](Admin::snapshot), [`OtherAxes`](FleetError::OtherAxes) for an axis that the
    /// wallet lacks, [`Range`](FleetError::Range) where a figure of `caps` or a cap would be greater
    /// than `2^53 - 1`, [`KeyConflict`](FleetError::KeyConflict) for a `key` of another change,
    /// [`KeysFull`](FleetError::KeysFull). Nothing has changed then, except that a call that is
    /// [`Unreachable`](FleetError::Unreachable) may have been made.
    ///
    /// ```no_run
    /// # use budget_pool::Caps;
    /// # async fn example(admin: budget_pool_redis::Admin) -> Result<(), Box<dyn std::error::Error>> {
    /// let more = Caps::new().usd("25".parse()?);
    /// admin.raise("ticket 4711", more).await?;
    /// admin.raise("ticket 4711", more).await?; // a retry
    /// # Ok(())
    /// # }
    /// ```
    pub async fn raise(&self, key: &str, caps: Caps) -> Result<FleetSnapshot, FleetError> {
        self.change(Way::Raise, key, caps).await
    }

    /// Subtracts `caps` from the caps of the wallet, on the axes that `caps` names, once for each
    /// `key`, as [`raise`](Admin::raise) adds them. A cap that falls below the charged units has the
    /// effect that it has in [`set_caps`](Admin::set_caps).
    ///
    /// # Errors
    /// As [`raise`](Admin::raise), and [`BelowZero`](FleetError::BelowZero) where `caps` names more
    /// units than a cap has. No cap has changed then.
    pub async fn lower(&self, key: &str, caps: Caps) -> Result<FleetSnapshot, FleetError> {
        self.change(Way::Lower, key, caps).await
    }

    async fn change(&self, way: Way, key: &str, caps: Caps) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link()?;
        let axes = self.look(&mut link).await?.axes;
        self.has_axes(&axes, &caps)?;
        let units = axes.0.iter().map(|&axis| caps.units(axis).unwrap_or(0)).collect();
        let call = Call::change(&axes, key, &Change { way, units });
        Ok(snapshot(&link.call(&call).await?.look(&[])?))
    }

    /// Closes the record of `member` with `spent`, its total spend since it joined: the rest of its
    /// grant is free. On an axis that `spent` does not name, the spend that the member told counts.
    /// A figure below the told spend counts as the told spend. A member that was alive all the same
    /// joins anew, and the store books its spend beyond `spent`.
    ///
    /// # Errors
    /// As [`set_caps`](Admin::set_caps), and [`NoMember`](FleetError::NoMember).
    pub async fn resolve(&self, member: &str, spent: Amount) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link()?;
        let axes = self.look(&mut link).await?.axes;
        if !axes.cover(&spent) {
            return Err(FleetError::OtherAxes { wallet: self.wallet.clone() });
        }
        let spent: Vec<_> = axes.0.iter().map(|&axis| Some(spent.units(axis))).collect();
        Ok(snapshot(&link.call(&Call::resolve(&axes, member, &spent)).await?.look(&[])?))
    }

    /// Counts all units that `member` holds as spent, and closes its record.
    ///
    /// # Errors
    /// As [`resolve`](Admin::resolve).
    pub async fn write_off(&self, member: &str) -> Result<FleetSnapshot, FleetError> {
        let mut link = self.link()?;
        let axes = self.look(&mut link).await?.axes;
        let all = vec![None; axes.0.len()];
        Ok(snapshot(&link.call(&Call::resolve(&axes, member, &all)).await?.look(&[])?))
    }

    /// Removes the wallet, with all that the store knows of it, if no live member is in it. The
    /// grants of lost members end with it, so [`resolve`](Admin::resolve) them first where their
    /// spend matters. A wallet that is [founded](crate::FleetBuilder::found) afterwards under this
    /// name is a new one.
    ///
    /// The [journal](crate::FleetBuilder::journal) of a member that did not leave outlives the wallet,
    /// and knows of no `resolve`. For 24 hours after the last answer that the member had, a process that
    /// joins a wallet of this name with that journal books there what the member had spent. Delete such
    /// journals, or have a process join with each of them before the wallet is removed.
    ///
    /// # Errors
    /// [`InUse`](FleetError::InUse) while a member is live, [`NoWallet`](FleetError::NoWallet) if it
    /// is removed already, [`Unreachable`](FleetError::Unreachable), [`Store`](FleetError::Store),
    /// [`Version`](FleetError::Version), [`Name`](FleetError::Name).
    pub async fn remove(&self) -> Result<(), FleetError> {
        self.link()?.call(&Call::remove(false)).await.map(drop)
    }

    /// Removes the wallet as [`remove`](Admin::remove), live members or not. Each live member spends
    /// the grant that it has, and is then refused as [`NoWallet`](FleetError::NoWallet). Where the
    /// wallet is founded anew under this name, such a member tells its totals to the new wallet,
    /// which books them: end the processes first.
    ///
    /// # Errors
    /// As [`remove`](Admin::remove), but for [`InUse`](FleetError::InUse).
    pub async fn remove_in_use(&self) -> Result<(), FleetError> {
        self.link()?.call(&Call::remove(true)).await.map(drop)
    }

    fn has_axes(&self, axes: &Axes, caps: &Caps) -> Result<(), FleetError> {
        match caps.iter().all(|quantity| axes.0.contains(&quantity.axis())) {
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
    /// The [`FleetAxis`] of `axis`; `None` if the wallet lacks it.
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
