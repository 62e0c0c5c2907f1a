//! The files a worker's builtins may read: those under one folder, and no others.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use asynq_proto::TaskError;
use rustix::fs::{AtFlags, FileType, FsWord, Mode, OFlags, PROC_SUPER_MAGIC, fstat, fstatfs, open, openat, statat};
use rustix::io::Errno;

use crate::limits::MAX_PATH_BYTES;

/// Kind of a failure: the file is there, and cannot be read.
pub(crate) const KIND_UNREADABLE: &str = "unreadable";

/// Where files are the kernel's words and not anybody's data: /proc, /sys and
/// what hangs below it (linux/magic.h).
const OF_THE_KERNEL: [FsWord; 5] = [PROC_SUPER_MAGIC, 0x6265_6572, 0x7472_6163, 0x6462_6720, 0x6367_7270];

/// The folder, held open.
#[derive(Debug)]
pub(crate) struct Files {
    folder: OwnedFd,
    /// Where it is, without links.
    path: PathBuf,
}

impl Files {
    /// Files under a folder, which must be there.
    pub(crate) fn under(folder: &Path) -> io::Result<Self> {
        let path = folder.canonicalize()?;
        let folder = open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { folder, path })
    }

    /// Opens a regular file. A relative path counts from the folder, links are
    /// followed as long as they end up under it.
    ///
    /// A path that leads out of the folder is answered like one that leads
    /// nowhere, so that nobody learns what else is on this machine.
    pub(crate) fn open(&self, path: &str) -> Result<File, TaskError> {
        if path.len() > MAX_PATH_BYTES {
            return Err(TaskError::rejected(format!(
                "the path has {} bytes; it may have {MAX_PATH_BYTES}",
                path.len()
            )));
        }
        let found = self.path.join(path).canonicalize();
        let inside = found
            .as_deref()
            .ok()
            .and_then(|found| found.strip_prefix(&self.path).ok());
        let inside = inside.ok_or_else(|| unreachable(path))?;
        self.open_inside(inside).map_err(|error| match error {
            // Moved away since.
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => unreachable(path),
            Errno::INVAL => TaskError::rejected(format!("{path:?} is no regular file; only such are read")),
            error => unreadable(path, &error.into()),
        })
    }

    /// Goes down from the folder step by step and follows no link, since the
    /// path has none any more: whatever is put in its way meanwhile, no step
    /// leads out. openat2 would do it in one call, but containers forbid it.
    fn open_inside(&self, path: &Path) -> Result<File, Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let mut below: Option<OwnedFd> = None;
        for step in path.parent().into_iter().flatten() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let at = below.as_ref().unwrap_or(&self.folder).as_fd();
            below = Some(openat(at, step, flags, Mode::empty())?);
        }
        let at = below.as_ref().unwrap_or(&self.folder).as_fd();
        if OF_THE_KERNEL.contains(&fstatfs(at)?.f_type) {
            return Err(Errno::INVAL);
        }
        // Looked at before, because opening a device may do something already …
        is_regular(statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode)?;
        // … and not waited for, should a pipe have taken its place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(at, name, flags, Mode::empty())?;
        is_regular(fstat(&file)?.st_mode)?;
        Ok(file.into())
    }
}

fn is_regular(mode: u32) -> Result<(), Errno> {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => Ok(()),
        _ => Err(Errno::INVAL),
    }
}

fn unreachable(path: &str) -> TaskError {
    TaskError::rejected(format!(
        "no file {path:?} can be reached: a path counts from the worker's --files folder, and nothing outside it is read"
    ))
}

