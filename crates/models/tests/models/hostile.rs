//! Model files that nobody should load. Each is refused in words that say why and not where, and the process goes on.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use millstream_models::{CheckedModel, Limits, LoadError};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::harness::{DATA, load};

/// Why the model `name` of `folder` is not loaded.
fn refusal(folder: &Path, name: &str) -> LoadError {
    let folder = folder.to_str().unwrap();
    let Err(error) = load(folder, name, 1) else { panic!("`{name}` is loaded") };
    // Whoever reads an error learns the names that they gave, and not where on the machine the models lie.
    let resolved = Path::new(folder).canonicalize().unwrap();
    let mut said: Option<&dyn Error> = Some(&error);
    while let Some(error) = said {
        let text = error.to_string();
        for place in [folder, resolved.to_str().unwrap()] {
            assert!(!text.contains(place), "`{name}`: {text}");
        }
        said = error.source();
    }
    error
}

/// What is wrong with how the model `name` of `folder` is refused.
fn complaint(folder: &Path, name: &str, wanted: &str) -> Option<String> {
    // Uncaught, a panic would not say which file it was about.
    let Ok(error) = catch_unwind(AssertUnwindSafe(|| refusal(folder, name))) else {
        return Some(format!("{name}: is loaded, panics, or its error says too much"));
    };
    let text = error.to_string();
    let fits = match &error {
        LoadError::Refused(_) => text.contains(wanted),
        LoadError::Runtime(_) | LoadError::WarmUp(_) | LoadError::Unsupported { .. } => wanted.is_empty(),
        // There is no runtime, which says nothing about the file.
        _ => false,
    };
    (!fits).then(|| format!("{name}: not `{wanted}` but `{text}`"))
}

fn hostile() -> PathBuf {
    Path::new(DATA).join("hostile")
}

/// A list that `make_hostile.py` wrote.
fn list<T: DeserializeOwned>(file: &str) -> T {
    serde_json::from_slice(&fs::read(hostile().join(file)).unwrap()).unwrap()
}

/// The model files in `folder`, in the order of their names.
fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".onnx")).collect();
    names.sort();
    names
}

fn stem(file: &str) -> &str {
    file.strip_suffix(".onnx").unwrap()
}

