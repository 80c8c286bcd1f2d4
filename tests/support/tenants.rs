//! Child pools by key: the language of them, and what the model says of each.
//!
//! The model keeps a list of keys. It says of each tenant from when on nobody could tell its pool from
//! one that is built anew, and an eviction drops those of which that is so by now.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

use budget_pool::{BudgetPool, Keyed};

use super::language::{Build, LANES};
use super::oracle::{Model, Nanos, PoolId, Reads};
use super::seen::View;
use super::{Both, name};

/// Few, so that one comes back.
const KEYS: u8 = 5;

/// The pools by key, of the real tree and of the model.
pub(super) struct Tenants {
    parent: PoolId,
    keyed: Keyed<u8>,
    pools: BTreeMap<u8, PoolId>,
    /// Who was evicted.
    gone: BTreeSet<u8>,
}

/// From when on a pool is as one that is built anew, if nobody touches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idle {
    Now,
    From(Nanos),
    Never,
}

impl Model {
    /// Of a pool that the keys alone keep. Whatever holds or waits keeps it, too.
    fn idle(&self, id: PoolId) -> Idle {
        let pool = &self.pools[&id];
        let is_kept = pool.handles > 1 || self.has_guards(id) || self.children(id).next().is_some();
        // Below a closed one it would be born closed.
        let was_closed = pool.closed && !pool.parents.iter().any(|above| self.is_closed(*above));
        if is_kept || was_closed {
            return Idle::Never;
        }
        let axes = (0..LANES).map(|axis| self.idle_on(id, axis));
        let until = |until: Option<Nanos>| until.map_or(Idle::Never, Idle::From);
        let keys = self.known_until(id).into_iter().map(until);
        let pause = pool.paused.map(Idle::From);
        axes.chain(keys).chain(pause).max().expect("there are axes")
    }

    fn idle_on(&self, id: PoolId, axis: usize) -> Idle {
        let pool = &self.pools[&id];
        match self.nothing_owed(id, axis) {
            Ok(Some(at)) => Idle::From(at),
            // A mere count: time brings it back to no cap.
            Ok(None) if pool.window.is_some() && !pool.is_capped(axis) => Idle::Now,
            Ok(None) => Idle::Never,
            Err(()) => Idle::Now,
        }
    }
}

impl Both {
    pub(super) fn begin_tenants(&mut self, parent: PoolId, pool: BudgetPool) -> Result<(), String> {
        if self.tenants.is_none() {
            self.log(format!("tenants = Keyed::new(p{parent})"));
            self.model.pool(parent).handles += 1;
            let (keyed, pools, gone) = (Keyed::new(pool), BTreeMap::new(), BTreeSet::new());
            self.tenants = Some(Tenants { parent, keyed, pools, gone });
        }
        Ok(())
    }

    /// The pool of a tenant, which the caller keeps, or not.
    pub(super) fn get_or_build(
        &mut self,
        key: u8,
        build: &Build,
        keep: bool,
    ) -> Result<(), String> {
        let key = key % KEYS;
        let Some(Tenants { parent, keyed, pools, .. }) = &self.tenants else { return Ok(()) };
        let (parent, keyed, known) = (*parent, keyed.clone(), pools.get(&key).copied());
        let tenant = match known {
            Some(tenant) => {
                self.log(format!("tenant {key}, p{tenant}, is asked for"));
                let found = self.call(Reads::Never, || keyed.get(&key))?;
                ensure!(found.is_some(), "a tenant is gone that is not idle");
                let builds = || panic!("a tenant is built twice");
                let pool = self.call(Reads::Never, || keyed.get_or_build(&key, |_| builds()))?;
                same!("the name of a tenant", pool.name(), name(tenant));
                self.call(Reads::Never, || drop(found))?;
                self.model.pool(tenant).handles += 1;
                self.pools.push((tenant, pool));
                tenant
            }
            None if self.has_room_for_pools() => {
                let build = Build { carved: false, ..*build };
                let (tenant, near) = (self.model.built, self.model.near(parent));
                let spec = self.spec(&build, &near);
                self.log(format!("tenant {key} = p{tenant} with {spec:?}"));
                ensure!(keyed.get(&key).is_none(), "a tenant is there that was evicted");
                let reads =
                    usize::from(spec.deadline.is_some()) + usize::from(spec.window.is_some());
                let mut built = false;
                let before = self.reads.load(Ordering::Relaxed);
                let pool = keyed.get_or_build(&key, |builder| {
                    built = true;
                    self.equip(tenant, builder, &spec)
                });
                same!(
                    "P8: readings of a build",
                    self.reads.load(Ordering::Relaxed) - before,
                    reads
                );
                ensure!(built, "a tenant is there that was evicted");
                let model = self.model.build(vec![parent], &spec, self.now());
                same!("a tenant", Ok(tenant), model);
                self.model.pool(tenant).handles += 1;
                self.pools.push((tenant, pool));
                let Some(Tenants { pools, gone, .. }) = &mut self.tenants else { return Ok(()) };
                pools.insert(key, tenant);
                if gone.remove(&key) {
                    self.meet("a tenant comes back");
                }
                tenant
            }
            None => return Ok(()),
        };
        if !keep {
            let at = self.pools.iter().rposition(|(id, _)| *id == tenant).expect("just made");
            let (_, pool) = self.pools.swap_remove(at);
            self.call(Reads::Never, || drop(pool))?;
            self.model.drop_handle(tenant);
        }
        Ok(())
    }

