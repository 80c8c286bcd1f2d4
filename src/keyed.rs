//! Child pools by key.
//!
//! The keys are spread over shards, each a hash table under a lock of its own, as a table that grows
//! moves all that is in it: one table of a million keys would stop every tenant meanwhile. A table
//! knows a key by its hash, so that the user's `Hash` runs without the lock, and an eviction can
//! come back to where it was.
//!
//! **The order of locks.** A shard's lock comes before the lock of the tree, and never after it. A
//! thread that takes several shards takes them in their order. The closure of the user, the clock,
//! wakers, and the drop of a key or of a pool run without either; `Eq` and `Clone` of the key run
//! under a shard's lock alone.

use std::borrow::Borrow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use crate::builder::{Child, PoolBuilder};
use crate::engine::Engine;
use crate::handle::Handle;
use crate::pool::{BudgetPool, Kept};
use crate::sync::{RwLock, hand_over_written};
use crate::types::snapshot::Snapshot;

/// An explorer of schedules has one shard: it tells a story again and again, and the hashes, and so
/// the shards, would be others each time.
const SHARDS: usize =
    if cfg!(all(test, any(budget_pool_loom, budget_pool_shuttle))) { 1 } else { 256 };

/// How many tenants an eviction looks at before it lets go of a shard's lock.
const BATCH: usize = 32;

/// Child pools by key, for a service: `Keyed` builds the pool of a tenant, a user or an API key at
/// the first request, and evicts it when it is idle.
///
/// A handle, one pointer wide: a clone is the same. All methods of `Keyed` may be called from many
/// threads. A pool that is handed out is a [`BudgetPool`] like any other, and a
/// [child](BudgetPool::child) of the parent.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetError, BudgetPool, Keyed, ManualClock, Window};
///
/// let minute = Window::token_bucket(Duration::from_secs(60));
/// let clock = ManualClock::new();
/// let service = BudgetPool::builder().name("service").clock(clock.clone()).build();
/// let tenants: Keyed<String> = Keyed::new(service.clone());
///
/// let handle_request = |tenant: &str, tokens| {
///     let pool = tenants.get_or_build(tenant, |pool| {
///         pool.name(tenant).tokens(1_000).window(minute.clone())
///     });
///     pool.record(Amount::new().tokens(tokens))
/// };
/// handle_request("acme", 800)?;
/// handle_request("initech", 800)?;
/// assert_eq!(handle_request("acme", 800).unwrap_err().pool(), "acme");
///
/// // Now and then, by a timer of the service.
/// assert_eq!(tenants.evict_idle(), 0); // both have used some of their minute
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(tenants.evict_idle(), 2); // their buckets are full
/// assert!(tenants.is_empty());
/// assert_eq!(service.snapshot().tokens.used, 1_600); // what they spent stays booked above
/// # Ok::<(), BudgetError>(())
/// ```
///
/// # The key
///
/// A method takes the key by reference, in any form that `K` [borrows](Borrow) as: a `Keyed<String>`
/// is asked with a `&str`. `Eq` of the key, and its `Clone` in [`snapshot`](Keyed::snapshot), run
/// under a lock of the map: they must not call the `Keyed`.
///
/// # Locks
///
/// The tenants share the lock of their tree, as all its pools do. A look-up takes the lock of one of
/// 256 parts of the map besides, which other look-ups share. A part is locked for longer only while
/// its table grows or [`evict_idle`](Keyed::evict_idle) looks at 32 pools of it, and in a
/// [`snapshot`](Keyed::snapshot).
pub struct Keyed<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    parent: BudgetPool,
    hasher: RandomState,
    shards: Box<[RwLock<Shard<K>>]>,
    /// How many pools there are. It changes under the lock of the shard that does.
    len: AtomicUsize,
}

/// Tenants by their hash.
type Shard<K> = HashMap<u64, Bucket<K>, BuildHasherDefault<AsItIs>>;

/// Tenants of one hash.
enum Bucket<K> {
    One(Tenant<K>),
    /// Not likely, unless `Hash` is a bad one.
    Several(Vec<Tenant<K>>),
}

