//! Futures that a pool drives: the real ones, and what the model says of each.
//!
//! A future counts its polls and is done by one of them. A hold may be in it: that comes back with
//! what the future was done with, or is left by the future that was cut off.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use budget_pool::{BudgetError, BudgetPool, Reservation};

use super::oracle::{HoldId, Model, Nanos, PoolId, Reads, Refusal};
use super::{Bell, Both, heard};

const MOST_RUNS: usize = 3;

type Output = Option<Reservation>;

pub(super) struct Running {
    pool: PoolId,
    run: Pin<Box<dyn Future<Output = Result<Output, BudgetError>>>>,
    /// Of its last poll.
    bell: Option<Arc<Bell>>,
    hold: Option<HoldId>,
    /// So many polls of the future until it is done.
    left: u8,
    seen: Rc<RefCell<Seen>>,
}

/// What came of a future.
#[derive(Default)]
struct Seen {
    polls: usize,
    drops: usize,
    left_behind: Output,
}

struct Work {
    left: u8,
    hold: Output,
    seen: Rc<RefCell<Seen>>,
}

impl Future for Work {
    type Output = Output;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Output> {
        self.seen.borrow_mut().polls += 1;
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Poll::Pending
            }
            None => Poll::Ready(self.hold.take()),
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut seen = self.seen.borrow_mut();
        seen.drops += 1;
        seen.left_behind = self.hold.take();
    }
}

impl Model {
    /// Whether a future of this pool is cut off at an instant.
    fn cuts_off(&self, pool: PoolId, now: Nanos) -> bool {
        let is_late = self.deadline(pool).is_some_and(|(_, deadline)| now >= deadline.at());
        self.is_closed(pool) || is_late
    }
}

impl Both {
    pub(super) fn begin_run(
        &mut self,
        id: PoolId,
        pool: BudgetPool,
        polls: u8,
        hold: Option<u8>,
        poll: bool,
    ) -> Result<(), String> {
        if self.runs.len() >= MOST_RUNS {
            return Ok(());
        }
        let at = hold.and_then(|hold| usize::from(hold).checked_rem(self.holds.len()));
        let (hold, held) = at.map(|at| self.holds.swap_remove(at)).unzip();
        let (left, seen) = (polls % 4, Rc::<RefCell<Seen>>::default());
        self.log(format!("p{id}.run(done by poll {}, with hold {hold:?})", left + 1));
        let work = Work { left, hold: held, seen: Rc::clone(&seen) };
        let run = self.call(Reads::Never, || Box::pin(pool.run(work)))?;
        drop(pool);
        self.model.pool(id).handles += 1;
        let running = Running { pool: id, run, bell: None, hold, left, seen };
        if poll {
            return self.poll_run_of(running, true);
        }
        self.runs.push(running);
        Ok(())
    }

    pub(super) fn poll_run(&mut self, run: u8, anew: bool) -> Result<(), String> {
        let Some(index) = usize::from(run).checked_rem(self.runs.len()) else { return Ok(()) };
        let running = self.runs.swap_remove(index);
        self.log(format!("poll a run of p{}", running.pool));
        self.poll_run_of(running, anew)
    }

