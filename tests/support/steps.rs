//! What each operation does: the real call, and the same of the model.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{
    Ask, BudgetError, BudgetPool, Clock, Lease, Once, PoolBuilder, Reservation, Window,
};

use super::asks::{LABELS, Wish};
use super::language::{
    AXES, Build, FACT, Figures, LANES, Op, UNIT_OF_TIME, Units, Want, YEAR, ZERO, caps_near,
    caps_of, deadline_of, each, limits_at, memory_of, on_drop_of, plus, ttl_of, window_of,
};
use super::oracle::{
    HoldId, Keyed, Kind, LeaseId, Model, Nanos, PoolId, Reads, Refusal, Spec, When, key_name,
};
use super::seen::{View, booked, unnamed};
use super::{AnyWait, Bell, Both, Closing, END, PAST, Refused, Waiter, heard, name};

/// A pause lasts no longer.
const THIRTY_YEARS: Duration = YEAR.saturating_mul(30);

const MOST_POOLS: usize = 10;
const MOST_HOLDS: usize = 30;
const MOST_LEASES: usize = 6;
const MOST_WAITS: usize = 12;
const MOST_CLOSINGS: usize = 3;

impl Both {
    pub(super) fn has_room_for_pools(&self) -> bool {
        self.model.pools.len() < MOST_POOLS
    }

    pub(super) fn step(&mut self, op: &Op) -> Result<(), String> {
        let refused = self.refused.take();
        match *op {
            Op::Advance { by } => match refused.filter(|_| by & 1 << 31 == 0) {
                Some(refused) => self.retry(&refused)?,
                None => self.advance(by),
            },
            Op::DropRoot => {
                let (root, kept) =
                    std::mem::take(&mut self.pools).into_iter().partition(|(id, _)| *id == 0);
                self.pools = kept;
                self.log("drop the handles of p0");
                for (id, pool) in root {
                    self.call(Reads::Never, || drop(pool))?;
                    self.model.drop_handle(id);
                }
            }
            Op::Child { pool, .. }
            | Op::Joint { pool, .. }
            | Op::Clone { pool }
            | Op::Drop { pool }
            | Op::Record { pool, .. }
            | Op::Peek { pool, .. }
            | Op::Debit { pool, .. }
            | Op::Credit { pool, .. }
            | Op::RecordAndSnapshot { pool, .. }
            | Op::SetUsed { pool, .. }
            | Op::Reserve { pool, .. }
            | Op::ReserveFor { pool, .. }
            | Op::RecordOnce { pool, .. }
            | Op::DebitOnce { pool, .. }
            | Op::Reset { pool }
            | Op::RaiseCaps { pool, .. }
            | Op::LowerCaps { pool, .. }
            | Op::LowerCapsUpTo { pool, .. }
            | Op::SetCaps { pool, .. }
            | Op::Transfer { pool, .. }
            | Op::SetCeiling { pool, .. }
            | Op::Pause { pool, .. }
            | Op::Resume { pool }
            | Op::Close { pool }
            | Op::Lease { pool, .. }
            | Op::Wait { pool, .. }
            | Op::WaitToSpend { pool, .. }
            | Op::Ask { pool, .. }
            | Op::WaitOn { pool, .. }
            | Op::Closed { pool }
            | Op::Run { pool, .. }
            | Op::Reached { pool, .. }
            | Op::Wants { pool }
            | Op::Limits { pool }
            | Op::Tenants { pool } => {
                if let Some((id, pool)) = self.pool(pool) {
                    self.pool_step(op, id, pool)?;
                }
            }
            Op::Label { hold, .. }
            | Op::CommitOnDrop { hold }
            | Op::OnDrop { hold, .. }
            | Op::Commit { hold, .. }
            | Op::CommitAll { hold }
            | Op::TryCommit { hold, .. }
            | Op::Release { hold }
            | Op::DropHold { hold }
            | Op::Forget { hold }
            | Op::RecordPart { hold, .. }
            | Op::DebitPart { hold, .. }
            | Op::Grow { hold, .. }
            | Op::Shrink { hold, .. }
            | Op::Split { hold, .. }
            | Op::Merge { hold, .. }
            | Op::Renew { hold, .. } => {
                if let Some(index) = usize::from(hold).checked_rem(self.holds.len()) {
                    let (id, hold) = self.holds.swap_remove(index);
                    self.hold_step(op, id, hold)?;
                }
            }
            Op::LeaseRecord { lease, .. }
            | Op::LeaseDebit { lease, .. }
            | Op::LeaseSettle { lease }
            | Op::DropLease { lease }
            | Op::ForgetLease { lease } => {
                if let Some(index) = usize::from(lease).checked_rem(self.leases.len()) {
                    let (id, lease) = self.leases.swap_remove(index);
                    self.lease_step(op, id, lease)?;
                }
            }
            Op::Poll { wait, anew } => {
                if let Some(index) = usize::from(wait).checked_rem(self.waiters.len()) {
                    let waiter = self.waiters.swap_remove(index);
                    self.poll(waiter, anew)?;
                }
            }
            Op::GetOrBuild { key, ref build, keep } => self.get_or_build(key, build, keep)?,
            Op::EvictIdle => self.evict_idle()?,
            Op::RemoveTenant { key } => self.remove_tenant(key)?,
            Op::SeeTenants => self.see_tenants()?,
            Op::DropTenants => self.drop_tenants()?,
            Op::PollWatch { watch, anew } => self.poll_watch(watch, anew)?,
            Op::DropWatch { watch } => self.drop_watch(watch)?,
            Op::PollRun { run, anew } => self.poll_run(run, anew)?,
            Op::DropRun { run } => self.drop_run(run)?,
            Op::Ring { wait } => {
                if let Some(index) = usize::from(wait).checked_rem(self.waiters.len()) {
                    self.ring(index)?;
                }
            }
            Op::DropWait { wait } => {
                if let Some(index) = usize::from(wait).checked_rem(self.waiters.len()) {
                    let waiter = self.waiters.swap_remove(index);
                    self.drop_wait(waiter)?;
                }
            }
        }
        Ok(())
    }