/// The failure of a run whose file is there, and cannot be read.
pub(crate) fn unreadable(path: &str, error: &io::Error) -> TaskError {
    TaskError::terminal(format!("{path:?} cannot be read: {error}")).with_kind(KIND_UNREADABLE)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use asynq_proto::KIND_REJECTED;
    use rustix::fs::{CWD, mknodat};
    use tempfile::TempDir;

    use super::*;

    /// `in/` with files, links and what is no file; `out/` beside it.
    fn tree() -> (TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("in/deep/er")).unwrap();
        fs::create_dir(path("out")).unwrap();
        fs::write(path("in/a.log"), "a").unwrap();
        fs::write(path("in/deep/er/b.log"), "b").unwrap();
        fs::write(path("out/secret"), "s").unwrap();
        symlink("deep/er/b.log", path("in/near")).unwrap();
        symlink(path("in/a.log"), path("in/absolute")).unwrap();
        symlink("../out/secret", path("in/leak")).unwrap();
        symlink("../out/nothing", path("in/void")).unwrap();
        symlink("../out", path("in/door")).unwrap();
        symlink("loop", path("in/loop")).unwrap();
        symlink("in", path("alias")).unwrap();
        let files = Files::under(&path("in")).unwrap();
        (folder, files)
    }

    fn read(files: &Files, path: &str) -> String {
        let mut text = String::new();
        files.open(path).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn what_the_kernel_says_is_no_file() {
        let files = Files::under(Path::new("/")).unwrap();
        for path in [
            "proc/self/status",
            "/proc/version",
            "sys/kernel/mm/transparent_hugepage/enabled",
        ] {
            if Path::new("/").join(path).exists() {
                let refused = files.open(path).unwrap_err();
                assert_eq!(refused.kind, KIND_REJECTED, "{path}");
                assert!(
                    refused.message.ends_with("is no regular file; only such are read"),
                    "{refused:?}"
                );
            }
        }
        assert!(files.open("proc/self/status").is_err());
    }

    #[test]
    fn what_lies_under_the_folder_is_opened() {
        let (folder, files) = tree();
        let absolute = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for (path, text) in [
            ("a.log", "a"),
            ("./deep/../a.log", "a"),
            ("near", "b"),
            ("absolute", "a"),
            (&absolute("in/deep/er/b.log"), "b"),
            // By another name of the same folder.
            (&absolute("alias/a.log"), "a"),
            ("../in/a.log", "a"),
        ] {
            assert_eq!(read(&files, path), text, "{path}");
        }
    }

    #[test]
    fn nothing_else_is_and_all_refusals_read_the_same() {
        let (folder, files) = tree();
        let absolute = folder.path().join("out/secret").to_str().unwrap().to_owned();
        for path in [
            "missing",
            "../out/secret",
            "../out/nothing",
            "leak",
            "void",
            "door/secret",
            "door/nothing",
            "loop",
            &absolute,
            "/etc/passwd",
            "/etc/no-such",
            "a.log/b",
            "a\0b",
        ] {
            let refused = files.open(path).unwrap_err();
            let expected = unreachable(path);
            assert_eq!(refused, expected, "{path}");
            assert_eq!(refused.kind, KIND_REJECTED);
        }
        let long = files.open(&"x/".repeat(3000)).unwrap_err();
        assert!(
            long.message.contains("6000 bytes; it may have 4096"),
            "{}",
            long.message
        );
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
        let (folder, files) = tree();
        let path = |name: &str| folder.path().join("in").join(name);
        let _listener = UnixListener::bind(path("socket")).unwrap();
        mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in ["socket", "pipe", "deep", "", "."] {
            let refused = files.open(name).unwrap_err();
            assert!(
                refused.message.contains("no regular file"),
                "{name}: {}",
                refused.message
            );
            assert_eq!(refused.kind, KIND_REJECTED);
        }
    }

    #[test]
    fn a_folder_that_is_moved_away_is_followed_by_none() {
        let (folder, files) = tree();
        // As if it had happened between the look and the opening.
        fs::rename(folder.path().join("in/deep"), folder.path().join("in/gone")).unwrap();
        symlink("../out", folder.path().join("in/deep")).unwrap();
        assert_eq!(files.open_inside(Path::new("deep/secret")).unwrap_err(), Errno::NOTDIR);
        assert_eq!(files.open_inside(Path::new("leak")).unwrap_err(), Errno::INVAL);
    }
}