    fn poll_run_of(&mut self, mut running: Running, anew: bool) -> Result<(), String> {
        let pool = running.pool;
        let is_new = running.bell.is_none();
        let (bell, old) = match running.bell.take() {
            Some(bell) if !anew => (bell, None),
            old => (Arc::default(), old),
        };
        let is_cut_off = self.model.cuts_off(pool, self.model.now.max(self.now()));
        // What is done is done, but one that begins too late is not polled at all.
        let is_polled = !(is_new && is_cut_off);
        let is_done = is_polled && running.left == 0;
        let is_bounded = self.model.deadline(pool).is_some();
        // It looks at its pool when it begins, when that is closed, and at its deadline wherever it
        // is not done.
        let looks_on = !is_done && (is_bounded || self.model.is_closed(pool));
        let reads = if is_new || looks_on { Reads::Asks(pool) } else { Reads::Never };
        let again = usize::from(is_new && is_polled && !is_done && is_bounded);
        let polls = running.seen.borrow().polls;
        let waker = Waker::from(Arc::clone(&bell));
        let real = self.call_of(again..=again, reads, || {
            running.run.as_mut().poll(&mut Context::from_waker(&waker))
        })?;
        drop(waker);

        let polled = running.seen.borrow().polls - polls;
        same!("polls of a future", polled, usize::from(is_polled));
        if let Some(old) = old {
            same!("wakes by a waker that a run has replaced", heard(&old).1, false);
        }
        let expected = match is_done {
            true => Some(Ok(())),
            false => self.model.open(pool).and_then(|()| self.model.in_time(pool)).err().map(Err),
        };
        let is_over = real.is_ready();
        same!("drops of a future", running.seen.borrow().drops, usize::from(is_over));
        let (real, done) = match real {
            Poll::Pending => (None, None),
            Poll::Ready(Ok(done)) => (Some(Ok(())), done),
            Poll::Ready(Err(error)) => (Some(Err(self.told_refusal(&error))), None),
        };
        same!("run", real, expected);
        if !is_over {
            running.left -= 1;
            // The close that it watches from now on keeps the pool, too.
            self.model.pool(pool).handles += usize::from(is_new);
            self.runs.push(Running { bell: Some(bell), ..running });
            return Ok(());
        }
        self.meet(match (real, is_polled) {
            (Some(Err(_)), false) => "a future is never polled",
            (Some(Err(Refusal::Late { .. })), _) => "a future is late",
            (Some(Err(_)), _) => "a future ends with its pool",
            _ => "a future is done",
        });
        if let (Some(id), Some(hold)) = (running.hold, done) {
            self.holds.push((id, hold));
            running.hold = None;
        }
        self.end_run(running, Some(bell), is_new)
    }

    /// The future is gone, at the latest now, and what was left in it is dropped.
    fn end_run(
        &mut self,
        running: Running,
        bell: Option<Arc<Bell>>,
        is_new: bool,
    ) -> Result<(), String> {
        let Running { pool, run, hold, seen, .. } = running;
        self.call(Reads::Never, || drop(run))?;
        same!("drops of a future", seen.borrow().drops, 1);
        if let Some(bell) = bell {
            ensure!(!heard(&bell).1, "the waker of a run that is over is kept");
        }
        // Its own, and that of the close that it watched.
        for _ in 0..1 + usize::from(!is_new) {
            self.model.drop_handle(pool);
        }
        let left_behind = seen.borrow_mut().left_behind.take();
        match (hold, left_behind) {
            (Some(id), Some(hold)) => self.drop_hold(id, hold),
            (None, None) => Ok(()),
            (hold, left) => Err(format!("a future left {left:?} of {hold:?}")),
        }
    }

    pub(super) fn drop_run(&mut self, run: u8) -> Result<(), String> {
        let Some(index) = usize::from(run).checked_rem(self.runs.len()) else { return Ok(()) };
        self.drop_run_at(index)
    }

    pub(super) fn drop_last_run(&mut self) -> Result<(), String> {
        self.runs.len().checked_sub(1).map_or(Ok(()), |last| self.drop_run_at(last))
    }

    fn drop_run_at(&mut self, index: usize) -> Result<(), String> {
        let mut running = self.runs.swap_remove(index);
        self.log(format!("drop a run of p{}", running.pool));
        let bell = running.bell.take();
        let is_new = bell.is_none();
        self.end_run(running, bell, is_new)
    }

    /// A close wakes each run of its pools, once, and nothing else does.
    pub(super) fn check_runs(&self) -> Result<(), String> {
        for Running { pool, bell, .. } in &self.runs {
            let Some(bell) = bell else { continue };
            let is_closed = self.model.is_closed(*pool);
            let expected = (usize::from(is_closed), !is_closed);
            same!(format!("wakes of a run of p{pool}"), heard(bell), expected);
        }
        Ok(())
    }

    /// Each run that was woken is polled, and so ends.
    pub(super) fn collect_runs(&mut self) -> Result<(), String> {
        let is_woken = |running: &Running, model: &Model| {
            running.bell.is_some() && model.is_closed(running.pool)
        };
        while let Some(index) = self.runs.iter().position(|run| is_woken(run, &self.model)) {
            let running = self.runs.swap_remove(index);
            self.log(format!("a run of p{} is told", running.pool));
            self.poll_run_of(running, false)?;
        }
        Ok(())
    }
}
