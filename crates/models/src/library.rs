//! Finds the ONNX Runtime shared library and starts it, once per process.

use std::{
    env,
    ffi::OsString,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ort::{environment::Environment, logging::LogLevel};

/// Why there is no ONNX Runtime to run models with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LibraryError {
    /// None of the four places has the library.
    #[error(
        "no ONNX Runtime library: looked in ORT_DYLIB_PATH (not set), in `.onnxruntime/` of this checkout and beside \
         the binary, in the system's library folders, and in Python's `onnxruntime` packages; `make setup` fetches it"
    )]
    NotFound,
    /// `ORT_DYLIB_PATH` names a file that cannot be used. The other places are not tried: a choice is a choice.
    #[error("ORT_DYLIB_PATH names `{}`, which cannot be used: {reason}; unset it and `make setup` fetches one", path.display())]
    Chosen {
        /// The file it names.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Libraries were found, but none of them can be used.
    #[error("no usable ONNX Runtime library ({}); `make setup` fetches one", listed(tried))]
    Unusable {
        /// What was found, and what is wrong with it.
        tried: Vec<(PathBuf, String)>,
    },
}

fn listed(tried: &[(PathBuf, String)]) -> String {
    tried
        .iter()
        .map(|(path, reason)| format!("`{}`: {reason}", path.display()))
        .collect::<Vec<_>>()
        .join("; ")
}

/// Where a library was found. The order is the order of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Where {
    /// The file that `ORT_DYLIB_PATH` names.
    Chosen,
    /// `.onnxruntime/` of the current checkout, or beside the binary.
    Checkout,
    /// A folder of the system.
    System,
    /// The `onnxruntime` package of a Python environment.
    Python,
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chosen => "ORT_DYLIB_PATH",
            Self::Checkout => ".onnxruntime",
            Self::System => "system",
            Self::Python => "Python environment",
        })
    }
}

/// The libraries on this machine, in the order in which they are tried.
fn candidates() -> Vec<(Where, PathBuf)> {
    Surroundings::of_this_process().candidates()
}

/// ONNX Runtime's environment, started with the first usable library on the first call.
///
/// A process can have one only: code beside Millstream that makes sessions of its own makes them with this one. A failure is
/// not kept: the next call searches again.
///
/// # Errors
/// When there is no usable library on this machine; the error says where it was looked for.
pub fn environment() -> Result<Environment, LibraryError> {
    // Never dropped: ONNX Runtime must outlive every session, and statics outlive everything.
    static STARTED: Mutex<Option<Environment>> = Mutex::new(None);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*started {
        return Ok(environment.clone());
    }
    let environment = start(&candidates(), open)?;
    Ok(started.insert(environment).clone())
}

/// The first candidate that `open` accepts.
fn start<T>(
    candidates: &[(Where, PathBuf)],
    open: impl Fn(&Path) -> Result<T, String>,
) -> Result<T, LibraryError> {
    let mut tried = Vec::new();
    for (place, path) in candidates {
        match open(path) {
            Ok(opened) => return Ok(opened),
            Err(reason) if *place == Where::Chosen => {
                return Err(LibraryError::Chosen { path: path.clone(), reason });
            }
            Err(reason) => tried.push((path.clone(), reason)),
        }
    }
    if tried.is_empty() { Err(LibraryError::NotFound) } else { Err(LibraryError::Unusable { tried }) }
}

fn open(path: &Path) -> Result<Environment, String> {
    // A library that lies about its version makes `ort` panic where it fetches the table of functions.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let builder = ort::init_from(path).map_err(|error| match error {
            // The loader's own words are one level down.
            ort::LoadDynamicError::Dlopen { error, .. } => {
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string)
            }
            ort::LoadDynamicError::MissingApi { .. } => "it is not ONNX Runtime".to_owned(),
            ort::LoadDynamicError::BadVersion { version_str, .. } => {
                format!("it is version {version_str}, older than 1.{}", ort::MINOR_VERSION)
            }
            other => other.to_string(),
        })?;
        builder.with_name("millstream").with_telemetry(false).build().map_err(|error| error.to_string())
    }));
    let environment =
        opened.unwrap_or_else(|_| Err("it does not offer the functions of its version".to_owned()))?;
    // Every failure comes back as a value; the runtime's own lines on stderr would only repeat it.
    environment.set_log_level(LogLevel::Fatal);
    Ok(environment)
}

/// What the search reads of the process and the machine.
#[derive(Clone, Debug, Default)]
struct Surroundings {
    dylib_path: Option<PathBuf>,
    cwd: Option<PathBuf>,
    binary: Option<PathBuf>,
    library_path: Option<OsString>,
    system: Vec<PathBuf>,
    environments: Vec<PathBuf>,
    path: Option<OsString>,
    home: Option<PathBuf>,
}