#[test]
fn hostile_files_are_refused_for_what_is_wrong_with_them() {
    let expected: BTreeMap<String, String> = list("expected.json");
    assert!(expected.len() >= 40, "only {} files", expected.len());
    let wrong: Vec<String> =
        expected.iter().filter_map(|(file, wanted)| complaint(&hostile(), stem(file), wanted)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_only_look_hostile_are_loaded() {
    for file in list::<Vec<String>>("harmless.json") {
        let loaded = load(hostile().to_str().unwrap(), stem(&file), 1);
        assert!(loaded.is_ok(), "{file}: {}", loaded.unwrap_err());
    }
}

#[test]
fn every_file_is_in_one_of_the_lists() {
    let expected: BTreeMap<String, String> = list("expected.json");
    let mut listed: Vec<String> = expected.into_keys().chain(list::<Vec<String>>("harmless.json")).collect();
    listed.sort();
    assert_eq!(files(&hostile()), listed);
}

/// A folder of models, in one that has more in it.
fn project() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let models = root.path().join("models");
    fs::create_dir(&models).unwrap();
    fs::copy(Path::new(DATA).join("fixed1.onnx"), root.path().join("secret.onnx")).unwrap();
    fs::copy(Path::new(DATA).join("weights.bin"), root.path().join("secret.bin")).unwrap();
    (root, models)
}

/// A pipe that nobody writes into: whoever opens it to read waits for ever.
#[cfg(unix)]
fn pipe(at: &Path) {
    let made = std::process::Command::new("mkfifo").arg(at).status().unwrap();
    assert!(made.success(), "{made}");
}

#[cfg(unix)]
#[test]
fn a_model_is_a_regular_file_inside_its_root() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    let (root, models) = project();
    let at = |name: &str| models.join(format!("{name}.onnx"));
    symlink(root.path().join("secret.onnx"), at("linked")).unwrap();
    symlink("../secret.onnx", at("linked_by_steps")).unwrap();
    symlink("linked.onnx", at("linked_twice")).unwrap();
    symlink(root.path(), models.join("up")).unwrap();
    symlink("/dev/zero", at("device")).unwrap();
    symlink("nowhere.onnx", at("dangling")).unwrap();
    symlink("circle.onnx", at("circle")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    symlink("folder.onnx", at("linked_folder")).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    pipe(&at("pipe"));
    symlink("pipe.onnx", at("linked_pipe")).unwrap();
    let outside = |name: &str| format!("`{name}.onnx` leaves the project's folder");
    let no_file = |name: &str| format!("`{name}.onnx` is not a regular file");
    for name in
        ["linked", "linked_by_steps", "linked_twice", "up/secret", "device", "../secret", "up/../../x"]
    {
        assert_eq!(refusal(&models, name).to_string(), outside(name));
    }
    for name in ["folder", "linked_folder", "socket", "pipe", "linked_pipe"] {
        assert_eq!(refusal(&models, name).to_string(), no_file(name));
    }
    assert_eq!(refusal(&models, "dangling").to_string(), "cannot read `dangling.onnx`: entity not found");
    let circle = refusal(&models, "circle").to_string();
    assert!(circle.starts_with("cannot read `circle.onnx`: "), "{circle}");
}

#[cfg(unix)]
#[test]
fn data_beside_a_model_is_a_regular_file_too() {
    use std::os::unix::{fs::symlink, net::UnixListener};
    type Put = fn(&Path);
    let cases: [(&str, Put); 9] = [
        ("links are refused", |data| symlink("../secret.bin", data).unwrap()),
        ("links are refused", |data| symlink("/dev/zero", data).unwrap()),
        ("links are refused", |data| symlink("nowhere.bin", data).unwrap()),
        ("links are refused", |data| symlink("weights.bin", data).unwrap()),
        ("links are refused", |data| {
            fs::write(data.with_file_name("real.bin"), [0; 16]).unwrap();
            symlink("real.bin", data).unwrap();
        }),
        ("it is not a regular file", |data| fs::create_dir(data).unwrap()),
        ("it is not a regular file", pipe),
        ("it is not a regular file", |data| drop(UnixListener::bind(data).unwrap())),
        ("it needs 16 bytes but the file ends 0 bytes after its offset", |data| {
            fs::write(data, b"").unwrap()
        }),
    ];
    for (reason, make) in cases {
        let (_root, models) = project();
        fs::copy(Path::new(DATA).join("outside.onnx"), models.join("outside.onnx")).unwrap();
        make(&models.join("weights.bin"));
        let text = refusal(&models, "outside").to_string();
        assert_eq!(text, format!("tensor `w` has its data in `weights.bin`: {reason}"));
    }
}

/// The runtime opens the data by its name, later than the check did.
#[cfg(unix)]
#[test]
fn data_that_became_a_link_since_the_check_is_not_followed_outside() {
    use millstream_models::{LoadOptions, OnnxModel};
    let (_root, models) = project();
    for file in ["outside.onnx", "weights.bin"] {
        fs::copy(Path::new(DATA).join(file), models.join(file)).unwrap();
    }
    let checked = CheckedModel::read(&models, Path::new("outside.onnx"), &Limits::default()).unwrap();
    fs::remove_file(models.join("weights.bin")).unwrap();
    std::os::unix::fs::symlink("../secret.bin", models.join("weights.bin")).unwrap();
    let error = OnnxModel::from_checked("outside", &checked, &LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Runtime(_)), "{error}");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let (_root, models) = project();
    // One byte too many, and none of them on the disk: only its length is large.
    fs::File::create(models.join("large.onnx")).unwrap().set_len(1 << 31).unwrap();
    assert_eq!(refusal(&models, "large").to_string(), "the file has more than 2147483647 bytes");
}

#[test]
fn changed_and_cut_models_are_refused_or_stay_models() {
    let mut mutants = 0;
    for file in files(Path::new(DATA)) {
        let whole = fs::read(Path::new(DATA).join(&file)).unwrap();
        let places = |count: usize| (0..count).map(|at| at * whole.len() / count).collect::<Vec<_>>();
        let flipped = places(20).into_iter().map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            bytes
        });
        let cut = places(10).into_iter().map(|at| whole[..at].to_vec());
        for mutant in flipped.chain(cut) {
            mutants += 1;
            if let Ok(model) = CheckedModel::of_bytes(mutant, DATA, &Limits::default()) {
                // What was accepted can be shown to people.
                assert!(model.structure().is_ok(), "{file}");
            }
        }
    }
    assert!(mutants >= 300, "only {mutants} mutants");
}
