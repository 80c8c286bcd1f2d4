use super::*;

/// Where user code comes back to.
type Door = Arc<OnceLock<Keyed<String>>>;

fn come_back(door: &Door) {
    let Some(tenants) = door.get() else { return };
    tenants.get_or_build("visitor", ten);
    assert!(tenants.get("visitor").is_some());
    tenants.remove("visitor");
    tenants.evict_idle();
    let _ = tenants.snapshot();
}

#[test]
fn while_the_clock_is_read() {
    ends("a clock that comes back", || {
        let (door, now, depth) = (Door::default(), Instant::now(), AtomicUsize::new(0));
        let (theirs, time) = (Arc::clone(&door), Arc::new(AtomicU64::new(0)));
        let seconds = Arc::clone(&time);
        let clock = move || {
            if depth.fetch_add(1, Ordering::Relaxed) == 0 {
                come_back(&theirs);
            }
            depth.fetch_sub(1, Ordering::Relaxed);
            now + Duration::from_secs(seconds.load(Ordering::Relaxed))
        };
        let tenants = Keyed::new(BudgetPool::builder().clock(clock).build());
        let build = |pool: PoolBuilder<Child>| pool.tokens(10).window(Window::fixed(MINUTE));
        tenants.get_or_build("acme", build).record(tokens(1)).unwrap();
        assert!(door.set(tenants.clone()).is_ok());
        assert_eq!((tenants.evict_idle(), tenants.snapshot().len()), (0, 1));
        time.store(60, Ordering::Relaxed);
        // By the clock's own visit, or by this.
        tenants.evict_idle();
        assert!(tenants.get("acme").is_none());
    });
}

struct Visitor(Door, AtomicUsize);

impl Wake for Visitor {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        come_back(&self.0);
    }
}

#[test]
fn while_waiters_are_woken() {
    ends("a waker that comes back", || {
        let service = Service::new();
        let visitor = Arc::new(Visitor(Door::default(), AtomicUsize::new(0)));
        assert!(visitor.0.set(service.tenants.clone()).is_ok());
        let pool = service.tenants.get_or_build("acme", |pool| {
            pool.tokens(10).window(Window::fixed(MINUTE)).in_flight(9)
        });
        pool.record(tokens(10)).unwrap();
        let mut wait = Box::pin(pool.reserve_wait(tokens(5)));
        let waker = StdWaker::from(Arc::clone(&visitor));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        service.clock.advance(MINUTE);
        assert_eq!(service.tenants.snapshot().len(), 1);
        assert_eq!(visitor.1.load(Ordering::Relaxed), 1, "the look served it");
    });
}

type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

/// Its clone calls a hook, once.
struct Hooked(&'static str, Hook);

impl Clone for Hooked {
    fn clone(&self) -> Hooked {
        let hook = self.1.lock().unwrap().take();
        hook.into_iter().for_each(|hook| hook());
        Hooked(self.0, Arc::clone(&self.1))
    }
}

impl PartialEq for Hooked {
    fn eq(&self, other: &Hooked) -> bool {
        self.0 == other.0
    }
}

impl Eq for Hooked {}

impl std::hash::Hash for Hooked {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// While a snapshot is taken, and after the clock was read for it, a call on one tenant turns
/// the period. The snapshot shows the new period of the other one, too, and whom that served.
#[test]
fn p5_while_a_snapshot_finds_that_a_period_has_turned() {
    ends("a snapshot that is overtaken", || {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let (tenants, hook) = (Keyed::<Hooked>::new(root), Hook::default());
        let build = |pool: PoolBuilder<Child>| pool.tokens(10).window(Window::fixed(MINUTE));
        let [acme, initech] = ["acme", "initech"]
            .map(|key| tenants.get_or_build(&Hooked(key, Arc::clone(&hook)), build));
        acme.record(tokens(10)).unwrap();
        initech.record(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&acme, tokens(5));
        *hook.lock().unwrap() = Some(Box::new(move || {
            clock.advance(MINUTE);
            initech.record(tokens(1)).unwrap();
        }));
        let snapshot = tenants.snapshot().into_iter();
        let seen: BTreeMap<_, _> =
            snapshot.map(|(key, snap)| (key.0, (snap.tokens.used, snap.tokens.reserved))).collect();
        assert_eq!(seen, [("acme", (0, 5)), ("initech", (1, 0))].into());
        assert_eq!(waiter.granted().amount(), tokens(5));
    });
}

/// It comes back when it is dropped.
#[derive(Clone)]
struct Key(u64, Arc<OnceLock<Keyed<Key>>>);

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.0 == other.0
    }
}

impl Eq for Key {}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        // Of two hashes, so that they share a place.
        (self.0 % 2).hash(state);
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        if let Some(tenants) = self.1.get() {
            assert!(tenants.get(self).is_none_or(|pool| pool.name() == "pool"));
            // An exclusive lock.
            assert!(tenants.remove(&Key(99, Arc::default())).is_none());
        }
    }
}

#[test]
fn while_a_key_is_dropped() {
    ends("a key that comes back", || {
        let (tenants, door) = (Keyed::<Key>::new(BudgetPool::unlimited()), Arc::default());
        let keys: Vec<Key> = (0..6).map(|key| Key(key, Arc::clone(&door))).collect();
        for key in &keys {
            tenants.get_or_build(key, ten);
        }
        assert!(door.set(tenants.clone()).is_ok());
        for key in &keys[..3] {
            assert!(tenants.remove(key).is_some());
        }
        // The key of the one that comes late.
        tenants.get_or_build(&keys[0], |pool| {
            tenants.get_or_build(&keys[0], ten);
            pool
        });
        assert_eq!(tenants.evict_idle(), 4);
        assert!(tenants.is_empty());
    });
}

/// Its comparison panics when told.
#[derive(Clone)]
struct Broken(u64, Arc<AtomicBool>);

impl PartialEq for Broken {
    fn eq(&self, other: &Broken) -> bool {
        assert!(!self.1.load(Ordering::Relaxed), "a broken key");
        self.0 == other.0
    }
}

impl Eq for Broken {}

impl std::hash::Hash for Broken {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u8(0);
    }
}

#[test]
fn after_a_key_has_panicked() {
    let (tenants, is_broken) = (Keyed::new(BudgetPool::unlimited()), Arc::default());
    let keys: Vec<Broken> = (0..3).map(|key| Broken(key, Arc::clone(&is_broken))).collect();
    for key in &keys[..2] {
        tenants.get_or_build(key, ten).record(tokens(1)).unwrap();
    }
    is_broken.store(true, Ordering::Relaxed);
    let calls: [&dyn Fn() -> Option<BudgetPool>; 3] =
        [&|| tenants.get(&keys[1]), &|| Some(tenants.get_or_build(&keys[2], ten)), &|| {
            tenants.remove(&keys[0])
        }];
    for call in calls {
        assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
    }
    is_broken.store(false, Ordering::Relaxed);
    assert_eq!((tenants.len(), tenants.snapshot().len()), (2, 2));
    assert_eq!(tenants.get(&keys[1]).unwrap().snapshot().tokens.used, 1);
    assert!(tenants.remove(&keys[0]).is_some() && tenants.remove(&keys[2]).is_none());
}
