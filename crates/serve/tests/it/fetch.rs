//! Models from URLs, against servers that answer well, badly, elsewhere and not at all.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use futures_util::stream;
use millstream_runtime::Limits;
use millstream_serve::{DecodeLimits, Outcome, Project, Reloader, Server};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::server::serve;

const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/data");
const TOKEN: &str = "Bearer hunter2";

fn bytes(model: &str) -> Bytes {
    fs::read(Path::new(MODELS).join(model)).unwrap().into()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A project of nothing but models, and a secret beside it.
fn project(models: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), models);
    fs::write(folder.path().join("token"), format!("{TOKEN}\n")).unwrap();
    folder
}

fn write(folder: &Path, models: &[(&str, String)]) {
    let models: String =
        models.iter().map(|(name, model)| format!("  {name}: {{ instances: 1, {model} }}\n")).collect();
    fs::write(folder.join("millstream.yaml"), format!("name: far\nmodels:\n{models}")).unwrap();
}

/// The names of the models that are loaded, or every mistake. Blocks while servers answer on other threads.
fn load(folder: &Path) -> Result<Vec<String>, Vec<String>> {
    let project = Project::load(folder).map_err(|error| error.mistakes())?;
    Ok(project.models().iter().map(|(name, _)| name.to_owned()).collect())
}

/// The files of the cache, and of them those that are models.
fn kept(folder: &Path) -> (Vec<String>, usize) {
    let cache = folder.join(".millstream/models");
    let names = fs::read_dir(cache).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| ![".lock", ".gitignore"].contains(&name.as_str()));
    let models = names.iter().filter(|name| name.len() == 64).count();
    (names, models)
}

/// A file in parts, of which nobody says how long it is.
fn in_parts(bytes: &Bytes) -> Response {
    let half = bytes.len() / 2;
    let parts = [bytes.slice(..half), bytes.slice(half..)].map(Ok::<_, std::io::Error>);
    Body::from_stream(stream::iter(parts)).into_response()
}

/// Answers everybody with these bytes, and hangs up.
async fn raw(answer: Vec<u8>) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/cut.onnx?sig=hunter2", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0)
            {
            }
            stream.write_all(&answer).await.unwrap();
        }
    });
    (url, tasks)
}

