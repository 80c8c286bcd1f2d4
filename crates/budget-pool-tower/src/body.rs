//! The body of a response, with the hold that ends with it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::bill::{OpenHold, Said};
use crate::layer::Rules;

pin_project! {
    /// The body of a response of a [`BudgetService`](crate::BudgetService). It settles the hold of
    /// its request at its end, or when it is dropped before.
    ///
    /// Its frames are those of the inner body. The body of a refusal is a short text.
    ///
    /// A body has ended when it says so, with its trailers, or when all of its size is read, which the
    /// body knows or the header `content-length` tells. A server may drop such a body before it can
    /// say that it ends.
    pub struct BudgetBody<B> {
        // `None` where a refusal stands in for the response.
        #[pin]
        inner: Option<B>,
        refusal: Option<Vec<u8>>,
        account: Option<Account>,
    }

    impl<B> PinnedDrop for BudgetBody<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // A server does not poll a body again that has said that nothing follows.
            if let Some(account) = this.account.take_if(|account| account.is_complete) {
                account.hold.finish();
            }
        }
    }
}

struct Account {
    hold: OpenHold,
    rules: Arc<Rules>,
    /// The bytes that are still to come, where the head tells their number.
    left: Option<u64>,
    /// Whether only trailers can still come: a server need not poll for them.
    is_complete: bool,
}

impl<B: Body> BudgetBody<B> {
    /// The body of a request that is not limited.
    pub(crate) fn free(inner: B) -> BudgetBody<B> {
        BudgetBody { inner: Some(inner), refusal: None, account: None }
    }

    pub(crate) fn refusal(text: String) -> BudgetBody<B> {
        BudgetBody { inner: None, refusal: Some(text.into_bytes()), account: None }
    }

    /// The body of an admitted request, and its length if the head tells it. A server reads none of a
    /// body whose length is zero.
    pub(crate) fn holding(
        inner: B,
        length: Option<u64>,
        hold: OpenHold,
        rules: Arc<Rules>,
    ) -> BudgetBody<B> {
        if length == Some(0) || inner.is_end_stream() {
            hold.finish();
            return BudgetBody::free(inner);
        }
        let is_complete = inner.size_hint().exact() == Some(0);
        let account = Account { hold, rules, left: length, is_complete };
        BudgetBody { inner: Some(inner), refusal: None, account: Some(account) }
    }
}

impl<B: Body> Body for BudgetBody<B>
where
    B::Data: From<Vec<u8>>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else {
            let text = this.refusal.take().filter(|text| !text.is_empty());
            return Poll::Ready(text.map(|text| Ok(Frame::data(text.into()))));
        };
        let frame = ready!(inner.as_mut().poll_frame(context));
        let has_ended = match &frame {
            Some(Ok(frame)) => {
                if let Some(account) = this.account {
                    account.read(frame.data_ref().map_or(0, Buf::remaining));
                    account.is_complete |= inner.size_hint().exact() == Some(0);
                    account.tell(frame.trailers_ref());
                }
                // A server drops a body after its trailers, and need not ask it for its end.
                frame.is_trailers() || inner.is_end_stream()
            }
            // It broke off: no figure but those that are known.
            Some(Err(_)) => {
                drop(this.account.take());
                false
            }
            None => true,
        };
        // Settled before the last frame is out: a client that has read it finds the books closed.
        if let Some(account) = this.account.take_if(|_| has_ended) {
            account.hold.finish();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_end_stream(),
            None => self.refusal.as_ref().is_none_or(Vec::is_empty),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(self.refusal.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl Account {
    fn read(&mut self, bytes: usize) {
        // More than the head has told is as good as all of it.
        self.left = self.left.map(|left| left.saturating_sub(bytes as u64));
        self.is_complete = self.left == Some(0);
    }

    fn tell(&mut self, trailers: Option<&HeaderMap>) {
        let total =
            trailers.zip(self.rules.trailers.as_ref()).and_then(|(trailers, of)| of(trailers));
        if let Some(total) = total {
            self.hold.trailers_say(Said::Total(total));
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for BudgetBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetBody")
            .field("inner", &self.inner)
            .field("hold", &self.account.as_ref().map(|account| &account.hold))
            .finish_non_exhaustive()
    }
}
