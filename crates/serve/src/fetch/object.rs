//! Files from object stores: S3, Google Cloud Storage, Azure.

use futures_util::StreamExt;
use object_store::{Error, GetOptions, ObjectStore, path::Path};

use super::{Answer, FetchError, New, cache::Marks};

/// Asks for the file at a URL of a store.
#[cfg(feature = "cloud")]
pub(super) async fn open_at(url: &str, known: Option<&Marks>) -> Result<Answer, FetchError> {
    let (store, path) = object_at(url)?;
    open(&*store, &path, known).await
}

/// Whether a URL is one of a store, and has nothing that is secret in it.
#[cfg(feature = "cloud")]
pub(super) fn check(url: &str) -> Result<(), FetchError> {
    object_at(url).map(drop)
}

#[cfg(feature = "cloud")]
fn object_at(url: &str) -> Result<(Box<dyn ObjectStore>, Path), FetchError> {
    use std::error::Error;
    millstream_featurestore::load::object_at(url).map_err(|error| {
        // The URL is told beside it, as it may be shown.
        FetchError::Settings(
            error.source().map_or_else(|| "no url of a store".to_owned(), |cause| plain(&cause.to_string())),
        )
    })
}

/// Asks for a file of a store.
async fn open(store: &dyn ObjectStore, path: &Path, known: Option<&Marks>) -> Result<Answer, FetchError> {
    let if_none_match = known.and_then(|known| known.etag.clone());
    let answer = match store.get_opts(path, GetOptions { if_none_match, ..GetOptions::default() }).await {
        Ok(answer) => answer,
        Err(Error::NotModified { .. }) => return Ok(Answer::Same),
        Err(Error::NotFound { .. }) => {
            return Err(FetchError::Answered(::http::StatusCode::NOT_FOUND));
        }
        Err(other) => return Err(FetchError::Unreachable(plain(&other.to_string()))),
    };
    let marks = Marks { etag: answer.meta.e_tag.clone(), ..Marks::default() };
    let bytes = Some(answer.meta.size);
    let body = answer.into_stream();
    let body = body.map(|part| part.map_err(|error| FetchError::Broken(plain(&error.to_string())))).boxed();
    Ok(Answer::New(New { bytes, marks, body }))
}

/// A message without the queries of its URLs, which may be signatures.
fn plain(message: &str) -> String {
    let word = |word: &str| match word.split_once('?') {
        Some((url, _)) if url.contains("://") => url.to_owned(),
        _ => word.to_owned(),
    };
    message.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use millstream_models::ModelSpec;
    use object_store::{ObjectStoreExt, PutPayload, memory::InMemory};

    use super::{
        super::{
            cache::{Cache, CacheSpec},
            order::Order,
            receive,
        },
        *,
    };

    #[test]
    fn a_message_has_no_signature() {
        let message = "Error performing GET https://a.example/b?sig=hunter2 in 1s";
        assert_eq!(plain(message), "Error performing GET https://a.example/b in 1s");
        assert_eq!(plain("why? because"), "why? because");
    }

    #[tokio::test]
    async fn a_file_of_a_store_is_kept_and_sent_again_when_it_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path(), &CacheSpec::default()).unwrap();
        let spec = |text: serde_json::Value| {
            let spec: ModelSpec = serde_json::from_value(text).unwrap();
            Order::read(folder.path(), "m", &spec).unwrap().unwrap()
        };
        // Whose bytes are whose is the order's; that they come from a store is the test's.
        let order = spec(serde_json::json!({ "url": "https://h/m.onnx", "max_bytes": "8B" }));
        let (store, path) = (InMemory::new(), Path::from("models/m.onnx"));
        let put = async |bytes: &'static [u8]| {
            store.put(&path, PutPayload::from_bytes(Bytes::from_static(bytes))).await.unwrap()
        };
        let fetch = async || {
            let known = cache.known(&order.key);
            let known = known.map(|known| (known.marks, cache.take(&known.sha256).unwrap().unwrap()));
            let answer = open(&store, &path, known.as_ref().map(|(marks, _)| marks)).await;
            let same = matches!(answer, Ok(Answer::Same));
            let fetched = receive(&order, &cache, known, answer.map_err(|error| error.to_string())?).await;
            let file = fetched.map_err(|error| error.to_string())?.model().file;
            Ok::<_, String>((same, std::fs::read(file).unwrap()))
        };
        assert_eq!(fetch().await, Err("it answered 404 Not Found".to_owned()));
        put(b"one").await;
        assert_eq!(fetch().await, Ok((false, b"one".to_vec())));
        assert_eq!(fetch().await, Ok((true, b"one".to_vec())));
        put(b"two").await;
        assert_eq!(fetch().await, Ok((false, b"two".to_vec())));
        put(b"far too many").await;
        assert_eq!(fetch().await, Err("the file has more than 8B, which `max_bytes` bounds".to_owned()));
        put(b"two").await;
        assert_eq!(fetch().await.map(|(_, bytes)| bytes), Ok(b"two".to_vec()));
    }
}
