//! Where the statistics of models lie, which live values are compared with.

use std::path::{Path, PathBuf};

use millstream_graph::{spec::Document, suggest};
use millstream_models::ModelSpec;
use serde_json::Value;

/// Statistics that lie beside the file of a model, in a folder for its version.
const BESIDE: &str = "statistics.json";

/// The file that a model of the project is compared with, relative to the project's folder.
///
/// # Errors
/// When there is no such model, or it has no statistics: and how they are written.
pub(crate) fn file(document: &Document, root: &Path, model: &str) -> Result<PathBuf, String> {
    let file = place(document, root, model)?;
    let path = millstream_featurestore::inside(root, &file.to_string_lossy())?;
    if path.is_file() {
        return Ok(file);
    }
    Err(format!(
        "model `{model}` has no statistics: there is no `{}`; write it by `millstream monitor profile train.parquet --out {}`",
        file.display(),
        // What is named may be a training set itself.
        file.with_extension("json").display()
    ))
}

/// The file that a model that is loaded is compared with, if there is one.
pub(crate) fn of_model(root: &Path, spec: &ModelSpec) -> Option<PathBuf> {
    let file = spec.statistics.clone().or_else(|| spec.path.as_deref().map(beside))?;
    millstream_featurestore::inside(root, &file.to_string_lossy()).ok()?.is_file().then_some(file)
}

/// Where the statistics of a model of the project belong, relative to the project's folder: where `statistics` of the model says, or
/// beside its file. Of a model of the repository it is beside its newest version.
///
/// # Errors
/// When there is no such model.
pub(crate) fn place(document: &Document, root: &Path, model: &str) -> Result<PathBuf, String> {
    let text = |keys: &[&str]| document.get(keys).and_then(Value::as_str).map(PathBuf::from);
    if let Some(named) = text(&["models", model, "statistics"]) {
        return Ok(named);
    }
    if let Some(path) = text(&["models", model, "path"]) {
        return Ok(beside(&path));
    }
    if document.get(&["models", model, "url"]).is_some() {
        return Err(format!("model `{model}` comes from a URL: name its statistics by `statistics`"));
    }
    let version = text(&["repository", "path"]).and_then(|folder| newest(root, &folder.join(model)));
    version.map(|version| version.join(BESIDE)).ok_or_else(|| {
        let known = document.get(&["models"]).and_then(Value::as_object);
        let names = known.into_iter().flat_map(|models| models.keys().map(String::as_str));
        suggest::unknown("model", model, names)
    })
}

/// Where the statistics of a model's file lie unless the project says so: in a folder for its version they have a name of their own, in
/// one of several models that of the model.
fn beside(model: &Path) -> PathBuf {
    let folder = model.parent().and_then(Path::file_name).and_then(|name| name.to_str());
    match folder.and_then(|name| name.parse::<u64>().ok()) {
        Some(_) => model.with_file_name(BESIDE),
        None => model.with_extension(BESIDE),
    }
}

/// The folder of a model's newest version in a repository, relative to the project's folder.
fn newest(root: &Path, model: &Path) -> Option<PathBuf> {
    let folder = millstream_featurestore::inside(root, &model.to_string_lossy()).ok()?;
    let numbers =
        folder.read_dir().ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok());
    Some(model.join(numbers.max()?.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_of_a_model_are_found_or_it_is_said_how_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let there = [
            "models/lgbm/1/statistics.json",
            "models/tree.statistics.json",
            "train.parquet",
            "repository/fraud/2/statistics.json",
            "repository/fraud/10/statistics.json",
            "repository/fraud/notes/statistics.json",
            "repository/new/1/model.onnx",
        ];
        for file in there {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let text = "
models:
  lgbm: { path: models/lgbm/1/model.onnx }
  tree: { path: models/tree.onnx }
  named: { path: models/tree.onnx, statistics: train.parquet }
  gone: { path: models/gone/1/model.onnx }
  away: { path: models/tree.onnx, statistics: away.parquet }
  out: { path: models/tree.onnx, statistics: ../train.parquet }
  far: { url: https://models.example/tree.onnx }
repository: { path: repository }
";
        let document = Document::read(text).unwrap();
        let cases = [
            ("lgbm", Ok("models/lgbm/1/statistics.json")),
            ("tree", Ok("models/tree.statistics.json")),
            ("named", Ok("train.parquet")),
            ("fraud", Ok("repository/fraud/10/statistics.json")),
            (
                "gone",
                Err(
                    "write it by `millstream monitor profile train.parquet --out models/gone/1/statistics.json`",
                ),
            ),
            (
                "away",
                Err(
                    "there is no `away.parquet`; write it by `millstream monitor profile train.parquet --out away.json`",
                ),
            ),
            ("new", Err("there is no `repository/new/1/statistics.json`")),
            ("lgbn", Err("did you mean `lgbm`?")),
            ("../models", Err("no model `../models`")),
            ("out", Err("..")),
            ("far", Err("name its statistics by `statistics`")),
        ];
        for (model, expected) in cases {
            let spec = document.typed::<ModelSpec>(&["models", model]).ok();
            let there = spec.and_then(|spec| of_model(folder.path(), &spec));
            assert!(there.is_none_or(|there| expected == Ok(&*there.to_string_lossy())), "{model}");
            match (file(&document, folder.path(), model), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, Path::new(expected), "{model}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{model}: {error}"),
                (found, expected) => panic!("{model}: {found:?}, not {expected:?}"),
            }
        }
    }
}