    /// Time passes: not at all, a moment, to what is due next or beside it, or long.
    fn advance(&mut self, by: u32) {
        let (now, some) = (self.now(), Nanos::from(by >> 8 & 0xFFFF));
        let unit = UNIT_OF_TIME.as_nanos();
        let at = match by % 16 {
            0 => now,
            1 => now + 1,
            2..=8 => {
                let next: Vec<Nanos> =
                    self.model.events().into_iter().filter(|event| *event > now).take(4).collect();
                match (some as usize / 3).checked_rem(next.len()) {
                    Some(one) => (next[one] + some % 3 - 1).max(now),
                    None => now + unit,
                }
            }
            9 => now + some,
            10 => now + some * 1_000_000_000,
            11 => now + YEAR.as_nanos() * (1 + some % 8),
            12 => now + unit / 2,
            _ => now + unit * (some % 3),
        };
        self.advance_to(at);
    }

    /// A refusal that says when it fits is exact: not a nanosecond before, if live holds stay held;
    /// but then, if nobody else comes first.
    fn retry(&mut self, refused: &Refused) -> Result<(), String> {
        let Refused { pool: id, ref want, key, at } = *refused;
        let Some((_, pool)) = self.reached().into_iter().find(|(reached, _)| *reached == id) else {
            return Ok(());
        };
        ensure!(at > self.now(), "what was refused is to fit at once: {at}");
        if at > (PAST + END).as_nanos() {
            return Ok(());
        }
        let others_wait = self.model.anybody_waits();
        let holds_stay =
            self.model.releases().into_iter().all(|event| event <= self.now() || event >= at);
        for at in [at - 1, at] {
            let is_early = at < refused.at;
            self.advance_to(at);
            let fits = match key {
                Some(key) => !matches!(
                    self.record_once(id, &pool, key, want)?,
                    Err(Refusal::KeysFull { .. })
                ),
                None => self.check_amount(id, &pool, want)?.is_ok(),
            };
            ensure!(is_early || fits || others_wait, "it does not fit at the instant told: {at}");
            ensure!(!is_early || !fits || !holds_stay, "it fits before the instant told: {at}");
        }
        Ok(())
    }

    fn remember(
        &mut self,
        pool: PoolId,
        want: Want,
        key: Option<u8>,
        answer: &Result<(), Refusal>,
    ) {
        let Err(refusal) = answer else { return };
        let key = key.filter(|_| matches!(refusal, Refusal::KeysFull { .. }));
        if let (_, _, When::At(at), _) = refusal.summary() {
            self.refused = Some(Refused { pool, want, key, at });
        }
    }

    fn check_amount(
        &mut self,
        id: PoolId,
        pool: &BudgetPool,
        want: &Want,
    ) -> Result<Result<(), Refusal>, String> {
        self.log(format!("p{id}.peek({})", want.amount()));
        let real = self.call(Reads::Asks(id), || pool.peek(want.amount()))?;
        let real = self.unheard(real);
        same!("check", real, self.model.ask_in_turn(id, &want.units()));
        Ok(real)
    }

    fn record_once(
        &mut self,
        id: PoolId,
        pool: &BudgetPool,
        key: u8,
        want: &Want,
    ) -> Result<Result<(), Refusal>, String> {
        self.log(format!("p{id}.record_once({}, {})", key_name(key), want.amount()));
        let real =
            self.call(Reads::Always(id), || pool.record_once(key_name(key), want.amount()))?;
        let real = self.answer(real.map(|once| match once {
            Once::Now => Keyed::Now,
            Once::Before => Keyed::Before,
        }));
        same!("record_once", real, self.model.record_once(id, key, want));
        Ok(real.map(drop))
    }

    /// A key, and for a retry the amount that it stands for. Most keys are known ones, if there are
    /// any: few are for long.
    fn keyed(&self, id: PoolId, key: u8, retry: bool) -> (u8, Option<Want>) {
        let keys = self.model.known_keys(id);
        let key = match keys.get(usize::from(key) % keys.len().max(1)) {
            Some(known) if retry || key >= 128 => *known,
            _ => key % 7,
        };
        (key, self.model.known(id, key).filter(|_| retry).map(Want::again))
    }

