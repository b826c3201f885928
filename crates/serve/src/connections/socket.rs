//! A connection's bytes: what its client speaks, when something moves, and how it is closed.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;

use super::pace::Pace;
use crate::security::tls::Tls;

/// How HTTP/2 begins when the client knows that it is spoken, and HTTP/1.1 cannot.
const HTTP2: [u8; 4] = *b"PRI ";
/// After the last reply, what the client still sends is read and dropped for so long and so much. Closed with bytes unread, a
/// connection is reset, and the client may lose the reply that tells it why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

pub(crate) struct Socket {
    stream: Stream,
    /// The first bytes, which were read to see what is spoken, and how many were handed on.
    begin: ([u8; 4], usize),
    http2: bool,
    pace: Arc<Pace>,
    closing: Option<(Pin<Box<Sleep>>, usize)>,
}

/// What carries the bytes.
enum Stream {
    Plain(TcpStream),
    /// Boxed, because it is large and most servers have TLS in front of them.
    Tls(Box<TlsStream<TcpStream>>),
}

/// The same of either.
macro_rules! of_stream {
    ($stream:expr, $call:ident $(, $argument:expr)*) => {
        match $stream {
            Stream::Plain(stream) => Pin::new(stream).$call($($argument),*),
            Stream::Tls(stream) => Pin::new(&mut **stream).$call($($argument),*),
        }
    };
}

impl Socket {
    /// Waits until it is clear what the client speaks, behind TLS if there is to be any.
    ///
    /// # Errors
    /// When the connection ends before, or hands cannot be shaken.
    pub(crate) async fn begin(stream: TcpStream, tls: Option<&Tls>, pace: Arc<Pace>) -> io::Result<Self> {
        match tls {
            None => Self::sniff(stream, Stream::Plain, pace).await,
            Some(tls) => {
                let stream = Box::new(tls.accept(stream).await?);
                Self::sniff(stream, Stream::Tls, pace).await
            }
        }
    }

    async fn sniff<S: AsyncRead + Unpin>(
        mut stream: S,
        kind: impl FnOnce(S) -> Stream,
        pace: Arc<Pace>,
    ) -> io::Result<Self> {
        let mut begin = [0; 4];
        stream.read_exact(&mut begin).await?;
        Ok(Self { stream: kind(stream), http2: begin == HTTP2, begin: (begin, 0), pace, closing: None })
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let (begin, given) = &mut this.begin;
        if *given < begin.len() {
            let now = buf.remaining().min(begin.len() - *given);
            buf.put_slice(&begin[*given..*given + now]);
            *given += now;
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(of_stream!(&mut this.stream, poll_read, cx, buf))?;
        // Over HTTP/2 bytes may be anything, and its own pings show whether the client is there.
        if !this.http2 && buf.filled().len() > before {
            this.pace.arrived();
        }
        Poll::Ready(Ok(()))
    }
}

impl Socket {
    fn wrote(&self, written: io::Result<usize>) -> io::Result<usize> {
        if !self.http2 && matches!(written, Ok(1..)) {
            self.pace.wrote();
        }
        written
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(of_stream!(&mut self.stream, poll_write, cx, buf));
        Poll::Ready(self.wrote(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(of_stream!(&mut self.stream, poll_write_vectored, cx, bufs));
        Poll::Ready(self.wrote(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(&mut self.stream, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.closing.is_none() {
            ready!(of_stream!(&mut this.stream, poll_shutdown, cx))?;
        }
        let (timer, dropped) = this.closing.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER)), 0));
        let mut scratch = [std::mem::MaybeUninit::uninit(); 4096];
        while *dropped < LINGER_BYTES && timer.as_mut().poll(cx).is_pending() {
            let mut read = ReadBuf::uninit(&mut scratch);
            match ready!(of_stream!(&mut this.stream, poll_read, cx, &mut read)) {
                Ok(()) if !read.filled().is_empty() => *dropped += read.filled().len(),
                // The client has closed too, or is gone.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
