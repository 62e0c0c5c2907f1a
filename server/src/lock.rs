//! One data directory, one broker: a lock on a file in it that names its holder.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Why a data directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another broker has it.
    #[error("the data directory {dir} is in use by {holder}; stop it, or give this broker another --data-dir")]
    Held {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote of itself.
        holder: String,
    },
    /// It cannot be created or written.
    #[error("cannot use the data directory {dir}: {source}")]
    Unusable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A data directory that is ours until this is dropped, or the process dies.
#[derive(Debug)]
pub struct DataDirLock {
    file: File,
}

impl DataDirLock {
    /// Creates the directory if need be and takes it.
    ///
    /// # Errors
    /// If another broker holds it, or it cannot be written.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable {
            dir: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(unusable)?;
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(unusable)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(unusable)?;
                let holder = match holder.trim() {
                    "" => "another broker".to_owned(),
                    holder => holder.to_owned(),
                };
                return Err(LockError::Held {
                    dir: dir.to_owned(),
                    holder,
                });
            }
            Err(error) => return Err(unusable(error.into())),
        }
        let mut lock = Self { file };
        lock.write(&format!("asynqd, pid {}\n", std::process::id()))
            .map_err(unusable)?;
        Ok(lock)
    }

    /// Adds the address, once it is known.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn note_address(mut self, address: SocketAddr) -> io::Result<Self> {
        self.write(&format!("asynqd, pid {}, listening on {address}\n", std::process::id()))?;
        Ok(self)
    }

    fn write(&mut self, holder: &str) -> io::Result<()> {
        self.file.rewind()?;
        self.file.set_len(0)?;
        self.file.write_all(holder.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_broker_is_told_who_holds_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("new/data");
        let first = DataDirLock::take(&data).unwrap();
        let first = first.note_address("127.0.0.1:7740".parse().unwrap()).unwrap();
        let error = DataDirLock::take(&data).unwrap_err().to_string();
        let holder = format!("asynqd, pid {}, listening on 127.0.0.1:7740", std::process::id());
        assert!(error.contains(&holder), "{error}");
        drop(first);
        DataDirLock::take(&data).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = DataDirLock::take(&file.path().join("x")).unwrap_err();
        assert!(
            error.to_string().contains(&file.path().display().to_string()),
            "{error}"
        );
    }
}