    fn pool_step(&mut self, op: &Op, id: PoolId, pool: BudgetPool) -> Result<(), String> {
        let near = self.model.near(id);
        match *op {
            Op::Child { ref build, .. } => {
                if self.has_room_for_pools() {
                    let spec = self.spec(build, &near);
                    self.child(id, &pool, spec)?;
                }
            }
            Op::Joint { others, ref build, .. } => {
                if self.has_room_for_pools() {
                    let spec = self.spec(&Build { carved: false, ..*build }, &near);
                    self.joint((id, pool), others, spec)?;
                }
            }
            Op::Clone { .. } => {
                self.log(format!("clone p{id}"));
                self.pools.push((id, pool));
                self.model.pool(id).handles += 1;
            }
            Op::Drop { .. } => {
                // The root stays, so that there is a whole tree to look at, until `DropRoot`.
                let Some(index) =
                    self.pools.iter().position(|(handle, _)| *handle == id && id != 0)
                else {
                    return Ok(());
                };
                self.log(format!("drop a handle of p{id}"));
                let (_, handle) = self.pools.swap_remove(index);
                drop(pool);
                self.call(Reads::Never, || drop(handle))?;
                self.model.drop_handle(id);
            }
            Op::Record { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.record({})", want.amount()));
                let real = self.call(Reads::Asks(id), || pool.record(want.amount()))?;
                let real = self.answer(real);
                same!("record", real, self.model.record(id, &want.units()));
                self.remember(id, want, None, &real);
            }
            Op::RecordOnce { key, ref amount, retry, .. } => {
                let (key, known) = self.keyed(id, key, retry);
                let want = known.unwrap_or_else(|| Want::asked(amount, &near));
                let real = self.record_once(id, &pool, key, &want)?;
                self.remember(id, want, Some(key), &real);
            }
            Op::DebitOnce { key, ref amount, retry, .. } => {
                let (key, known) = self.keyed(id, key, retry);
                let fact = || Want::fact(amount, &near.map(|near| near.min(FACT)));
                let want = known.unwrap_or_else(fact);
                self.log(format!("p{id}.debit_once({}, {})", key_name(key), want.amount()));
                let real =
                    self.call(Reads::Always(id), || pool.debit_once(key_name(key), want.amount()))?;
                let real = self.answer(real.map(unnamed));
                same!("debit_once", real, self.model.debit_once(id, key, &want));
            }
            Op::Peek { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                let real = self.check_amount(id, &pool, &want)?;
                self.remember(id, want, None, &real);
            }
            Op::Debit { ref amount, .. } => {
                let want = Want::fact(amount, &near.map(|near| near.min(FACT)));
                self.log(format!("p{id}.debit({})", want.amount()));
                let real = self.call(Reads::Tells(id), || pool.debit(want.amount()))?;
                same!("debit", booked(real, &want)?, self.model.debit(id, &want.units()));
            }
            Op::Credit { ref amount, .. } => {
                let want = Want::fact(amount, &self.model.near_owed(id));
                self.log(format!("p{id}.credit({})", want.amount()));
                let real = self.call(Reads::Tells(id), || pool.credit(want.amount()))?;
                same!("credit", booked(real, &want)?, self.model.credit(id, &want.units()));
                self.spent.clear();
            }
            Op::RecordAndSnapshot { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.record_and_snapshot({})", want.amount()));
                let real =
                    self.call(Reads::Asks(id), || pool.record_and_snapshot(want.amount()))?;
                let real = self.answer(real.map(|snapshot| View::from(&snapshot)));
                let model = self.model.record(id, &want.units());
                if let Ok(real) = &real {
                    self.model.learn_peaks(std::slice::from_ref(real));
                }
                let model = model.map(|()| self.model.view(id, id));
                same!("record_and_snapshot", real, model);
                self.remember(id, want, None, &real.map(drop));
            }
            Op::SetUsed { ref figures, .. } => {
                let want = Want::fact(figures, &self.model.near_owed(id));
                self.log(format!("p{id}.set_used({})", want.amount()));
                let real = self.call(Reads::Tells(id), || pool.set_used(want.amount()))?;
                same!("set_used", self.answer(real), self.model.set_used(id, &want));
                self.spent.clear();
            }
            Op::Reserve { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.reserve({})", want.amount()));
                let real = self.call(Reads::Asks(id), || pool.reserve(want.amount()))?;
                let model = self.model.reserve(id, &want.held());
                let refused = self.made("reserve", real, model)?;
                self.remember(id, want, None, &refused);
            }
            Op::ReserveFor { ref amount, ttl, many, forget, .. } => {
                let (want, ttl) = (Want::asked(amount, &near), ttl_of(ttl));
                for _ in 0..=many % 12 {
                    if self.holds.len() >= MOST_HOLDS {
                        break;
                    }
                    self.log(format!("p{id}.reserve(Ask::new({}).ttl({ttl:?}))", want.amount()));
                    let real = self.call(Reads::Always(id), || {
                        pool.reserve(Ask::new(want.amount()).ttl(ttl))
                    })?;
                    let model = self.model.reserve_for(id, &want.held(), ttl);
                    if let refused @ Err(_) = self.made("reserve_for", real, model)? {
                        self.remember(id, want, None, &refused);
                        break;
                    }
                    if forget {
                        let (hold, guard) = self.holds.pop().expect("it was just made");
                        self.log(format!("hold {hold} of p{id}: forget"));
                        self.forgotten.push(Box::new(guard));
                    }
                }
            }
            Op::Reset { .. } => {
                self.log(format!("p{id}.reset()"));
                let real = self.call(Reads::Tells(id), || pool.reset())?;
                let real = View::from(&real);
                self.model.learn_peaks(std::slice::from_ref(&real));
                same!("reset", real, self.model.view(id, id));
                self.model.reset(id);
            }
            Op::RaiseCaps { ref caps, .. } => {
                // A carved pool's new share is asked of the one above.
                let parent = self.model.pools[&id].parents.first();
                let above = parent.map_or([64; LANES], |parent| self.model.near(*parent));
                let set = caps_near(caps, &above);
                self.log(format!("p{id}.raise_caps({})", caps_of(&set)));
                let real = self.call(Reads::Asks(id), || pool.raise_caps(caps_of(&set)))?;
                same!("raise_caps", self.answer(real), self.model.raise_caps(id, &set));
            }
            Op::LowerCaps { ref caps, .. } => {
                let set = caps_near(caps, &near);
                self.log(format!("p{id}.lower_caps({})", caps_of(&set)));
                let real = self.call(Reads::Tells(id), || pool.lower_caps(caps_of(&set)))?;
                same!("lower_caps", self.answer(real), self.model.lower_caps(id, &set));
            }
            Op::LowerCapsUpTo { ref caps, .. } => {
                let set = caps_near(caps, &near);
                self.log(format!("p{id}.lower_caps_up_to({})", caps_of(&set)));
                let real = self.call(Reads::Tells(id), || pool.lower_caps_up_to(caps_of(&set)))?;
                let real = AXES.map(|axis| real.get(axis).map(|cap| u128::from(cap.units())));
                same!("lower_caps_up_to", real, self.model.lower_caps_up_to(id, &set));
            }
            Op::SetCaps { ref caps, .. } => {
                let set = limits_at(caps, &self.model.near_taken(id));
                self.log(format!("p{id}.set_caps({})", caps_of(&set)));
                let real = self.call(Reads::Asks(id), || pool.set_caps(caps_of(&set)))?;
                same!("set_caps", self.answer(real), self.model.set_caps(id, &set));
            }
            Op::SetCeiling { ref caps, .. } => {
                let set = limits_at(caps, &self.model.near_taken(id).map(|near| near.max(64)));
                self.log(format!("p{id}.set_ceiling({})", caps_of(&set)));
                self.call(Reads::Tells(id), || pool.set_ceiling(caps_of(&set)))?;
                self.model.set_ceiling(id, &set);
            }
            // The root seldom, and not for ever: whatever asks meanwhile is refused.
            Op::Pause { pool: raw, time, .. } if id == 0 && (raw < 128 || time % 16 < 4) => {}
            Op::Pause { time, until: true, .. } => {
                let time = ttl_of(time).min(THIRTY_YEARS);
                let until = (self.now() + time.as_nanos()).saturating_sub(UNIT_OF_TIME.as_nanos());
                self.log(format!("p{id}.pause_until({time:?} after a moment ago)"));
                let at = self.instant(until);
                self.call(Reads::Always(id), || pool.pause_until(at))?;
                self.model.pause(id, until);
            }
            Op::Pause { time, .. } => {
                let time = ttl_of(time);
                self.log(format!("p{id}.pause({time:?})"));
                self.call(Reads::Always(id), || pool.pause(time))?;
                self.model.pause(id, self.now() + time.min(THIRTY_YEARS).as_nanos());
            }
            Op::Resume { .. } => {
                self.log(format!("p{id}.resume()"));
                self.call(Reads::Tells(id), || pool.resume())?;
                self.model.resume(id);
            }
            Op::Transfer { to, ref caps, .. } => self.transfer(id, &pool, to, caps)?,
            // The root seldom: whatever asks later is refused.
            Op::Close { pool: raw } if id == 0 && raw < 192 => {}
            Op::Close { .. } => {
                self.log(format!("p{id}.close()"));
                self.call(Reads::Never, || pool.close())?;
                self.model.close(id);
            }
            Op::Lease { ref batch, .. } => {
                if self.leases.len() < MOST_LEASES {
                    let want = Want::asked(batch, &near);
                    self.log(format!("p{id}.lease({})", want.amount()));
                    let real = self.call(Reads::Never, || pool.lease(want.amount()))?;
                    self.leases.push((self.model.lease(id, &want.units()), real));
                }
            }
            Op::Wait { ref amount, poll, .. } | Op::WaitToSpend { ref amount, poll, .. } => {
                let is_spend = matches!(op, Op::WaitToSpend { .. });
                if self.waiters.len() < MOST_WAITS && !self.model.may_wait_in_vain(id) {
                    let want = Want::asked(amount, &self.model.at_best(id));
                    let asked = if is_spend { want.units() } else { want.held() };
                    let id_of_wait = self.model.wait(id, &asked, is_spend);
                    let (call, wait) = match is_spend {
                        true => {
                            ("record", AnyWait::Spend(Box::pin(pool.record_wait(want.amount()))))
                        }
                        false => {
                            ("reserve", AnyWait::Hold(Box::pin(pool.reserve_wait(want.amount()))))
                        }
                    };
                    self.log(format!("wait {id_of_wait} = p{id}.{call}_wait({})", want.amount()));
                    let waiter = Waiter { id: id_of_wait, wait, bell: None, alarm: None };
                    drop(pool);
                    match poll {
                        true => self.poll(waiter, true)?,
                        false => self.waiters.push(waiter),
                    }
                }
            }
            Op::Ask { ref asked, .. } => {
                let wish = Wish::new(asked, &near);
                self.log(format!("p{id}.reserve(Ask of {})", wish.text()));
                let reads = if wish.ttl.is_some() { Reads::Always(id) } else { Reads::Asks(id) };
                let real = self.call(reads, || pool.reserve(wish.ask()))?;
                let model = self.model.reserve_on(id, &wish);
                let refused = self.made("an ask", real, model)?;
                if let Some(want) = Model::retried(&wish) {
                    self.remember(id, want, None, &refused);
                }
            }
            Op::WaitOn { ref asked, poll, .. } => {
                if self.waiters.len() < MOST_WAITS && !self.model.may_wait_in_vain(id) {
                    let wish = Wish::new(asked, &self.model.at_best(id));
                    let wait = AnyWait::Hold(Box::pin(pool.reserve_wait(wish.ask())));
                    let text = wish.text();
                    let id_of_wait = self.model.wait_on(id, wish);
                    self.log(format!("wait {id_of_wait} = p{id}.reserve_wait(Ask of {text})"));
                    let waiter = Waiter { id: id_of_wait, wait, bell: None, alarm: None };
                    drop(pool);
                    match poll {
                        true => self.poll(waiter, true)?,
                        false => self.waiters.push(waiter),
                    }
                }
            }
            Op::Closed { .. } => {
                if self.closings.len() < MOST_CLOSINGS {
                    self.log(format!("p{id}.closed()"));
                    let (mut closed, bell) = (Box::pin(pool.closed()), Arc::<Bell>::default());
                    let waker = Waker::from(Arc::clone(&bell));
                    let poll = self.call(Reads::Never, || {
                        closed.as_mut().poll(&mut Context::from_waker(&waker))
                    })?;
                    same!("closed", poll.is_ready(), self.model.is_closed(id));
                    if poll.is_pending() {
                        self.model.pool(id).handles += 1;
                        self.closings.push(Closing { pool: id, closed, bell });
                    }
                }
            }
            Op::Run { polls, hold, poll, .. } => self.begin_run(id, pool, polls, hold, poll)?,
            Op::Reached { ref level, percent, settled, .. } => {
                self.watch_level(id, pool, level, percent, settled)?;
            }
            Op::Wants { .. } => self.watch_wants(id, pool)?,
            Op::Limits { .. } => {
                self.log(format!("p{id}.limits()"));
                self.check_limits(&[(id, pool)])?;
            }
            Op::Tenants { .. } => self.begin_tenants(id, pool)?,
            _ => unreachable!("not a step of a pool"),
        }
        Ok(())
    }

