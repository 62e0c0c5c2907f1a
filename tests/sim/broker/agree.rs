//! What the core knows and what the store remembers must agree whenever all is
//! written: what is forgotten there is lost at the next crash.

use asynq_core::{State, TaskRecord, Timestamp, limits};
use asynq_store::StoreError;
use asynq_tests::history::Record;

use super::process::Process;
use crate::disk::Disk;
use crate::env::Env;

impl Process {
    /// Compares every live task with its record, and puts on record what differs.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn check_against(&self, disk: &mut Disk, env: &mut Env) -> Result<(), StoreError> {
        for task in env.tasks.clone() {
            let Some(view) = self.core.task(task) else { continue };
            let stored = disk.task(task)?.map(|(_, record)| record);
            if !stored.is_some_and(|stored| agree(&view.record, &stored, self.now)) {
                env.record(Record::Differs(task));
            }
        }
        Ok(())
    }
}

fn agree(known: &TaskRecord, stored: &TaskRecord, now: Timestamp) -> bool {
    let counters = |record: &TaskRecord| {
        (
            record.counters.failures,
            record.counters.timeouts,
            record.counters.losses,
        )
    };
    let same = known.state == stored.state && known.grant == stored.grant;
    let state = match &known.state {
        // Too short to be worth a claim: the store may not have heard of it.
        State::Running(run) => same || run.started_at + limits::CLAIM_AFTER >= now,
        State::Scheduled { .. } | State::Stopping(..) => same,
        // That its time has come is worked out again.
        State::Ready => match &stored.state {
            State::Ready => true,
            State::Scheduled { at } => *at <= now,
            _ => false,
        },
        State::Finished(_) => false,
    };
    // One that is written has been passed by the reader, and that stays so.
    let checkpoint = |record: &TaskRecord| record.checkpoint.as_ref().map_or(0, |it| it.index);
    state
        && checkpoint(stored) <= checkpoint(known)
        && counters(known) == counters(stored)
        && known.digest == stored.digest
}
