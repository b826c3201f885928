//! Reading a body: whole, in bounded time and memory, unpacked where it comes compressed.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};
use futures_util::FutureExt;
use http::{HeaderMap, header::CONTENT_ENCODING};
use http_body::Body;
use http_body_util::BodyExt;
use millstream_runtime::Reserved;
use tokio::time::Instant;

use crate::wire::{DecodeCode, DecodeError};

/// The encodings that are unpacked, as `Accept-Encoding` lists them.
pub(crate) const ENCODINGS: &str = "gzip, deflate, zstd";
/// No more is set aside before it has arrived: a head may promise much and send nothing.
const RESERVED: usize = 1 << 20;
/// Frames without a byte cost time and bring nothing.
const EMPTY_FRAMES: usize = 1000;
/// So much is unpacked at once; after a few of them, other requests have their turn.
const STEP: usize = 64 << 10;
const STEPS_PER_TURN: usize = 16;
/// Beyond `RATIO_FROM` bytes, a body that unpacks to more than `RATIO` times its size is taken for a trap.
const RATIO: usize = 256;
const RATIO_FROM: usize = 4 << 20;
/// The window that a zstd stream may ask for, as a power of two: the largest that RFC 9659 lets a sender use.
const ZSTD_WINDOW_LOG: u32 = 23;

/// How fast a body must arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimits {
    /// The time that any body has.
    pub patience: Duration,
    /// For as many bytes that have arrived, a body has another second.
    pub bytes_per_second: u64,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { patience: Duration::from_secs(30), bytes_per_second: 16 << 10 }
    }
}

/// Why a body was not read.
pub(crate) enum Unread {
    /// There is something wrong with it.
    Refused(DecodeError),
    /// The bodies of other requests have taken all the room there is.
    NoRoom,
}

impl From<DecodeError> for Unread {
    fn from(error: DecodeError) -> Self {
        Self::Refused(error)
    }
}

/// The whole body, unpacked: at most `most` bytes, both as it was sent and as it was meant. Room for it is added to `room`.
pub(crate) async fn read<B>(
    headers: &HeaderMap,
    body: B,
    most: usize,
    limits: BodyLimits,
    room: &mut Reserved,
) -> Result<Bytes, Unread>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let coding = Coding::of(headers)?;
    let sent = collect(body, most, limits, room).await?;
    match coding {
        Coding::Plain => Ok(sent),
        // Boxed, because few bodies come packed.
        coding => Box::pin(unpack(coding, &sent, most, room)).await.map(Bytes::from),
    }
}

async fn collect<B>(body: B, most: usize, limits: BodyLimits, room: &mut Reserved) -> Result<Bytes, Unread>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send,
{
    let hint = body.size_hint();
    if hint.lower() > most as u64 {
        return Err(too_large(most).into());
    }
    let mut body = pin!(body);
    let mut start = None;
    // Most bodies are one frame, which is taken as it is. More are copied together: frames share the connection's buffers, and
    // one of a byte would keep many alive.
    let (mut first, mut joined, mut empty) = (Bytes::new(), Vec::new(), 0);
    loop {
        // What went wrong with the connection concerns nobody here, and need not be `Send`.
        let arrived = body.frame().map(|frame| frame.transpose().map_err(drop)).now_or_never();
        let frame = match arrived {
            Some(frame) => frame,
            None => {
                let start = *start.get_or_insert_with(Instant::now);
                let earned = (first.len() + joined.len()) as u64 / limits.bytes_per_second.max(1);
                let until = start + limits.patience + Duration::from_secs(earned);
                let frame = body.frame().map(|frame| frame.transpose().map_err(drop));
                // Boxed, because a timer is large and few bodies need one.
                let waited = Box::pin(tokio::time::timeout_at(until, frame)).await;
                waited.map_err(|_| DecodeError::new(DecodeCode::TooSlow, "body arrives too slowly"))?
            }
        };
        let cut = |()| DecodeError::new(DecodeCode::Truncated, "body did not arrive whole");
        let Some(frame) = frame.map_err(cut)? else { break };
        // Trailers are not looked at.
        let Ok(mut data) = frame.into_data() else { continue };
        let length = bytes::Buf::remaining(&data);
        if length > most - first.len() - joined.len() {
            return Err(too_large(most).into());
        }
        if !room.grow(length) {
            return Err(Unread::NoRoom);
        }
        if length == 0 {
            empty += 1;
            if empty > EMPTY_FRAMES {
                let message = "body comes in too many empty frames";
                return Err(DecodeError::new(DecodeCode::Malformed, message).into());
            }
        }
        let data = bytes::Buf::copy_to_bytes(&mut data, length);
        if first.is_empty() && joined.is_empty() {
            first = data;
            if body.is_end_stream() {
                break;
            }
        } else {
            if joined.is_empty() {
                let whole = usize::try_from(hint.lower()).unwrap_or(usize::MAX).min(RESERVED);
                joined.reserve(whole.max(first.len() + length));
                joined.extend_from_slice(&std::mem::take(&mut first));
            }
            joined.extend_from_slice(&data);
        }
        // Frames that are all there already would never let go of the thread.
        tokio::task::consume_budget().await;
    }
    Ok(if joined.is_empty() { first } else { Bytes::from(joined) })
}