    /// A pool gives up what another gets.
    fn transfer(
        &mut self,
        from: PoolId,
        giver: &BudgetPool,
        to: u8,
        caps: &Figures,
    ) -> Result<(), String> {
        let near = self.model.near(from);
        let reached = self.reached();
        let is_sibling = |(id, _): &&(PoolId, BudgetPool)| {
            *id != from && self.model.pools[id].parents == self.model.pools[&from].parents
        };
        let siblings: Vec<_> = reached.iter().filter(is_sibling).collect();
        let any: Vec<_> = reached.iter().collect();
        let among = if siblings.is_empty() || to < 96 { any } else { siblings };
        if to >= 250 {
            let set = limits_at(caps, &near);
            self.log(format!("p{from}.transfer(to a pool of another tree)"));
            let other = BudgetPool::builder().name("other").build();
            let real = self.call(Reads::Never, || giver.transfer(&other, caps_of(&set)))?;
            let refusal = Refusal::ForeignPool { pool: "other".to_owned() };
            same!("transfer", self.answer(real), Err::<(), _>(refusal));
            return Ok(());
        }
        let (to, taker) = among[usize::from(to) % among.len()].clone();
        let set = self.model.both_capped(from, to, &limits_at(caps, &near), caps.raw[0]);
        self.log(format!("p{from}.transfer(p{to}, {})", caps_of(&set)));
        let reads = Reads::Moves(from, to);
        let real = self.call(reads, || giver.transfer(&taker, caps_of(&set)))?;
        same!("transfer", self.answer(real), self.model.transfer(from, to, &set));
        Ok(())
    }

