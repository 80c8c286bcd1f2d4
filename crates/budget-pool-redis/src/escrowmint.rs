//! A wallet whose free units lie in the keys of [EscrowMint](https://pypi.org/project/escrowmint/),
//! so that its Python clients and a fleet spend one budget.

use std::time::Duration;

use budget_pool::{Axis, Caps};
use redis::Client;

use crate::admin::Admin;
use crate::error::FleetError;
use crate::fleet::{Fleet, FleetBuilder};
use crate::link::Source;

impl FleetBuilder {
    /// Joins the resource of EscrowMint that has the name of the wallet. Its units are those of
    /// `axis`; `prefix` is the `key_prefix` of its clients, `"escrowmint"` unless they name another.
    ///
    /// A grant is taken from the `available` units of the resource, and a return is added to them. So
    /// the clients of EscrowMint spend by `try_consume`, `reserve` and `top_up` as ever, and all
    /// together spend no unit twice. The cap of the wallet is what the fleet has charged and what is
    /// available. [`Admin::set_caps`], [`Admin::raise`] and [`Admin::lower`] change what is
    /// available; [`found`](FleetBuilder::found) and
    /// [`window`](FleetBuilder::window) have no effect.
    ///
    /// - Units that a client of EscrowMint reserves count as spent until they come back. EscrowMint
    ///   reclaims an expired reservation at the next call of one of its clients.
    /// - No call is one that will never fit: beyond what is available it is
    ///   [`Short`](FleetError::Short), and a [wait](Fleet::reserve_wait) goes on until units come.
    /// - A chunk of EscrowMint that expires gives back the spend that its owner had not told:
    ///   promise F1 does not cover `allocate_chunk`.
    /// - The user of the store needs the keys of EscrowMint, too: `~escrowmint:*`.
    /// - EscrowMint counts exactly up to `10^14` in its reservations.
    ///
    /// # Errors
    /// As [`join`](FleetBuilder::join). A plain [`join`](FleetBuilder::join) of this wallet, or
    /// `join_escrowmint` of a plain wallet, is refused as
    /// [`OtherFounding`](FleetError::OtherFounding).
    ///
    /// # Cancel safety
    /// As [`join`](FleetBuilder::join).
    pub async fn join_escrowmint(
        self,
        axis: Axis,
        prefix: &str,
        client: Client,
    ) -> Result<Fleet, FleetError> {
        let nothing = Caps::new().with(axis, 0);
        let terms = self.window(Duration::ZERO).found(nothing);
        terms.join_at(Source::from(client).in_escrow(prefix)).await
    }
}

impl Admin {
    /// Makes the `Admin` of a wallet that [`join_escrowmint`](FleetBuilder::join_escrowmint) joins.
    /// `new_escrowmint` does no I/O. [`remove`](Admin::remove) leaves the keys of EscrowMint; the
    /// grants of lost members end with the wallet, and become available by
    /// [`resolve`](Admin::resolve) alone.
    #[must_use]
    pub fn new_escrowmint(wallet: impl Into<String>, prefix: &str, client: Client) -> Admin {
        Admin::at(wallet, Source::from(client).in_escrow(prefix))
    }
}