fn too_large(most: usize) -> DecodeError {
    DecodeError::new(DecodeCode::TooLarge, format!("body has more than {most} bytes"))
}

/// How a body is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Plain,
    Gzip,
    Zlib,
    Zstd,
}

impl Coding {
    fn of(headers: &HeaderMap) -> Result<Self, DecodeError> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let Some(coding) = codings.next() else { return Ok(Self::Plain) };
        let text = coding.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        match (text.as_str(), codings.next()) {
            ("identity" | "", None) => Ok(Self::Plain),
            ("gzip" | "x-gzip", None) => Ok(Self::Gzip),
            ("deflate", None) => Ok(Self::Zlib),
            ("zstd", None) => Ok(Self::Zstd),
            _ => {
                let message = format!("header `content-encoding` must name one of {ENCODINGS}");
                Err(DecodeError::new(DecodeCode::UnknownEncoding, message))
            }
        }
    }
}

async fn unpack(coding: Coding, packed: &[u8], most: usize, room: &mut Reserved) -> Result<Vec<u8>, Unread> {
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            DecodeError::new(DecodeCode::Truncated, "the packed body ends in the middle")
        }
        _ => DecodeError::new(DecodeCode::Malformed, "the body is not packed as `content-encoding` says"),
    };
    let mut reader: Box<dyn io::Read + Send> = match coding {
        Coding::Plain => Box::new(packed),
        Coding::Gzip => Box::new(MultiGzDecoder::new(packed)),
        Coding::Zlib => Box::new(Zlib { state: Decompress::new(true), packed, ended: false }),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(broken)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(broken)?;
            Box::new(decoder)
        }
    };
    let mut whole = Vec::with_capacity(packed.len().saturating_mul(4).min(RESERVED).min(most));
    let mut step = vec![0; STEP];
    for turn in 1.. {
        let read = match reader.read(&mut step).map_err(broken)? {
            0 => break,
            read => read,
        };
        if read > most - whole.len() {
            let message = format!("body unpacks to more than {most} bytes");
            return Err(DecodeError::new(DecodeCode::TooLarge, message).into());
        }
        if !room.grow(read) {
            return Err(Unread::NoRoom);
        }
        whole.extend_from_slice(&step[..read]);
        if whole.len() > RATIO_FROM && whole.len() / RATIO > packed.len() {
            let message = format!("body unpacks to more than {RATIO} times its size");
            return Err(DecodeError::new(DecodeCode::TooLarge, message).into());
        }
        if turn % STEPS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
    Ok(whole)
}

/// A zlib stream, which `deflate` means. Other than flate2's own reader, it tells a stream that was cut from one that ended.
struct Zlib<'p> {
    state: Decompress,
    packed: &'p [u8],
    ended: bool,
}

impl io::Read for Zlib<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.ended {
            let (taken, given) = (self.state.total_in(), self.state.total_out());
            let status = self.state.decompress(self.packed, out, FlushDecompress::None)?;
            // Both differences are of lengths of slices.
            let taken = (self.state.total_in() - taken) as usize;
            let given = (self.state.total_out() - given) as usize;
            self.packed = &self.packed[taken..];
            self.ended = status == Status::StreamEnd;
            if given > 0 {
                return Ok(given);
            }
            if taken == 0 && !self.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        if self.packed.is_empty() { Ok(0) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        convert::Infallible,
        io::Write,
        pin::Pin,
        task::{Context, Poll},
    };

    use flate2::{
        Compression,
        write::{GzEncoder, ZlibEncoder},
    };
    use http::HeaderValue;
    use http_body::Frame;
    use millstream_runtime::Budget;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(plain: &[u8]) -> Vec<u8> {
        zstd::stream::encode_all(plain, 3).unwrap()
    }

