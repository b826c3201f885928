//! Messages that arrive: in bounded memory, and in bounded time once they have begun.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use millstream_runtime::{Budget, Reserved};
use tokio::time::{Instant, Sleep};
use tonic::Status;

use crate::body::BodyLimits;

/// One byte that says how the message is packed, four that say how long it is.
const PREFIX: usize = 5;

/// The body of a call, which is messages one after the other. What has arrived of the one that is not whole yet takes room.
pub(super) struct Arrival<B> {
    body: B,
    limits: BodyLimits,
    budget: Arc<Budget>,
    room: Option<Reserved>,
    /// What there is of the next message's prefix.
    prefix: Vec<u8>,
    /// Bytes that the message still lacks.
    lacks: usize,
    /// Bytes that have arrived of it.
    arrived: usize,
    /// Set while a message is awaited that has begun, or has to begin: when its time began, and the timer.
    clock: Option<(Instant, Pin<Box<Sleep>>)>,
    /// Whether any message was whole: a further one may begin whenever it likes.
    begun: bool,
}

impl<B> Arrival<B> {
    pub(super) fn new(body: B, budget: &Arc<Budget>, limits: BodyLimits) -> Self {
        Self {
            body,
            limits,
            budget: Arc::clone(budget),
            room: None,
            prefix: Vec::with_capacity(PREFIX),
            lacks: 0,
            arrived: 0,
            clock: None,
            begun: false,
        }
    }

    /// Looks at what has arrived.
    fn take(&mut self, mut data: &[u8]) -> Result<(), Status> {
        while !data.is_empty() {
            if self.lacks == 0 {
                let taken = data.len().min(PREFIX - self.prefix.len());
                self.prefix.extend_from_slice(&data[..taken]);
                data = &data[taken..];
                let [_, a, b, c, d] = *self.prefix else { break };
                self.prefix.clear();
                self.lacks = u32::from_be_bytes([a, b, c, d]) as usize;
            } else {
                let taken = data.len().min(self.lacks);
                let fits = match &mut self.room {
                    Some(room) => room.grow(taken),
                    none => {
                        *none = self.budget.reserve(taken);
                        none.is_some()
                    }
                };
                if !fits {
                    return Err(Status::resource_exhausted(
                        "the messages of other calls have taken all room",
                    ));
                }
                data = &data[taken..];
                self.lacks -= taken;
                self.arrived += taken;
            }
            if self.lacks == 0 {
                // Whole: whoever reads it has it now, and its run takes room of its own.
                (self.room, self.arrived, self.clock, self.begun) = (None, 0, None, true);
            }
        }
        Ok(())
    }

    /// Whether what is awaited is overdue.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let under_way = !self.prefix.is_empty() || self.lacks > 0;
        if self.begun && !under_way {
            return Poll::Pending;
        }
        let earned = self.arrived as u64 / self.limits.bytes_per_second.max(1);
        let time = self.limits.patience + Duration::from_secs(earned);
        let (start, timer) = self.clock.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(tokio::time::sleep_until(now + time)))
        });
        let until = *start + time;
        if timer.deadline() < until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(cx)
    }
}

impl<B> Body for Arrival<B>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let looked = frame.data_ref().map_or(Ok(()), |data| self.take(data));
                Poll::Ready(Some(looked.map(|()| frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Status::from_error(Box::new(error))))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => match self.poll_overdue(cx) {
                Poll::Ready(()) => {
                    Poll::Ready(Some(Err(Status::deadline_exceeded("the message arrives too slowly"))))
                }
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// Frames that come, and then nothing more, ever.
    fn arrival(
        frames: Vec<Vec<u8>>,
        budget: &Arc<Budget>,
    ) -> Arrival<impl Body<Data = Bytes, Error = Infallible> + Unpin> {
        let frames = frames.into_iter().map(|frame| Ok(Frame::data(Bytes::from(frame))));
        let frames = futures_util::StreamExt::chain(stream::iter(frames), stream::pending());
        Arrival::new(StreamBody::new(frames), budget, BodyLimits::default())
    }

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&[0], &length[..], &vec![b'x'; bytes]].concat()
    }

    #[tokio::test]
    async fn a_message_takes_room_until_it_is_whole() {
        let budget = Budget::new(100);
        let taken = |room: usize| budget.reserve(100 - room).is_some();
        let both = [message(60), message(80)].concat();
        for size in [1, 3, 7, both.len()] {
            let frames: Vec<_> = both.chunks(size).map(<[u8]>::to_vec).collect();
            let count = frames.len();
            let mut arrival = arrival(frames, &budget);
            for _ in 0..count {
                arrival.frame().await.unwrap().unwrap();
            }
            assert!(taken(0), "nothing is taken behind both, in frames of {size}");
        }
        let mut half = arrival(vec![message(90)[..50].to_vec()], &budget);
        half.frame().await.unwrap().unwrap();
        assert!(taken(45) && !taken(44));
        let mut other = arrival(vec![message(90)], &budget);
        let refused = other.frame().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        drop((half, other));
        assert!(taken(0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_must_arrive_and_what_comes_next_may_take_its_time() {
        let (budget, patience) = (Budget::new(1000), BodyLimits::default().patience);
        for (frames, overdue) in [
            (vec![], true),
            (vec![message(10)[..3].to_vec()], true),
            (vec![message(10)[..8].to_vec()], true),
            (vec![message(10)], false),
            (vec![message(0)], false),
            (vec![[message(10), message(10)[..1].to_vec()].concat()], true),
        ] {
            let count = frames.len();
            let mut arrival = arrival(frames, &budget);
            for _ in 0..count {
                arrival.frame().await.unwrap().unwrap();
            }
            let more = tokio::time::timeout(2 * patience, arrival.frame()).await;
            let late = more.map(|frame| frame.unwrap().unwrap_err().code());
            assert_eq!(late.ok(), overdue.then_some(tonic::Code::DeadlineExceeded));
        }
    }
}