    /// Exactly those go that are idle by now. The clock is read once if time says so of any.
    pub(super) fn evict_idle(&mut self) -> Result<(), String> {
        let Some(Tenants { keyed, pools, .. }) = &self.tenants else { return Ok(()) };
        let (keyed, tenants) = (keyed.clone(), pools.clone());
        self.log("evict_idle()");
        self.check_watches()?;
        let idle: Vec<(u8, PoolId, Idle)> =
            tenants.iter().map(|(key, id)| (*key, *id, self.model.idle(*id))).collect();
        let needs_time =
            idle.iter().any(|(.., idle)| matches!(idle, Idle::From(at) if *at > self.model.now));
        let now = if needs_time { self.now() } else { self.model.now };
        let before = self.reads.load(Ordering::Relaxed);
        let evicted = keyed.evict_idle();
        let read = self.reads.load(Ordering::Relaxed) - before;
        same!("P8: readings of an eviction", read, usize::from(needs_time));
        let mut expected = 0;
        for (key, id, idle) in idle {
            let is_idle = match idle {
                Idle::Now => true,
                Idle::From(at) => at <= now,
                Idle::Never => false,
            };
            if !is_idle {
                self.meet("a tenant stays");
                continue;
            }
            expected += 1;
            if idle != Idle::Now {
                self.meet("time makes a tenant idle");
            }
            self.meet("a tenant is evicted");
            self.forget_tenant(key, id);
            self.tenants.as_mut().map(|tenants| tenants.gone.insert(key));
        }
        same!("how many are evicted", evicted, expected);
        let left = self.tenants.as_ref().map_or(0, |tenants| tenants.pools.len());
        same!("how many tenants are left", keyed.len(), left);
        Ok(())
    }

    fn forget_tenant(&mut self, key: u8, id: PoolId) {
        if let Some(Tenants { pools, .. }) = &mut self.tenants {
            pools.remove(&key);
        }
        self.model.drop_handle(id);
    }

    pub(super) fn remove_tenant(&mut self, key: u8) -> Result<(), String> {
        let key = key % KEYS;
        let Some(Tenants { keyed, pools, .. }) = &self.tenants else { return Ok(()) };
        let (keyed, known) = (keyed.clone(), pools.get(&key).copied());
        self.log(format!("remove tenant {key}"));
        let removed = self.call(Reads::Never, || keyed.remove(&key))?;
        same!(
            "the removed tenant",
            removed.as_ref().map(|pool| pool.name().to_owned()),
            known.map(name)
        );
        if let Some(id) = known {
            self.call(Reads::Never, || drop(removed))?;
            self.forget_tenant(key, id);
        }
        Ok(())
    }

    pub(super) fn see_tenants(&mut self) -> Result<(), String> {
        let Some(Tenants { parent, keyed, pools, .. }) = &self.tenants else { return Ok(()) };
        let (parent, keyed, pools) = (*parent, keyed.clone(), pools.clone());
        self.log("look at all tenants");
        let seen = self.call(Reads::Surveys(parent), || keyed.snapshot())?;
        let mut seen: Vec<(u8, View)> =
            seen.iter().map(|(key, snapshot)| (*key, View::from(snapshot))).collect();
        seen.sort_by_key(|(key, _)| *key);
        self.model.unreclaimed = 0;
        let model: Vec<(u8, View)> =
            pools.into_iter().map(|(key, id)| (key, self.model.view(id, id))).collect();
        same!("keys of the tenants", seen.len(), model.len());
        for ((key, mut seen), (expected, model)) in seen.into_iter().zip(model) {
            for (axis, expected) in seen.axes.iter_mut().zip(&model.axes) {
                // A peak may count a little longer what has expired.
                let may_be_more = axis.peak > expected.peak && self.model.is_timed();
                axis.peak = if may_be_more { expected.peak } else { axis.peak };
            }
            same!("a tenant that is seen", (key, seen), (expected, model));
        }
        Ok(())
    }

    /// Of those who keep a tenant of theirs it lives on.
    pub(super) fn drop_tenants(&mut self) -> Result<(), String> {
        let Some(Tenants { parent, keyed, pools, .. }) = self.tenants.take() else { return Ok(()) };
        self.log("drop the tenants");
        self.call(Reads::Never, || drop(keyed))?;
        self.model.drop_handle(parent);
        for id in pools.into_values() {
            self.model.drop_handle(id);
        }
        Ok(())
    }
}
