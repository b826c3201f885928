//! Small files that are written whole, and taken up at the next start.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// Takes up what was saved. What cannot be is put aside, so that the next save does not cover it.
pub(super) fn take_up<E: std::error::Error>(file: &Path, take: impl FnOnce(&[u8]) -> Result<(), E>) {
    let problem = match fs::read(file) {
        Ok(saved) => match take(&saved) {
            Ok(()) => return,
            Err(error) => crate::project::chain(&error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => error.to_string(),
    };
    let aside = file.with_extension("bad");
    tracing::error!(file = %file.display(), aside = %aside.display(), problem, "what was kept is not taken up, and put aside");
    if let Err(error) = fs::rename(file, &aside) {
        tracing::error!(%error, "it could not be put aside");
    }
}

/// Puts a file in the place of another, whole.
pub(super) fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".tmp");
    let mut new = File::create(&name)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    fs::rename(&name, file)
}