    /// Frames that are all there, then perhaps nothing more, ever.
    struct Frames {
        frames: std::vec::IntoIter<Bytes>,
        ends: bool,
    }

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.frames.next() {
                Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
                None if self.ends => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn frames(parts: &[&[u8]], ends: bool) -> Frames {
        let frames: Vec<_> = parts.iter().map(|part| Bytes::copy_from_slice(part)).collect();
        Frames { frames: frames.into_iter(), ends }
    }

    fn room(bytes: usize) -> Reserved {
        Budget::new(bytes).reserve(0).unwrap()
    }

    /// The bytes of a body, or the code it is refused with; no code when there was no room.
    fn code(read: Result<Bytes, Unread>) -> Result<Vec<u8>, Option<DecodeCode>> {
        read.map(Vec::from).map_err(|unread| match unread {
            Unread::Refused(error) => Some(error.code),
            Unread::NoRoom => None,
        })
    }

    #[tokio::test]
    async fn bodies_take_no_more_room_than_there_is() {
        let (plain, packed) = (vec![b' '; 1000], gzip(&[b' '; 1000]));
        let mut gzipped = HeaderMap::new();
        gzipped.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let both = packed.len() + 1000;
        for (headers, body, needs) in [(HeaderMap::new(), &plain, 1000), (gzipped, &packed, both)] {
            for (bytes, fits) in [(needs, true), (needs - 1, false)] {
                let body = frames(&[body], true);
                let read = read(&headers, body, 1 << 20, BodyLimits::default(), &mut room(bytes)).await;
                assert_eq!(code(read), if fits { Ok(plain.clone()) } else { Err(None) }, "{bytes}");
            }
        }
    }

    /// What is read of a body: its bytes, or the code it is refused with.
    async fn outcome(
        coding: Option<&'static str>,
        body: Frames,
        most: usize,
    ) -> Result<Vec<u8>, Option<DecodeCode>> {
        let mut headers = HeaderMap::new();
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        code(read(&headers, body, most, BodyLimits::default(), &mut room(usize::MAX)).await)
    }

    #[tokio::test]
    async fn a_body_is_the_same_in_every_encoding_and_any_number_of_frames() {
        let plain: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let codings: [(Option<&'static str>, Vec<u8>); 7] = [
            (None, plain.clone()),
            (Some("identity"), plain.clone()),
            (Some("gzip"), gzip(&plain)),
            (Some("X-Gzip"), gzip(&plain)),
            (Some("gzip"), [gzip(&plain[..7]), gzip(&plain[7..])].concat()),
            (Some("deflate"), zlib(&plain)),
            (Some("zstd"), zstd(&plain)),
        ];
        for (coding, packed) in codings {
            for size in [1000, usize::MAX] {
                let parts: Vec<&[u8]> = packed.chunks(size.min(packed.len())).collect();
                let read = outcome(coding, frames(&parts, true), 1 << 20).await;
                assert!(read == Ok(plain.clone()), "{coding:?} in frames of {size}");
            }
        }
        assert_eq!(outcome(None, frames(&[], true), 10).await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_packed_body_that_is_cut_damaged_or_of_no_known_kind_is_refused() {
        use DecodeCode::{Malformed, Truncated, UnknownEncoding};
        let plain = br#"{"id":1,"name":"a name that is long enough to be packed, packed, packed"}"#;
        let cut = |mut packed: Vec<u8>| {
            packed.truncate(packed.len() - 5);
            packed
        };
        let longer = |packed: Vec<u8>| [packed, b"more".to_vec()].concat();
        for (coding, body, code) in [
            ("gzip", cut(gzip(plain)), Truncated),
            ("deflate", cut(zlib(plain)), Truncated),
            ("zstd", cut(zstd(plain)), Truncated),
            ("gzip", plain.to_vec(), Malformed),
            ("deflate", plain.to_vec(), Malformed),
            ("zstd", plain.to_vec(), Malformed),
            ("deflate", longer(zlib(plain)), Malformed),
            ("br", plain.to_vec(), UnknownEncoding),
            ("gzip, gzip", gzip(&gzip(plain)), UnknownEncoding),
        ] {
            let read = outcome(Some(coding), frames(&[&body], true), 1000).await;
            assert_eq!(read, Err(Some(code)), "{coding}");
        }
    }

    #[tokio::test]
    async fn what_unpacks_to_too_much_is_refused_when_the_bound_is_reached() {
        let zeros = vec![0; 64 << 20];
        for (coding, bomb) in [("gzip", gzip(&zeros)), ("deflate", zlib(&zeros)), ("zstd", zstd(&zeros))] {
            for most in [100_000, 1 << 30] {
                assert!(bomb.len() < 100_000);
                let read = outcome(Some(coding), frames(&[&bomb], true), most).await;
                assert_eq!(read, Err(Some(DecodeCode::TooLarge)), "{coding}, at most {most}");
            }
        }
        // Less than the ratio is for counts only for its bytes.
        let modest = gzip(&zeros[..RATIO_FROM]);
        assert_eq!(
            outcome(Some("gzip"), frames(&[&modest], true), RATIO_FROM).await.unwrap().len(),
            RATIO_FROM
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_as_long_as_its_bytes_earn() {
        let limits = BodyLimits { patience: Duration::from_secs(10), bytes_per_second: 100 };
        let start = Instant::now();
        let stalled = frames(&[&[b' '; 300], &[b' '; 200]], false);
        let read = read(&HeaderMap::new(), stalled, 1000, limits, &mut room(1000)).await;
        assert_eq!((code(read), start.elapsed().as_secs()), (Err(Some(DecodeCode::TooSlow)), 15));
    }

    #[tokio::test]
    async fn frames_are_bounded_with_and_without_bytes() {
        assert_eq!(outcome(None, frames(&[b"12", b"34"], true), 3).await, Err(Some(DecodeCode::TooLarge)));
        assert_eq!(outcome(None, frames(&[b"12", b"34"], true), 4).await, Ok(b"1234".to_vec()));
        let empty = vec![&b""[..]; EMPTY_FRAMES + 1];
        assert_eq!(outcome(None, frames(&empty, true), 3).await, Err(Some(DecodeCode::Malformed)));
        assert_eq!(outcome(None, frames(&empty[1..], true), 3).await, Ok(Vec::new()));
    }
}
