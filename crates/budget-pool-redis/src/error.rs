//! Why a call on a fleet was refused, or failed.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use budget_pool::{Axis, BudgetError};
use redis::RedisError;

use crate::driver::quantity;

/// Why a call on a [`Fleet`](crate::Fleet) was refused, or failed. Nothing was spent then.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The pool of this process refused with a [`BudgetError`] of its own: it is closed, others
    /// wait, the amount can never fit. Its figures are those of this process.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// The fleet has no budget left for the amount, as the store said at its last answer.
    #[error(
        "the fleet `{wallet}` is short: {} requested, {} free, cap {}, {} held by others",
        quantity(*axis, *requested), quantity(*axis, *free), quantity(*axis, *cap),
        quantity(*axis, *held_by_others)
    )]
    #[non_exhaustive]
    Short {
        /// The name of the wallet.
        wallet: String,
        /// The axis that lacks room.
        axis: Axis,
        /// The units that the call named. All figures are in units of `axis`: nano-dollars of
        /// money.
        requested: u64,
        /// The units that are free in the wallet and in this process.
        free: u64,
        /// The cap of the fleet.
        cap: u64,
        /// The grants of other processes, less the spend that they had told. The other processes
        /// give back the units that they do not need.
        held_by_others: u64,
        /// The time until the next attempt makes sense: a settle interval where `held_by_others`
        /// would do, and no longer than until the period ends; `None` where neither helps.
        retry_after: Option<Duration>,
    },
    /// The store may have lost its last writes, and grants nothing until its members have told
    /// their totals. Meanwhile this process can spend its grant.
    #[error("the fleet `{wallet}` learns what its members hold, for another {retry_after:?}")]
    #[non_exhaustive]
    Learning {
        /// The name of the wallet.
        wallet: String,
        /// The time that the learning still takes.
        retry_after: Duration,
    },
    /// The store does not answer, and the grant of this process does not cover the amount.
    #[error("the store of the fleet `{wallet}` has not answered for {since:?}: {error}")]
    #[non_exhaustive]
    Unreachable {
        /// The name of the wallet.
        wallet: String,
        /// The time since the last answer.
        since: Duration,
        /// The text of the error that ended the last attempt.
        error: String,
    },
    /// The store has booked a grant, and its replicas or its disk have not
    /// [confirmed](crate::FleetBuilder::confirm) it in time. This process does not spend it; the next
    /// exchange asks for the confirmation again.
    #[error("the store of the fleet `{wallet}` has not confirmed a grant within {within:?}")]
    #[non_exhaustive]
    Unconfirmed {
        /// The name of the wallet.
        wallet: String,
        /// The time that the confirmation had.
        within: Duration,
    },
    /// The store cannot [confirm](crate::FleetBuilder::confirm) a grant in the way that was chosen: it
    /// is older than Redis 7.2, it keeps no append-only file, it is a replica itself, or it is
    /// a cluster, whose client does not say on which connection it wrote.
    #[error("the store of the fleet `{wallet}` cannot confirm a grant: {error}")]
    #[non_exhaustive]
    CannotConfirm {
        /// The name of the wallet.
        wallet: String,
        /// The text of the error.
        error: String,
    },
    /// There is no wallet of this name: it was never [founded](crate::FleetBuilder::found), or it
    /// was removed, flushed or evicted. A process that was in the wallet never founds it anew.
    #[error("there is no wallet `{wallet}`")]
    #[non_exhaustive]
    NoWallet {
        /// The name of the wallet.
        wallet: String,
    },
    /// The wallet was founded with other caps, another window or another [`Lost`](crate::Lost).
    #[error("the wallet `{wallet}` was founded with other terms")]
    #[non_exhaustive]
    OtherFounding {
        /// The name of the wallet.
        wallet: String,
    },
    /// No wallet can have this name: it is empty or begins with `}`. Its keys would lie in several
    /// slots of a Redis Cluster. No call was made.
    #[error("no wallet can be called {wallet:?}: a name is not empty and does not begin with `}}`")]
    #[non_exhaustive]
    Name {
        /// The name.
        wallet: String,
    },
    /// The call names an axis that the wallet does not have.
    #[error("the wallet `{wallet}` has other axes")]
    #[non_exhaustive]
    OtherAxes {
        /// The name of the wallet.
        wallet: String,
    },
    /// The wallet has no member of this name.
    #[error("the wallet `{wallet}` has no such member")]
    #[non_exhaustive]
    NoMember {
        /// The name of the wallet.
        wallet: String,
    },
    /// The wallet has live members, so that it is not [removed](crate::Admin::remove).
    #[error("the wallet `{wallet}` is in use by {members} processes")]
    #[non_exhaustive]
    InUse {
        /// The name of the wallet.
        wallet: String,
        /// The number of live members.
        members: u64,
    },
    /// A cap or a total is, or would become, greater than `2^53 - 1`, up to which the store counts
    /// exactly. In nano-dollars that is 9,007,199 dollars.
    #[error("the wallet `{wallet}` counts to 9007199254740991")]
    #[non_exhaustive]
    Range {
        /// The name of the wallet.
        wallet: String,
    },
    /// The key of a [`raise`](crate::Admin::raise) or a [`lower`](crate::Admin::lower) stands for
    /// another change of the caps.
    #[error("the key {key:?} of the wallet `{wallet}` stands for another change")]
    #[non_exhaustive]
    KeyConflict {
        /// The name of the wallet.
        wallet: String,
        /// The key.
        key: String,
    },
    /// The wallet remembers as many keys of [raised](crate::Admin::raise) and
    /// [lowered](crate::Admin::lower) caps as it may: 1,024.
    #[error("the wallet `{wallet}` has no room for another key for {retry_after:?}")]
    #[non_exhaustive]
    KeysFull {
        /// The name of the wallet.
        wallet: String,
        /// The time until the wallet forgets a key.
        retry_after: Duration,
    },
    /// A [`lower`](crate::Admin::lower) names more units than the cap has.
    #[error(
        "the wallet `{wallet}` cannot lower its cap {} by {}",
        quantity(*axis, *cap), quantity(*axis, *requested)
    )]
    #[non_exhaustive]
    BelowZero {
        /// The name of the wallet.
        wallet: String,
        /// The axis of the cap. An axis of the user's own is called `custom 0` to `custom 3`.
        axis: Axis,
        /// The units by which the cap was to fall. All figures are in units of `axis`: nano-dollars
        /// of money.
        requested: u64,
        /// The cap.
        cap: u64,
    },
    /// The wallet is kept by another version of this package.
    #[error("the wallet `{wallet}` is of protocol {found:?}, this process speaks 1")]
    #[non_exhaustive]
    Version {
        /// The name of the wallet.
        wallet: String,
        /// The protocol of the wallet.
        found: String,
    },
    /// A key of the wallet was evicted, deleted or written by another program.
    #[error("the wallet `{wallet}` is damaged: {what}")]
    #[non_exhaustive]
    Damaged {
        /// The name of the wallet.
        wallet: String,
        /// The description of the damage.
        what: String,
    },
    /// The store answered with an error: no permission, a key of a wrong type, out of memory.
    #[error("the store of the fleet `{wallet}` refused: {error}")]
    #[non_exhaustive]
    Store {
        /// The name of the wallet.
        wallet: String,
        /// The text of the error.
        error: String,
    },
    /// The [journal](crate::FleetBuilder::journal) of this process cannot be read or written. Its
    /// content is as it was.
    #[error("the journal {} of the fleet `{wallet}` {fault}", path.display())]
    #[non_exhaustive]
    Journal {
        /// The name of the wallet.
        wallet: String,
        /// The path of the journal.
        path: PathBuf,
        /// The reason.
        fault: JournalFault,
    },
    /// The fleet was [left](crate::Fleet::leave).
    #[error("the fleet `{wallet}` was left")]
    #[non_exhaustive]
    Left {
        /// The name of the wallet.
        wallet: String,
    },
}