struct Tenant<K> {
    key: K,
    /// `None` only while an eviction has it.
    pool: Option<BudgetPool>,
}

/// The pools that an eviction has taken out of a shard, to be dropped without its lock.
struct Gone<K> {
    handles: Vec<Handle>,
    buckets: Vec<Bucket<K>>,
}

/// Time decides about a pool, and the clock was not read.
struct NeedsTime;

impl<K> Keyed<K> {
    /// A `Keyed` without pools, below this parent. The parent may have other children: they are
    /// none of the `Keyed`'s.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Keyed};
    /// let service = BudgetPool::builder().in_flight(100).build();
    /// let tenants: Keyed<String> = Keyed::new(service);
    /// assert!(tenants.is_empty());
    /// ```
    #[must_use]
    pub fn new(parent: BudgetPool) -> Keyed<K> {
        let shards = (0..SHARDS).map(|_| RwLock::default()).collect();
        let len = AtomicUsize::new(0);
        Keyed { inner: Arc::new(Inner { parent, hasher: RandomState::new(), shards, len }) }
    }

    /// How many pools there are. Takes no lock.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len.load(Relaxed)
    }

    /// Whether there is no pool. Takes no lock.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the pools that are idle, and returns how many. Call `evict_idle` now and then, from a
    /// timer.
    ///
    /// A pool is idle if one that is built anew in its place spends nothing twice:
    ///
    /// - The `Keyed` alone keeps it: there is no other handle, reservation, lease or wait of it, no
    ///   future of its [close](BudgetPool::closed), and no pool below it. A [`WeakPool`] does not
    ///   keep it.
    /// - Nothing is used, and there is no overage, in its present period. A period that has turned
    ///   by now and a bucket that is full by now count, although no call has touched the pool since.
    ///   A pool without a [window](crate::Window) that has used anything stays: only a
    ///   [reset](BudgetPool::reset) begins a new period of it. Under a token bucket or a rolling
    ///   window an axis without a cap never comes back, and so does not count.
    /// - All idempotency keys that it has known are forgotten: one that is alive could spend twice.
    /// - It was not [closed](BudgetPool::close) by itself, and is not [paused](BudgetPool::pause) by
    ///   itself any more. A pool that is closed because its parent is does not stay for that.
    ///
    /// Caps and a ceiling that were [moved](BudgetPool::set_caps) do not keep a pool, nor does what
    /// counts from its build: a deadline, passed or not, and the phase of a window that is not
    /// [aligned](crate::Window::aligned_to). The next pool of the tenant begins them anew: the
    /// closure of [`get_or_build`](Keyed::get_or_build) knows the terms of a tenant.
    ///
    /// The look and the drop are one step. A request that comes at that moment either finds the old
    /// pool, which then stays, or comes after that is gone with nothing used: no tenant gets its cap
    /// twice.
    ///
    /// It takes time in proportion to the number of pools, and stops nobody for all of it. The lock
    /// of a part of the map is held for 32 pools at a time, and that of the tree for one; after 32
    /// pools a call that waits for either passes. It reads the clock, once and before it looks, if
    /// time decides about any of the pools (P8).
    ///
    /// [`WeakPool`]: crate::WeakPool
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Keyed};
    /// let tenants: Keyed<u64> = Keyed::new(BudgetPool::unlimited());
    /// drop(tenants.get_or_build(&7, |pool| pool.requests(10)));
    /// let busy = tenants.get_or_build(&8, |pool| pool.requests(10));
    /// assert_eq!(tenants.evict_idle(), 1); // somebody holds the pool of 8
    /// ```
    pub fn evict_idle(&self) -> usize {
        let (mut now, mut evicted) = (None, 0);
        for shard in &self.inner.shards {
            let hashes: Vec<u64> = shard.read().keys().copied().collect();
            for batch in hashes.chunks(BATCH) {
                evicted += self.evict(shard, batch, &mut now);
            }
        }
        evicted
    }

    fn evict(&self, shard: &RwLock<Shard<K>>, batch: &[u64], now: &mut Option<Instant>) -> usize {
        let parent = &self.inner.parent;
        let handles = Vec::with_capacity(batch.len());
        let mut gone = Gone { handles, buckets: Vec::with_capacity(batch.len()) };
        let look = |gone: &mut Gone<K>, now| {
            let (mut shard, before) = (shard.write(), gone.handles.len());
            let mut hashes = batch.iter();
            let outcome =
                hashes.try_for_each(|&hash| evict_of(&mut shard, hash, parent, now, gone));
            self.inner.len.fetch_sub(gone.handles.len() - before, Relaxed);
            hand_over_written(shard);
            outcome
        };
        while let Err(NeedsTime) = look(&mut gone, *now) {
            *now = Some(parent.handle().now());
        }
        let evicted = gone.handles.len();
        drop(gone);
        parent.handle().give_way();
        evicted
    }

    fn shard(&self, hash: u64) -> &RwLock<Shard<K>> {
        // Not by the bits that the tables go by, which are the lowest and the highest.
        &self.inner.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl<K: Hash + Eq> Keyed<K> {
    /// The pool of a key, which is built if there is none.
    ///
    /// The closure sets the caps, the window and the name of a new pool. The closure gets a builder
    /// of a [child](BudgetPool::child) of the parent; whatever builder it returns, the pool is
    /// built there. It runs without any lock, and may call the `Keyed`. If `build` panics, nothing
    /// has changed. Where two threads come with the same new key at once, both closures may run,
    /// and both threads get the pool of one of them.
    ///
    /// Ask anew for each request, and keep no handle longer than that: a pool that somebody keeps is
    /// not [evicted](Keyed::evict_idle).
    ///
    /// ```
    /// use budget_pool::{BudgetPool, Keyed};
    ///
    /// let users = Keyed::<u64>::new(BudgetPool::unlimited());
    /// let caps = |pool: budget_pool::PoolBuilder<_>| pool.requests(100).in_flight(4);
    /// let pool = users.get_or_build(&17, caps);
    /// assert!(pool.ptr_eq(&users.get_or_build(&17, caps)));
    /// ```
    pub fn get_or_build<Q>(
        &self,
        key: &Q,
        build: impl FnOnce(PoolBuilder<Child>) -> PoolBuilder<Child>,
    ) -> BudgetPool
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ToOwned<Owned = K> + ?Sized,
    {
        let hash = self.hash(key);
        // The compiler forgets a value that is returned, should a drop after it panic: the drops of
        // the user's values come first.
        let known = find(&self.shard(hash).read(), hash, key).cloned();
        if let Some(known) = known {
            drop(build);
            return known;
        }
        let parent = &self.inner.parent;
        // Dropped without the lock, if another thread was first: so is the key.
        let pool = build(parent.child()).under(parent).build();
        let new = Tenant { key: key.to_owned(), pool: Some(pool.clone()) };
        let mut shard = self.shard(hash).write();
        if let Some(first) = find(&shard, hash, key).cloned() {
            drop(shard);
            drop((new, pool));
            return first;
        }
        insert(&mut shard, hash, new);
        self.inner.len.fetch_add(1, Relaxed);
        pool
    }

    /// The pool of `key`, if there is one.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Keyed};
    /// let tenants: Keyed<String> = Keyed::new(BudgetPool::unlimited());
    /// tenants.get_or_build("acme", |pool| pool.requests(10));
    /// assert!(tenants.get("acme").is_some() && tenants.get("initech").is_none());
    /// ```
    #[must_use]
    pub fn get<Q>(&self, key: &Q) -> Option<BudgetPool>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hash(key);
        find(&self.shard(hash).read(), hash, key).cloned()
    }

    /// Forgets the pool of a key, idle or not, and returns it: for a tenant that is gone for good,
    /// or that was [closed](BudgetPool::close) and is to begin anew. The pool lives on for its
    /// other handles, and its spend stays booked above. The next
    /// [`get_or_build`](Keyed::get_or_build) of this key builds a pool that has used nothing.
    ///
    /// ```
    /// use budget_pool::{BudgetPool, Keyed};
    ///
    /// let users = Keyed::<u64>::new(BudgetPool::unlimited());
    /// users.get_or_build(&17, |pool| pool.requests(100)).close(); // banned
    /// assert_eq!(users.evict_idle(), 0);
    /// assert!(users.get(&17).is_some_and(|pool| pool.is_closed()));
    ///
    /// users.remove(&17); // pardoned
    /// assert!(!users.get_or_build(&17, |pool| pool.requests(100)).is_closed());
    /// ```
    pub fn remove<Q>(&self, key: &Q) -> Option<BudgetPool>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let hash = self.hash(key);
        let mut shard = self.shard(hash).write();
        let (Tenant { key: of_tenant, pool }, rest) = remove(&mut shard, hash, key)?;
        self.inner.len.fetch_sub(1, Relaxed);
        drop(shard);
        // Before the return: should this panic, the compiler would forget the returned value.
        drop((of_tenant, rest));
        pool
    }

    /// Every key with its [`Snapshot`], all of one and the same instant (P5). The keys come in no
    /// order.
    ///
    /// It takes time in proportion to the pools of the parent. New pools and evictions wait for all
    /// of it, and all calls on the tree for a part. [`BudgetPool::snapshot_tree`] of the parent has
    /// the parent's own balance besides, and no keys.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Keyed};
    ///
    /// let tenants = Keyed::<String>::new(BudgetPool::unlimited());
    /// tenants.get_or_build("acme", |pool| pool.tokens(100)).record(Amount::new().tokens(30))?;
    /// for (tenant, snapshot) in tenants.snapshot() {
    ///     println!("{tenant}: {} of {:?}", snapshot.tokens.used, snapshot.tokens.cap);
    /// }
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> Vec<(K, Snapshot)>
    where
        K: Clone,
    {
        let parent = self.inner.parent.handle();
        // No lock of ours is held yet: it may read the clock, and wakes those whom time serves.
        let reading = OnceCell::new();
        parent.survey(&reading, Engine::advance_below);
        let now = reading.into_inner().flatten();
        let shards: Vec<_> = self.inner.shards.iter().map(RwLock::read).collect();
        let tenants = || shards.iter().flat_map(|shard| shard.values()).flat_map(Bucket::tenants);
        // Memory is touched before the tree is locked.
        let nothing = |tenant: &Tenant<K>| (tenant.key.clone(), Snapshot::nothing());
        let mut places: Vec<_> = tenants().map(nothing).collect();
        let nodes: Vec<_> = tenants().map(|tenant| tenant.pool().handle().node()).collect();
        parent.enter(|engine, at| {
            let snapshots = places.iter_mut().map(|(_, snapshot)| snapshot);
            engine.snapshots(at, now, nodes.into_iter().zip(snapshots));
            // What was served by the look is woken at the end of the transition.
            drop(shards);
        });
        places
    }

    fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.inner.hasher.hash_one(key)
    }
}

