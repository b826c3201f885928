//! Who is let in, for what, and over what.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use millstream_serve::{Access, ConnectionLimits, Server, TlsFiles};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{PATIENCE, Serving, client::Answer, replace, served_as};

const PROJECT: &str = "\
name: p
graphs:
  echo: { input: { a: int64 }, steps: { same: { select: [a] } }, respond: same }
";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oip");
const PACKAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/oip");

fn digest(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serves a project whose keys are `access`, with what `set` adds.
fn serves(access: &str, set: impl FnOnce(Server, &Path) -> Server, body: impl FnOnce(&mut Serving)) {
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    let file = folder.path().join("access.yaml");
    replace(&file, access);
    let audit = Some(folder.path().join("audit.jsonl"));
    let guard = |server: Server| {
        let access = Access { file, audit };
        set(server.access(&access).unwrap_or_else(|error| panic!("{error}")), folder.path())
    };
    served_as(folder.path(), ConnectionLimits::default(), PATIENCE, guard, body);
}

fn ask(serving: &Serving, method: &str, path: &str, header: Option<(&str, &str)>) -> Answer {
    let body: &[u8] = if method == "POST" { br#"{"a":1}"# } else { b"" };
    serving.client().send(method, path, header.as_slice(), body)
}

fn bearer(serving: &Serving, method: &str, path: &str, key: &str) -> Answer {
    ask(serving, method, path, Some(("authorization", &format!("Bearer {key}"))))
}

/// Asks until the answer has this status.
fn until(status: u16, ask: impl Fn() -> Answer) {
    let start = Instant::now();
    loop {
        let answer = ask();
        if answer.status == status {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{}: {}", answer.status, answer.text());
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn four_keys() -> String {
    let keys = ["viewer", "invoker", "operator", "admin"];
    let lines = keys.map(|role| format!("  {role}s: {{ sha256: {}, role: {role} }}\n", digest(role)));
    format!("keys:\n{}", lines.concat())
}

#[test]
fn a_key_opens_what_its_role_may_and_nothing_else() {
    serves(
        &four_keys(),
        |server, _| server,
        |serving| {
            let places = [
                ("GET", "/v1/graphs", 200),
                ("GET", "/metrics", 200),
                ("POST", "/v1/graphs/echo", 200),
                ("POST", "/v2/logging", 400),
                ("DELETE", "/v1/graphs/echo", 405),
            ];
            for (allowed, key) in [(2, "viewer"), (3, "invoker"), (4, "operator"), (5, "admin")] {
                for (at, (method, path, status)) in places.into_iter().enumerate() {
                    let answer = bearer(serving, method, path, key);
                    let wanted = if at < allowed { status } else { 403 };
                    assert_eq!(answer.status, wanted, "{key} at {method} {path}: {}", answer.text());
                    if wanted == 403 {
                        assert_eq!(answer.json()["code"], "forbidden");
                    }
                }
            }
            for path in ["/livez", "/readyz", "/v2/health/ready", "/health", "/ping", "/"] {
                assert_eq!(ask(serving, "GET", path, None).status, 200, "{path}");
            }
            for header in [
                None,
                Some(("authorization", "Bearer other")),
                Some(("authorization", "Bearer ")),
                Some(("authorization", "Basic dmlld2Vy")),
                Some(("authorization", "")),
                Some(("x-api-key", "other")),
                Some(("x-api-key", "a.b.c")),
            ] {
                let answer = ask(serving, "GET", "/v1/graphs", header);
                assert_eq!(
                    (answer.status, &answer.headers["www-authenticate"][..]),
                    (401, "Bearer"),
                    "{header:?}"
                );
                assert_eq!(answer.json()["code"], "unauthenticated");
            }
            assert_eq!(ask(serving, "GET", "/v1/graphs", Some(("x-api-key", "viewer"))).status, 200);
            let metrics = bearer(serving, "GET", "/metrics", "viewer").text();
            assert!(
                metrics.contains(r#"millstream_http_refused_total{reason="unauthenticated"} 7"#),
                "{metrics}"
            );
            let audit = fs::read_to_string(serving.folder.join("audit.jsonl")).unwrap();
            let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let told = |caller: Value, path: &str, outcome: &str| {
                lines.iter().any(|line| {
                    line["caller"] == caller
                        && line["path"] == path
                        && line["outcome"] == outcome
                        && line["from"] == "127.0.0.1"
                })
            };
            assert!(told("operators".into(), "/v2/logging", "allowed"), "{audit}");
            assert!(told("viewers".into(), "/v1/graphs/echo", "forbidden"), "{audit}");
            assert!(told(Value::Null, "/v1/graphs", "unauthenticated"), "{audit}");
            assert!(lines.iter().all(|line| line["path"] != "/metrics"), "reading is not written down");
        },
    );
}

#[test]
fn keys_are_good_for_the_project_that_is_served_now() {
    let key = |name: &str, projects: &str| {
        format!("  {name}: {{ sha256: {}, role: viewer, projects: {projects} }}\n", digest(name))
    };
    let access = format!("keys:\n{}{}", key("one", "[p]"), key("other", "[q]"));
    serves(
        &access,
        |server, _| server,
        |serving| {
            let see = |key: &str| bearer(serving, "GET", "/v1/graphs", key).status;
            assert_eq!((see("one"), see("other")), (200, 401));
            replace(&serving.folder.join("millstream.yaml"), &PROJECT.replace("name: p", "name: q"));
            serving.runtime.block_on(serving.reloader.reload());
            assert_eq!((see("one"), see("other")), (401, 200));
        },
    );
}

/// Makes a call of the inference service whose message has one text, its second field.
async fn call(serving: &Serving, method: &str, key: &str, text: &str) -> String {
    let stream = tokio::net::TcpStream::connect(serving.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let length = u8::try_from(text.len()).unwrap();
    let message = [&[0, 0, 0, 0, length + 2, 0x12, length][..], text.as_bytes()].concat();
    let request = http::Request::post(format!("http://test/inference.GRPCInferenceService/{method}"))
        .header("content-type", "application/grpc")
        .header("x-api-key", key)
        .body(Full::new(Bytes::from(message)))
        .unwrap();
    let asked = async {
        let answer = sender.send_request(request).await.unwrap();
        let status = |headers: &http::HeaderMap| {
            headers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned())
        };
        // An error comes in the head, or behind what there is of a body.
        match status(answer.headers()) {
            Some(status) => status,
            None => status(answer.into_body().collect().await.unwrap().trailers().unwrap()).unwrap(),
        }
    };
    tokio::select! {
        ended = connection => panic!("{ended:?}"),
        status = tokio::time::timeout(PATIENCE, asked) => status.unwrap(),
    }
}

#[test]
fn a_change_over_grpc_is_written_down_with_its_model() {
    serves(
        &four_keys(),
        |server, _| server,
        |serving| {
            let call = |method, key, text| serving.runtime.block_on(call(serving, method, key, text));
            // There is no repository, which is told after the change is written down.
            assert_eq!(call("RepositoryModelLoad", "operator", "one"), "5");
            assert_eq!(call("RepositoryModelUnload", "operator", "other"), "5");
            assert_eq!(call("RepositoryModelLoad", "viewer", "third"), "7");
            let audit = fs::read_to_string(serving.folder.join("audit.jsonl")).unwrap();
            let lines: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let told: Vec<_> = lines
                .iter()
                .map(|line| {
                    let method = line["path"].as_str().unwrap().rsplit('/').next().unwrap();
                    (method, line["model"].as_str(), line["outcome"].as_str().unwrap())
                })
                .collect();
            assert_eq!(
                told,
                [
                    ("RepositoryModelLoad", Some("one"), "allowed"),
                    ("RepositoryModelUnload", Some("other"), "allowed"),
                    // Of what is refused nothing is read.
                    ("RepositoryModelLoad", None, "forbidden"),
                ]
            );
        },
    );
}

#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_again() {
    let access = format!(
        "keys: {{ slow: {{ sha256: {}, role: invoker, rate: 2 }}, fast: {{ sha256: {}, role: invoker }} }}",
        digest("slow"),
        digest("fast")
    );
    serves(
        &access,
        |server, _| server,
        |serving| {
            let ran = |key: &str| bearer(serving, "POST", "/v1/graphs/echo", key);
            let answers: Vec<Answer> = (0..12).map(|_| ran("slow")).collect();
            let refused = answers
                .iter()
                .find(|answer| answer.status == 429)
                .expect("twelve are more than two a second");
            assert_eq!(
                (&refused.headers["retry-after"][..], &refused.json()["code"]),
                ("1", &json!("rate_limited"))
            );
            assert!((0..20).all(|_| ran("fast").status == 200), "another's rate is another's");
            until(200, || ran("slow"));
        },
    );
}

#[test]
fn keys_are_replaced_while_the_server_runs_and_a_wrong_file_changes_nothing() {
    let with = |keys: &str| format!("keys: {{ me: {{ sha256: {keys}, role: viewer }} }}");
    serves(
        &with(&digest("old")),
        |server, _| server,
        |serving| {
            let file = serving.folder.join("access.yaml");
            let see = |key: &str| bearer(serving, "GET", "/v1/graphs", key);
            assert_eq!((see("old").status, see("new").status), (200, 401));
            replace(&file, &with(&format!("[{}, {}]", digest("old"), digest("new"))));
            until(200, || see("new"));
            assert_eq!(see("old").status, 200);
            replace(&file, "keys: [1");
            // Long enough that the wrong file was looked at.
            let since = Instant::now();
            while since.elapsed() < Duration::from_millis(2500) {
                assert_eq!((see("old").status, see("new").status), (200, 200));
            }
            replace(&file, &with(&digest("new")));
            until(401, || see("old"));
            assert_eq!(see("new").status, 200);
        },
    );
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    let project = millstream_serve::Project::load(folder.path()).unwrap();
    let server =
        || Server::new(&project, &millstream_runtime::Limits::default(), Default::default()).unwrap();
    let file = folder.path().join("access.yaml");
    let access = Access { file: file.clone(), audit: None };
    assert!(server().access(&access).err().unwrap().to_string().contains("cannot be read"));
    replace(&file, "keys: { a: { sha256: 0, role: viewer } }");
    assert!(server().access(&access).err().unwrap().to_string().contains("access.yaml:1"));
}

/// An issuer of tokens: its key, and what it publishes.
struct Issuer {
    key: EcdsaKeyPair,
    kid: &'static str,
}

impl Issuer {
    fn new(kid: &'static str) -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { key, kid }
    }

    fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let part = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.kid,
            "x": part(&point[1..33]), "y": part(&point[33..]),
        })
    }

    fn token(&self, claims: &Value) -> String {
        self.token_as(&json!({ "alg": "ES256", "typ": "JWT", "kid": self.kid }), claims)
    }

    fn token_as(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn claims(changes: &Value) -> Value {
    let mut claims = json!({
        "iss": "https://id.test", "aud": "millstream", "sub": "u-1", "exp": now() + 600, "realm": { "roles": ["callers"] },
    });
    for (key, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
            value => claims[key] = value.clone(),
        }
    }
    claims
}

#[test]
fn tokens_are_taken_when_all_of_them_is_right() {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k1"));
    let access = "tokens: { issuer: https://id.test, audience: millstream, keys: jwks.json, roles_claim: realm.roles, roles: { callers: invoker, lookers: viewer } }";
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    replace(&folder.path().join("jwks.json"), &json!({ "keys": [issuer.jwk()] }).to_string());
    replace(&folder.path().join("access.yaml"), access);
    let file = folder.path().join("access.yaml");
    let guard = |server: Server| {
        server.access(&Access { file, audit: None }).unwrap_or_else(|error| panic!("{error}"))
    };
    let body = |serving: &mut Serving| {
        let run = |token: &str| bearer(serving, "POST", "/v1/graphs/echo", token);
        let good = issuer.token(&claims(&json!({})));
        for _ in 0..2 {
            let answer = run(&good);
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(run(&issuer.token(&claims(&json!({ "exp": now() - 30 })))).status, 200, "clocks differ");
        assert_eq!(
            run(&issuer.token(&claims(&json!({ "realm": { "roles": "lookers callers" } })))).status,
            200
        );
        assert_eq!(run(&issuer.token(&claims(&json!({ "realm": { "roles": ["lookers"] } })))).status, 403);
        for (changes, why) in [
            (json!({ "exp": now() - 120 }), "the token has expired"),
            (json!({ "nbf": now() + 600 }), "is not good yet"),
            (json!({ "iss": "https://other.test" }), "another issuer's"),
            (json!({ "aud": "other" }), "for somebody else"),
            (json!({ "exp": null }), "lacks"),
            (json!({ "aud": null }), "lacks"),
            (json!({ "realm": { "roles": ["strangers"] } }), "no role here"),
            (json!({ "realm": null }), "no role here"),
        ] {
            let answer = run(&issuer.token(&claims(&changes)));
            let error = answer.json()["error"].as_str().unwrap().to_owned();
            assert!(answer.status == 401 && error.contains(why), "{changes}: {error}");
        }
        let plain = |header: Value| {
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(header.to_string()), good.split('.').nth(1).unwrap())
        };
        let forged = [
            other.token(&claims(&json!({}))),
            issuer.token_as(&json!({ "alg": "ES256", "kid": "k2" }), &claims(&json!({}))),
            issuer.token_as(&json!({ "alg": "HS256", "kid": "k1" }), &claims(&json!({}))),
            issuer.token_as(&json!({ "alg": "RS256", "kid": "k1" }), &claims(&json!({}))),
            plain(json!({ "alg": "none", "kid": "k1" })),
            plain(json!({ "alg": "ES256", "kid": "k1" })),
            format!("{good}A"),
            "a.b.c".to_owned(),
            format!("{}.{}", good, "x"),
        ];
        for token in forged {
            let answer = run(&token);
            assert_eq!(answer.status, 401, "{token}: {}", answer.text());
        }
    };
    served_as(folder.path(), ConnectionLimits::default(), PATIENCE, guard, body);
}

#[test]
fn the_issuers_keys_are_found_and_fetched_again_when_they_change() {
    let (first, second) = (Issuer::new("k1"), Issuer::new("k2"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let fetched = Arc::new(AtomicUsize::new(0));
    let keys = [json!({ "keys": [first.jwk()] }), json!({ "keys": [first.jwk(), second.jwk()] })];
    let (counted, told) = (Arc::clone(&fetched), base.clone());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut issuing = tokio::task::JoinSet::new();
    let issue = async move {
        let configuration = json!({ "issuer": told, "jwks_uri": format!("{told}/keys") });
        let configuration = move || async move { axum::Json(configuration) };
        let publish = move || {
            let set = keys[counted.fetch_add(1, SeqCst).min(1)].clone();
            async move { axum::Json(set) }
        };
        let router = axum::Router::new()
            .route("/.well-known/openid-configuration", axum::routing::get(configuration))
            .route("/keys", axum::routing::get(publish));
        axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
    };
    issuing.spawn_on(issue, runtime.handle());
    let access =
        format!("tokens: {{ issuer: '{base}', audience: millstream, roles: {{ callers: invoker }} }}");
    serves(
        &access,
        |server, _| server,
        |serving| {
            let token =
                |issuer: &Issuer| issuer.token(&claims(&json!({ "iss": base, "roles": ["callers"] })));
            let run = |issuer: &Issuer| bearer(serving, "POST", "/v1/graphs/echo", &token(issuer));
            until(200, || run(&first));
            // The second key is fetched after a while, not for every token that nobody has signed.
            for _ in 0..20 {
                assert_eq!(run(&second).status, 401);
            }
            assert_eq!(fetched.load(SeqCst), 1);
        },
    );
    let folder = tempfile::tempdir().unwrap();
    replace(&folder.path().join("millstream.yaml"), PROJECT);
    let file = folder.path().join("access.yaml");
    replace(&file, "tokens: { issuer: 'http://id.test', audience: a, roles: { r: viewer } }");
    let project = millstream_serve::Project::load(folder.path()).unwrap();
    let server = Server::new(&project, &millstream_runtime::Limits::default(), Default::default()).unwrap();
    let error = server.access(&Access { file, audit: None }).err().unwrap().to_string();
    assert!(error.contains("keys are fetched over https"), "{error}");
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "an authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Writes a certificate for this machine, and its key.
fn certify(authority: &Authority, folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let certificate = params.signed_by(&key, authority).unwrap();
    replace(&folder.join(format!("{name}.pem")), &certificate.pem());
    replace(&folder.join(format!("{name}.key")), &key.serialize_pem());
}

#[test]
fn the_real_clients_come_over_tls_with_keys_and_certificates() {
    if !Path::new(PACKAGES).join("tritonclient").exists() {
        eprintln!("skipped: scripts/oracles.sh did not bring the packages tritonclient and kserve");
        return;
    }
    let (ours, theirs) = (authority(), authority());
    let secure = |server: Server, folder: &Path| {
        replace(&folder.join("ours.pem"), &ours.pem());
        replace(&folder.join("theirs.pem"), &theirs.pem());
        certify(&ours, folder, "server");
        certify(&theirs, folder, "client");
        certify(&ours, folder, "stranger");
        let files = TlsFiles {
            certificate: folder.join("server.pem"),
            key: folder.join("server.key"),
            clients: Some(folder.join("theirs.pem")),
        };
        server.tls(files).unwrap_or_else(|error| panic!("{error}"))
    };
    serves(&four_keys(), secure, |serving| {
        let run = |what: &str| {
            let ran = Command::new("python3")
                .arg(Path::new(SCRIPTS).join("security.py"))
                .args([&serving.address.port().to_string(), serving.folder.to_str().unwrap(), what])
                .env("PYTHONPATH", PACKAGES)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert!(told.ends_with("the same\n"), "{told}{}", String::from_utf8_lossy(&ran.stderr));
        };
        run("all");
        // Another certificate takes the place of the first.
        let new = authority();
        replace(&serving.folder.join("ours.pem"), &new.pem());
        certify(&new, &serving.folder, "server");
        run("again");
    });
}
