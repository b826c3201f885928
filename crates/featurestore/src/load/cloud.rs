//! Files in S3, in Google Cloud Storage and in Azure.

use std::{
    future::Future,
    io::{self, Write},
};

use futures_util::StreamExt;
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use tempfile::{NamedTempFile, TempPath};
use url::Url;

use super::{LoadError, apart::apart};

/// The largest file that is fetched.
const LARGEST: u64 = 64 << 30;

/// What the environment may say of each kind of store.
const VARIABLES: [&str; 3] = ["aws_", "google_", "azure_"];

/// The URLs of all files whose names begin so, at most `most`.
pub(super) fn list(prefix: &str, most: usize) -> Result<Vec<String>, LoadError> {
    let (url, store, path) = open(prefix)?;
    wait(prefix, async {
        let mut found = store.list(Some(&path));
        let mut names = Vec::new();
        while let Some(object) = found.next().await {
            if names.len() == most {
                return Err(io::Error::other(format!("more than {most} files")));
            }
            names.push(at(&url, &object.map_err(io::Error::other)?.location));
        }
        Ok(names)
    })
}

/// Whether a URL is one of a file elsewhere, and has nothing that is secret in it.
pub(super) fn check(file: &str) -> Result<(), LoadError> {
    open(file).map(drop)
}

/// A copy of the file at a URL, which is gone when it is dropped.
pub(super) fn fetch(file: &str) -> Result<TempPath, LoadError> {
    let (_, store, path) = open(file)?;
    wait(file, async {
        let answer = store.get(&path).await.map_err(|error| match error {
            object_store::Error::NotFound { .. } => {
                io::Error::new(io::ErrorKind::NotFound, "no such file; a folder ends with `/`")
            }
            other => io::Error::other(other),
        })?;
        let too_large = || io::Error::other(format!("the file has more than {LARGEST} bytes"));
        if answer.meta.size > LARGEST {
            return Err(too_large());
        }
        let mut copy = NamedTempFile::new()?;
        let (mut parts, mut fetched) = (answer.into_stream(), 0);
        while let Some(part) = parts.next().await {
            let part = part.map_err(io::Error::other)?;
            fetched += part.len() as u64;
            if fetched > LARGEST {
                return Err(too_large());
            }
            copy.write_all(&part)?;
        }
        copy.flush()?;
        Ok(copy.into_temp_path())
    })
}

fn at(url: &Url, path: &Path) -> String {
    let mut url = url.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
    }
    url.into()
}

/// What a URL names: the store, and the path of the file in it. Who asks is told by the environment.
///
/// # Errors
/// When it is no URL of such a store, or has something that is secret in it.
pub fn object_at(url: &str) -> Result<(Box<dyn ObjectStore>, Path), LoadError> {
    // Who asks bounds the time itself: what a store is given by default is too short for a large file.
    open_within(url, Some("1day")).map(|(_, store, path)| (store, path))
}

fn open(text: &str) -> Result<(Url, Box<dyn ObjectStore>, Path), LoadError> {
    open_within(text, None)
}

/// The same; each of its calls may take so long, unless the environment says how long.
fn open_within(text: &str, timeout: Option<&str>) -> Result<(Url, Box<dyn ObjectStore>, Path), LoadError> {
    let failed = |problem: String| LoadError::Open {
        file: shown(text),
        source: io::Error::new(io::ErrorKind::InvalidInput, problem),
    };
    let url = Url::parse(text).map_err(|error| failed(error.to_string()))?;
    if !matches!(url.scheme(), "s3" | "s3a" | "gs" | "az" | "azure" | "abfs" | "abfss") {
        return Err(failed("a file elsewhere is at s3://, gs:// or az://".to_owned()));
    }
    if url.password().is_some() || url.query().is_some() {
        return Err(failed("who asks is told by the environment, not by the URL".to_owned()));
    }
    let options = std::env::vars_os().filter_map(|(name, value)| {
        let name = name.to_str()?.to_ascii_lowercase();
        VARIABLES.iter().any(|begin| name.starts_with(begin)).then_some(())?;
        Some((name, value.into_string().ok()?))
    });
    let options = timeout.map(|time| ("timeout".to_owned(), time.to_owned())).into_iter().chain(options);
    let (store, path) =
        object_store::parse_url_opts(&url, options).map_err(|error| failed(error.to_string()))?;
    Ok((url, store, path))
}

/// The URL without what may be secret in it.
fn shown(text: &str) -> String {
    match Url::parse(text) {
        Ok(mut url) if url.password().is_some() || url.query().is_some() => {
            // A URL that has a password can do without one.
            let _ = url.set_password(None);
            url.set_query(None);
            url.into()
        }
        _ => text.to_owned(),
    }
}

fn wait<T: Send>(file: &str, answer: impl Future<Output = io::Result<T>> + Send) -> Result<T, LoadError> {
    apart(answer).map_err(|source| LoadError::Open { file: shown(file), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_a_store_and_a_path_in_it() {
        for (url, store, path) in [
            ("s3://bucket/a/b.csv", "AmazonS3(bucket)", "a/b.csv"),
            ("gs://bucket/a%20b.csv", "GoogleCloudStorage(bucket)", "a b.csv"),
            (
                "abfss://files@account.dfs.core.windows.net/a.csv",
                "MicrosoftAzure { account: account, container: files }",
                "a.csv",
            ),
        ] {
            let (_, opened, found) = open(url).unwrap();
            assert_eq!((opened.to_string().as_str(), found.as_ref()), (store, path), "{url}");
        }
    }

    #[test]
    fn what_is_secret_is_neither_taken_from_a_url_nor_told() {
        for (url, sentence) in [
            ("s3://key:hunter2@bucket/a.csv", "told by the environment"),
            ("az://container/a.csv?sig=hunter2", "told by the environment"),
            ("https://bucket.example/a.csv", "at s3://, gs:// or az://"),
            ("s3://", ""),
        ] {
            let error = open(url).map(|_| ()).unwrap_err();
            let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
            assert!(text.contains(sentence) && !text.contains("hunter2"), "{text}");
        }
    }
}
