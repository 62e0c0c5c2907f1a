//! Every maximum and every interval of the broker's shell, with its unit. The
//! wire's are in `asynq_proto::limits`, those of what is decided in
//! `asynq_core::limits`.

use std::time::Duration;

use asynq_core::limits::{MAX_SESSION_CALLS, MAX_SLOTS};
use asynq_proto::limits::{BACKOFF_CAP, MAX_BATCH_OPS, MAX_PAYLOAD_BYTES};

/// Connections open at a time. Further ones wait in the listen backlog.
pub const MAX_CONNECTIONS: usize = 20_000;
/// How long a new connection may take for its handshake: TLS, if any, and the
/// HTTP/2 preface.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes read from a peer that was turned away, so that it reads why.
pub const PARTING_BYTES: u64 = 16 * 1024;
/// Tokens in the tokens file. Each call is compared with all of them.
pub const MAX_TOKENS: usize = 1_024;
/// Refusals that are logged …
pub const COMPLAINTS_PER_WINDOW: u32 = 10;
/// … in this time; the rest is counted.
pub const COMPLAINT_WINDOW: Duration = Duration::from_secs(10);
/// How long a new session may take to say hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an accept that failed for want of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence on a TCP connection before the kernel probes the peer.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// From the wish to stop to the end, whoever is silent.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// The share of that after which open connections are cut; the rest is for
/// what comes after them.
pub const DRAIN_SHARE: f32 = 0.95;
/// The same after the store has failed: nothing good can come any more.
pub const FAILED_DRAIN_TIMEOUT: Duration = Duration::from_millis(300);

/// What callers are told to wait where a limit is reached: the pruning of an
/// idle store makes room that often.
pub const RETRY_EXHAUSTED: Duration = PRUNE_INTERVAL;
/// The same where the broker goes: the longest pause between two attempts of
/// our own SDK to reach the next one.
pub const RETRY_UNAVAILABLE: Duration = BACKOFF_CAP;

/// HTTP connections open at a time. Further ones wait in the listen backlog.
pub const MAX_HTTP_CONNECTIONS: usize = 64;
/// How long an HTTP connection may last; it carries one request.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP connection may say nothing at first: 64 silent ones delay
/// others by no more.
pub const HTTP_SILENCE: Duration = Duration::from_secs(1);
/// How long the loop may take to answer whoever asks whether the broker is ready.
pub const READY_TIMEOUT: Duration = Duration::from_secs(2);
/// The loop ends a turn at least once in `MAX_NAP`; silent for so long it hangs.
pub const MAX_SILENCE: Duration = Duration::from_secs(5);
/// Queues named one by one in the metrics, those with the most tasks first; the
/// rest is told as one.
pub const MAX_QUEUE_LABELS: usize = 100;
/// Pairs of code and reason in the metrics of failed calls; the rest is told as
/// one.
pub const MAX_ERROR_LABELS: usize = 200;

/// A connection whose calls break is known to be over, if it is, this much later.
pub const LINE_DECIDES: Duration = Duration::from_millis(500);

/// A connection that has been lost lets go of its calls, and is known to be lost
/// this much later: a call that ends on one that is still open then was ended by
/// the caller. A stopped stream ends that much later.
pub const CALL_DECIDES: Duration = Duration::from_millis(5);
/// Between two turns of the loop, beyond what it meant to sleep: so long a gap
/// means that the process did not run, and that heartbeats are waiting unread.
pub const GAP: Duration = Duration::from_secs(1);
/// After a gap, how long the loop takes in what has been waiting in the sockets
/// before it looks at what has become due: a result that came in time wins over
/// the timeout that passed meanwhile.
pub const SETTLE: Duration = Duration::from_millis(200);

/// Clients whose latest connection is remembered, also when they have gone: some hundred bytes each,
/// 25 MiB in all.
pub const MAX_CLIENTS: usize = 65_536;
/// Operations a caller's session may have unanswered.
pub const MAX_OUTSTANDING: u32 = 16_384;
/// Operations that may queue behind the read of one id or key.
pub const MAX_BEHIND_READ: usize = 4_096;
/// Bytes waiting to be read by one caller or worker beyond which values do not
/// ride along any more, but are fetched.
pub const INLINE_BACKLOG_BYTES: usize = 8 * 1024 * 1024;
/// Messages waiting to be read by one worker beyond which nothing more is read
/// from it.
pub const WORKER_BACKLOG: usize = 4_096;
/// Items of one stream that may wait to be written to its consumer, whatever
/// credit the consumer gives: the largest window an SDK asks for.
pub const STREAM_BACKLOG_ITEMS: u64 = 65_536;
/// The same in bytes: two of the largest items, so that any one fits while
/// another is written.
pub const STREAM_BACKLOG_BYTES: u64 = 2 * MAX_PAYLOAD_BYTES as u64;
/// Items the broker keeps room for where it acknowledges what it has written.
pub const AUTO_ACK_ITEMS: u64 = 256;
/// Items of one batch.
pub const MAX_ITEMS_PER_BATCH: usize = MAX_BATCH_OPS;
/// Bytes of a batch of more than one item: twice what a worker gathers.
pub const MAX_ITEM_BATCH_BYTES: usize = 128 * 1024;
/// Runs a worker may name when it resumes its session: those in its slots, and those
/// that have lent theirs.
pub const MAX_HELD_RUNS: usize = 2 * MAX_SLOTS as usize + MAX_SESSION_CALLS as usize;
/// How far ahead of the broker's clock the time in a task's id may lie.
pub const MAX_ID_LEAD: Duration = Duration::from_mins(5);
/// An id older than this that is not known is refused where it may have been sent
/// before: its task may have ended and been forgotten. Ids are remembered for
/// [`MIN_DEDUP_TTL`](asynq_core::limits::MIN_DEDUP_TTL) after the end of their
/// tasks, and lie at most [`MAX_ID_LEAD`] after their beginning.
pub const ID_REACH: Duration = Duration::from_mins(55);
/// Bytes of a media type.
pub const MAX_CONTENT_TYPE_BYTES: usize = 200;