impl<K> Tenant<K> {
    fn pool(&self) -> &BudgetPool {
        self.pool.as_ref().expect("an eviction puts back what it does not end")
    }

    /// Ends the pool, if it is idle.
    fn end_if_idle(
        &mut self,
        parent: &BudgetPool,
        now: Option<Instant>,
    ) -> Result<Option<Handle>, NeedsTime> {
        if self.pool().is_shared() {
            return Ok(None);
        }
        let pool = self.pool.take().expect("it was there");
        match pool.end_if_idle(parent, now) {
            Ok(handle) => Ok(Some(handle)),
            Err(Kept { pool, for_want_of_time }) => {
                self.pool = Some(pool);
                if for_want_of_time { Err(NeedsTime) } else { Ok(None) }
            }
        }
    }
}

impl<K> Bucket<K> {
    fn tenants(&self) -> &[Tenant<K>] {
        match self {
            Bucket::One(tenant) => slice::from_ref(tenant),
            Bucket::Several(tenants) => tenants,
        }
    }
}

fn find<'a, K, Q>(shard: &'a Shard<K>, hash: u64, key: &Q) -> Option<&'a BudgetPool>
where
    K: Borrow<Q>,
    Q: Eq + ?Sized,
{
    let tenants = shard.get(&hash)?.tenants();
    tenants.iter().find(|tenant| tenant.key.borrow() == key).map(Tenant::pool)
}

