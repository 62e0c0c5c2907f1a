//! Space put by for a full disk: a file beside the database that is given up when
//! a commit finds no room, so that what was applied still becomes durable.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::limits::{CHECKPOINT_PAGES, PAGE_BYTES, RESERVE_BYTES, RESERVE_SHARE};
use crate::{Room, StoreError};

/// Its name in the data directory.
const FILE: &str = "asynq.reserve";

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: PathBuf,
    file: PathBuf,
    /// How large it is to be.
    bytes: u64,
    /// It is there.
    held: bool,
}

/// Bytes of a file system: what this process may still use, and all of it. Some do
/// not tell, and give 0 for all.
fn space(dir: &Path) -> Option<(u64, u64)> {
    let space = statvfs(dir).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(space.f_frsize);
    let (free, total) = (bytes(space.f_bavail), bytes(space.f_blocks));
    (total > 0).then_some((free, total))
}

impl Reserve {
    /// Puts space by if there is enough. Where there is next to none, gives up what
    /// an earlier process put by: opening the database takes some.
    pub(super) fn begin(dir: &Path) -> Self {
        let (free, total) = space(dir).unwrap_or_default();
        let mut reserve = Self {
            dir: dir.to_owned(),
            file: dir.join(FILE),
            bytes: (total / RESERVE_SHARE).min(RESERVE_BYTES),
            held: false,
        };
        reserve.held = fs::metadata(&reserve.file).is_ok_and(|file| file.len() == reserve.bytes);
        if reserve.held && free < reserve.bytes / 4 {
            reserve.give_up();
        } else if !reserve.held {
            reserve.make(free, 0);
        }
        reserve
    }

    /// Pages of log from which it is copied into the database: what is put by is
    /// always enough for that.
    pub(super) fn checkpoint_pages(&self) -> u32 {
        let pages = self.bytes / 2 / u64::from(PAGE_BYTES);
        u32::try_from(pages).map_or(CHECKPOINT_PAGES, |pages| pages.clamp(1, CHECKPOINT_PAGES))
    }

    /// Frees the space; whether there was any.
    pub(super) fn give_up(&mut self) -> bool {
        if !std::mem::take(&mut self.held) {
            return false;
        }
        let removed = fs::remove_file(&self.file);
        match &removed {
            Ok(()) => tracing::warn!(
                bytes = self.bytes,
                "the disk is full: the space put by for that is in use now"
            ),
            Err(error) => tracing::error!(%error, "the space put by for a full disk cannot be freed"),
        }
        removed.is_ok()
    }

    /// Does what needs space, and once more with the space that was put by if there
    /// was too little.
    pub(super) fn helps(&mut self, work: &mut dyn FnMut() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let done = work();
        if matches!(done, Err(StoreError::Full(_))) && self.give_up() {
            return work();
        }
        done
    }

    /// How much there is, with `log` bytes yet to be copied into the database.
    /// Puts space by again once there is enough.
    pub(super) fn room(&mut self, log: u64) -> Option<Room> {
        let (mut free, _) = space(&self.dir)?;
        if !self.held && self.make(free, log) {
            free = space(&self.dir)?.0;
        }
        let low = self.low(log);
        Some(Room {
            free,
            low,
            high: low + self.bytes / 2,
            reserved: self.held,
        })
    }

    /// The log's pages are still to find room in the database, and what goes on
    /// needs as much again as is put by.
    fn low(&self, log: u64) -> u64 {
        self.bytes + log
    }

    /// Puts space by, if there is room for it and more; whether it has.
    fn make(&mut self, free: u64, log: u64) -> bool {
        if self.bytes == 0 || free < self.bytes + self.low(log) {
            return false;
        }
        match allocate(&self.file, self.bytes) {
            Ok(()) => self.held = true,
            Err(error) => {
                tracing::warn!(%error, "cannot put space by for a full disk");
                // Half a file would only be in the way.
                let _ = fs::remove_file(&self.file);
            }
        }
        self.held
    }
}

/// Makes a file that takes up its space.
fn allocate(path: &Path, bytes: u64) -> io::Result<()> {
    let file = File::create(path)?;
    loop {
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            // Not all file systems can: then it is written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                return io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut &file).map(drop);
            }
            done => return Ok(done?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn space_is_put_by_given_up_and_put_by_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut reserve = Reserve::begin(dir.path());
        let file = dir.path().join(FILE);
        let taken = |file: &Path| fs::metadata(file).map(|file| file.blocks() * 512).unwrap_or_default();
        assert!(reserve.bytes > 0 && taken(&file) >= reserve.bytes);
        let log = 1024 * 1024;
        let (before, with_log) = (reserve.room(0).expect("a disk"), reserve.room(log).expect("a disk"));
        assert!(before.reserved && before.low < before.high);
        assert_eq!(with_log.low, before.low + log);

        assert!(reserve.give_up(), "there was some");
        assert!(!file.exists() && !reserve.give_up(), "there is none left");
        // A disk with too little room for it.
        let bytes = reserve.bytes;
        assert!(!reserve.make(2 * bytes - 1, 0) && !reserve.make(2 * bytes, 1));
        assert!(reserve.room(0).expect("a disk").reserved);
        assert!(taken(&file) >= bytes);
        // The next process finds it.
        assert!(Reserve::begin(dir.path()).held);
    }

    #[test]
    fn a_small_disk_copies_its_log_sooner() {
        let reserve = |bytes| Reserve {
            dir: PathBuf::new(),
            file: PathBuf::new(),
            bytes,
            held: false,
        };
        assert_eq!(reserve(RESERVE_BYTES).checkpoint_pages(), CHECKPOINT_PAGES);
        let small = reserve(1024 * 1024);
        assert_eq!(u64::from(small.checkpoint_pages() * PAGE_BYTES), small.bytes / 2);
        assert_eq!(reserve(0).checkpoint_pages(), 1);
    }
}
