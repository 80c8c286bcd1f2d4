//! Derived state agrees with its sources. For tests: absent from release builds.

use std::collections::BTreeMap;

use super::Engine;
use crate::types::axis::{NOTHING, Units};

impl Engine {
    /// Asserts all that holds between transitions. It takes time in proportion to the tree.
    pub(crate) fn check_invariants(&self) {
        self.nodes.check_invariants();
        self.holds.check_invariants();
        self.expiry.check_invariants(&self.holds);
        self.check_reserved();
        self.check_queue();
        self.check_pauses();
        self.check_watch();
        self.count_waiting_below();
    }

    /// A pool's `reserved`, its reservations and its expiring holds are those of the live holds on
    /// it and below it, and of the shares that it keeps.
    fn check_reserved(&self) {
        let mut reserved: BTreeMap<_, Units> = BTreeMap::new();
        let mut expiring: BTreeMap<_, u32> = BTreeMap::new();
        let mut reservations: BTreeMap<_, u64> = BTreeMap::new();
        for hold in self.holds.iter().filter(|hold| hold.is_live()) {
            for (id, _, held) in self.nodes.asking(hold.node(), hold.held().units()) {
                add(reserved.entry(id).or_insert(NOTHING), &held);
                *expiring.entry(id).or_default() += u32::from(hold.expiry().is_some());
                *reservations.entry(id).or_default() += u64::from(hold.is_reservation());
            }
        }
        for id in self.nodes.ids() {
            let node = &self.nodes[id];
            let Some(parent) = node.share_of() else { continue };
            let mut share = NOTHING;
            for axis in node.carved() {
                let cap = node.ledger.cap(axis).expect("a carved axis is capped");
                share[axis] = cap - node.ledger.used(axis);
            }
            for (above, _, share) in self.nodes.asking(parent, &share) {
                add(reserved.entry(above).or_insert(NOTHING), &share);
            }
        }
        for id in self.nodes.ids() {
            let node = &self.nodes[id];
            node.ledger.check_invariants();
            if let Some(window) = &node.window {
                window.check_invariants(&node.ledger);
            }
            let told: Units = std::array::from_fn(|axis| node.ledger.reserved(axis));
            let counted = reserved.get(&id).copied().unwrap_or(NOTHING);
            assert_eq!(told, counted, "reserved is what live holds and shares hold");
            let counted = expiring.get(&id).copied().unwrap_or_default();
            assert_eq!(node.expiring, counted, "holds that may expire are counted on their way");
            let counted = reservations.get(&id).copied().unwrap_or_default();
            assert_eq!(node.counts.reservations, counted, "reservations are counted on their way");
        }
        let scheduled = self.holds.iter().filter(|hold| hold.expiry().is_some()).count();
        assert_eq!(self.expiry.len() as usize, scheduled, "every time is in the order of time");
    }
}

fn add(sum: &mut Units, units: &Units) {
    for (sum, &units) in sum.iter_mut().zip(units) {
        *sum = sum.checked_add(units).expect("what is reserved is within the cap");
    }
}
