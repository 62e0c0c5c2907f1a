//! Finding a program: by its path from worker.toml's folder, or in PATH.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use asynq_worker::TaskError;
use rustix::fs::{Access, access};

use super::failure::KIND_SPAWN;

/// Where programs are looked for when nothing says.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why a program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::kinds) enum NotFound {
    #[error("the program {} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{} is no file that could be run", .0.display())]
    NoFile(PathBuf),
    #[error("the program {path} is not executable for this worker; chmod +x {path}", path = .0.display())]
    NotExecutable(PathBuf),
    #[error("the program {program:?} is in no folder of PATH, which is {path}")]
    NotInPath { program: String, path: String },
}

impl NotFound {
    /// Another worker may have the program, so another attempt may help.
    pub(super) fn not_started(self) -> TaskError {
        TaskError::retryable(self.to_string()).with_kind(KIND_SPAWN)
    }
}

/// The path of a program as `cmd` names it: with a slash from `folder`, else
/// the first of its name in `path`.
pub(super) fn find(program: &str, folder: &Path, path: Option<&OsStr>) -> Result<PathBuf, NotFound> {
    if program.contains('/') {
        // `./etl` is `etl` of the folder.
        let file: PathBuf = folder.join(program).components().collect();
        return check(&file).map(|()| file);
    }
    let path = path.filter(|path| !path.is_empty()).unwrap_or(DEFAULT_PATH.as_ref());
    let mut nearly = None;
    for dir in std::env::split_paths(path).filter(|dir| !dir.as_os_str().is_empty()) {
        let file = folder.join(dir).join(program);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(NotFound::NotExecutable(file)) => nearly = nearly.or(Some(NotFound::NotExecutable(file))),
            Err(_) => {}
        }
    }
    Err(nearly.unwrap_or_else(|| NotFound::NotInPath {
        program: program.into(),
        path: path.to_string_lossy().into_owned(),
    }))
}

fn check(file: &Path) -> Result<(), NotFound> {
    let metadata = file.metadata().map_err(|_| NotFound::Missing(file.into()))?;
    if !metadata.is_file() {
        return Err(NotFound::NoFile(file.into()));
    }
    access(file, Access::EXEC_OK).map_err(|_| NotFound::NotExecutable(file.into()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn program(folder: &Path, name: &str, mode: u32) {
        let file = folder.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_path_is_of_the_folder_and_a_name_is_of_path() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        program(folder, "etl", 0o755);
        program(folder, "a/tool", 0o644);
        program(folder, "b/tool", 0o755);
        assert_eq!(find("./etl", folder, None), Ok(folder.join("etl")));
        let absolute = folder.join("etl");
        assert_eq!(find(absolute.to_str().unwrap(), Path::new("/"), None), Ok(absolute));
        assert_eq!(find("tool", folder, Some("a:b".as_ref())), Ok(folder.join("b/tool")));
        assert!(find("sh", folder, None).is_ok() && find("sh", folder, Some("".as_ref())).is_ok());
        assert!(matches!(
            find("etl", folder, Some(":".as_ref())),
            Err(NotFound::NotInPath { .. })
        ));
    }

    #[test]
    fn what_is_wrong_with_a_program_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        program(folder, "plain", 0o644);
        assert!(matches!(find("./none", folder, None), Err(NotFound::Missing(_))));
        assert!(matches!(find("./plain", folder, None), Err(NotFound::NotExecutable(_))));
        assert!(matches!(find("/", folder, None), Err(NotFound::NoFile(_))));
        let dir = Some(folder.as_os_str());
        assert!(matches!(find("plain", folder, dir), Err(NotFound::NotExecutable(_))));
        let error = find("nowhere", folder, dir).unwrap_err();
        assert!(error.to_string().contains("\"nowhere\""), "{error}");
        let error = error.not_started();
        assert_eq!((error.kind.as_str(), error.retryable), ("spawn", true));
    }
}