impl Surroundings {
    fn of_this_process() -> Self {
        let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let architecture = env::consts::ARCH;
        let mut system: Vec<PathBuf> = vec!["/usr/local/lib".into(), "/usr/lib".into(), "/usr/lib64".into()];
        system.extend([
            format!("/usr/lib/{architecture}-linux-gnu").into(),
            "/usr/local/lib64".into(),
            "/lib".into(),
            "/lib64".into(),
            "/opt/onnxruntime/lib".into(),
            "/opt/homebrew/lib".into(),
        ]);
        let library_path = match env::consts::OS {
            "windows" => "PATH",
            "macos" => "DYLD_LIBRARY_PATH",
            _ => "LD_LIBRARY_PATH",
        };
        Self {
            dylib_path: set("ORT_DYLIB_PATH").map(PathBuf::from),
            cwd: env::current_dir().ok(),
            binary: env::current_exe().ok(),
            library_path: set(library_path),
            system,
            environments: ["VIRTUAL_ENV", "CONDA_PREFIX"]
                .iter()
                .filter_map(|name| set(name))
                .map(Into::into)
                .collect(),
            path: set("PATH"),
            home: set("HOME").map(PathBuf::from),
        }
    }

    fn candidates(&self) -> Vec<(Where, PathBuf)> {
        if let Some(chosen) = &self.dylib_path {
            let chosen = self.cwd.as_ref().map_or_else(|| chosen.clone(), |cwd| cwd.join(chosen));
            return vec![(Where::Chosen, chosen)];
        }
        let folders = [
            (Where::Checkout, self.checkout()),
            (Where::System, self.system_folders()),
            (Where::Python, self.python_folders()),
        ];
        let mut found: Vec<(Where, PathBuf)> = Vec::new();
        for (place, folder) in
            folders.into_iter().flat_map(|(place, folders)| folders.into_iter().map(move |f| (place, f)))
        {
            for library in libraries(&folder) {
                if !found.iter().any(|(_, known)| *known == library) {
                    found.push((place, library));
                }
            }
        }
        found
    }

    fn checkout(&self) -> Vec<PathBuf> {
        let above = self.cwd.iter().flat_map(|cwd| cwd.ancestors());
        let mut folders: Vec<PathBuf> = above
            .filter(|folder| !anyone_may_write(folder))
            .map(|folder| folder.join(".onnxruntime"))
            .collect();
        if let Some(beside) = self.binary.as_deref().and_then(Path::parent) {
            folders.extend([beside.join(".onnxruntime"), beside.to_owned()]);
        }
        folders.retain(|folder| !anyone_may_write(folder));
        folders
    }

    fn system_folders(&self) -> Vec<PathBuf> {
        self.library_path.iter().flat_map(env::split_paths).chain(self.system.iter().cloned()).collect()
    }

    /// The package folders of the Python environments that can be seen from the file system; no Python is started.
    fn python_folders(&self) -> Vec<PathBuf> {
        let mut prefixes = self.environments.clone();
        for folder in self.path.iter().flat_map(env::split_paths) {
            let python = folder.join("python3");
            if python.is_file() {
                let resolved = python.canonicalize().ok();
                prefixes.extend(folder.parent().map(Path::to_owned));
                prefixes.extend(
                    resolved.iter().filter_map(|python| python.parent()?.parent()).map(Path::to_owned),
                );
            }
        }
        if let Some(home) = &self.home {
            prefixes.push(home.join(".local"));
            prefixes.extend(entries(&home.join(".pyenv/versions")));
        }
        prefixes
            .iter()
            .flat_map(|prefix| packages(prefix))
            .map(|packages| packages.join("onnxruntime/capi"))
            .collect()
    }
}

/// The folders below `prefix` where a Python of any version keeps packages, the newest Python first.
fn packages(prefix: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for lib in [prefix.join("lib"), prefix.join("local/lib"), prefix.join("lib64")] {
        let mut pythons: Vec<PathBuf> = entries(&lib)
            .into_iter()
            .filter(|path| name(path).is_some_and(|name| name.starts_with("python3")))
            .collect();
        pythons.sort_by_key(|path| std::cmp::Reverse(numbers(name(path).unwrap_or_default())));
        folders.extend(
            pythons.iter().flat_map(|python| [python.join("site-packages"), python.join("dist-packages")]),
        );
    }
    folders.push(prefix.join("Lib/site-packages"));
    folders
}

/// The ONNX Runtime libraries in `folder`, the newest first.
fn libraries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = entries(folder)
        .into_iter()
        .filter(|path| name(path).is_some_and(is_library) && path.is_file())
        .filter_map(|path| path.canonicalize().ok())
        .collect();
    found.sort_by_key(|path| std::cmp::Reverse(numbers(name(path).unwrap_or_default())));
    found.dedup();
    found
}

