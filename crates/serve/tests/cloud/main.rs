//! Models in S3, in Google Cloud Storage and in Azure, against servers that speak their APIs: fetched, kept, asked for again, refused.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

#[path = "../../../featurestore/tests/cloud/servers.rs"]
mod servers;

use std::{fs, path::Path, process::Command};

use millstream_serve::Project;
use sha2::{Digest, Sha256};

use servers::{AZURE, Cloud, GOOGLE, S3};

/// Where the child finds the models.
const CHILD: &str = "MILLSTREAM_TEST_CLOUD";
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/tests/data");

#[test]
fn a_model_in_s3_is_fetched_kept_and_asked_for_again() {
    check(&S3);
}

#[test]
fn a_model_in_google_cloud_storage_is_fetched_kept_and_asked_for_again() {
    check(&GOOGLE);
}

#[test]
fn a_model_in_azure_is_fetched_kept_and_asked_for_again() {
    check(&AZURE);
}

fn model(name: &str) -> Vec<u8> {
    fs::read(Path::new(MODELS).join(name)).unwrap()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The child loads what is there in a process of its own, whose environment says where the cloud is.
fn check(cloud: &Cloud) {
    let Some(server) = cloud.start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let child = |expected: &str| {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_child", "--ignored", "--nocapture"])
            .env(CHILD, format!("{}://features {} {expected}", cloud.scheme, folder.path().display()))
            .envs((cloud.variables)(&server))
            .output()
            .unwrap();
        assert!(child.status.success(), "{expected}: {}", String::from_utf8_lossy(&child.stderr));
    };
    (cloud.put)(&server, "models/m.onnx", &model("rank3.onnx"));
    child("rank3.onnx");
    // Nothing has changed, so nothing more is kept.
    child("rank3.onnx");
    (cloud.put)(&server, "models/m.onnx", &model("several.onnx"));
    child("several.onnx");
}

/// What runs with the environment that the tests above give: the bucket, the project's folder, and the model that is expected there.
#[test]
#[ignore = "the child of the tests above"]
fn the_child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let [at, folder, expected] = told.split(' ').collect::<Vec<_>>()[..] else { panic!("{told}") };
    let folder = Path::new(folder);
    let load = |model: &str| {
        let text = format!("name: far\nmodels:\n  m: {{ instances: 1, {model} }}\n");
        fs::write(folder.join("millstream.yaml"), text).unwrap();
        Project::load(folder).map(drop).map_err(|error| error.mistakes().join("\n"))
    };
    let kept = |bytes: &[u8]| folder.join(".millstream/models").join(digest(bytes)).join("model.onnx");
    let (bytes, url) = (model(expected), format!("{at}/models/m.onnx"));
    assert_eq!(load(&format!("url: \"{url}\"")), Ok(()));
    assert_eq!(fs::read(kept(&bytes)).unwrap(), bytes);
    assert_eq!(load(&format!("url: \"{url}\", sha256: \"{}\"", digest(&bytes))), Ok(()));
    let refused = [
        (format!("url: \"{at}/models/gone.onnx\""), "404"),
        (format!("url: \"{url}\", sha256: \"{}\"", digest(b"another")), "sha256"),
        (format!("url: \"{url}\", max_bytes: 9B"), "the file has more than 9"),
    ];
    for (model, words) in refused {
        let told = load(&model).unwrap_err();
        assert!(told.contains(words) && told.contains("model `m`"), "{model}: {told}");
    }
}
