//! Which files are meant. What is there on this machine is looked at; any other
//! path is one that the workers know.

use std::{
    fs, io,
    path::{Path, absolute},
};

use crate::{failure::Failure, limits::MAX_LOG_FILES};

/// The files to read, and what was left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Paths {
    /// As the workers are asked for them.
    pub(super) files: Vec<String>,
    /// Pipes, sockets, devices, links out of a folder, names that are no UTF-8.
    pub(super) skipped: usize,
    /// Folders that cannot be read.
    pub(super) closed: usize,
}

impl Paths {
    pub(super) fn find(given: &[String]) -> Result<Self, Failure> {
        let mut found = Self::default();
        for path in given {
            match fs::metadata(path) {
                Ok(there) if there.is_dir() => found.folder(Path::new(path))?,
                Ok(there) if there.is_file() => found.file(Path::new(path))?,
                Ok(_) => found.skipped += 1,
                // Nothing of this machine.
                Err(_) => found.push(path.clone())?,
            }
        }
        Ok(found)
    }

    /// All files under a folder, in order. Links are not followed.
    fn folder(&mut self, folder: &Path) -> Result<(), Failure> {
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            let Ok(mut entries) = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) else {
                self.closed += 1;
                continue;
            };
            entries.sort_by_key(fs::DirEntry::file_name);
            let mut below = Vec::new();
            for entry in entries {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => below.push(entry.path()),
                    Ok(kind) if kind.is_file() => self.file(&entry.path())?,
                    _ => self.skipped += 1,
                }
            }
            folders.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// A file of this machine: whoever shares it knows it by its absolute path.
    fn file(&mut self, path: &Path) -> Result<(), Failure> {
        match absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned)) {
            Some(path) => self.push(path),
            None => {
                self.skipped += 1;
                Ok(())
            }
        }
    }

    fn push(&mut self, path: String) -> Result<(), Failure> {
        if self.files.len() == MAX_LOG_FILES {
            return Err(Failure::usage(format!(
                "there are more than {MAX_LOG_FILES} files; name fewer at a time"
            )));
        }
        self.files.push(path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn folders_are_gone_through_in_order_and_what_is_no_file_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir_all(path("b/deep")).unwrap();
        for name in ["c.log", "a.log", "b/deep/d.log", "b/e.log"] {
            fs::write(path(name), "").unwrap();
        }
        let _listener = UnixListener::bind(path("socket")).unwrap();
        symlink(path("a.log"), path("link")).unwrap();
        let found = Paths::find(&[path(""), "workers/own.log".into(), path("socket"), path("link")]).unwrap();
        assert_eq!(
            found,
            Paths {
                files: vec![
                    path("a.log"),
                    path("c.log"),
                    path("b/e.log"),
                    path("b/deep/d.log"),
                    "workers/own.log".into(),
                    path("link"),
                ],
                skipped: 3,
                closed: 0,
            }
        );
    }
}