fn insert<K>(shard: &mut Shard<K>, hash: u64, new: Tenant<K>) {
    let bucket = match shard.remove(&hash) {
        None => Bucket::One(new),
        Some(Bucket::One(other)) => Bucket::Several(vec![other, new]),
        Some(Bucket::Several(mut tenants)) => {
            tenants.push(new);
            Bucket::Several(tenants)
        }
    };
    shard.insert(hash, bucket);
}

/// Takes out a tenant, and what is empty without it: to be dropped without the lock.
fn remove<K, Q>(shard: &mut Shard<K>, hash: u64, key: &Q) -> Option<(Tenant<K>, Option<Bucket<K>>)>
where
    K: Borrow<Q>,
    Q: Eq + ?Sized,
{
    let tenants = shard.get(&hash)?.tenants();
    let place = tenants.iter().position(|tenant| tenant.key.borrow() == key)?;
    match shard.get_mut(&hash)? {
        Bucket::Several(tenants) if tenants.len() > 1 => Some((tenants.swap_remove(place), None)),
        _ => match shard.remove(&hash)? {
            Bucket::One(tenant) => Some((tenant, None)),
            Bucket::Several(mut tenants) => {
                Some((tenants.swap_remove(place), Some(Bucket::Several(tenants))))
            }
        },
    }
}