/// Commands on their way to the broker loop; each may carry a whole message.
pub const COMMAND_QUEUE: usize = 1_024;
/// The same in KiB of arguments and results, for commands with more than
/// `INLINE_BYTES` of them.
pub const COMMAND_QUEUE_KIB: usize = 128 * 1024;
/// Commands the loop takes before it looks at the store and the clock again.
pub const COMMANDS_PER_TURN: usize = 256;
/// Changes gathered while a commit runs, beyond which the loop takes no more
/// commands.
pub const MAX_GATHERED_CHANGES: usize = 32_768;
/// The same in bytes of arguments and results.
pub const MAX_GATHERED_BYTES: usize = 64 * 1024 * 1024;
/// The same in answers and effects that wait for the commit under way, and for
/// the one after it.
pub const MAX_HELD: usize = 65_536;
/// Bytes of arguments read from the store at a time.
pub const READ_BYTES: u64 = 8 * 1024 * 1024;
/// Listings of tasks being made at a time.
pub const MAX_LISTINGS: usize = 64;
/// Tasks of one page, whatever is asked for. So many fit into a message, even
/// with the longest failure each.
pub const LIST_TASKS: usize = 256;
/// Bytes of memory the tasks of one page may take, as the store has them.
pub const LIST_BYTES: usize = 1024 * 1024;
/// Records the store looks at for one page.
pub const LIST_RECORDS: usize = 20_000;
/// Bytes of arguments kept in memory for tasks that have not started.
pub const PAYLOAD_CACHE_BYTES: usize = 256 * 1024 * 1024;

/// The loop looks at the clock at least this often.
pub const MAX_NAP: Duration = Duration::from_secs(1);
/// How often an idle store is pruned.
pub const PRUNE_INTERVAL: Duration = Duration::from_secs(1);
/// How often the store looks at the space on its disk while it writes; an idle one
/// looks each time it is pruned.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// It looks sooner once what was written since may have taken this share of what
/// there was above the low-water mark: one part of so many.
pub const LOOK_SHARE: u64 = 4;
/// Bytes a task is reckoned to take on the disk besides its arguments or result.
pub const TASK_DISK_BYTES: u64 = 1_024;
/// Records one idle pruning step goes through.
pub const PRUNE_BUDGET: usize = 4_096;
/// Records pruning goes through for each task that is written, so that it
/// keeps pace with any rate.
pub const PRUNE_PER_TASK: usize = 2;

/// Refused reports of workers for which the state of a task is read at a time; others
/// are refused without it.
pub const MAX_STATES_READ: usize = 1_024;
/// The longest step forward at an open that is believed of a clock nobody vouches for:
/// a broker is seldom down for longer.
pub const MAX_STEP: Duration = Duration::from_hours(7 * 24);

#[cfg(test)]
mod tests {
    use asynq_core::limits as core;
    use asynq_proto::limits as wire;

    /// The core depends on nothing, so it repeats the wire's limits it decides by.
    #[test]
    fn the_core_and_the_wire_agree() {
        assert_eq!(core::MAX_KEY_BYTES, wire::MAX_KEY_BYTES);
        assert_eq!(core::MAX_NAME_BYTES, wire::MAX_NAME_BYTES);
        assert_eq!(core::MAX_SLOTS, wire::MAX_SLOTS);
        assert_eq!(core::MAX_DECLARATIONS, wire::MAX_DECLARATIONS);
        assert_eq!(core::MAX_BUDGET, wire::MAX_BUDGET);
        assert_eq!(core::MAX_FAILURE_BYTES, wire::MAX_FAILURE_BYTES);
        assert_eq!(core::MAX_CHECKPOINT_BYTES, wire::MAX_CHECKPOINT_BYTES);
        assert_eq!(core::MAX_DURATION, wire::MAX_DURATION);
        assert_eq!(core::MAX_CALLS, wire::MAX_CALLS);
        assert_eq!(core::MAX_SPAWNED, wire::MAX_SPAWNED);
    }

    /// So an id that is forgotten is refused.
    #[test]
    fn ids_are_remembered_as_far_as_they_reach() {
        assert!(super::ID_REACH + super::MAX_ID_LEAD <= core::MIN_DEDUP_TTL);
        assert!(core::MIN_DEDUP_TTL <= core::DEAD_TTL);
    }

    /// Message and trace of a failure, kind, content type, worker and the three
    /// names of a task, and what is left with room to spare.
    #[test]
    fn the_largest_page_fits_into_a_message() {
        let texts = 2 * wire::MAX_FAILURE_BYTES + 5 * wire::MAX_NAME_BYTES + super::MAX_CONTENT_TYPE_BYTES;
        assert!(super::LIST_TASKS * (texts + 512) < wire::MAX_MESSAGE_BYTES);
    }
}