fn private(headers: &HeaderMap) -> Response {
    if headers.get(header::AUTHORIZATION).is_some_and(|value| value == TOKEN) {
        bytes("rank3.onnx").into_response()
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

fn files(other: &str) -> Router {
    let away = Redirect::temporary(&format!("{other}/private"));
    Router::new()
        .route("/m.onnx", get(|| async { bytes("rank3.onnx") }))
        .route("/parts.onnx", get(|| async { in_parts(&bytes("rank3.onnx")) }))
        .route("/text.onnx", get(|| async { "not a model" }))
        .route("/packed.onnx", get(|| async { ([(header::CONTENT_ENCODING, "gzip")], "packed") }))
        .route("/near.onnx", get(|| async { Redirect::permanent("private") }))
        .route("/round.onnx", get(|uri: Uri| async move { Redirect::to(uri.path()) }))
        .route("/away.onnx", get(move || async move { away }))
        .route("/private", get(|headers: HeaderMap| async move { private(&headers) }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_is_fetched_or_refused_and_nothing_of_what_is_refused_stays() {
    let other = serve(files("http://h")).await;
    let server = serve(files(&other.url(""))).await;
    let whole = digest(&bytes("rank3.onnx"));
    let (pin, wrong) =
        (format!(", sha256: \"{}\"", whole.to_uppercase()), format!(", sha256: \"{}\"", "0".repeat(64)));
    let private = ", headers: { authorization: \"file:token\" }";
    let cases = [
        ("/m.onnx?sig=hunter2", "", Ok(())),
        ("/m.onnx", &*pin, Ok(())),
        ("/parts.onnx", "", Ok(())),
        ("/near.onnx", private, Ok(())),
        ("/m.onnx?sig=hunter2", &*wrong, Err(format!("/m.onnx: the file's sha256 is {whole}, not 000"))),
        ("/m.onnx?sig=hunter2", ", max_bytes: 64B", Err("the file has more than 64B".to_owned())),
        ("/parts.onnx", ", max_bytes: 64B", Err("the file has more than 64B".to_owned())),
        ("/packed.onnx", "", Err("it comes packed".to_owned())),
        ("/gone.onnx?sig=hunter2", "", Err("/gone.onnx: it answered 404 Not Found".to_owned())),
        ("/private", "", Err("it answered 401 Unauthorized".to_owned())),
        ("/near.onnx", "", Err("it answered 401 Unauthorized".to_owned())),
        ("/round.onnx", "", Err("it leads elsewhere more than 5 times".to_owned())),
        ("/away.onnx", private, Err("it leads to another host".to_owned())),
        // Without https not even to what is pinned.
        ("/away.onnx", &*pin, Err("it leads to another host".to_owned())),
    ];
    for (at, settings, wanted) in cases {
        let folder = project(&[("m", format!("url: \"{}\"{settings}", server.url(at)))]);
        let got = load(folder.path());
        let (names, models) = kept(folder.path());
        assert!(names.iter().all(|name| !name.starts_with(".part")), "{at}{settings}: {names:?}");
        match (got, wanted) {
            (Ok(loaded), Ok(())) => assert_eq!((loaded, models), (vec!["m".to_owned()], 1), "{at}{settings}"),
            (Err(mistakes), Err(wanted)) => {
                let told = mistakes.join("\n");
                assert!(
                    told.contains("model `m`: http://") && told.contains(&wanted),
                    "{at}{settings}: {told}"
                );
                assert!(
                    !told.contains("hunter2") && told.contains("millstream.yaml:3:"),
                    "{at}{settings}: {told}"
                );
                assert_eq!((mistakes.len(), models), (1, 0), "{at}{settings}");
            }
            (got, wanted) => panic!("{at}{settings}: {got:?}, not {wanted:?}"),
        }
    }
    // One that comes whole and is no model is kept, and refused each time.
    let folder = project(&[("m", format!("url: \"{}\"", server.url("/text.onnx")))]);
    assert!(load(folder.path()).unwrap_err()[0].contains("is not an ONNX model"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_breaks_off_leaves_nothing() {
    let bytes = bytes("rank3.onnx");
    let answer = |head: &str, body: &[u8]| {
        [b"HTTP/1.1 200 OK\r\n".as_slice(), head.as_bytes(), b"\r\n", body].concat()
    };
    let chunk = [b"10\r\n".as_slice(), &bytes[..16], b"\r\n"].concat();
    let cases = [
        (answer(&format!("content-length: {}\r\n", bytes.len() + 1), &bytes), "the file broke off"),
        (answer("transfer-encoding: chunked\r\n", &chunk), "the file broke off"),
        (answer("connection: close\r\n", &bytes), "the server does not say where it ends"),
    ];
    for (answer, wanted) in cases {
        let (url, _server) = raw(answer).await;
        let folder = project(&[("m", format!("url: \"{url}\""))]);
        let told = load(folder.path()).unwrap_err().join("\n");
        assert!(told.contains(wanted) && !told.contains("hunter2"), "{told}");
        assert_eq!(kept(folder.path()), (Vec::new(), 0), "{wanted}");
    }
    // Where the pin says what it is, it does not matter how it ends.
    let (url, _server) = raw(answer("connection: close\r\n", &bytes)).await;
    let folder = project(&[("m", format!("url: \"{url}\", sha256: \"{}\"", digest(&bytes)))]);
    assert_eq!(load(folder.path()), Ok(vec!["m".to_owned()]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_cannot_be_had_is_told_at_once() {
    let server = serve(files("http://h")).await;
    let url = |at: &str| format!("url: \"{}\"", server.url(at));
    let folder = project(&[
        ("gone", url("/gone.onnx")),
        ("good", url("/m.onnx")),
        ("here", "path: none.onnx".to_owned()),
        ("round", url("/round.onnx")),
        ("both", format!("path: none.onnx, {}", url("/m.onnx"))),
        ("neither", "warm_up: true".to_owned()),
        ("told", "url: \"https://h/m.onnx\", headers: { authorization: hunter2 }".to_owned()),
    ]);
    let mistakes = load(folder.path()).unwrap_err();
    for (name, wanted) in [
        ("gone", "it answered 404"),
        ("here", "cannot read `none.onnx`"),
        ("round", "it leads elsewhere more than 5 times"),
        ("both", "it has a `path` and a `url`"),
        ("neither", "`path` or `url` says where its file is"),
        ("told", "header `authorization`: it says who asks, so it is a reference"),
    ] {
        let of_it = mistakes.iter().filter(|mistake| mistake.contains(&format!("model `{name}`: ")));
        let of_it: Vec<_> = of_it.collect();
        assert!(of_it.len() == 1 && of_it[0].contains(wanted), "{name}: {mistakes:?}");
    }
    assert!(mistakes.len() == 6 && !mistakes.join("").contains("hunter2"), "{mistakes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_model_starts_without_its_server_and_another_does_not() {
    let server = serve(files("http://h")).await;
    let at = format!("url: \"{}\"", server.url("/m.onnx"));
    let pinned = format!("{at}, sha256: \"{}\"", digest(&bytes("rank3.onnx")));
    let folder = project(&[("m", at.clone())]);
    assert_eq!(load(folder.path()), Ok(vec!["m".to_owned()]));
    drop(server);
    assert!(load(folder.path()).unwrap_err()[0].contains("no connection"));
    // Whatever URL it came from, it is the file.
    write(folder.path(), &[("m", pinned.clone())]);
    assert_eq!(load(folder.path()), Ok(vec!["m".to_owned()]));
    assert!(load(project(&[("m", pinned)]).path()).unwrap_err()[0].contains("no connection"));
}

/// A file that changes: its tag and its bytes, or nothing where the server cannot answer.
#[derive(Clone, Default)]
struct Changing {
    now: Arc<Mutex<Option<(&'static str, Bytes)>>>,
    sent: Arc<AtomicUsize>,
    same: Arc<AtomicUsize>,
}

impl Changing {
    fn answer(&self, headers: &HeaderMap) -> Response {
        let Some((tag, bytes)) = self.now.lock().unwrap().clone() else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known == tag) {
            self.same.fetch_add(1, SeqCst);
            return StatusCode::NOT_MODIFIED.into_response();
        }
        self.sent.fetch_add(1, SeqCst);
        ([(header::ETAG, tag)], bytes).into_response()
    }

    fn is(&self, now: Option<(&'static str, Bytes)>) {
        *self.now.lock().unwrap() = now;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_takes_up_what_has_changed_and_keeps_what_is_served_otherwise() {
    let changing = Changing::default();
    let answers = changing.clone();
    let router =
        Router::new().route("/m", get(move |headers: HeaderMap| async move { answers.answer(&headers) }));
    let server = serve(router).await;
    changing.is(Some(("\"1\"", bytes("rank3.onnx"))));
    let folder = project(&[("m", format!("url: \"{}\"", server.url("/m?sig=hunter2")))]);
    let project = Project::load(folder.path()).unwrap();
    let served = Server::new(&project, &Limits::default(), DecodeLimits::default()).unwrap();
    let first = project.version().to_owned();
    drop(project);
    let reloader = Reloader::new(&served, folder.path(), Duration::from_secs(60)).unwrap();
    let counts = || (changing.sent.load(SeqCst), changing.same.load(SeqCst));

    assert_eq!(reloader.reload().await.outcome, Outcome::Unchanged);
    assert_eq!(counts(), (1, 1), "it was asked whether it has changed, and not sent");

    changing.is(Some(("\"2\"", bytes("labels.onnx"))));
    let second = reloader.reload().await;
    assert_eq!((second.outcome.clone(), counts().0), (Outcome::Swapped, 2));
    assert_ne!(second.version, first);

    for (now, wanted) in [
        (None, "/m: it answered 503 Service Unavailable"),
        (Some(("\"3\"", Bytes::from_static(b"not a model"))), "is not an ONNX model"),
    ] {
        changing.is(now);
        let reload = reloader.reload().await;
        let Outcome::Failed(mistakes) = &reload.outcome else { panic!("{:?}", reload.outcome) };
        assert!(mistakes[0].contains(wanted) && !mistakes[0].contains("hunter2"), "{mistakes:?}");
        assert_eq!(reload.version, second.version, "it is served on");
    }

    // What is served was kept for as long, whatever came in between.
    changing.is(Some(("\"2\"", bytes("labels.onnx"))));
    assert_eq!(reloader.reload().await.outcome, Outcome::Unchanged);
    assert_eq!(load(folder.path()), Ok(vec!["m".to_owned()]));
}

fn tagged(headers: &HeaderMap, model: &str) -> Response {
    match headers.get(header::IF_NONE_MATCH) {
        Some(_) => StatusCode::NOT_MODIFIED.into_response(),
        None => ([(header::ETAG, "\"1\"")], bytes(model)).into_response(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_place_says_of_its_file_is_not_told_another() {
    let leads = Arc::new(Mutex::new("one"));
    let to = Arc::clone(&leads);
    let router = Router::new()
        .route("/m", get(move || async move { Redirect::temporary(*to.lock().unwrap()) }))
        .route("/one", get(|headers: HeaderMap| async move { tagged(&headers, "rank3.onnx") }))
        .route("/other", get(|headers: HeaderMap| async move { tagged(&headers, "labels.onnx") }));
    let server = serve(router).await;
    let folder = project(&[("m", format!("url: \"{}\"", server.url("/m")))]);
    for (to, files) in [("one", 1), ("one", 1), ("other", 2), ("other", 2)] {
        *leads.lock().unwrap() = to;
        assert_eq!(load(folder.path()), Ok(vec!["m".to_owned()]));
        assert_eq!(kept(folder.path()).1, files, "{to}");
    }
}