/// Why a [journal](crate::FleetBuilder::journal) cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum JournalFault {
    /// Another member that lives has this journal: each member needs a file of its own.
    #[error("is in use by another member")]
    #[non_exhaustive]
    InUse {},
    /// The file is the journal of another wallet.
    #[error("is that of the wallet `{found}`")]
    #[non_exhaustive]
    OtherWallet {
        /// The name of that wallet.
        found: String,
    },
    /// The file holds spend that the store does not know, and the wallet now has other axes.
    #[error("holds spend on the axes `{found}`")]
    #[non_exhaustive]
    OtherAxes {
        /// The axes of the journal.
        found: String,
    },
    /// The file was written by another version of this package.
    #[error("is of version {found}, this process reads 1")]
    #[non_exhaustive]
    Version {
        /// The version of the file.
        found: u32,
    },
    /// The file is no journal, or was cut off or changed by another program.
    #[error("is no journal, or is damaged")]
    #[non_exhaustive]
    Damaged {},
    /// The name of the wallet or of the member is too long for a journal: about 3,900 bytes.
    #[error("cannot hold names as long as these")]
    #[non_exhaustive]
    TooLong {},
    /// The system refused to open, to lock or to write the file.
    #[error("cannot be used: {error}")]
    #[non_exhaustive]
    Io {
        /// The kind of the error.
        kind: ErrorKind,
        /// The text of the error.
        error: String,
    },
}

impl FleetError {
    /// Sorts an error of the client: an error that the server answered is
    /// [`Store`](FleetError::Store), any other error is [`Unreachable`](FleetError::Unreachable).
    pub(crate) fn store(wallet: String, error: RedisError) -> FleetError {
        if error.code().is_some() && !error.is_io_error() {
            FleetError::Store { wallet, error: error.to_string() }
        } else {
            FleetError::Unreachable { wallet, since: Duration::ZERO, error: error.to_string() }
        }
    }

    /// As [`store`](FleetError::store), for an error that answers a confirmation.
    pub(crate) fn cannot_confirm(wallet: String, error: RedisError) -> FleetError {
        match FleetError::store(wallet, error) {
            FleetError::Store { wallet, error } => FleetError::CannotConfirm { wallet, error },
            other => other,
        }
    }

    /// The time to wait before the call makes sense again; `None` if it is unknown.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            FleetError::Budget(error) => error.retry_after(),
            FleetError::Short { retry_after, .. } => *retry_after,
            FleetError::Learning { retry_after, .. } | FleetError::KeysFull { retry_after, .. } => {
                Some(*retry_after)
            }
            _ => None,
        }
    }
}