    pub(super) fn spec(&self, build: &Build, near: &Units) -> Spec {
        let Build { carved, caps, deadline, window, keys, used, ceiling, on_drop, low, .. } = build;
        Spec {
            carved: *carved,
            caps: caps_near(caps, near),
            ceilings: ceiling.map_or([None; LANES], |caps| limits_at(&caps, &[64; LANES])),
            used: used.map(|used| Want::fact(&used, &[32; LANES])),
            on_drop: on_drop.map(on_drop_of),
            low: low.map(|low| Want::asked(&low, &[32; LANES])),
            most_waiting: build.most_waiting.map(|most| u32::from(most % 4)),
            deadline: deadline_of(*deadline),
            window: window_of(*window, self.now()),
            memory: memory_of(*keys),
        }
    }

    /// What a builder is told.
    pub(super) fn equip<K>(
        &self,
        id: PoolId,
        mut builder: PoolBuilder<K>,
        spec: &Spec,
    ) -> PoolBuilder<K> {
        builder = builder.name(name(id)).caps(caps_of(&spec.caps));
        if let Some(deadline) = spec.deadline {
            builder = builder.deadline(deadline);
        }
        if let Some(used) = spec.used {
            builder = builder.used(used.amount());
        }
        if let Some(on_drop) = spec.on_drop {
            builder = builder.on_drop(on_drop);
        }
        if let Some(most) = spec.most_waiting {
            builder = builder.most_waiting(most);
        }
        if let Some(low) = spec.low {
            builder = builder.low(low.amount());
        }
        if spec.ceilings.iter().any(Option::is_some) {
            builder = builder.ceiling(caps_of(&spec.ceilings));
        }
        if let Some(windowed) = spec.window {
            let mut window = match windowed.kind {
                Kind::Fixed => Window::fixed(windowed.period),
                Kind::TokenBucket => Window::token_bucket(windowed.period),
                Kind::Rolling => Window::rolling(windowed.period),
                Kind::Calendar => {
                    let turns = windowed.turns(self.now()).into_iter();
                    Window::calendar(turns.map(|turn| self.instant(turn)))
                }
            };
            if let Some(start) = windowed.start {
                window = window.aligned_to(self.instant(start));
            }
            if windowed.carries {
                window = window.carrying_overage();
            }
            builder = builder.window(window);
        }
        match spec.memory {
            Some((most, ttl)) => builder.idempotency_keys(most, ttl),
            None => builder,
        }
    }

