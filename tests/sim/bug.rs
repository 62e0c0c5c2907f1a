//! Bugs that can be planted: each falsifies a wrapper around the core or the
//! store, a worker or a caller, and each must be found.

/// A bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bug {
    /// Answers go out before what they say is durable.
    AnswersBeforeCommit,
    /// The disk says a batch is durable before it is.
    DiskLies,
    /// Claims are not written.
    ClaimsNotWritten,
    /// Sessions are forgotten at a restart.
    SessionsForgotten,
    /// Every incarnation has the same epoch.
    EpochStands,
    /// A wall clock that was set back is taken at its word.
    ClockNotClamped,
    /// Heartbeats are acknowledged, and the core does not hear of them.
    HeartbeatsUnheard,
    /// A completion is taken for the current run, whatever its token says.
    TokenIgnored,
    /// A worker goes on after its lease.
    NoFence,
    /// A worker forgets outcomes when its connection breaks.
    OutcomesForgotten,
    /// A worker that was told to stop says nothing when it has.
    SilentStop,
    /// A caller vouches for a first send each time it sends.
    AlwaysFirstSend,
    /// A first send is taken from a connection that its caller has given up: the
    /// gap that docs/adr/0003 knows. The simulated network closes it otherwise.
    LateFirstSend,
    /// Credit counts twice.
    CreditDoubled,
    /// Items are handed on twice, now and then.
    ItemsTwice,
    /// A generator that is run again yields other items, and nobody compares.
    OtherItems,
    /// An iterator that yields other items each time says that it can be run again.
    ReplayedAnyway,
    /// A worker drops an item when it is sent, not when it is acknowledged.
    DroppedWhenSent,
    /// A generator says a checkpoint with the token of the item before.
    CheckpointMisplaced,
    /// After a restart a checkpoint is taken to be one item further than it is.
    CheckpointMovedOn,
    /// After a restart a checkpoint has the token of the item before.
    TokensMixedUp,
    /// Who comes back is handed once more what was handed on last.
    FloorForgotten,
    /// What is left of a stream that has ended is handed over from its first item on.
    WholeTail,
    /// A reader whose connection breaks is taken for one that stops.
    CutIsStop,
    /// A reader that has gone is not noticed.
    ReaderForgotten,
    /// One who waits is not told of an end that was looked up.
    WaiterForgotten,
    /// Everybody who waits is told twice.
    ToldTwice,
    /// A result is told to whoever waits for another task.
    ResultsMixedUp,
    /// What must wait for a commit is handed out before.
    RunsBeforeClaim,
    /// A worker that drains gives back what has begun and must not do so twice.
    BegunReleased,
    /// A dead task that is to run again is granted as if it never had been.
    AttemptsForgotten,
    /// Of a purged task nothing stays, not even its id.
    IdsPurged,
    /// Unknown ids are not looked up in the store.
    NoLookup,
    /// A call is taken for an enqueue of somebody who waits.
    CallIsEnqueue,
    /// That a task was called by a run is not written.
    CallersNotWritten,
    /// What is spawned is enqueued before its run's end is looked at.
    SpawnedApart,
    /// What is spawned with a large result is forgotten.
    SpawnedForgotten,
    /// Keys the core does not know are not looked up in the store.
    KeysNotLookedUp,
    /// Whoever comes with the key of a task that has ended gets that task.
    KeyIsEnough,
    /// That a run is to have more time the core does not hear.
    ExtensionsUnheard,
    /// That is not written.
    ExtensionsNotWritten,
    /// A worker does not say that it has abandoned a run.
    AbandonedUnsaid,
    /// That no slot is taken by such runs any more the core does not hear.
    LeakedForEver,
    /// That a run wants no more what it has called the core does not hear.
    WithdrawalsUnheard,
    /// A worker does not say its calls again over a new connection.
    CallsForgotten,
    /// A worker does not lend the slot of a run that waits.
    SlotKept,
    /// A worker takes an answer for that of another call of the same run.
    CallsMixedUp,
}
