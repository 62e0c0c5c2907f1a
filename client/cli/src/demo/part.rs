//! A file that has its name only once it is whole.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::{Builder, NamedTempFile, TempPath};

use crate::failure::Failure;

/// A file under way. Dropping it leaves none.
pub(super) struct Part {
    path: PathBuf,
    /// Where it is until it is whole: in the same folder, so that it can be renamed.
    part: TempPath,
}

impl Part {
    /// Begins the file that is to be at `path`, where no other sort of thing may be.
    pub(super) fn create(path: &Path) -> Result<(Self, File), Failure> {
        // Through links: what is renamed over must be a file, or nothing.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.exists() && !path.is_file() {
            let message = format!("{} is there and is no file; name another", path.display());
            return Err(Failure::usage(message));
        }
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let part = Builder::new()
            .prefix(".asynq-demo-")
            .suffix(".part")
            // As of any file one makes: the umask takes its part off.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .map_err(|error| unwritten(path, error))?;
        let (file, part) = NamedTempFile::into_parts(part);
        let path = path.to_owned();
        Ok((Self { path, part }, file))
    }

    /// Gives it its name. All of it has been written.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Self { path, part } = self;
        part.persist(&path).map_err(|error| unwritten(&path, error.error))
    }

    /// What to say if it cannot be written.
    pub(super) fn failed(&self, error: impl Into<io::Error>) -> Failure {
        unwritten(&self.path, error)
    }
}

fn unwritten(path: &Path, error: impl Into<io::Error>) -> Failure {
    // Its kind, because its text may name the part.
    let why = error.into().kind();
    Failure::new(1, "OUTPUT", format!("{} cannot be written: {why}", path.display()))
}