/// Ends the idle pools of one hash.
fn evict_of<K>(
    shard: &mut Shard<K>,
    hash: u64,
    parent: &BudgetPool,
    now: Option<Instant>,
    gone: &mut Gone<K>,
) -> Result<(), NeedsTime> {
    // Another eviction may have been here.
    let Entry::Occupied(mut entry) = shard.entry(hash) else { return Ok(()) };
    match entry.get_mut() {
        Bucket::One(tenant) => {
            if let Some(handle) = tenant.end_if_idle(parent, now)? {
                gone.handles.push(handle);
                gone.buckets.push(entry.remove());
            }
        }
        Bucket::Several(tenants) => {
            let mut place = 0;
            while let Some(tenant) = tenants.get_mut(place) {
                match tenant.end_if_idle(parent, now)? {
                    Some(handle) => {
                        gone.handles.push(handle);
                        gone.buckets.push(Bucket::One(tenants.swap_remove(place)));
                    }
                    None => place += 1,
                }
            }
            if tenants.is_empty() {
                entry.remove();
            }
        }
    }
    Ok(())
}

/// A hash is its own hash.
#[derive(Debug, Clone, Copy, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a `u64` hashes by `write_u64`");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl<K> Clone for Keyed<K> {
    fn clone(&self) -> Keyed<K> {
        Keyed { inner: Arc::clone(&self.inner) }
    }
}

/// A list drops all that it has, where a hash table stops at the first key that panics in its drop
/// and would keep the pools behind it.
impl<K> Drop for Inner<K> {
    fn drop(&mut self) {
        for shard in &mut self.shards {
            drop(shard.get_mut().drain().collect::<Vec<_>>());
        }
    }
}

// No call of the user's code comes between two changes of the map.
impl<K: UnwindSafe + RefUnwindSafe> UnwindSafe for Keyed<K> {}
impl<K: UnwindSafe + RefUnwindSafe> RefUnwindSafe for Keyed<K> {}

impl<K> fmt::Debug for Keyed<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed")
            .field("parent", &self.inner.parent)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use super::*;

    /// What is left of a hash for ever would be a leak.
    #[test]
    fn a_hash_goes_with_the_last_of_its_keys() {
        let mut shard = Shard::default();
        for key in [1, 2] {
            insert(&mut shard, 7, Tenant { key, pool: Some(BudgetPool::unlimited()) });
        }
        assert!(remove(&mut shard, 7, &1).is_some() && shard.len() == 1);
        assert!(remove(&mut shard, 7, &2).is_some() && shard.is_empty());
    }
}