fn is_library(file: &str) -> bool {
    let Some(rest) = file.strip_prefix("libonnxruntime.").or_else(|| file.strip_prefix("onnxruntime."))
    else {
        return false;
    };
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || c == '.');
    rest == "dll"
        || rest.strip_prefix("so").is_some_and(number)
        || rest.strip_suffix("dylib").is_some_and(number)
}

fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    paths
}

/// Whether any user of the machine could have put a library there, as in `/tmp`.
#[cfg(unix)]
fn anyone_may_write(folder: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(folder).is_ok_and(|metadata| metadata.permissions().mode() & 0o002 != 0)
}

#[cfg(not(unix))]
fn anyone_may_write(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, file: &str) -> PathBuf {
        let path = root.canonicalize().unwrap().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"").unwrap();
        path
    }

    #[test]
    fn the_four_places_are_searched_in_order() {
        let root = tempfile::tempdir().unwrap();
        let at = |file: &str| touch(root.path(), file);
        let checkout = at("code/.onnxruntime/libonnxruntime.so.1.32.0");
        at("code/.onnxruntime/libonnxruntime_providers_shared.so");
        let beside = at("bin/libonnxruntime.1.31.0.dylib");
        let old = at("usr/lib/libonnxruntime.so.1.9.1");
        let new = at("usr/lib/libonnxruntime.so.1.30.0");
        let venv = at("venv/lib/python3.12/site-packages/onnxruntime/capi/libonnxruntime.so.1.29.0");
        at("usr/bin/python3");
        let debian = at("usr/lib/python3/dist-packages/onnxruntime/capi/libonnxruntime.so.1.28.0");
        let pyenv =
            at("home/.pyenv/versions/3.11.7/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime.so");
        let here = root.path().canonicalize().unwrap();
        let surroundings = Surroundings {
            dylib_path: None,
            cwd: Some(here.join("code/crates/deep")),
            binary: Some(here.join("bin/millstream")),
            library_path: None,
            system: vec![here.join("usr/lib")],
            environments: vec![here.join("venv")],
            path: Some(here.join("usr/bin").into()),
            home: Some(here.join("home")),
        };
        let mut wanted = vec![(Where::Checkout, checkout), (Where::Checkout, beside)];
        wanted.extend([(Where::System, new), (Where::System, old)]);
        wanted.extend([(Where::Python, venv), (Where::Python, debian), (Where::Python, pyenv)]);
        assert_eq!(surroundings.candidates(), wanted);

        let chosen = Surroundings { dylib_path: Some("lib.so".into()), ..surroundings };
        assert_eq!(chosen.candidates(), [(Where::Chosen, here.join("code/crates/deep/lib.so"))]);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_anyone_may_write_is_not_searched() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        touch(root.path(), "open/.onnxruntime/libonnxruntime.so");
        let open = root.path().canonicalize().unwrap().join("open");
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        let surroundings = Surroundings { cwd: Some(open.join("work")), ..Surroundings::default() };
        assert_eq!(surroundings.candidates(), []);
    }

    #[test]
    fn without_a_library_the_error_names_the_places_and_the_command() {
        let error = start::<()>(&[], |_| Err(String::new())).unwrap_err();
        expect_test::expect!["no ONNX Runtime library: looked in ORT_DYLIB_PATH (not set), in `.onnxruntime/` of this checkout and beside the binary, in the system's library folders, and in Python's `onnxruntime` packages; `make setup` fetches it"]
        .assert_eq(&error.to_string());
    }

    #[test]
    fn an_unusable_library_is_passed_over_unless_it_was_chosen() {
        let open = |path: &Path| if path.ends_with("good") { Ok(1) } else { Err("it is broken".to_owned()) };
        let (bad, good) = (PathBuf::from("/bad"), PathBuf::from("/good"));
        let found = [(Where::Checkout, bad.clone()), (Where::Python, good)];
        assert_eq!(start(&found, open), Ok(1));
        assert_eq!(
            start(&found[..1], open).unwrap_err().to_string(),
            "no usable ONNX Runtime library (`/bad`: it is broken); `make setup` fetches one"
        );
        assert_eq!(
            start(&[(Where::Chosen, bad)], open).unwrap_err().to_string(),
            "ORT_DYLIB_PATH names `/bad`, which cannot be used: it is broken; unset it and `make setup` fetches one"
        );
    }

    #[test]
    fn a_file_that_is_no_library_is_an_error_and_not_a_panic() {
        let root = tempfile::tempdir().unwrap();
        let path = touch(root.path(), "libonnxruntime.so");
        std::fs::write(&path, b"not an object file").unwrap();
        assert!(open(&path).is_err());
        assert!(open(&root.path().join("absent.so")).is_err());
    }
}