    pub(super) fn root(&mut self, spec: Spec) {
        // Its waits are polled by hand, and so are their alarms rung.
        let alarms = Arc::clone(&self.alarms);
        let by_hand = move |_| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            let alarms = Arc::clone(&alarms);
            Box::pin(poll_fn(move |context| {
                let mut alarms = alarms.lock().expect("no panic holds it");
                if alarms.are_kept {
                    alarms.last = Some(context.waker().clone());
                }
                Poll::Pending
            }))
        };
        let (time, counter) = (self.clock.clone(), Arc::clone(&self.reads));
        let read = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            time.now()
        };
        self.log(format!("p0 = {spec:?}"));
        let mut builder = BudgetPool::builder().clock(read).timer(by_hand);
        if let Some(record) = &self.record {
            builder = builder.observer(Arc::clone(record));
        }
        let pool = self.equip(0, builder, &spec).build();
        let id = self.model.build(Vec::new(), &spec, self.now()).expect("a root is not refused");
        self.pools.push((id, pool));
    }

    fn child(&mut self, parent: PoolId, pool: &BudgetPool, spec: Spec) -> Result<(), String> {
        let child = self.model.built;
        self.log(format!("p{child} = a child of p{parent} with {spec:?}"));
        let builder = self.equip(child, pool.child(), &spec);
        let (reads, starts) = match (spec.carved, &spec.window) {
            (true, Some(_)) => (Reads::Never, 0),
            (true, None) if spec.tells_of_its_share() => (Reads::Never, 0),
            (true, None) => (Reads::Asks(parent), usize::from(spec.deadline.is_some())),
            (false, window) => {
                (Reads::Never, usize::from(spec.deadline.is_some()) + usize::from(window.is_some()))
            }
        };
        let real = self.call_of(starts..=starts, reads, || match spec.carved {
            true => builder.carved().build(),
            false => Ok(builder.build()),
        })?;
        let real = self.answer(real);
        let model = self.model.build(vec![parent], &spec, self.now());
        same!("child", real.as_ref().map(|_| child), model.as_ref().copied());
        self.pools.extend(real.ok().map(|pool| (child, pool)));
        Ok(())
    }

    /// A pool below several others.
    fn joint(
        &mut self,
        (first, pool): (PoolId, BudgetPool),
        others: [u8; 2],
        spec: Spec,
    ) -> Result<(), String> {
        let joint = self.model.built;
        let (mut ids, mut pools) = (vec![first], vec![pool]);
        for raw in others {
            // Now and then there is no other, or it is of another tree.
            match raw {
                0..16 => {}
                255 => {
                    self.log(format!("joint p{first} with a pool of another tree"));
                    pools.push(BudgetPool::builder().name("other").build());
                    let real = self.call(Reads::Never, || BudgetPool::joint(&pools).map(drop))?;
                    let carved = self.carved_above(&ids);
                    let foreign = Refusal::ForeignPool { pool: "other".to_owned() };
                    same!("joint", self.unheard(real), Err::<(), _>(carved.unwrap_or(foreign)));
                    return Ok(());
                }
                _ => {
                    let reached = self.reached();
                    let (id, pool) = reached[usize::from(raw) % reached.len()].clone();
                    ids.push(id);
                    pools.push(pool);
                }
            }
        }
        self.log(format!("p{joint} = a joint pool below {ids:?} with {spec:?}"));
        let builder = self.call(Reads::Never, || BudgetPool::joint(&pools))?;
        let refused = self.carved_above(&ids);
        let builder = match (self.unheard(builder), refused) {
            (Ok(builder), None) => self.equip(joint, builder, &spec),
            (real, refused) => {
                same!("joint", real.map(drop), refused.map_or(Ok(()), Err));
                return Ok(());
            }
        };
        let starts = usize::from(spec.deadline.is_some()) + usize::from(spec.window.is_some());
        let real = self.call_of(starts..=starts, Reads::Never, || builder.build())?;
        let mut parents = Vec::new();
        for id in ids {
            if !parents.contains(&id) {
                parents.push(id);
            }
        }
        if parents.len() > 1 {
            self.meet("a pool has several parents");
        }
        let model = self.model.build(parents, &spec, self.now());
        same!("a joint pool", Ok(joint), model);
        self.pools.push((joint, real));
        Ok(())
    }

    /// The refusal of a joint pool that would be below a carved one.
    fn carved_above(&self, parents: &[PoolId]) -> Option<Refusal> {
        let is_carved = |id: &PoolId| (0..LANES).any(|axis| self.model.pools[id].is_carved(axis));
        let mut above = parents.iter().flat_map(|parent| self.model.path(*parent));
        above.find(is_carved).map(|carved| Refusal::Carved { pool: name(carved) })
    }

    fn made(
        &mut self,
        what: &str,
        real: Result<Reservation, BudgetError>,
        model: Result<HoldId, Refusal>,
    ) -> Result<Result<(), Refusal>, String> {
        match (self.answer(real), model) {
            (Ok(hold), Ok(id)) => {
                self.holds.push((id, hold));
                Ok(Ok(()))
            }
            (real, model) => {
                let real = real.map(drop);
                same!(what, real, model.map(drop));
                Ok(real)
            }
        }
    }

    fn hold_step(&mut self, op: &Op, id: HoldId, hold: Reservation) -> Result<(), String> {
        let held = self.model.holds[&id].held;
        let pool = self.model.holds[&id].pool;
        let (asks, tells) = (Reads::Asks(pool), Reads::Tells(pool));
        let on = format!("hold {id} of p{pool}");
        match op {
            Op::Label { label, .. } => {
                let label = LABELS[usize::from(*label) % LABELS.len()];
                self.log(format!("{on}: label({label})"));
                let hold = self.call(tells, || hold.label(label))?;
                self.model.hold(id).label = Some(label);
                self.holds.push((id, hold));
            }
            Op::CommitOnDrop { .. } => {
                self.log(format!("{on}: commit_on_drop()"));
                let hold = self.call(tells, || hold.commit_on_drop())?;
                self.model.hold(id).on_drop = on_drop_of(true);
                self.holds.push((id, hold));
            }
            Op::OnDrop { commit, .. } => {
                let on_drop = on_drop_of(*commit);
                self.log(format!("{on}: on_drop({on_drop:?})"));
                let hold = self.call(tells, || hold.on_drop(on_drop))?;
                self.model.hold(id).on_drop = on_drop;
                self.holds.push((id, hold));
            }
            Op::Commit { total, .. } => {
                let want = Want::fact(total, &self.model.holds[&id].so_far());
                self.log(format!("{on}: commit({})", want.amount()));
                let real = self.call(tells, || hold.commit(want.amount()))?;
                same!("commit", booked(real, &want)?, self.model.commit(id, &want));
                self.spent.clear();
            }
            Op::CommitAll { .. } => {
                self.log(format!("{on}: commit_all()"));
                let all = Want::default();
                let real = self.call(tells, || hold.commit_all())?;
                same!("commit_all", booked(real, &all)?, self.model.commit(id, &all));
            }
            Op::TryCommit { total, take_back, .. } => {
                self.try_commit(id, hold, total, *take_back)?
            }
            Op::Merge { other, take_back, .. } => self.merge(id, hold, *other, *take_back)?,
            Op::Release { .. } => {
                self.log(format!("{on}: release()"));
                self.call(tells, || hold.release())?;
                self.model.release(id);
            }
            Op::DropHold { .. } => {
                self.log(format!("{on}: drop"));
                self.drop_hold(id, hold)?;
            }
            Op::Forget { .. } => {
                self.log(format!("{on}: forget"));
                self.forgotten.push(Box::new(hold));
            }
            Op::RecordPart { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: record({})", want.amount()));
                let real = self.call(asks, || hold.record(want.amount()))?;
                self.holds.push((id, hold));
                same!(
                    "a hold's record",
                    self.answer(real),
                    self.model.record_part(id, &want.units())
                );
            }
            Op::DebitPart { part, .. } => {
                let want = Want::fact(part, &held);
                self.log(format!("{on}: debit({})", want.amount()));
                let real = self.call(tells, || hold.debit(want.amount()))?;
                self.holds.push((id, hold));
                same!(
                    "a hold's debit",
                    booked(real, &want)?,
                    self.model.debit_part(id, &want.units())
                );
            }
            Op::Grow { extra, .. } => {
                let want = Want::asked(extra, &self.model.near(pool));
                self.log(format!("{on}: grow({})", want.amount()));
                let real = self.call(asks, || hold.grow(want.amount()))?;
                self.holds.push((id, hold));
                let real = self.answer(real);
                same!("grow", real, self.model.grow(id, &want.with_slots()));
                if want.slots().is_none() {
                    self.remember(pool, want, None, &real);
                }
            }
            Op::Shrink { by, .. } => {
                let want = Want::asked(by, &held);
                self.log(format!("{on}: shrink({})", want.amount()));
                let real = self.call(tells, || hold.shrink(want.amount()))?;
                self.holds.push((id, hold));
                same!("shrink", self.answer(real), self.model.shrink(id, &want.with_slots()));
            }
            Op::Split { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: split({})", want.amount()));
                let real = self.call(asks, || hold.split(want.amount()))?;
                let model = self.model.split(id, &want);
                self.holds.push((id, hold));
                self.made("split", real, model)?.ok();
            }
            Op::Renew { ttl, .. } => {
                let ttl = ttl_of(*ttl);
                self.log(format!("{on}: renew({ttl:?})"));
                let real = self.call(Reads::Always(pool), || hold.renew(ttl))?;
                self.holds.push((id, hold));
                same!("renew", self.answer(real), self.model.renew(id, ttl));
            }
            _ => unreachable!("not a step of a hold"),
        }
        Ok(())
    }

    pub(super) fn drop_hold(&mut self, id: HoldId, hold: Reservation) -> Result<(), String> {
        let tells = Reads::Tells(self.model.holds[&id].pool);
        self.call(tells, || drop(hold))?;
        self.model.drop_hold(id);
        Ok(())
    }

    fn lease_step(&mut self, op: &Op, id: LeaseId, mut lease: Lease) -> Result<(), String> {
        let (pool, left) = (self.model.leases[&id].pool, self.model.leases[&id].left);
        let on = format!("lease {id} of p{pool}");
        let near = |beyond: bool, model: &Model| {
            if beyond { plus(&left, &model.near(pool)) } else { left }
        };
        let tells = Reads::Tells(pool);
        match *op {
            Op::LeaseRecord { ref amount, beyond, .. } => {
                let want = Want::asked(amount, &near(beyond, &self.model));
                let units = want.units();
                let is_local = self.model.covers(id, &units);
                if is_local && units != ZERO {
                    self.meet("a lease spends from its share");
                }
                if !is_local && self.model.may_leave_some(self.now()) {
                    self.log(format!("p{pool}.snapshot()"));
                    let snapshot = View::from(&self.call(tells, || lease.pool().snapshot())?);
                    self.model.learn_peaks(std::slice::from_ref(&snapshot));
                    same!("snapshot", snapshot, self.model.view(pool, pool));
                }
                self.log(format!("{on}: record({})", want.amount()));
                let reads = if is_local { Reads::Never } else { Reads::Asks(pool) };
                let real = self.call(reads, || lease.record(want.amount()))?;
                self.leases.push((id, lease));
                let real = self.answer(real);
                same!("a lease's record", real, self.model.lease_record(id, &units));
                if let Some(want) = Want::exactly(&self.model.beyond_lease(id, &units)) {
                    self.remember(pool, want, None, &real);
                }
            }
            Op::LeaseDebit { ref amount, beyond, .. } => {
                let most = near(beyond, &self.model);
                let want = Want::fact(amount, &each(|axis| most[axis].min(left[axis] + FACT)));
                let is_local = self.model.covers(id, &want.units());
                self.log(format!("{on}: debit({})", want.amount()));
                let real = self.call(if is_local { Reads::Never } else { tells }, || {
                    lease.debit(want.amount())
                })?;
                self.leases.push((id, lease));
                same!(
                    "a lease's debit",
                    booked(real, &want)?,
                    self.model.lease_debit(id, &want.units())
                );
            }
            Op::LeaseSettle { .. } => {
                self.log(format!("{on}: settle()"));
                self.call(tells, || lease.settle())?;
                self.leases.push((id, lease));
                self.model.settle_lease(id);
            }
            Op::DropLease { .. } => {
                self.log(format!("{on}: drop"));
                self.drop_lease(id, lease)?;
            }
            Op::ForgetLease { .. } => {
                self.log(format!("{on}: forget"));
                self.forgotten.push(Box::new(lease));
            }
            _ => unreachable!("not a step of a lease"),
        }
        Ok(())
    }

    pub(super) fn drop_lease(&mut self, id: LeaseId, lease: Lease) -> Result<(), String> {
        let tells = Reads::Tells(self.model.leases[&id].pool);
        self.call(tells, || drop(lease))?;
        self.model.drop_lease(id);
        Ok(())
    }

    /// By the waker of the last poll, or by a new one: then the old one is let go.
    pub(super) fn poll(&mut self, waiter: Waiter, anew: bool) -> Result<(), String> {
        let Waiter { id, mut wait, bell: kept, alarm } = waiter;
        let (home, is_kept) = (self.model.home(id), kept.is_some() && !anew);
        self.log(format!(
            "wait {id} of p{home}: poll{}",
            if is_kept { " again" } else { " by a new waker" }
        ));
        let (bell, old) =
            if is_kept { (kept.unwrap_or_default(), None) } else { (Arc::default(), kept) };
        // A first poll asks, and if it must wait it looks what became of that.
        let asks = match self.model.takes_time(id) {
            true => Reads::Always(home),
            false => Reads::Asks(home),
        };
        let looks = usize::from(self.model.is_new(id) && self.model.reads(asks) != Some(false));
        let (was_new, was_timed) = (self.model.is_new(id), self.model.may_be_timed());
        let waker = Waker::from(Arc::clone(&bell));
        self.alarms.lock().expect("no panic holds it").are_kept = true;
        let real = self.call_of(0..=looks, asks, || wait.poll(&mut Context::from_waker(&waker)))?;
        drop(waker);
        let alarm =
            std::mem::take(&mut *self.alarms.lock().expect("no panic holds it")).last.or(alarm);

        // This very poll may have reminded it.
        let may_ring =
            |has_ended: bool, wakes| wakes == usize::from(has_ended) || (wakes == 1 && was_timed);
        if let Some((wakes, is_kept)) = old.as_ref().map(heard) {
            let is_right = !is_kept && may_ring(self.model.has_ended(id), wakes);
            ensure!(
                is_right,
                "a waker that was replaced was woken {wakes} times, and is kept: {is_kept}"
            );
        }
        match (real, self.model.poll(id)) {
            (Poll::Pending, None) => {
                let wakes = bell.0.swap(0, Ordering::Relaxed);
                ensure!(
                    may_ring(false, wakes),
                    "one that waits was woken {wakes} times by its poll"
                );
                self.waiters.push(Waiter { id, wait, bell: Some(bell), alarm });
                return Ok(());
            }
            (Poll::Ready(Ok(Some(reservation))), Some(Ok(Some(hold)))) => {
                self.meet(if was_new { "granted at once" } else { "granted after a wait" });
                self.holds.push((hold, reservation));
            }
            (Poll::Ready(Ok(None)), Some(Ok(None))) => {
                self.meet(if was_new { "spent at once" } else { "spent after a wait" });
            }
            (Poll::Ready(real), model) => {
                self.meet(if was_new { "refused at once" } else { "refused after a wait" });
                let real = self.unheard(real).map(drop);
                same!("a wait", Some(real), model.map(|model| model.map(drop)));
            }
            (Poll::Pending, model) => {
                same!("a wait", None::<Result<Option<HoldId>, Refusal>>, model)
            }
        }
        self.call(Reads::Never, || drop(wait))?;
        let (wakes, is_heard) = heard(&bell);
        let is_right = wakes == usize::from(is_kept);
        ensure!(is_right && !is_heard, "one that has ended was woken {wakes} times");
        Ok(())
    }

    /// The alarm of a wait rings, if it has one. Its owner comes later, unless it is to look again.
    fn ring(&mut self, index: usize) -> Result<(), String> {
        let Waiter { id, ref alarm, .. } = self.waiters[index];
        let Some(alarm) = alarm.clone() else { return Ok(()) };
        let home = self.model.home(id);
        self.log(format!("wait {id} of p{home}: its alarm rings"));
        self.call(Reads::Always(home), || alarm.wake())?;
        if self.model.has_ended(id) {
            return Ok(());
        }
        let waiter = self.waiters.swap_remove(index);
        same!("wakes by an alarm", waiter.bell.as_ref().map(heard), Some((1, false)));
        self.poll(Waiter { bell: None, ..waiter }, true)
    }

    pub(super) fn drop_wait(&mut self, waiter: Waiter) -> Result<(), String> {
        let Waiter { id, wait, bell, .. } = waiter;
        self.log(format!("wait {id} of p{}: drop", self.model.home(id)));
        self.call(Reads::Never, || drop(wait))?;
        if let Some(bell) = bell {
            same!(
                "wakes of one that is gone",
                heard(&bell),
                (self.model.has_ended(id).into(), false)
            );
        }
        self.model.cancel(id);
        Ok(())
    }

    pub(super) fn collect_closings(&mut self) -> Result<(), String> {
        while let Some(index) =
            self.closings.iter().position(|closing| self.model.is_closed(closing.pool))
        {
            let Closing { pool, mut closed, .. } = self.closings.swap_remove(index);
            self.log(format!("p{pool}.closed(): poll and drop"));
            let poll = self.call(Reads::Never, || {
                closed.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            })?;
            ensure!(poll.is_ready(), "what is closed is open");
            self.call(Reads::Never, || drop(closed))?;
            self.model.drop_handle(pool);
        }
        Ok(())
    }

    /// A hold takes over another: mostly of its own pool, if that has another.
    fn merge(
        &mut self,
        id: HoldId,
        hold: Reservation,
        other: u8,
        take_back: bool,
    ) -> Result<(), String> {
        let pool = self.model.holds[&id].pool;
        let is_of_pool = |at: &usize| self.model.holds[&self.holds[*at].0].pool == pool;
        let of_pool: Vec<usize> = (0..self.holds.len()).filter(is_of_pool).collect();
        let any: Vec<usize> = (0..self.holds.len()).collect();
        let among = if of_pool.is_empty() || other < 32 { any } else { of_pool };
        let Some(at) = usize::from(other).checked_rem(among.len()) else {
            self.holds.push((id, hold));
            return Ok(());
        };
        let (second, ended) = self.holds.swap_remove(among[at]);
        let then = if take_back { "take it back" } else { "drop the refusal" };
        self.log(format!("hold {id} of p{pool}: merge(hold {second}), if refused {then}"));
        let reads = match self.model.holds[&second].pool == pool {
            true => Reads::Tells(pool),
            false => Reads::Never,
        };
        let real = self.call(reads, || hold.merge(ended))?;
        self.holds.push((id, hold));
        let model = self.model.merge(id, second);
        match real {
            Ok(()) => same!("merge", Ok(()), model),
            Err(refused) => {
                same!("merge", Err(self.told_refusal(refused.error())), model);
                match take_back {
                    true => self.holds.push((second, refused.into_reservation())),
                    false => self.drop_hold(second, refused.into_reservation())?,
                }
            }
        }
        Ok(())
    }

    fn try_commit(
        &mut self,
        id: HoldId,
        hold: Reservation,
        total: &Figures,
        take_back: bool,
    ) -> Result<(), String> {
        let want = Want::asked(total, &self.model.holds[&id].so_far());
        let then = if take_back { "take it back" } else { "drop the refusal" };
        let pool = self.model.holds[&id].pool;
        self.log(format!("hold {id} of p{pool}: try_commit({}), if refused {then}", want.amount()));
        let real = self.call(Reads::Tells(pool), || hold.try_commit(want.amount()))?;
        let model = self.model.try_commit(id, &want);
        match real {
            Ok(receipt) => {
                same!("try_commit", Ok(booked(receipt, &want)?), model);
                self.spent.clear();
            }
            Err(refused) => {
                same!("try_commit", Err(self.told_refusal(refused.error())), model);
                match take_back {
                    true => self.holds.push((id, refused.into_reservation())),
                    false => self.drop_hold(id, refused.into_reservation())?,
                }
            }
        }
        Ok(())
    }
}
