//! Replies packed as their caller can unpack them.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::{
    Compression,
    write::{GzEncoder, ZlibEncoder},
};
use http::{
    HeaderValue, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};
use http_body_util::{BodyExt, Full};

use crate::service::Answer;

/// Less is not worth it.
const FROM: usize = 1 << 10;
/// So much is packed at once; after a few of them, other requests have their turn.
const STEP: usize = 64 << 10;
const STEPS_PER_TURN: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    /// With zlib's wrapper, as the word means.
    Deflate,
}

/// The same answer, packed if `accept`, the header `Accept-Encoding`, asks for it.
pub(super) async fn packed(answer: Answer, accept: Option<&HeaderValue>) -> Answer {
    let accept = accept.and_then(|accept| accept.to_str().ok());
    let Some(coding) = accept.and_then(coding).filter(|_| answer.status() == StatusCode::OK) else {
        return answer;
    };
    let (mut head, body) = answer.into_parts();
    let plain = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let packed = if plain.len() < FROM { None } else { Box::pin(pack(coding, &plain)).await.ok() };
    let body = packed.map_or(plain, |packed| {
        let name = if coding == Coding::Gzip { "gzip" } else { "deflate" };
        head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        head.headers.insert(VARY, ACCEPT_ENCODING.into());
        Bytes::from(packed)
    });
    Answer::from_parts(head, Full::new(body))
}

/// What a caller would rather have, of what there is; of two that it likes as much, gzip.
fn coding(accept: &str) -> Option<Coding> {
    let mut best: Option<(f32, Coding)> = None;
    for item in accept.split(',') {
        let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
        let weight =
            weight.trim().strip_prefix("q=").and_then(|weight| weight.parse::<f32>().ok()).unwrap_or(0.0);
        let coding = match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Coding::Gzip,
            "deflate" => Coding::Deflate,
            _ => continue,
        };
        let better = best.is_none_or(|(best, _)| weight > best || (weight == best && coding == Coding::Gzip));
        if weight > 0.0 && better {
            best = Some((weight, coding));
        }
    }
    best.map(|(_, coding)| coding)
}

async fn pack(coding: Coding, plain: &[u8]) -> io::Result<Vec<u8>> {
    let out = Vec::with_capacity(plain.len() / 4);
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(out, Compression::fast());
            write_in_turns(&mut encoder, plain).await?;
            encoder.finish()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(out, Compression::fast());
            write_in_turns(&mut encoder, plain).await?;
            encoder.finish()
        }
    }
}

async fn write_in_turns(encoder: &mut (impl Write + Send), plain: &[u8]) -> io::Result<()> {
    for (step, part) in plain.chunks(STEP).enumerate() {
        if step > 0 && step % STEPS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
        encoder.write_all(part)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_get_what_they_would_rather_have() {
        use Coding::{Deflate, Gzip};
        for (accept, wanted) in [
            ("gzip", Some(Gzip)),
            ("deflate", Some(Deflate)),
            ("gzip, deflate, br, zstd", Some(Gzip)),
            ("deflate, gzip", Some(Gzip)),
            ("deflate;q=1, gzip;q=0.5", Some(Deflate)),
            ("gzip; q=0, deflate; q=0.1", Some(Deflate)),
            ("GZIP", Some(Gzip)),
            ("br", None),
            ("identity", None),
            ("*", None),
            ("gzip;q=x", None),
            ("", None),
        ] {
            assert_eq!(coding(accept), wanted, "{accept}");
        }
    }
}
