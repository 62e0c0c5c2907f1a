//! What every store must do, as checks any store's tests can run:
//!
//! ```ignore
//! asynq_store::conformance!(|| MyShard::new());
//! ```

pub mod batches;
pub mod listings;
pub mod lookups;
pub mod owners;
pub mod records;
pub mod samples;
pub mod sweeps;

use asynq_core::{Change, Epoch, Payload, Seq, TaskId, TaskRecord, Timestamp};
use proptest::test_runner::{Config, TestRunner};

use crate::{Belief, Listed, Opened, Pruned, Query, Reader, Store, StoreError};

/// One shard, empty at first, for as long as this lives.
pub trait Shard {
    /// A new handle on the shard, as a broker gets that starts. Earlier handles
    /// may still be there, or may have been dropped without a word.
    fn connect(&self) -> Box<dyn Store>;
}

/// Makes an empty shard.
pub type Fresh<'a> = &'a dyn Fn() -> Box<dyn Shard>;

/// A time tests begin at.
pub const START: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);

/// Runs every check as a test of its own; takes an expression that makes an
/// empty [`Shard`](conformance::Shard).
#[macro_export]
macro_rules! conformance {
    ($fresh:expr) => {
        $crate::conformance!(@each $fresh;
            records::come_back_equal records::last_change_counts records::empty_is_not_absent
            records::large_values_come_back records::dead_tasks_keep_their_arguments
            records::a_task_may_pass_in_one_batch records::a_second_life_forgets_the_end
            batches::batches_of_any_size_are_whole batches::an_end_of_nothing_is_refused
            owners::a_fresh_shard_is_empty owners::a_newer_owner_deposes owners::epochs_rise_whatever_the_clock_says
            owners::a_clock_set_back_is_noticed owners::times_in_doubt_do_not_count
            owners::a_time_that_is_vouched_for_counts_from_then_on owners::an_idle_shard_notes_the_time
            owners::a_batch_is_all_or_nothing owners::batches_follow_one_another owners::an_open_finds_all
            owners::places_are_never_given_twice owners::sessions_are_kept_until_closed
            owners::queues_stay_as_they_were_told owners::readers_see_what_was_committed
            sweeps::results_go_first_then_the_memory sweeps::live_tasks_stay sweeps::a_sweep_keeps_its_budget
            sweeps::a_sweep_goes_on_where_it_was sweeps::counts_agree_with_the_next_open sweeps::large_results_go_too sweeps::what_is_purged_leaves_its_id
            listings::newest_first_in_parts listings::as_a_filter_over_all_records listings::bounds_hold
            listings::what_ends_or_goes_between_parts_is_listed_once
            lookups::every_id_is_found lookups::ids_out_of_order_are_found lookups::forgotten_ids_are_not_found lookups::a_key_finds_its_task
        );
    };
    (@each $fresh:expr; $($room:ident::$check:ident)*) => {
        $(#[test]
        fn $check() {
            $crate::conformance::$room::$check(&|| Box::new($fresh));
        })*
    };
}

/// An owner of a shard that counts its batches.
pub struct Owner {
    store: Box<dyn Store>,
    /// What the open found.
    pub opened: Opened,
    /// The live tasks the open found.
    pub live: Vec<(Seq, TaskRecord)>,
    batch: u64,
    seq: u64,
}

impl Owner {
    /// Takes the shard over.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn open(shard: &dyn Shard, now: Timestamp) -> Self {
        Self::open_by(shard, now, Belief::Believed)
    }

    /// Takes the shard over by a clock that is worth this.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn open_by(shard: &dyn Shard, now: Timestamp, clock: Belief) -> Self {
        let mut store = shard.connect();
        let latest = store.latest().expect("the shard is read");
        store.believe(clock);
        let mut live = Vec::new();
        let opened = store
            .open(now, &mut |seq, record| live.push((seq, record)))
            .expect("the shard opens");
        assert_eq!(opened.latest, latest);
        let (batch, seq) = (opened.last_batch, opened.next_seq.0);
        Self {
            store,
            opened,
            live,
            batch,
            seq,
        }
    }

    /// A place in the order never used.
    pub fn next_seq(&mut self) -> Seq {
        self.seq += 1;
        Seq(self.seq - 1)
    }

    /// Commits the next batch.
    ///
    /// # Errors
    /// As the store.
    pub fn try_commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.store.commit(self.opened.epoch, self.batch + 1, changes)?;
        self.batch += 1;
        Ok(())
    }

    /// Commits the next batch.
    ///
    /// # Panics
    /// If that fails.
    pub fn commit(&mut self, changes: &[Change]) {
        self.try_commit(changes).expect("the batch is committed");
    }

    /// Inserts one task.
    ///
    /// # Panics
    /// If that fails.
    pub fn insert(&mut self, record: &TaskRecord, payload: &Payload) -> Seq {
        let seq = self.next_seq();
        self.commit(&[Change::Insert {
            seq,
            record: Box::new(record.clone()),
            payload: payload.clone(),
        }]);
        seq
    }

    /// Sweeps once.
    ///
    /// # Errors
    /// As the store.
    pub fn try_prune(&mut self, now: Timestamp, budget: usize) -> Result<Pruned, StoreError> {
        self.store.prune(self.opened.epoch, now, budget)
    }

    /// Sweeps the whole store.
    ///
    /// # Panics
    /// If that fails, or never ends.
    pub fn prune_all(&mut self, now: Timestamp) -> Pruned {
        let mut all = Pruned::default();
        for _ in 0..100_000 {
            let pruned = self.try_prune(now, 700).expect("the sweep goes on");
            all.results += pruned.results;
            for (key, count) in pruned.forgotten {
                *all.forgotten.entry(key).or_default() += count;
            }
            if pruned.complete {
                all.complete = true;
                return all;
            }
        }
        panic!("the sweep is never complete");
    }

    /// A reading side.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn reader(&self) -> Box<dyn Reader> {
        self.store.reader().expect("there is a reader")
    }

    /// What is remembered of a task.
    ///
    /// # Panics
    /// If that cannot be read.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<(Seq, TaskRecord)> {
        self.reader().task(id).expect("a task can be looked up")
    }

    /// A task's arguments.
    ///
    /// # Panics
    /// If they cannot be read.
    #[must_use]
    pub fn payload(&self, seq: Seq) -> Option<Payload> {
        self.reader().payloads(&[seq]).expect("arguments can be read").remove(0)
    }

    /// A task's result.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn result(&self, seq: Seq) -> Option<Payload> {
        self.reader().result(seq).expect("a result can be read")
    }

    /// A part of a listing.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn tasks(&self, query: &Query) -> Listed {
        self.reader().tasks(query).expect("tasks can be listed")
    }

    /// The epoch held.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.opened.epoch
    }

    /// The store itself.
    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }
}

/// Runs a property; the seed of a failure is in its message.
fn property(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}
