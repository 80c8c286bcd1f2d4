//! The hold of one request, and the [`Bill`] that tells its cost.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use budget_pool::{Amount, OnDrop, Reservation};

/// The bill of one request: its grant, and its cost. Each request that the layer has admitted has one
/// in its extensions.
///
/// A handler that knows the cost only when the body has been streamed keeps the bill, and tells it
/// before the body ends. The hold settles by the bill however the response ends, also if the client
/// hangs up. The last call of [`total`](Bill::total) or [`refund`](Bill::refund) counts, and what is
/// [added](Bill::add) after it. A call after the end is too late.
///
/// Where two layers are around each other, the handler has the bill of the inner one. The outer layer
/// settles by the head or the trailers, or by what is held. Limits of one tree need one layer: a
/// pool below all of them has one bill.
///
/// ```
/// use budget_pool::Amount;
/// use budget_pool_tower::Bill;
/// use http::{Request, Response};
///
/// fn handler(request: Request<String>) -> Response<String> {
///     let answer = request.body().to_uppercase();
///     // `None` where the layer does not limit the request.
///     if let Some(bill) = request.extensions().get::<Bill>() {
///         bill.total(Amount::new().tokens(answer.len() as u64));
///     }
///     Response::new(answer)
/// }
/// # handler(Request::new("a".to_owned()));
/// ```
#[derive(Clone)]
pub struct Bill(Arc<Told>);

struct Told {
    granted: Amount,
    choice: usize,
    said: Mutex<Option<Said>>,
}

/// How a hold is to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Said {
    Total(Amount),
    Refund,
}

impl Bill {
    /// Tells the total cost of the request. An axis that `total` does not name settles at its held
    /// units.
    pub fn total(&self, total: Amount) {
        self.say(Said::Total(total));
    }

    /// Adds a cost to the total that is told so far, as for one of several calls that a request
    /// makes. The first cost is the total by itself, and so is one after a
    /// [`refund`](Bill::refund). A sum beyond `u64::MAX` is `u64::MAX`.
    ///
    /// ```
    /// use budget_pool::Amount;
    /// use budget_pool_tower::Bill;
    /// use http::{Request, Response};
    ///
    /// fn handler(request: Request<String>) -> Response<String> {
    ///     let bill = request.extensions().get::<Bill>();
    ///     for call in ["search", "draft"] {
    ///         // Cut off between the two, the request pays for the first.
    ///         let tokens = call.len() as u64;
    ///         bill.inspect(|bill| bill.add(Amount::new().tokens(tokens)));
    ///     }
    ///     Response::new("It rains.".to_owned())
    /// }
    /// # handler(Request::new("a".to_owned()));
    /// ```
    pub fn add(&self, cost: Amount) {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        *said = Some(Said::Total(match *said {
            Some(Said::Total(total)) => total + cost,
            Some(Said::Refund) | None => cost,
        }));
    }

    /// Tells that the request has cost nothing.
    pub fn refund(&self) {
        self.say(Said::Refund);
    }

    /// The amount that the pool has granted: less than the most that was asked, where the
    /// [`Ask`](budget_pool::Ask) would do with less.
    #[must_use]
    pub fn granted(&self) -> Amount {
        self.0.granted
    }

    /// Which of the amounts of the [`Ask`](budget_pool::Ask) was granted: 0 is the first.
    #[must_use]
    pub fn choice(&self) -> usize {
        self.0.choice
    }

    fn say(&self, said: Said) {
        *self.0.said.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }

    fn said(&self) -> Option<Said> {
        *self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bill")
            .field("granted", &self.0.granted)
            .field("said", &self.said())
            .finish()
    }
}

/// A hold that ends exactly once: with its response, or with its drop.
#[derive(Debug)]
pub(crate) struct OpenHold {
    hold: Option<Reservation>,
    bill: Bill,
    head: Option<Said>,
    trailers: Option<Said>,
}

impl OpenHold {
    pub(crate) fn new(hold: Reservation) -> OpenHold {
        let (granted, choice) = (hold.amount(), hold.choice());
        let bill = Bill(Arc::new(Told { granted, choice, said: Mutex::new(None) }));
        OpenHold { hold: Some(hold), bill, head: None, trailers: None }
    }

    pub(crate) fn bill(&self) -> Bill {
        self.bill.clone()
    }

    pub(crate) fn head_says(&mut self, said: Said) {
        self.head = Some(said);
    }

    pub(crate) fn trailers_say(&mut self, said: Said) {
        self.trailers = Some(said);
    }

    /// The response has ended, or the service has failed. Without a figure, what is held was spent.
    pub(crate) fn finish(mut self) {
        if let Some(hold) = self.settle() {
            hold.commit_all();
        }
    }

    /// Settles what is known; the hold, if nothing is.
    fn settle(&mut self) -> Option<Reservation> {
        let hold = self.hold.take()?;
        match self.trailers.or_else(|| self.bill.said()).or(self.head) {
            Some(Said::Total(total)) => _ = hold.commit(total),
            Some(Said::Refund) => refund(hold, self.bill.granted()),
            None => return Some(hold),
        }
        None
    }
}

/// Ends a hold that has cost nothing. A release comes too late where the hold has expired: its expiry
/// may have settled it.
fn refund(hold: Reservation, granted: Amount) {
    // Should it expire only now, nothing is booked.
    let hold = hold.on_drop(OnDrop::Release);
    if hold.is_expired() {
        let tokens = Amount::new().tokens(0);
        hold.commit(granted.iter().fold(tokens, |total, held| total.with(held.axis(), 0)));
    } else {
        hold.release();
    }
}

/// The response did not end: without a figure, the hold goes by its `OnDrop`.
impl Drop for OpenHold {
    fn drop(&mut self) {
        drop(self.settle());
    }
}
