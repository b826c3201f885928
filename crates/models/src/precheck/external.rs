//! Tensor data in files beside the model: only regular files inside the model's own folder.

use std::path::{Component, Path, PathBuf};

use super::{
    PrecheckError,
    onnx::{DataLocation, TensorProto},
};

/// Whether the tensor's data lies in another file, or pretends to.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location() == DataLocation::External || !tensor.external_data.is_empty()
}

pub(super) fn refused(tensor: &TensorProto, reason: impl Into<String>) -> PrecheckError {
    PrecheckError::External {
        tensor: tensor.name.clone(),
        location: entry(tensor, "location").unwrap_or_default().to_owned(),
        reason: reason.into(),
    }
}

/// Checks where the data of `tensor` lies, and answers the file; `needed` is how many bytes its shape and type need.
pub(super) fn check(tensor: &TensorProto, folder: &Path, needed: u64) -> Result<PathBuf, PrecheckError> {
    let refuse = |reason: &str| refused(tensor, reason);
    let location = entry(tensor, "location").filter(|location| !location.is_empty());
    let location = location.ok_or_else(|| refuse("it names no file"))?;
    if ["location", "offset", "length"]
        .iter()
        .any(|key| tensor.external_data.iter().filter(|e| e.key == *key).count() > 1)
    {
        return Err(refuse("it names one entry twice"));
    }
    // A mark by which the runtime passes addresses in its own memory from step to step; never right in a file.
    if location.contains("_ORT_MEM_ADDR_") {
        return Err(refuse("it is an address in memory"));
    }
    // A backslash separates folders on one system and is part of a name on another: refused on all of them.
    if location.contains(['\\', '\0', ':']) {
        return Err(refuse("it is not a plain relative path"));
    }
    // The runtime knows more entries, by which it reads what has been prepared for one machine.
    const ENTRIES: [&str; 4] = ["location", "offset", "length", "checksum"];
    if tensor.external_data.iter().any(|entry| !ENTRIES.contains(&entry.key.as_str())) {
        return Err(refuse("it has an entry that is none of location, offset, length and checksum"));
    }
    // What is left of it in parts is all there is of it: no slash behind, none twice.
    let parts = Path::new(location).components();
    let plain = parts.clone().collect::<PathBuf>();
    if plain.as_os_str() != location {
        return Err(refuse("it is not a plain relative path"));
    }
    let size = size_of(tensor, folder, location)?;
    let number = |key| match entry(tensor, key) {
        None => Ok(None),
        Some(text) => {
            text.parse::<u64>().map(Some).map_err(|_| refused(tensor, format!("its {key} is no number")))
        }
    };
    let offset = number("offset")?.unwrap_or(0);
    let rest =
        size.checked_sub(offset).ok_or_else(|| refuse("its offset lies behind the end of the file"))?;
    let length = number("length")?.unwrap_or(needed);
    if length != needed {
        return Err(refused(tensor, format!("its length is {length} bytes but its shape needs {needed}")));
    }
    if length > rest {
        return Err(refused(
            tensor,
            format!("it needs {length} bytes but the file ends {rest} bytes after its offset"),
        ));
    }
    Ok(parts.filter(|part| matches!(part, Component::Normal(_))).collect())
}

/// The size of the file at `location`, reached from `folder` without a link or a step back.
fn size_of(tensor: &TensorProto, folder: &Path, location: &str) -> Result<u64, PrecheckError> {
    let mut path = folder.to_owned();
    let mut metadata = None;
    for part in Path::new(location).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(refused(tensor, "it leaves the model's folder"));
            }
        }
        let found = path.symlink_metadata().map_err(|error| refused(tensor, error.kind().to_string()))?;
        if found.is_symlink() {
            return Err(refused(tensor, "links are refused"));
        }
        metadata = Some(found);
    }
    match metadata {
        Some(metadata) if metadata.is_file() => Ok(metadata.len()),
        _ => Err(refused(tensor, "it is not a regular file")),
    }
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}
